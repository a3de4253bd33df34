"""The all-convolutional classifier of the perturbation generator networks (Appendix A), as in CleverHans 2-3."""

from __future__ import annotations

import dataclasses

import keras

from l2p_tf.layers.factory import LayerFactory
from l2p_tf.layers.image import NHWC
from l2p_tf.layers.leaky_relu import LeakyReLU
from l2p_tf.models.base import MODELS, Architecture, scaled
from l2p_tf.options import option

SLOPE = 0.2
"""Slope of the leaky ReLU for negative inputs."""


@MODELS.register("all_conv")
@dataclasses.dataclass(frozen=True)
class AllConv(Architecture):
    """Three blocks of two 3x3 convolutions and average pooling, a 3x3 convolution to the classes, global pooling.

    Leaky ReLU, biases, no batch norm; kernels start normal with std 1/sqrt(fan-in). 2,334,730 trainable parameters for
    10 classes of 3 channels. CleverHans takes more or fewer blocks for larger or smaller images; Appendix A's three are
    kept for all. The maps of the classes are averaged as they are, where CleverHans' code passes them through the leaky
    ReLU first. Pooling keeps an odd last row or column and a side of 1, so that any image size works.
    """

    width: float = option(1.0, "multiplies the channels of every convolution but the last", above=0)

    def logits(self, x: keras.KerasTensor, classes: int, factory: LayerFactory) -> keras.KerasTensor:
        """Returns the mean over positions of one feature map per class: (batch, classes)."""
        maps = factory.conv(self.features(x, factory), classes, 3, "maps", normalize=False)
        return keras.layers.GlobalAveragePooling2D(name="logits", data_format=NHWC)(maps)

    def features(self, x: keras.KerasTensor, factory: LayerFactory) -> keras.KerasTensor:
        """Three blocks: (batch, height / 8, width / 8, 512 * width), sides rounded up."""
        for block, scale in enumerate((64, 128, 256), start=1):
            first, second = scaled(self.width, scale, 2 * scale)
            x = factory.conv(x, first, 3, f"block{block}_conv1", normalize=False)
            x = LeakyReLU(SLOPE, name=f"block{block}_relu1")(x)
            x = factory.conv(x, second, 3, f"block{block}_conv2", normalize=False)
            x = factory.output(x, f"block{block}_output")
            x = LeakyReLU(SLOPE, name=f"block{block}_relu2")(x)
            x = keras.layers.AveragePooling2D(2, padding="same", name=f"block{block}_pool", data_format=NHWC)(x)
        return x
