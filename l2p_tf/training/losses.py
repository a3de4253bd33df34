"""Losses, their means and their gradients, as the steps of a training take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from l2p_tf.inference import to_unit


class Mean(keras.metrics.Mean):
    """A running mean that is no number as long as nothing was added.

    Replicas add up what each of them adds at once, so that reading it, which any process may do at any time, needs
    none of the others. Keras's own are added up when they are read.
    """

    def add_variable(
        self, shape: Any, initializer: Any, dtype: Any = None, aggregation: str = "none", name: str | None = None
    ) -> keras.Variable:
        """A number that every replica has a copy of."""
        del aggregation
        with keras.name_scope(self.name):
            return keras.Variable(initializer, shape, dtype, trainable=False, name=name)

    def update_state(self, values: tf.Tensor, sample_weight: tf.Tensor | None = None) -> None:
        """Adds values; arguments as Keras's."""
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
        """The mean, or nan."""
        return tf.math.divide(self.total.value, self.count.value)


class Batch(NamedTuple):
    """A batch of a training.

    Attributes:
      images: float32 clean images in [0, 1], (batch, height, width, channels).
      labels: int32 (batch,).
      sample_weight: float32 (batch,); None for equal ones.
      adversarial: the images under attack; None for a batch that is not attacked, whose clean loss alone counts.
    """

    images: tf.Tensor
    labels: tf.Tensor
    sample_weight: tf.Tensor | None = None
    adversarial: tf.Tensor | None = None

    @classmethod
    def of(cls, data: Any) -> Batch:
        """From what Keras passes to a step; images may be uint8."""
        images, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if sample_weight is not None:
            # Keras makes a column of class weights.
            sample_weight = tf.reshape(tf.cast(sample_weight, tf.float32), [-1])
        return cls(tf.cast(to_unit(images), tf.float32), tf.cast(labels, tf.int32), sample_weight)


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Of each image: float32 (batch,), from labels (batch,) and logits (batch, classes)."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)


def batch_mean(losses: tf.Tensor, sample_weight: tf.Tensor | None) -> tf.Tensor:
    """The sum of weight * loss over the number of images: a scalar, from one or two vectors (batch,)."""
    return tf.reduce_mean(losses if sample_weight is None else losses * sample_weight)


def watch(tape: tf.GradientTape, variables: Sequence[keras.Variable]) -> list[tf.Variable]:
    """Makes the tape watch these variables; returns them as TensorFlow's."""
    values = [variable.value for variable in variables]
    for value in values:
        tape.watch(value)
    return values
