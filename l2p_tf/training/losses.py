"""Losses, running means and gradient helpers for training steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from l2p_tf.inference import to_unit


class Mean(keras.metrics.Mean):
    """A running mean that is NaN until something is added.

    Replicas sum their values at every update, so that any process can read it at any time without the others. Keras's
    own metrics are summed when they are read.
    """

    def add_variable(
        self, shape: Any, initializer: Any, dtype: Any = None, aggregation: str = "none", name: str | None = None
    ) -> keras.Variable:
        """Creates a variable with a copy on every replica."""
        del aggregation
        with keras.name_scope(self.name):
            return keras.Variable(initializer, shape, dtype, trainable=False, name=name)

    def update_state(self, values: tf.Tensor, sample_weight: tf.Tensor | None = None) -> None:
        """Adds values; arguments as in Keras."""
        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            super().update_state(values, sample_weight)
            return
        before = [tf.identity(variable.value) for variable in self.variables]
        self.reset_state()
        super().update_state(values, sample_weight)
        added = context.all_reduce("sum", tf.stack([variable.value for variable in self.variables]))
        for variable, former, more in zip(self.variables, before, tf.unstack(added), strict=True):
            variable.assign(former + more)

    def result(self) -> tf.Tensor:
        """Returns the mean, or NaN."""
        return tf.math.divide(self.total.value, self.count.value)


class Batch(NamedTuple):
    """A training batch.

    Attributes:
      images: float32 clean images in [0, 1], (batch, height, width, channels).
      labels: int32 (batch,).
      sample_weight: float32 (batch,); None for equal weights.
      adversarial: the adversarial images; None if the batch is not attacked and only its clean loss counts.
    """

    images: tf.Tensor
    labels: tf.Tensor
    sample_weight: tf.Tensor | None = None
    adversarial: tf.Tensor | None = None

    @classmethod
    def of(cls, data: Any) -> Batch:
        """Converts the data that Keras passes to a step; images may be uint8."""
        images, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if sample_weight is not None:
            # Keras makes class weights a column.
            sample_weight = tf.reshape(tf.cast(sample_weight, tf.float32), [-1])
        return cls(tf.cast(to_unit(images), tf.float32), tf.cast(labels, tf.int32), sample_weight)


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Cross-entropy of each image: float32 (batch,), from labels (batch,) and logits (batch, classes)."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)


def batch_mean(losses: tf.Tensor, sample_weight: tf.Tensor | None) -> tf.Tensor:
    """Sum of weight * loss over the number of images: a scalar, from vectors (batch,)."""
    return tf.reduce_mean(losses if sample_weight is None else losses * sample_weight)


def watch(tape: tf.GradientTape, variables: Sequence[keras.Variable]) -> list[tf.Variable]:
    """Makes the tape watch these variables; returns them as TensorFlow variables."""
    values = [variable.value for variable in variables]
    for value in values:
        tape.watch(value)
    return values
