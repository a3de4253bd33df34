"""What a perturbation generator sees and how its perturbation is put on an image (Equation 8 of its paper)."""

from __future__ import annotations

import keras
import tensorflow as tf

from l2p_tf.attacks.goal import logit
from l2p_tf.attacks.projection import steepest
from l2p_tf.loops import repeat
from l2p_tf.types import Norm

GRADIENTS = ("unit", "raw")
"""Scales of the gradient a generator is shown: unit l2 norm per image, or as it is, which is tiny."""

_SHRINK = 1.0 - 1e-6
"""atanh is infinite at the ends of the pixels' range."""


def gradient_image(model: keras.Model, images: tf.Tensor, labels: tf.Tensor, scale: str, draws: int = 1) -> tf.Tensor:
    """The gradient of the true class's probability with respect to the image, as a generator is shown it.

    Args:
      model: the classifier.
      images: float32 (batch, height, width, channels).
      labels: int32 (batch,).
      scale: one of `GRADIENTS`.
      draws: passes with noise of their own to average over.

    Returns:
      float32, as `images`; no gradient flows through it.
    """
    images = tf.convert_to_tensor(images)

    def look(total: tf.Tensor) -> tuple[tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            logits = model(images, training=False)
            others = tf.reduce_logsumexp(logits - 1e30 * tf.one_hot(labels, logits.shape[-1]), -1)
            margin = logit(logits, labels) - others
        gradient = tape.gradient(margin, images)
        # The probability is sigmoid(margin), whose slope is lost to rounding near 1; its direction is the margin's.
        slope = (tf.sigmoid(margin) * tf.sigmoid(-margin))[:, None, None, None]
        return (total + (gradient * slope if draws > 1 or scale == "raw" else gradient),)

    none = tf.zeros_like(images)
    (total,) = look(none) if draws == 1 else repeat(look, (none,), draws)
    return tf.stop_gradient(steepest(total, Norm.L2) if scale == "unit" else total / draws)


def pushed(images: tf.Tensor, push: tf.Tensor) -> tf.Tensor:
    """(tanh(atanh(2 x - 1) + push) + 1) / 2: the image moved by `push` in tanh space, inside [0, 1]; both (batch, ...)."""
    return (tf.tanh(tf.atanh((2.0 * images - 1.0) * _SHRINK) + push) + 1.0) / 2.0
