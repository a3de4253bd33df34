"""Noise on images and feature maps: the common base, and noise of fixed standard deviation."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from l2p_tf.layers.noise import PER_BATCH, PER_EXAMPLE, NoiseLayer
from l2p_tf.layers.sampling import SAMPLERS
from l2p_tf.types import UserError


def check_choice(name: str, value: str, accepted: tuple[str, ...]) -> None:
    """Raises UserError unless a layer's argument is an accepted value."""
    if value not in accepted:
        raise UserError(f"`{name}` should be one of {', '.join(accepted)}. Received: {value!r}")


class ActivationNoise(NoiseLayer):
    """Base of layers that add noise: x + strength * scale * Q, where Q has zero mean and unit variance.

    Args:
      distribution: distribution of Q: `normal`, `laplace`, `logistic` or `uniform`.
      sharing: `example` draws noise for every example; `batch` draws one map and adds it to the whole batch.
      seed: seed of the draws; None picks one at random.

    Input and output: (batch, height, width, channels) or (batch, features), any float type.
    """

    def __init__(self, *, distribution: str = "normal", sharing: str = PER_EXAMPLE, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_choice("distribution", distribution, tuple(SAMPLERS))
        check_choice("sharing", sharing, (PER_EXAMPLE, PER_BATCH))
        self.distribution, self.sharing = distribution, sharing
        self.draws_per = sharing
        self.supports_masking = True

    def scale(self) -> tf.Tensor:
        """Standard deviation of the noise; broadcasts to the features of one example."""
        raise NotImplementedError

    def strength(self, inputs: tf.Tensor) -> tf.Tensor | None:
        """Returns a factor per example (batch,), or None."""
        del inputs
        return None

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns `inputs` plus noise, or exactly `inputs` if `active` is False."""
        # Outside the condition, so that the sequence of seeds does not depend on the switch.
        seed = self.seed_generator.next()
        scale = self.scale()
        return self.when_active(lambda: self._perturb(inputs, scale, seed), lambda: tf.identity(inputs))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the input shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "distribution": self.distribution, "sharing": self.sharing}

    def _perturb(self, inputs: tf.Tensor, scale: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        static = inputs.shape
        features = static[1:].as_list()
        sample = SAMPLERS[self.distribution]
        strength = self.strength(inputs)
        if self.sharing == PER_EXAMPLE:
            shape = static.as_list() if static.is_fully_defined() else tf.shape(inputs)
            noise = tf.cast(sample(shape, seed), scale.dtype) * scale
            if strength is not None:
                noise *= tf.reshape(strength, [-1] + [1] * len(features))
            return inputs + noise
        noise = tf.reshape(tf.cast(sample(features, seed), scale.dtype) * scale, [-1])
        flat = tf.reshape(inputs, [-1, static[1:].num_elements()])
        # On CPU, adding a bias to a matrix and taking an outer product are much faster than broadcasting.
        flat = tf.nn.bias_add(flat, noise) if strength is None else flat + strength[:, None] @ noise[None]
        return tf.reshape(flat, [-1, *features])


@keras.saving.register_keras_serializable(package="l2p_tf")
class FixedNoise(ActivationNoise):
    """Adds noise of a fixed standard deviation that is not trained.

    Args:
      std: standard deviation, at least 0.
    """

    def __init__(self, std: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not std >= 0:
            raise UserError(f"`std` should be at least 0. Received: {std}")
        self.std = float(std)

    def scale(self) -> tf.Tensor:
        """Returns the standard deviation."""
        return tf.constant(self.std, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "std": self.std}
