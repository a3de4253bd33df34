"""Training steps on several replicas that are equivalent to steps on one device."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from l2p_tf.attacks.randomness import Rows, rows_of_replica

_APART = 2**40
"""Offset between the noise seeds of replicas, far larger than any seed."""

_share: contextvars.ContextVar[tf.Tensor | None] = contextvars.ContextVar("share", default=None)


def part(loss: tf.Tensor) -> tf.Tensor:
    """Returns this replica's contribution of a mean loss to the mean over the whole batch.

    The optimizer sums the gradients of all replicas.
    """
    share = _share.get()
    return loss if share is None else loss * share


def run(
    strategy: tf.distribute.Strategy, step: Callable[[Any], None], batch: Any, generators: Sequence[keras.Variable]
) -> None:
    """Runs `step` on every replica with its share of the images.

    Replicas share a batch as evenly as its size allows. One that gets no image takes another's image with weight zero.
    Each has its own noise; the random starts of attacks are those that one device would draw for the whole batch.

    Args:
      strategy: the distribution strategy.
      step: changes variables created in the strategy's scope. The loss it minimizes should be passed through `part`.
      batch: nested tensors with images along the first axis; every worker has the whole batch.
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
    size = images.shape[0]
    if size is not None and size % count == 0:
        return Rows(number * (size // count), size // count, size), tf.constant(1.0 / count)
    size = tf.shape(images)[0] if size is None else tf.constant(size)
    first, end = number * size // count, (number + 1) * size // count
    rows = Rows(tf.minimum(first, size - 1), tf.maximum(end - first, 1), size)
    return rows, tf.cast(end - first, tf.float32) / tf.cast(size, tf.float32)
