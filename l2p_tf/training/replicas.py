"""A training step on several replicas, that is as if one device had taken it."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from l2p_tf.attacks.randomness import Rows, rows_of_replica

_APART = 2**40
"""What a replica's number times this is added to the seeds of its noise, which are far smaller."""

_share: contextvars.ContextVar[tf.Tensor | None] = contextvars.ContextVar("share", default=None)


def part(loss: tf.Tensor) -> tf.Tensor:
    """What a loss, a mean over the images of this replica, adds to the mean over all images of the batch.

    The optimizer adds up the gradients of all replicas.
    """
    share = _share.get()
    return loss if share is None else loss * share


def run(
    strategy: tf.distribute.Strategy, step: Callable[[Any], None], batch: Any, generators: Sequence[keras.Variable]
) -> None:
    """Has every replica take `step` on its images.

    Replicas share a batch as evenly as its size allows. One that gets no image takes one that another has, too, which
    then counts for nothing. Each has noise of its own; the random starts of attacks are those that one device would
    have drawn for the whole batch.

    Args:
      strategy: its replicas.
      step: changes variables made in the strategy's scope. The loss it minimizes should be passed through `part`.
      batch: tensors, nested, whose first axis are the images; every worker has the whole.
      generators: states of the noise's seed generators, int64 (2,).
    """
    count = strategy.num_replicas_in_sync

    def on_replica() -> None:
        number = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.int32)
        rows, share = _rows(tf.nest.flatten(batch)[0], number, count)
        shift = tf.stack([tf.cast(number, tf.int64) * _APART, tf.zeros((), tf.int64)])
        for state in generators:
            state.assign(state.value + shift)
        token = _share.set(share)
        try:
            with rows_of_replica(rows):
                step(tf.nest.map_structure(lambda values: rows.of(values), batch))
        finally:
            _share.reset(token)
        for state in generators:
            state.assign(state.value - shift)

    if count == 1:
        strategy.run(step, args=(batch,))
    else:
        strategy.run(on_replica)


def _rows(images: tf.Tensor, number: tf.Tensor, count: int) -> tuple[Rows, tf.Tensor]:
    """The rows of a replica, and their share of the batch."""
    size = images.shape[0]
    if size is not None and size % count == 0:
        return Rows(number * (size // count), size // count, size), tf.constant(1.0 / count)
    size = tf.shape(images)[0] if size is None else tf.constant(size)
    first, end = number * size // count, (number + 1) * size // count
    rows = Rows(tf.minimum(first, size - 1), tf.maximum(end - first, 1), size)
    return rows, tf.cast(end - first, tf.float32) / tf.cast(size, tf.float32)
