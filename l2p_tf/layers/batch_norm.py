"""Batch norm as in the papers' networks: by itself, and for layers that fold it into their weights."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

_statistics_frozen = contextvars.ContextVar("statistics_frozen", default=False)


@contextlib.contextmanager
def frozen_statistics(model: keras.Model) -> Iterator[None]:
    """Keeps moving averages unchanged while batch norm in training mode uses the batch's statistics.

    For passes that must not change anything except what they train. Takes effect when the step is traced.
    """
    # Keras's own batch norm ignores the flag, so its averages are restored afterward.
    layers = [child for child in model._flatten_layers() if isinstance(child, keras.layers.BatchNormalization)]
    moving = [variable for layer in layers for variable in layer.non_trainable_variables]
    before = [tf.identity(variable.value) for variable in moving]
    token = _statistics_frozen.set(True)
    try:
        yield
    finally:
        _statistics_frozen.reset(token)
    for variable, value in zip(moving, before, strict=True):
        variable.assign(value)


class Drawable(keras.layers.Layer):
    """Base of layers that look up their weights by name, so that subclasses can add noise to them."""

    def drawn(self, name: str) -> tf.Tensor:
        """Returns the weight called `name` as used in this pass."""
        return tf.convert_to_tensor(getattr(self, name))


class Normalizing(Drawable):
    """Base of layers with batch norm: epsilon 1e-5, moving averages with momentum 0.9, unbiased variance."""

    epsilon = 1e-5
    momentum = 0.9
    synchronized = False
    """Whether replicas use the statistics of the whole batch; set by `synchronize`."""

    def build_norm(self, channels: int) -> None:
        """Creates scale, shift and moving averages."""
        # Statistics stay float32 under mixed precision.
        kept = {"shape": (channels,), "dtype": "float32", "autocast": False}
        self.gamma = self.add_weight(name="gamma", initializer="ones", **kept)
        self.beta = self.add_weight(name="beta", initializer="zeros", **kept)
        moving = {**kept, "trainable": False, "aggregation": "mean"}
        self.moving_mean = self.add_weight(name="moving_mean", initializer="zeros", **moving)
        self.moving_variance = self.add_weight(name="moving_variance", initializer="ones", **moving)

    def affine(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns inference-mode batch norm as a factor and an offset per channel, from the moving averages."""
        scale = self.drawn("gamma") * tf.math.rsqrt(self.moving_variance.value + self.epsilon)
        return scale, self.drawn("beta") - self.moving_mean.value * scale

    def normalized(self, x: tf.Tensor) -> tf.Tensor:
        """Normalizes `x` by the statistics of its batch, and updates the moving averages."""
        context = tf.distribute.get_replica_context()
        if self.synchronized and context is not None and context.num_replicas_in_sync > 1:
            return self._normalized_together(x, context)
        outputs, new_mean, new_variance = tf.compat.v1.nn.fused_batch_norm(
            x,
            self.drawn("gamma"),
            self.drawn("beta"),
            mean=self.moving_mean.value,
            variance=self.moving_variance.value,
            epsilon=self.epsilon,
            is_training=True,
            exponential_avg_factor=1.0 - self.momentum,
        )
        self._move(new_mean, new_variance)
        return outputs

    def _normalized_together(self, x: tf.Tensor, context: tf.distribute.ReplicaContext) -> tf.Tensor:
        """Normalizes by the statistics of all replicas; gradients flow through them."""
        # Squares around a mean common to all replicas lose no precision.
        around = self.moving_mean.value
        apart = tf.cast(x, tf.float32) - around
        count = tf.cast(tf.size(x) // tf.shape(x)[-1], tf.float32)
        sums = [tf.reduce_sum(apart, [0, 1, 2]), tf.reduce_sum(tf.square(apart), [0, 1, 2]), count[None]]
        total, squares, count = tf.split(context.all_reduce("sum", tf.concat(sums, 0)), [x.shape[-1], x.shape[-1], 1])
        mean = total / count
        variance = squares / count - tf.square(mean)
        scale = self.drawn("gamma") * tf.math.rsqrt(variance + self.epsilon)
        share = 1.0 - self.momentum
        self._move(
            around + share * mean,
            self.moving_variance.value + share * (variance * count / (count - 1.0) - self.moving_variance.value),
        )
        return tf.cast((apart - mean) * scale + self.drawn("beta"), x.dtype)

    def _move(self, mean: tf.Tensor, variance: tf.Tensor) -> None:
        if not _statistics_frozen.get():
            self.moving_mean.assign(mean)
            self.moving_variance.assign(variance)


@keras.saving.register_keras_serializable(package="l2p_tf")
class BatchNorm(Normalizing):
    """Batch norm of a feature map (batch, height, width, channels) that cannot be merged with a convolution."""

    def build(self, input_shape: Any) -> None:
        """Creates scale, shift and moving averages."""
        self.build_norm(input_shape[-1])

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Normalizes; only `training` decides which statistics are used."""
        if training:
            return self.normalized(inputs)
        scale, shift = self.affine()
        return inputs * tf.cast(scale, inputs.dtype) + tf.cast(shift, inputs.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the input shape."""
        return input_shape


def synchronize(model: keras.Model) -> None:
    """Makes replicas use the statistics of the whole batch, also in Keras's own batch norm."""
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, Normalizing | keras.layers.BatchNormalization):
            layer.synchronized = True
