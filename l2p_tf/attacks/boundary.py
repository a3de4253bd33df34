"""Linear approximations of decision boundaries: the nearest one, and the step onto it within the box."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from l2p_tf.attacks.context import AttackContext, choose
from l2p_tf.attacks.criterion import Criterion, logit
from l2p_tf.attacks.gradient import answer, finite_part, image_gradient, loss_gradient
from l2p_tf.attacks.projection import length
from l2p_tf.classifier import is_answer
from l2p_tf.loops import repeat
from l2p_tf.types import Norm

_TINY = 1e-12
_NEWTON_ROUNDS = 20


def rivals(logits: tf.Tensor, labels: tf.Tensor, count: int) -> tf.Tensor:
    """Returns the likeliest classes except the label: int32 (batch, at most count)."""
    classes = int(logits.shape[-1])
    others = logits - 1e30 * tf.one_hot(labels, classes)
    return tf.math.top_k(others, min(count, classes - 1)).indices


def nearest(
    context: AttackContext, x: tf.Tensor, classes: Callable[[tf.Tensor], tf.Tensor], norm: Norm, draws: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Finds the nearest decision boundary between the label and other classes, to first order.

    One forward pass serves the backward passes of all classes; with EOT each class takes its own passes.

    Args:
      context: the batch.
      x: where to linearize: (batch, height, width, channels).
      classes: maps the logits at `x` to the classes to compare, int32 (batch, n).
      norm: norm of the distance.
      draws: draws of the noise to average over.

    Returns:
      The difference of logits (other class minus label; (batch,)) and its gradient (as `x`) for the nearest boundary,
      the share of draws that meet the criterion (batch,), and the classes compared.
    """
    model, labels, draws = context.model, context.criterion.labels, context.draws(draws)
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(x)
        logits = answer(model, x)
        numbers = tf.where(is_answer(logits)[:, None], logits, tf.zeros_like(logits))
    others, kinds = classes(numbers), int(logits.shape[-1])
    reached = tf.cast(context.criterion.reached(logits), tf.float32)
    share = reached if draws == 1 else context.loss(x, "margin", draws)[1]

    def compare(k: tf.Tensor, best: tf.Tensor, difference: tf.Tensor, gradient: tf.Tensor) -> tuple[tf.Tensor, ...]:
        other = tf.gather(others, k, axis=1)
        if draws == 1:
            its = logit(numbers, other) - logit(numbers, labels)
            toward = tf.one_hot(other, kinds) - tf.one_hot(labels, kinds)
            slope = image_gradient(tape, logits, x, toward)
        else:
            slope, its, _ = loss_gradient(model, x, Criterion(labels, other), draws, "difference", most=context.most)
        slope = finite_part(slope)
        distance = tf.abs(its) / (dual(slope, norm) + _TINY)
        closer = distance < best
        return (
            k + 1,
            tf.where(closer, distance, best),
            tf.where(closer, its, difference),
            choose(closer, slope, gradient),
        )

    state = (tf.constant(0), context.full(float("inf")), context.full(0.0), tf.zeros_like(x))
    _, _, difference, gradient = repeat(compare, state, int(others.shape[1]))
    return difference, gradient, share, others


def dual(gradient: tf.Tensor, norm: Norm) -> tf.Tensor:
    """Returns the dual norm of a gradient per example (batch,): l1 for linf, l2 for l2, linf for l1."""
    other = {Norm.LINF: Norm.L1, Norm.L2: Norm.L2, Norm.L1: Norm.LINF}[norm]
    return length(gradient, other)[:, 0, 0, 0]


def to_hyperplane(x: tf.Tensor, gradient: tf.Tensor, difference: tf.Tensor, norm: Norm) -> tf.Tensor:
    """Returns the smallest step from `x` that stays in [0, 1] and makes `difference + gradient . step` zero.

    The step has one scale t: in l_inf every entry moves by min(t, its room), in l2 by min(t |g|, its room), against the
    gradient's sign where `difference` is positive. The gain is concave in t, so Newton's method from 0 rises to the
    exact solution in at most as many rounds as there are entries; a few are enough in practice. In l_1, entries move as
    far as they can one after the other, steepest slope first, until the gain suffices. Where even the corner of the box
    does not reach the plane, that corner is returned (Croce and Hein 2020, Section 2).

    Args:
      x: float32 (batch, height, width, channels) in [0, 1].
      gradient: same shape as `x`.
      difference: (batch,), the value at `x`.
      norm: norm of the step.

    Returns:
      The step, same shape as `x`.
    """
    wide = tf.reshape(difference, [-1, 1, 1, 1])
    # Scale, so that the squares of tiny gradients do not underflow.
    largest = tf.reduce_max(tf.abs(gradient), [1, 2, 3], keepdims=True)
    slope = tf.math.divide_no_nan(gradient, largest)
    wanted = tf.abs(tf.math.divide_no_nan(wide, largest))
    direction = -tf.sign(slope) * tf.where(wide >= 0.0, 1.0, -1.0)
    room = tf.where(direction > 0.0, 1.0 - x, x)
    size = tf.abs(slope)
    if norm is Norm.L1:
        return direction * _one_by_one(size, room, wanted)
    pace = tf.ones_like(size) if norm is Norm.LINF else size
    # Moving an entry of zero slope gains nothing.
    pace = tf.where(size > 0.0, pace, 0.0)
    full = tf.where(size > 0.0, room / tf.maximum(pace, 1e-30), float("inf"))

    def newton(t: tf.Tensor, missing: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        gained = tf.reduce_sum(size * tf.minimum(t * pace, room), [1, 2, 3], keepdims=True)
        rate = tf.reduce_sum(tf.where(t < full, size * pace, 0.0), [1, 2, 3], keepdims=True)
        missing = wanted - gained
        # If nothing is left to gain, every entry is at its bound.
        return t + tf.maximum(tf.math.divide_no_nan(missing, rate), 0.0), missing

    def going(t: tf.Tensor, missing: tf.Tensor) -> tf.Tensor:
        del t
        return tf.reduce_any(missing > 1e-6 * wanted)

    t, _ = repeat(newton, (tf.zeros_like(wanted), wanted), _NEWTON_ROUNDS, going)
    return direction * tf.minimum(t * pace, room)


def _one_by_one(size: tf.Tensor, room: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
    """Returns how far each entry moves: largest `size` first, by its whole `room`, until `size . step` is `wanted`."""
    count = int(np.prod(size.shape[1:]))
    order = tf.argsort(tf.reshape(size, [-1, count]), direction="DESCENDING", stable=True)
    steep, most = (tf.gather(tf.reshape(x, [-1, count]), order, batch_dims=1) for x in (size, room))
    missing = tf.reshape(wanted, [-1, 1]) - tf.cumsum(steep * most, 1, exclusive=True)
    step = tf.clip_by_value(tf.math.divide_no_nan(missing, steep), 0.0, most)
    return tf.reshape(tf.gather(step, tf.argsort(order), batch_dims=1), tf.shape(size))
