"""Binary search for the constant that trades success against norm, separately for every example."""

from __future__ import annotations

import tensorflow as tf

from l2p_tf.attacks.context import AttackContext, State, choose

_LARGEST = 1e10


def open_search(context: AttackContext) -> State:
    """Returns the state that the search needs; `initial_const` is among the context's numbers."""
    zero, infinite = context.full(0.0), context.full(float("inf"))
    state = {"adversarial": context.images, "size": infinite, "c": zero + context.numbers["initial_const"], "low": zero}
    state |= {"high": infinite, "succeeded": context.full(False, tf.bool)}
    return {**state, "inner": context.full(0, tf.int32), "outer": context.full(0, tf.int32)}


def close_round(
    context: AttackContext, state: State, x: tf.Tensor, reached: tf.Tensor, ended: tf.Tensor, rounds: int
) -> State:
    """Records the result of a step, and picks the next constant for examples that have finished theirs.

    After a success, a smaller constant is tried, halfway to the largest that failed; after a failure, a larger one,
    halfway to the smallest that succeeded, or ten times it (Carlini and Wagner 2017, Section VI).

    Args:
      context: the batch.
      state: state of the step; the entries made by `open_search` are read.
      x: the current points.
      reached: bool (batch,), whether the criterion is met there.
      ended: bool (batch,), whether the example has finished its constant.
      rounds: number of constants to try.

    Returns:
      The updated entries of `open_search`, and `done`.
    """
    size = tf.sqrt(tf.reduce_sum(tf.square(x - context.images), [1, 2, 3]))
    closer = reached & (size < state["size"])
    succeeded, c = state["succeeded"] | reached, state["c"]
    high, low = tf.where(succeeded, tf.minimum(c, state["high"]), state["high"]), tf.where(succeeded, state["low"], c)
    following = tf.where(tf.math.is_inf(high), tf.minimum(10.0 * c, _LARGEST), (low + high) / 2.0)
    outer = state["outer"] + tf.cast(ended, tf.int32)
    return {
        "adversarial": choose(closer, x, state["adversarial"]),
        "size": tf.where(closer, size, state["size"]),
        "c": tf.where(ended, following, c),
        "low": tf.where(ended, low, state["low"]),
        "high": tf.where(ended, high, state["high"]),
        "succeeded": succeeded & ~ended,
        "inner": tf.where(ended, 0, state["inner"] + 1),
        "outer": outer,
        "done": outer >= rounds,
    }
