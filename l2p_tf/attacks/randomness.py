"""Random numbers of an attack: the same for an image whatever number of replicas shares the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from l2p_tf.layers import sampling


def uniform(shape: Sequence[int | tf.Tensor], seed: tf.Tensor) -> tf.Tensor:
    """Independent numbers, uniform in [0, 1): float32 of `shape` (batch, ...)."""
    return _own_rows(sampling.uniform, shape, seed)


def standard_normal(shape: Sequence[int | tf.Tensor], seed: tf.Tensor) -> tf.Tensor:
    """Independent N(0, 1) numbers: float32 of `shape` (batch, ...)."""
    return _own_rows(sampling.standard_normal, shape, seed)


def signs(shape: Sequence[int | tf.Tensor], seed: tf.Tensor) -> tf.Tensor:
    """Independent fair signs, -1 or 1: float32 of `shape` (batch, ...)."""
    return tf.where(uniform(shape, seed) < 0.5, -1.0, 1.0)


def below(limit: int | tf.Tensor, shape: Sequence[int | tf.Tensor], seed: tf.Tensor) -> tf.Tensor:
    """Independent whole numbers from 0 to below `limit`: int32 of `shape` (batch, ...)."""
    limit = tf.convert_to_tensor(limit, tf.int32)
    drawn = tf.cast(uniform(shape, seed) * tf.cast(limit, tf.float32), tf.int32)
    return tf.minimum(drawn, limit - 1)


def _own_rows(
    sample: Callable[[Sequence[int | tf.Tensor], tf.Tensor], tf.Tensor],
    shape: Sequence[int | tf.Tensor],
    seed: tf.Tensor,
) -> tf.Tensor:
    """The rows of this replica, of numbers drawn for all: the replicas together hold what one device would."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return sample(shape, seed)
    everything = sample((shape[0] * context.num_replicas_in_sync, *shape[1:]), seed)
    first = tf.cast(context.replica_id_in_sync_group, tf.int32) * shape[0]
    return tf.slice(everything, [first] + [0] * (len(shape) - 1), shape)
