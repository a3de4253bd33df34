"""Losses, their means and their gradients, as the steps of a training take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from l2p_tf.inference import to_unit


class Mean(keras.metrics.Mean):
    """A running mean that is no number as long as nothing was added."""

    def result(self) -> tf.Tensor:
        """The mean, or nan."""
        return tf.math.divide(self.total.value, self.count.value)


def unpacked(data: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
    """Images as float32 in [0, 1], labels as int32, weights as float32 or None: each (batch, ...)."""
    images, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    if sample_weight is not None:
        # Keras makes a column of class weights.
        sample_weight = tf.reshape(tf.cast(sample_weight, tf.float32), [-1])
    return tf.cast(to_unit(images), tf.float32), tf.cast(labels, tf.int32), sample_weight


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
