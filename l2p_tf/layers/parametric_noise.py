"""Parametric noise injection (PNI; He, Rakin and Fan, CVPR 2019): alpha*std(v) * N(0, 1) on weights or activations."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from l2p_tf.layers.activation_noise import ActivationNoise, check_choice
from l2p_tf.layers.conv_norm import ConvNorm
from l2p_tf.layers.noise import GRANULARITIES, shared_shape
from l2p_tf.layers.weight_noise import DrawnDense, RandomWeights
from l2p_tf.types import UserError

ALPHA = 0.25
"""Initial value of alpha."""


class ParametricWeights(RandomWeights):
    """Mixin: the kernel becomes w + alpha * std(w) * N(0, 1); bias and batch norm get no noise.

    alpha is trained like a weight and may become negative, which is equivalent; std is one number per layer and passes
    no gradient.

    Args:
      initial: initial value of alpha.
      granularity: what shares one alpha: `layer`, `channel` (of the output) or `element`.
      seed: seed of the draws; None picks one at random.
    """

    RANDOM = ("kernel",)

    def __init__(self, *, initial: float = ALPHA, granularity: str = "layer", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_choice("granularity", granularity, GRANULARITIES)
        self.initial, self.granularity = initial, granularity

    def build_deviation(self, name: str, shape: tuple[int, ...]) -> None:
        """Creates alpha."""
        del name
        self.alpha = self.add_weight(
            name="alpha",
            shape=shared_shape(shape, self.granularity),
            initializer=keras.initializers.Constant(self.initial),
        )

    def deviation(self, name: str, mean: tf.Tensor) -> tf.Tensor:
        """Returns alpha * std of the weight."""
        del name
        std = tf.math.reduce_std(tf.cast(mean, tf.float32))
        return tf.convert_to_tensor(self.alpha) * tf.stop_gradient(tf.cast(std, mean.dtype))

    @property
    def noise_parameters(self) -> list[keras.Variable]:
        """Alpha."""
        return [self.alpha]

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "initial": self.initial, "granularity": self.granularity}


@keras.saving.register_keras_serializable(package="l2p_tf")
class ParametricConv(ParametricWeights, ConvNorm):
    """`ConvNorm` with parametric noise on its kernel."""


@keras.saving.register_keras_serializable(package="l2p_tf")
class ParametricDense(ParametricWeights, DrawnDense):
    """A dense layer with parametric noise on its kernel."""


@keras.saving.register_keras_serializable(package="l2p_tf")
class ParametricNoise(ActivationNoise):
    """Adds alpha * std(x) * N(0, 1) to an image or a feature map.

    std is computed per example, not over the batch as in the paper, so that predictions do not depend on the rest of
    the batch; it passes no gradient.

    Args:
      initial: initial value of alpha.
      granularity: what shares one alpha: `layer`, `channel` or `element`.
      distribution: distribution of the noise.
      sharing: `example` or `batch`, as in `ActivationNoise`.
      seed: seed of the draws; None picks one at random.
    """

    def __init__(self, initial: float = ALPHA, granularity: str = "layer", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_choice("granularity", granularity, GRANULARITIES)
        self.initial, self.granularity = initial, granularity

    def build(self, input_shape: Any) -> None:
        """Creates alpha and the switch."""
        super().build(input_shape)
        shape = shared_shape(tuple(input_shape[1:]), self.granularity)
        if None in shape:
            raise UserError(f"An elementwise alpha needs a fixed input size. Received: {tuple(input_shape)}")
        self.alpha = self.add_weight(name="alpha", shape=shape, initializer=keras.initializers.Constant(self.initial))

    @property
    def noise_parameters(self) -> list[keras.Variable]:
        """Alpha."""
        return [self.alpha]

    def scale(self) -> tf.Tensor:
        """Returns alpha."""
        return tf.convert_to_tensor(self.alpha)

    def strength(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the standard deviation of each example."""
        count = inputs.shape[1:].num_elements()
        flat = tf.reshape(tf.cast(tf.stop_gradient(inputs), tf.float32), [-1, count])
        # Two single-pass sums, the first as a matrix product: faster on CPU than differences from the mean.
        mean = tf.linalg.matvec(flat, tf.fill([count], 1.0 / count))
        square = tf.reduce_mean(tf.square(flat), 1)
        return tf.cast(tf.sqrt(tf.maximum(square - tf.square(mean), 0.0)), inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "initial": self.initial, "granularity": self.granularity}
