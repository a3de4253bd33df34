"""Layers without trainable weights for networks on images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

NHWC = "channels_last"
"""Layout of images and feature maps. Keras's layers otherwise take it from keras.json."""


@keras.saving.register_keras_serializable(package="l2p_tf")
class ChannelNormalization(keras.layers.Layer):
    """(x - mean) / std per channel: the first layer of every classifier, whose input is in [0, 1].

    Args:
      mean: one number per channel.
      std: one positive number per channel.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mean, self.std = [float(m) for m in mean], [float(s) for s in std]

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns normalized images."""
        scale = 1.0 / np.asarray(self.std)
        return inputs * tf.constant(scale, inputs.dtype) - tf.constant(np.asarray(self.mean) * scale, inputs.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the input shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "mean": self.mean, "std": self.std}


@keras.saving.register_keras_serializable(package="l2p_tf")
class PaddedSubsample(keras.layers.Layer):
    """ResNet-V1's shortcut without parameters (He et al. 2016, option A): every n-th pixel, new channels zero.

    Args:
      channels: output channels, at least as many as the input has; half of the new ones come first, half last.
      strides: the n above.
    """

    def __init__(self, channels: int, strides: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels, self.strides = channels, strides

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Maps (batch, height, width, c) to (batch, ceil(height / n), ceil(width / n), channels)."""
        missing = self.channels - inputs.shape[-1]
        # Average pooling over single pixels: a strided slice, and especially its gradient, takes 5 times as long on
        # CPUs.
        thinned = tf.nn.avg_pool2d(inputs, 1, self.strides, "VALID")
        return tf.pad(thinned, [[0, 0], [0, 0], [0, 0], [missing // 2, missing - missing // 2]])

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns (batch, height, width, channels) after subsampling."""
        sides = [None if n is None else -(-n // self.strides) for n in input_shape[1:3]]
        return (input_shape[0], *sides, self.channels)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "channels": self.channels, "strides": self.strides}
