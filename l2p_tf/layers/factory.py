"""How architectures make their layers, and where defences put theirs."""

from __future__ import annotations

import keras

from l2p_tf.layers.conv_norm import ConvNorm


class LayerFactory:
    """Makes the layers of a network. Architectures know nothing else of defences; a defence overrides a method.

    Every method takes a symbolic tensor and the layer's name and returns the layer's output.
    """

    def image(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """The normalised input, (batch, height, width, channels)."""
        del name
        return x

    def conv(
        self, x: keras.KerasTensor, filters: int, kernel_size: int, name: str, strides: int = 1, normalize: bool = True
    ) -> keras.KerasTensor:
        """A convolution with batch norm (`normalize`) or with a bias."""
        return ConvNorm(filters, kernel_size, strides, normalize, name=name)(x)

    def dense(self, x: keras.KerasTensor, units: int, name: str) -> keras.KerasTensor:
        """A dense layer with bias."""
        return keras.layers.Dense(units, name=name)(x)

    def output(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """What a block gives (after its last batch norm and residual sum), before its activation."""
        del name
        return x
