"""Random numbers of an attack, identical for an image however many replicas share the batch."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import tensorflow as tf

from l2p_tf.layers import sampling


class Rows(NamedTuple):
    """The rows of a batch that belong to a replica.

    Attributes:
      first: index of the first row, an int32 scalar.
      rows: number of rows.
      of_all: rows of the whole batch.
    """

    first: tf.Tensor
    rows: int | tf.Tensor
    of_all: int | tf.Tensor

    def of(self, values: tf.Tensor) -> tf.Tensor:
        """Returns these rows of a tensor of the whole batch."""
        rest = values.shape.rank - 1
        taken = tf.slice(values, [self.first] + [0] * rest, [self.rows] + [-1] * rest)
        count = self.rows if isinstance(self.rows, int) else None
        return tf.ensure_shape(taken, [count, *values.shape[1:]])


_rows: contextvars.ContextVar[Rows | None] = contextvars.ContextVar("rows", default=None)


@contextlib.contextmanager
def rows_of_replica(rows: Rows) -> Iterator[None]:
    """Draws numbers as a single device would have drawn them for these rows of the whole batch."""
    token = _rows.set(rows)
    try:
        yield
    finally:
        _rows.reset(token)


def uniform(shape: Sequence[int | tf.Tensor], seed: tf.Tensor) -> tf.Tensor:
    """Independent uniform numbers in [0, 1): float32 of `shape` (batch, ...)."""
    return _own_rows(sampling.uniform, shape, seed)


def standard_normal(shape: Sequence[int | tf.Tensor], seed: tf.Tensor) -> tf.Tensor:
    """Independent N(0, 1) numbers: float32 of `shape` (batch, ...)."""
    return _own_rows(sampling.standard_normal, shape, seed)


def signs(shape: Sequence[int | tf.Tensor], seed: tf.Tensor) -> tf.Tensor:
    """Independent random signs, -1 or 1: float32 of `shape` (batch, ...)."""
    return tf.where(uniform(shape, seed) < 0.5, -1.0, 1.0)


def below(limit: int | tf.Tensor, shape: Sequence[int | tf.Tensor], seed: tf.Tensor) -> tf.Tensor:
    """Independent uniform integers from 0 to below `limit`: int32 of `shape` (batch, ...)."""
    limit = tf.convert_to_tensor(limit, tf.int32)
    drawn = tf.cast(uniform(shape, seed) * tf.cast(limit, tf.float32), tf.int32)
    return tf.minimum(drawn, limit - 1)


def _own_rows(
    sample: Callable[[Sequence[int | tf.Tensor], tf.Tensor], tf.Tensor],
    shape: Sequence[int | tf.Tensor],
    seed: tf.Tensor,
) -> tf.Tensor:
    """Draws for the whole batch and returns the rows of this replica, so that results equal those of one device."""
    rows = _rows.get()
    if rows is not None:
        return rows.of(sample((rows.of_all, *shape[1:]), seed))
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return sample(shape, seed)
    count = context.num_replicas_in_sync
    first = tf.cast(context.replica_id_in_sync_group, tf.int32) * shape[0]
    return Rows(first, shape[0], shape[0] * count).of(sample((shape[0] * count, *shape[1:]), seed))
