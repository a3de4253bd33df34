"""A convolution and its batch norm as one layer, which is a single operation at prediction."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from l2p_tf.layers.batch_norm import Normalizing


@keras.saving.register_keras_serializable(package="l2p_tf")
class ConvNorm(Normalizing):
    """2D convolution without bias followed by batch norm; with `normalize=False`, a convolution with or without bias.

    With `training=False` batch norm is a fixed affine map and is folded into the kernel: one fused convolution and bias
    instead of two passes over the feature map, which makes attacks about 13% faster on a CPU.

    Args:
      filters: output channels.
      kernel_size: height and width of the kernel.
      strides: strides of the convolution. The input is padded with zeros by `kernel_size // 2` on every side.
      normalize: use batch norm (epsilon 1e-5, moving averages with momentum 0.9 and the unbiased variance).
      bias: use a bias; ignored with `normalize`.

    Input (batch, height, width, channels), output (batch, ceil(height / strides), ceil(width / strides), filters) for
    odd kernels. Kernels are initialized He-normal by fan-out (He et al. 2015); those with a bias, in networks without
    batch norm, normal with std 1/sqrt(fan-in), as in CleverHans' networks.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        strides: int = 1,
        normalize: bool = True,
        bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters, self.kernel_size, self.strides = filters, kernel_size, strides
        self.normalize, self.biased = normalize, bias and not normalize

    def build(self, input_shape: Any) -> None:
        """Creates the kernel, and either scale, shift and moving averages or the bias."""
        shape = (self.kernel_size, self.kernel_size, input_shape[-1], self.filters)
        scale, fan = (1.0, "fan_in") if self.biased else (2.0, "fan_out")
        initializer = keras.initializers.VarianceScaling(scale, fan, "untruncated_normal")
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=initializer)
        if self.normalize:
            self.build_norm(self.filters)
        elif self.biased:
            self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Convolves and normalizes; only `training` decides which statistics are used."""
        kernel = self.drawn("kernel")
        if not self.normalize:
            outputs = self._convolve(inputs, kernel)
            return tf.nn.bias_add(outputs, self.drawn("bias")) if self.biased else outputs
        if training:
            return self.normalized(self._convolve(inputs, kernel))
        scale, shift = self.affine()
        folded = kernel * tf.cast(scale, kernel.dtype)
        return tf.nn.bias_add(self._convolve(inputs, folded), tf.cast(shift, kernel.dtype))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns (batch, height, width, filters) after strides and padding."""
        pad = 2 * (self.kernel_size // 2) - self.kernel_size
        sides = [None if n is None else (n + pad) // self.strides + 1 for n in input_shape[1:3]]
        return (input_shape[0], *sides, self.filters)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        keys = ("filters", "kernel_size", "strides", "normalize")
        return {**super().get_config(), **{key: getattr(self, key) for key in keys}, "bias": self.biased}

    def _convolve(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        if self.strides == 1 and self.kernel_size % 2:
            return tf.nn.conv2d(inputs, kernel, 1, "SAME")
        # Pads both sides equally, whereas "SAME" would pad more at the end.
        pad = [self.kernel_size // 2] * 2
        return tf.nn.conv2d(inputs, kernel, self.strides, [[0, 0], pad, pad, [0, 0]])
