"""Auto-PGD in l1 (Croce and Hein 2021, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers")."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from l2p_tf.attacks.context import AttackContext, State, choose
from l2p_tf.attacks.projection import project, steepest
from l2p_tf.attacks.randomness import standard_normal
from l2p_tf.types import Norm

_CHECKED = 0.04
"""Share of the steps after which sparsity and step size are adapted."""
_DENSER = 1.5
"""Divides the number of entries changed at the best point to give those that move next; also divides the step size."""
_SMALLEST_PACE = 0.1
_FEWER = 0.95
_LARGER_RADII = ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))
"""Starts in larger balls: radii in units of epsilon, and the shares of the steps spent there."""


def rounds(steps: int, larger_radii: bool) -> np.ndarray:
    """Returns the schedule of rounds: float32 (rounds, 3).

    Columns: the radius in units of epsilon; 1 if the round starts in a new ball, with a gradient and no step; 1 if
    sparsity and step size are adapted after it.
    """
    phases = [(1.0, steps)]
    if larger_radii:
        first, second = (math.ceil(round(share * steps, 6)) for _, share in _LARGER_RADII[:2])
        numbers = first, min(second, steps - first), max(steps - first - second, 0)
        phases = [(radius, number) for (radius, _), number in zip(_LARGER_RADII, numbers, strict=True)]
    schedule = []
    for radius, number in phases:
        interval = max(int(_CHECKED * number), 1)
        schedule.append((radius, 1.0, 0.0))
        schedule += [(radius, 0.0, float(k % interval == 0)) for k in range(1, number + 1)]
    return np.array(schedule, np.float32)


def begin(context: AttackContext, larger_radii: bool) -> State:
    """Starts with Gaussian noise on the image, projected onto the first ball."""
    none, images = tf.zeros_like(context.images), context.images
    noisy = images + standard_normal([context.batch, *images.shape[1:]], context.fold(0))
    radius = (_LARGER_RADII[0][0] if larger_radii else 1.0) * context.numbers["epsilon"]
    x = project(noisy, images, radius, Norm.L1)
    # `top` is the point of the highest loss in this ball; `pace` the step size in units of the ball's radius; `changed`
    # the number of entries changed at `top` at the last check; `moving` the number of entries a step moves.
    state = {"adversarial": images if larger_radii else x, "x": x, "top": x, "gradient": none, "top_gradient": none}
    ones, least = context.full(1.0), context.full(float("-inf"))
    return {**state, "best": least, "pace": ones, "changed": ones, "moving": context.full(1, tf.int32)}


def step(
    context: AttackContext, i: tf.Tensor, state: State, plan: np.ndarray, sparsity: float, loss: str, draws: int
) -> State:
    """Takes one round of l1-APGD (Algorithm 1).

    Steps along the sign of the largest gradient entries and projects onto ball and box. At regular intervals, the
    number of entries to move is set to those changed at the best point, divided by 1.5. If that number fell, the step
    size is reset and the search continues from that point; otherwise the step size shrinks.

    Args:
      context: the batch.
      i: the round.
      state: as returned by `begin`.
      plan: as returned by `rounds`.
      sparsity: share of the entries that move at first, if there is only one ball.
      loss: loss to ascend.
      draws: draws to average each gradient over.
    """
    images, count = context.images, int(np.prod(context.images.shape[1:]))
    factor, starts, adapts = tf.unstack(tf.gather(tf.constant(plan), i))
    radius, first, due = factor * context.numbers["epsilon"], starts > 0.0, adapts > 0.0
    pace = tf.reshape(state["pace"], [-1, 1, 1, 1])
    moved = state["x"] + radius * pace * steepest(state["gradient"], Norm.L1, state["moving"])
    x = project(tf.where(first, state["top"], moved), images, radius, Norm.L1)
    gradient, values, reached = context.loss_and_gradient(x, loss, draws)
    former = tf.where(first, float("-inf"), state["best"])
    better = values > former
    best, higher = tf.where(better, values, former), better | first
    top, top_gradient = choose(higher, x, state["top"]), choose(higher, gradient, state["top_gradient"])
    changed = tf.math.count_nonzero(top - images, [1, 2, 3], dtype=tf.float32)
    fewer = changed < _FEWER * state["changed"]
    back = due & fewer
    adapted = tf.where(fewer, 1.0, tf.maximum(state["pace"] / _DENSER, _SMALLEST_PACE))
    moving = tf.maximum(tf.cast(changed / _DENSER, tf.int32), 1)
    if plan[0, 0] > 1:
        at_start, known = moving, changed
    else:
        at_start, known = context.full(max(1, round(sparsity * count)), tf.int32), context.full(float(count))
    # Points in a larger ball are not adversarial examples yet.
    inside = factor <= 1.0
    done = inside & (reached > 0.0) if context.deterministic else context.full(False, tf.bool)
    return {
        "adversarial": choose(inside & (higher | done), x, state["adversarial"]),
        "x": choose(back, top, x),
        "top": top,
        "gradient": choose(back, top_gradient, gradient),
        "top_gradient": top_gradient,
        "best": best,
        "pace": tf.where(first, 1.0, tf.where(due, adapted, state["pace"])),
        "moving": tf.where(first, at_start, tf.where(due, moving, state["moving"])),
        "changed": tf.where(first, known, tf.where(due, changed, state["changed"])),
        "done": done,
    }
