"""Layers whose weights are drawn in every forward pass, one draw for the whole batch."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from l2p_tf.layers.batch_norm import Drawable
from l2p_tf.layers.noise import PER_BATCH, NoiseLayer
from l2p_tf.layers.sampling import standard_normal


class RandomWeights(NoiseLayer, Drawable):
    """Mixin for a layer that gets its weights from `drawn`: some become mean + deviation * N(0, 1).

    Attributes:
      RANDOM: names of the random weights; those the layer lacks are ignored.
    """

    RANDOM: tuple[str, ...] = ()
    draws_per = PER_BATCH

    def build(self, input_shape: Any) -> None:
        """Creates the layer's own weights, the switch, and the parameters of `deviation`."""
        super(NoiseLayer, self).build(input_shape)
        NoiseLayer.build(self, input_shape)
        for name in self.random_names:
            self.build_deviation(name, tuple(getattr(self, name).shape))

    @property
    def random_names(self) -> list[str]:
        """Names of the random weights."""
        return [name for name in self.RANDOM if getattr(self, name, None) is not None]

    def build_deviation(self, name: str, shape: tuple[int, ...]) -> None:
        """Creates the parameters of one weight's deviation."""
        raise NotImplementedError

    def deviation(self, name: str, mean: tf.Tensor) -> tf.Tensor:
        """Returns the standard deviation of a weight; broadcasts to its shape."""
        raise NotImplementedError

    def drawn(self, name: str) -> tf.Tensor:
        """Returns the weight with noise, or exactly its mean if `active` is False."""
        mean = super().drawn(name)
        if name not in self.random_names:
            return mean
        seed = self.seed_generator.next()

        def noisy() -> tf.Tensor:
            noise = tf.cast(standard_normal(mean.shape.as_list(), seed), mean.dtype)
            return mean + noise * tf.cast(self.deviation(name, mean), mean.dtype)

        return self.when_active(noisy, lambda: tf.identity(mean))


class DrawnDense(Drawable):
    """A dense layer that gets its weights from `drawn`: a base for `RandomWeights`. Keras's own saves only two weights.

    Args:
      units: number of outputs. Kernels are initialized like Keras's (Glorot uniform), biases to 0.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape: Any) -> None:
        """Creates kernel and bias."""
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], self.units), initializer="glorot_uniform")
        self.bias = self.add_weight(name="bias", shape=(self.units,), initializer="zeros")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns logits or features (batch, units)."""
        return tf.nn.bias_add(tf.matmul(inputs, self.drawn("kernel")), self.drawn("bias"))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns (batch, units)."""
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "units": self.units}
