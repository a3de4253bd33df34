"""The perturbation-injection module of Learn2Perturb (section 3.1, Equations 4-6)."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from l2p_tf.layers.activation_noise import ActivationNoise, check_choice
from l2p_tf.layers.noise import GRANULARITIES, shared_shape
from l2p_tf.types import UserError


@keras.saving.register_keras_serializable(package="l2p_tf")
class AtLeast(keras.constraints.Constraint):
    """Projects values to at least a minimum (Algorithm 1, last line).

    Args:
      minimum: the lower bound.
    """

    def __init__(self, minimum: float) -> None:
        self.minimum = minimum

    def __call__(self, w: tf.Tensor) -> tf.Tensor:
        """Returns `w` with every element at least the minimum."""
        return keras.ops.maximum(w, keras.ops.cast(self.minimum, w.dtype))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"minimum": self.minimum}


@keras.saving.register_keras_serializable(package="l2p_tf")
class PerturbationInjection(ActivationNoise):
    """Adds theta * Q to a feature map: x + theta * N(0, 1) (Equations 4 and 5).

    Q has zero mean and unit variance, so theta is the standard deviation for every distribution.

    Args:
      initial: initial value of theta, above 0.
      minimum: theta is projected to at least this after every update.
      granularity: what shares one theta: `element` (of the feature map, as in the paper), `channel` or `layer`.
      distribution: distribution of the noise: `normal`, `laplace`, `logistic` or `uniform`.
      sharing: `example` draws noise for every example, as in the paper; `batch` draws one map and adds it to the whole
      batch, as in the authors' code.
      seed: seed of the draws; None picks one at random.

    Input and output: (batch, height, width, channels) or (batch, features), any float type.
    """

    def __init__(
        self, initial: float = 0.25, minimum: float = 0.01, granularity: str = "element", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        check_choice("granularity", granularity, GRANULARITIES)
        if not 0 <= minimum <= initial:
            raise UserError(f"`minimum` should be between 0 and `initial` ({initial}). Received: {minimum}")
        self.initial, self.minimum, self.granularity = initial, minimum, granularity

    def build(self, input_shape: Any) -> None:
        """Creates theta and the switch."""
        super().build(input_shape)
        features = shared_shape(tuple(input_shape[1:]), self.granularity)
        if None in features:
            raise UserError(f"An elementwise theta needs a fixed input size. Received: {tuple(input_shape)}")
        self.theta = self.add_weight(
            name="theta",
            shape=features,
            initializer=keras.initializers.Constant(self.initial),
            constraint=AtLeast(self.minimum),
        )

    @property
    def noise_parameters(self) -> list[keras.Variable]:
        """Theta."""
        return [self.theta]

    def scale(self) -> tf.Tensor:
        """Returns theta."""
        return tf.convert_to_tensor(self.theta)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        keys = ("initial", "minimum", "granularity")
        return {**super().get_config(), **{key: getattr(self, key) for key in keys}}
