"""Losses and input gradients for attacks, averaged over draws of the noise where requested (EOT)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from l2p_tf.attacks.criterion import Criterion
from l2p_tf.classifier import computes_in_float16
from l2p_tf.layers.folding import predict_folded
from l2p_tf.layers.noise import draws_per_example
from l2p_tf.loops import repeat

_SCALES = (2.0**8, 1.0, 2.0**-8, 2.0**-16)
"""Scales of the gradients at the logits in float16."""

TILED_IMAGES = 512
"""Largest number of images per pass when draws are tiled within a batch; bounds the memory of EOT."""


def loss_gradient(
    model: keras.Model,
    images: tf.Tensor,
    criterion: Criterion,
    draws: int = 1,
    loss: str = "ce",
    cap: tf.Tensor | None = None,
    most: int | None = None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the gradient of a loss with respect to the images, averaged over draws.

    EOT (Athalye et al. 2018): the gradient of the expected loss is estimated by the mean over `draws` passes. If noise
    is drawn per example, the copies of an image share a pass; if it is drawn per pass, each draw gets its own.

    Args:
      model: the classifier.
      images: float32 (batch, height, width, channels).
      criterion: success criterion of the attack.
      draws: passes to average over, at least 1.
      loss: a name in `LOSSES`.
      cap: scalar upper limit of the loss of a draw. Beyond it the gradient is zero; below it the criterion is not met.
      most: the largest batch there will be, if the shape of `images` is not static.

    Returns:
      The gradient (as `images`), the mean loss per example (batch,), and the share of draws on which each example met
      the criterion (batch,).
    """

    def one_pass(together: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            logits, wanted = _pass(model, images, criterion, together)
            losses = wanted.loss(loss, logits)
            reached = wanted.reached(logits)
            if cap is not None:
                reached &= losses >= cap
                losses = tf.minimum(losses, cap)
            # Summed over examples: each image's gradient is its own, whatever else is in the batch.
            total = tf.reduce_sum(losses)
        sums = _over_draws(together, losses, reached)
        return image_gradient(tape, total, images), *sums

    return _mean(one_pass, (images, *_zeros(images)), draws, _draws_together(model, most or images.shape[0], draws))


def mean_loss(
    model: keras.Model,
    images: tf.Tensor,
    criterion: Criterion,
    draws: int = 1,
    loss: str = "margin",
    most: int | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the loss and the share of draws that meet the criterion, as `loss_gradient`, without the gradient."""

    def one_pass(together: int) -> tuple[tf.Tensor, tf.Tensor]:
        logits, wanted = _pass(model, images, criterion, together)
        return _over_draws(together, wanted.loss(loss, logits), wanted.reached(logits))

    return _mean(one_pass, _zeros(images), draws, _draws_together(model, most or images.shape[0], draws))


def _pass(model: keras.Model, images: tf.Tensor, criterion: Criterion, together: int) -> tuple[tf.Tensor, Criterion]:
    if together == 1:
        return answer(model, images), criterion
    # Broadcast instead of tile, whose gradient transposes integers and makes oneDNN complain.
    copies = tf.broadcast_to(images[None], tf.concat([[together], tf.shape(images)], 0))
    tiled = tf.reshape(copies, [-1, *images.shape[1:]])
    if images.shape[0] is not None:
        tiled = tf.ensure_shape(tiled, [together * images.shape[0], *images.shape[1:]])
    return answer(model, tiled), criterion.tile(together)


def _over_draws(together: int, losses: tf.Tensor, reached: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    values = (losses, tf.cast(reached, tf.float32))
    return tuple(tf.reduce_sum(tf.reshape(v, [together, -1]), 0) for v in values)


def answer(model: keras.Model, images: tf.Tensor) -> tf.Tensor:
    """Returns the model's logits such that input gradients are accurate at any precision.

    A confident network's loss has tiny gradients at the logits, which float16 would round to 0 in the backward pass,
    and a steep network's gradients overflow. In float16, the gradient at the logits of an image is scaled to a maximum
    of `_SCALES[0]`, and to each next scale while the gradient of the image is not finite; float32 then undoes the
    scale. Weights get no gradient.

    Args:
      model: the classifier.
      images: float32 (batch, height, width, channels).

    Returns:
      (batch, classes), as `predict_folded`.
    """
    if not computes_in_float16(model):
        return predict_folded(model, images)

    @tf.custom_gradient
    def scaled(images: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(images)
            logits = predict_folded(model, images)

        def back(up: tf.Tensor, variables: Sequence[tf.Variable] = ()) -> tuple[tf.Tensor, list[None]]:
            largest = tf.reduce_max(tf.abs(up), -1, keepdims=True)
            direction = tf.math.divide_no_nan(up, largest)

            def again(i: tf.Tensor, finite: tf.Tensor, gradient: tf.Tensor) -> tuple[tf.Tensor, ...]:
                scale = tf.gather(tf.constant(_SCALES), i)
                candidate = image_gradient(tape, logits, images, scale * direction) / scale
                usable = tf.reduce_all(tf.math.is_finite(candidate), [1, 2, 3])
                return i + 1, finite | usable, tf.where(finite[:, None, None, None], gradient, candidate)

            start = (tf.constant(0), tf.zeros(tf.shape(images)[:1], tf.bool), tf.zeros_like(images))
            gradient = repeat(again, start, len(_SCALES), lambda i, finite, gradient: ~tf.reduce_all(finite))[2]
            return gradient * largest[:, :, None, None], [None] * len(variables)

        return logits, back

    return scaled(images)


def image_gradient(
    tape: tf.GradientTape, of: tf.Tensor, images: tf.Tensor, output_gradients: tf.Tensor | None = None
) -> tf.Tensor:
    """Returns the gradient of a tensor with respect to the images, as `images`."""
    # The gradient of a model that rounds its images is unconnected, and is taken as zero. Some layers' gradients lose
    # the static shape, which loops need.
    none = tf.UnconnectedGradients.ZERO
    return tf.ensure_shape(tape.gradient(of, images, output_gradients, unconnected_gradients=none), images.shape)


def finite_part(gradient: tf.Tensor) -> tf.Tensor:
    """Replaces non-finite entries by 0, so that they spoil neither the rest of the image nor of the batch."""
    return tf.where(tf.math.is_finite(gradient), gradient, tf.zeros_like(gradient))


def _zeros(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    none = tf.zeros(tf.shape(images)[:1])
    return none, none


def _mean(one_pass: Callable[[int], tuple[tf.Tensor, ...]], like: Any, draws: int, together: int) -> Any:
    if draws == together:
        sums = one_pass(together)
    else:

        def add(*so_far: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return tuple(a + b for a, b in zip(so_far, one_pass(together), strict=True))

        sums = repeat(add, tuple(tf.zeros_like(part) for part in like), draws // together)
    return sums if draws == 1 else tuple(value / draws for value in sums)


def _draws_together(model: keras.Model, batch: int | None, draws: int) -> int:
    """Returns the most draws that divide `draws` and fit one pass, if each copy of an image gets noise of its own.

    1 if the batch size is unknown.
    """
    if batch is None or not draws_per_example(model):
        return 1
    fitting = max(1, TILED_IMAGES // batch)
    return max(n for n in range(1, min(draws, fitting) + 1) if draws % n == 0)
