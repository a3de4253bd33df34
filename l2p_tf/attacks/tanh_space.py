"""Input of a perturbation generator, and how its perturbation is applied to an image (Equation 8 of its paper)."""

from __future__ import annotations

import keras
import tensorflow as tf

from l2p_tf.attacks.criterion import logit
from l2p_tf.attacks.gradient import answer, finite_part, image_gradient
from l2p_tf.attacks.projection import steepest
from l2p_tf.layers.own_gradient import with_gradient
from l2p_tf.loops import repeat
from l2p_tf.types import Norm

GRADIENTS = ("unit", "raw")
"""Scales of the gradient fed to a generator: unit l2 norm per image, or unscaled, which is tiny."""

MARGIN = 1e-6
"""Default share by which pixels are moved away from the ends of their range, where atanh is infinite."""


def gradient_image(model: keras.Model, images: tf.Tensor, labels: tf.Tensor, scale: str, draws: int = 1) -> tf.Tensor:
    """Returns the gradient of the true class's probability with respect to the image, the input of a generator.

    Args:
      model: the classifier.
      images: float32 (batch, height, width, channels).
      labels: int32 (batch,).
      scale: one of `GRADIENTS`.
      draws: passes with independent noise to average over.

    Returns:
      float32, as `images`; no gradient flows through it.
    """
    images = tf.convert_to_tensor(images)

    def add_gradient(total: tf.Tensor) -> tuple[tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            logits = answer(model, images)
            others = tf.reduce_logsumexp(logits - 1e30 * tf.one_hot(labels, logits.shape[-1]), -1)
            margin = logit(logits, labels) - others
        gradient = image_gradient(tape, margin, images)
        # The probability is sigmoid(margin), whose slope is lost to rounding near 1; the margin has the same direction.
        slope = (tf.sigmoid(margin) * tf.sigmoid(-margin))[:, None, None, None]
        return (total + (gradient * slope if draws > 1 or scale == "raw" else gradient),)

    none = tf.zeros_like(images)
    (total,) = add_gradient(none) if draws == 1 else repeat(add_gradient, (none,), draws)
    total = finite_part(total)
    return tf.stop_gradient(steepest(total, Norm.L2) if scale == "unit" else total / draws)


def pushed(images: tf.Tensor, push: tf.Tensor, margin: float = MARGIN) -> tf.Tensor:
    """Returns (tanh(atanh(2 x - 1) + push) + 1) / 2: the image moved by `push` in tanh space (Equation 8), in [0, 1].

    atanh is infinite at 0 and 1, so pixels are first moved toward the middle; that change is subtracted again.

    Args:
      images: float32 (batch, height, width, channels) in [0, 1].
      push: of the same shape.
      margin: share by which pixels are moved inward. With a tiny one, black and white pixels hardly change.
    """
    drawn_in = (2.0 * images - 1.0) * (1.0 - margin)
    moved = (tf.tanh(tf.atanh(drawn_in) + push) - drawn_in) / 2.0
    return _held(images + moved)


def _inward(clip: tf.Operation, up: tf.Tensor) -> tuple[tf.Tensor, None, None]:
    """Passes the gradient of a pixel outside [0, 1] only if descent leads back inside, so no pixel gets stuck."""
    pixels = clip.inputs[0]
    farther = ((pixels < 0.0) & (up > 0.0)) | ((pixels > 1.0) & (up < 0.0))
    return tf.where(farther, 0.0, up), None, None


@with_gradient("ClipByValue", _inward)
def _held(pixels: tf.Tensor) -> tf.Tensor:
    """Clips to [0, 1]."""
    return tf.raw_ops.ClipByValue(t=pixels, clip_value_min=0.0, clip_value_max=1.0)
