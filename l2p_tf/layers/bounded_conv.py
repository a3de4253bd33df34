"""A convolution with an l_2 sensitivity of at most 1, so that the noise after it gives a guarantee (PixelDP)."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from l2p_tf.layers.conv_norm import ConvNorm
from l2p_tf.types import UserError


def operator_norm_bound(kernel: Any, sides: tuple[int, int]) -> float:
    """Returns an upper bound of a convolution's l_2 operator norm, computed in float64.

    A zero-padded convolution is part of the circular one on a grid enlarged by the kernel size minus one. The latter is
    a matrix product per frequency (Sedghi et al. 2019), so the largest of their singular values bounds the norm,
    whatever the strides.

    Args:
      kernel: (height, width, channels, filters).
      sides: height and width of the image.
    """
    kernel = np.asarray(kernel, np.float64)
    spectrum = np.fft.fft2(kernel, [n + k - 1 for n, k in zip(sides, kernel.shape[:2], strict=True)], axes=(0, 1))
    return float(np.linalg.svd(spectrum, compute_uv=False).max())


@keras.saving.register_keras_serializable(package="l2p_tf")
class UnitOperatorNorm(keras.constraints.Constraint):
    """Scales a kernel down if its `operator_norm_bound` exceeds 1.

    Args:
      sides: height and width of the input image.
    """

    def __init__(self, sides: tuple[int, int]) -> None:
        self.sides = tuple(int(n) for n in sides)

    def __call__(self, w: tf.Tensor) -> tf.Tensor:
        """Returns the kernel with a norm of at most 1."""
        w = tf.convert_to_tensor(w)
        height, width, channels, filters = w.shape
        grid = [n + k - 1 for n, k in zip(self.sides, (height, width), strict=True)]
        padded = tf.pad(tf.cast(w, tf.float32), [[0, grid[0] - height], [0, grid[1] - width], [0, 0], [0, 0]])
        spectrum = tf.signal.fft2d(tf.transpose(tf.cast(padded, tf.complex64), [2, 3, 0, 1]))
        matrices = tf.transpose(spectrum, [2, 3, 0, 1])
        gram = (
            tf.matmul(matrices, matrices, adjoint_b=True)
            if channels <= filters
            else tf.matmul(matrices, matrices, adjoint_a=True)
        )
        norm = tf.sqrt(tf.reduce_max(tf.math.real(tf.linalg.eigvalsh(gram))))
        # Slightly below 1, so that rounding does not exceed it.
        return w * tf.cast(tf.minimum(1.0, (1.0 - 1e-5) / norm), w.dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"sides": self.sides}


@keras.saving.register_keras_serializable(package="l2p_tf")
class BoundedConv(ConvNorm):
    """A convolution whose l_2 operator norm is at most 1 initially and after every update."""

    def build(self, input_shape: Any) -> None:
        """Creates the weights and projects the kernel to its bound."""
        super().build(input_shape)
        if None in tuple(input_shape[1:3]):
            raise UserError(f"A bounded convolution needs a fixed image size. Received: {tuple(input_shape)}")
        self.sides = (int(input_shape[1]), int(input_shape[2]))
        self.kernel.constraint = UnitOperatorNorm(self.sides)
        self.kernel.assign(self.kernel.constraint(self.kernel))

    @property
    def sensitivity(self) -> float:
        """Bound of the layer's current operator norm."""
        return operator_norm_bound(keras.ops.convert_to_numpy(self.kernel), self.sides)
