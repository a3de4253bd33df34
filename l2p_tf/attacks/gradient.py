"""The gradient every first-order attack climbs, averaged over draws of the noise where that is asked for (EOT)."""

from __future__ import annotations

import keras
import tensorflow as tf

from l2p_tf.layers.noise import draws_per_example
from l2p_tf.loops import repeat

TILED_IMAGES = 512
"""Most images one pass holds when draws are tiled within a batch: bounds the memory of EOT."""


def loss_gradient(
    model: keras.Model, images: tf.Tensor, labels: tf.Tensor, draws: int = 1
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Gradient of the cross-entropy with respect to the images, averaged over draws.

    EOT (Athalye et al. 2018): the gradient of the expected loss is estimated by the mean over `draws` passes. Where
    noise is drawn per example the copies of an image share a pass; where it is drawn per pass, each draw gets its own.

    Args:
      model: the classifier.
      images: float32 (batch, height, width, channels).
      labels: int32 (batch,).
      draws: passes to average over, at least 1.

    Returns:
      The gradient (as `images`), the mean loss per example (batch,), and how often each example was misclassified
      among the draws (batch,), as a share.
    """
    batch = images.shape[0]
    together = _draws_together(batch, draws) if draws_per_example(model) else 1

    def one_pass() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            tiled = tf.tile(images, [together, 1, 1, 1]) if together > 1 else images
            targets = tf.tile(labels, [together]) if together > 1 else labels
            logits = model(tiled, training=False)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
            # The sum over examples: each image's gradient is its own, whatever shares its batch.
            total = tf.reduce_sum(losses)
        wrong = tf.cast(tf.argmax(logits, -1, tf.int32) != targets, tf.float32)
        per_draw = [tf.reduce_sum(tf.reshape(v, [together, batch]), 0) for v in (losses, wrong)]
        return tape.gradient(total, images), per_draw[0], per_draw[1]

    if draws == together:
        sums = one_pass()
    else:
        zeros = (tf.zeros_like(images), tf.zeros([batch]), tf.zeros([batch]))

        def add(*so_far: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return tuple(a + b for a, b in zip(so_far, one_pass(), strict=True))

        sums = repeat(add, zeros, draws // together)
    gradient, loss, wrong = (value / draws for value in sums)
    return gradient, loss, wrong


def _draws_together(batch: int, draws: int) -> int:
    """The most draws that divide `draws` and fit one pass."""
    fitting = max(1, TILED_IMAGES // batch)
    return max(n for n in range(1, min(draws, fitting) + 1) if draws % n == 0)
