"""Layers whose weights are drawn afresh in every forward pass, one draw for the whole batch."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from l2p_tf.layers.batch_norm import Drawable
from l2p_tf.layers.noise import PER_BATCH, NoiseLayer
from l2p_tf.layers.sampling import standard_normal


class RandomWeights(NoiseLayer, Drawable):
    """Mixin before a layer that takes its weights by `drawn`: some of them become mean + deviation * N(0, 1).

    Attributes:
      RANDOM: names of the weights that are drawn; those the layer has not are passed over.
    """

    RANDOM: tuple[str, ...] = ()
    draws_per = PER_BATCH

    def build(self, input_shape: Any) -> None:
        """Creates the layer's own weights, the switch, and what `deviation` needs."""
        super(NoiseLayer, self).build(input_shape)
        NoiseLayer.build(self, input_shape)
        for name in self.random_names:
            self.build_deviation(name, tuple(getattr(self, name).shape))

    @property
    def random_names(self) -> list[str]:
        """The weights that are drawn."""
        return [name for name in self.RANDOM if getattr(self, name, None) is not None]

    def build_deviation(self, name: str, shape: tuple[int, ...]) -> None:
        """Creates the parameters of one weight's deviation."""
        raise NotImplementedError

    def deviation(self, name: str, mean: tf.Tensor) -> tf.Tensor:
        """Standard deviation of a weight; broadcasts to its shape."""
        raise NotImplementedError

    def drawn(self, name: str) -> tf.Tensor:
        """The weight with noise; to the bit without, where `active` is False."""
        mean = super().drawn(name)
        if name not in self.random_names:
            return mean
        seed = self.seed_generator.next()

        def noisy() -> tf.Tensor:
            noise = tf.cast(standard_normal(mean.shape.as_list(), seed), mean.dtype)
            return mean + noise * tf.cast(self.deviation(name, mean), mean.dtype)

        return self.when_active(noisy, lambda: tf.identity(mean))


class DrawnDense(Drawable):
    """A dense layer that takes its weights by `drawn`: a base for `RandomWeights`. Keras's own saves only two weights.

    Args:
      units: outputs. Kernels start as Keras's do (Glorot uniform), biases at 0.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape: Any) -> None:
        """Creates kernel and bias."""
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], self.units), initializer="glorot_uniform")
        self.bias = self.add_weight(name="bias", shape=(self.units,), initializer="zeros")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Logits or features (batch, units)."""
        return tf.nn.bias_add(tf.matmul(inputs, self.drawn("kernel")), self.drawn("bias"))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(batch, units)."""
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {**super().get_config(), "units": self.units}
