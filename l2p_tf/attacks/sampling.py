"""Losses of many variations of each image, several per pass, for attacks without gradients."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from l2p_tf.attacks.context import AttackContext
from l2p_tf.attacks.gradient import TILED_IMAGES, mean_loss
from l2p_tf.loops import repeat

_TILED_PIXELS = TILED_IMAGES * 32 * 32
"""Maximum pixels of a pass: small images share larger passes."""


def most_together(context: AttackContext) -> int:
    """Maximum number of variations of a batch per pass when no gradient is needed."""
    height, width = context.images.shape[1:3]
    return max(1, max(TILED_IMAGES, _TILED_PIXELS // (height * width)) // context.most)


def together(context: AttackContext, count: int, most: int | None = None) -> int:
    """Number of the `count` variations of a batch that share a pass: the largest divisor that fits."""
    fitting = max(1, TILED_IMAGES // context.most) if most is None else most
    return max(n for n in range(1, min(count, fitting) + 1) if count % n == 0)


def losses_of(
    context: AttackContext, make: Callable[[tf.Tensor, int], tf.Tensor], count: int, loss: str, draws: int,
    cap: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:  # fmt: skip
    """Returns the losses of `count` variations of every image.

    Args:
      context: the batch.
      make: maps the index of the first variation and their number to variations (batch, many, height, width, channels).
      count: number of variations.
      loss: a name in `LOSSES`.
      draws: draws of the noise each loss is averaged over.
      cap: upper limit of a loss.

    Returns:
      The losses, and the shares of draws that meet the criterion; float32 (batch, count).
    """
    shape = context.images.shape[1:]
    many = together(context, count, most_together(context))

    def add_losses(k: tf.Tensor, losses: tf.TensorArray, shares: tf.TensorArray) -> tuple[tf.Tensor, ...]:
        # Variations come first, so that copies of the criteria follow one another as whole batches.
        images = tf.reshape(tf.transpose(make(k * many, many), [1, 0, 2, 3, 4]), [-1, *shape])
        loss_now, share = mean_loss(
            context.model, images, context.criterion.tile(many), context.draws(draws), loss, most=context.most * many
        )
        if cap is not None:
            loss_now = tf.minimum(loss_now, cap)
        parts = (tf.reshape(value, [many, -1]) for value in (loss_now, share))
        return k + 1, *(array.write(k, part) for array, part in zip((losses, shares), parts, strict=True))

    rounds = count // many
    arrays = [tf.TensorArray(tf.float32, rounds, element_shape=[many, None]) for _ in range(2)]
    _, losses, shares = repeat(add_losses, (tf.constant(0), *arrays), rounds)
    return tuple(tf.transpose(tf.reshape(array.stack(), [count, -1])) for array in (losses, shares))
