"""The perturbation-injection module of Learn2Perturb (section 3.1, Equations 4-6)."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from l2p_tf.layers.noise import PER_BATCH, PER_EXAMPLE, NoiseLayer
from l2p_tf.layers.sampling import SAMPLERS
from l2p_tf.types import UserError

GRANULARITIES = ("element", "channel", "layer")


@keras.saving.register_keras_serializable(package="l2p_tf")
class AtLeast(keras.constraints.Constraint):
    """Projects values below a bound to the bound (Algorithm 1, last line).

    Args:
      minimum: the bound.
    """

    def __init__(self, minimum: float) -> None:
        self.minimum = minimum

    def __call__(self, w: tf.Tensor) -> tf.Tensor:
        """`w` with every element at least the minimum."""
        return keras.ops.maximum(w, keras.ops.cast(self.minimum, w.dtype))

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {"minimum": self.minimum}


@keras.saving.register_keras_serializable(package="l2p_tf")
class PerturbationInjection(NoiseLayer):
    """Adds theta * Q to a feature map, Q of zero mean and unit variance: x + theta * N(0, 1) (Equations 4 and 5).

    Args:
      initial: value theta starts with, one per element of the feature map (the paper's choice), above 0.
      minimum: theta is projected to at least this after every update.
      distribution: of the noise: `normal`, `laplace`, `logistic` or `uniform`. All have unit variance, so theta is the
        standard deviation whichever is taken.
      sharing: `example` draws afresh for every example, as the paper says; `batch` draws one map and adds it to the
        whole batch, as the authors' code does.
      granularity: `element`, `channel` or `layer`: what shares one theta.
      seed: of the draws; None takes one at random.

    Input and output: (batch, height, width, channels) or (batch, features), any float type.
    """

    def __init__(
        self,
        initial: float = 0.25,
        minimum: float = 0.01,
        distribution: str = "normal",
        sharing: str = PER_EXAMPLE,
        granularity: str = "element",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, value, accepted in (
            ("distribution", distribution, tuple(SAMPLERS)),
            ("sharing", sharing, (PER_EXAMPLE, PER_BATCH)),
            ("granularity", granularity, GRANULARITIES),
        ):
            if value not in accepted:
                raise UserError(f"`{name}` should be one of {', '.join(accepted)}. Received: {value!r}")
        if not 0 <= minimum <= initial:
            raise UserError(f"`minimum` should be between 0 and `initial` ({initial}). Received: {minimum}")
        self.initial, self.minimum = initial, minimum
        self.distribution, self.sharing, self.granularity = distribution, sharing, granularity
        self.draws_per = sharing
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Creates theta and the switch."""
        super().build(input_shape)
        features = tuple(input_shape[1:])
        if self.granularity == "channel":
            features = (1,) * (len(features) - 1) + features[-1:]
        elif self.granularity == "layer":
            features = (1,) * len(features)
        if None in features:
            raise UserError(f"An elementwise theta needs a fixed input size. Received: {tuple(input_shape)}")
        self.theta = self.add_weight(
            name="theta",
            shape=features,
            initializer=keras.initializers.Constant(self.initial),
            constraint=AtLeast(self.minimum),
        )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """`inputs` plus noise, or `inputs` to the bit where `active` is False."""
        # Taken outside the condition, so that the sequence of seeds does not depend on the switch.
        seed = self.seed_generator.next()
        theta = tf.convert_to_tensor(self.theta)
        return tf.cond(self.active.value, lambda: self._perturb(inputs, theta, seed), lambda: tf.identity(inputs))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the input."""
        return input_shape

    def _perturb(self, inputs: tf.Tensor, theta: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        static = inputs.shape
        features = static[1:].as_list()
        sample = SAMPLERS[self.distribution]
        if self.sharing == PER_BATCH:
            noise = tf.cast(sample(features, seed), theta.dtype) * theta
            # On a CPU the addition of a bias to a matrix is much faster than a broadcast over the batch.
            flat = tf.nn.bias_add(tf.reshape(inputs, [-1, static[1:].num_elements()]), tf.reshape(noise, [-1]))
            return tf.reshape(flat, [-1, *features])
        shape = static.as_list() if static.is_fully_defined() else tf.shape(inputs)
        return inputs + tf.cast(sample(shape, seed), theta.dtype) * theta

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        keys = ("initial", "minimum", "distribution", "sharing", "granularity")
        return {**super().get_config(), **{key: getattr(self, key) for key in keys}}
