"""VGG for small images, with batch norm (Simonyan and Zisserman 2015): the VGG-11 of the 2021 study, Table 3."""

from __future__ import annotations

import dataclasses

import keras

from l2p_tf.layers.factory import LayerFactory
from l2p_tf.layers.image import NHWC
from l2p_tf.models.base import MODELS, Architecture, scaled
from l2p_tf.options import option
from l2p_tf.types import UserError

_CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Number of convolutions per stage."""


@MODELS.register("vgg")
@dataclasses.dataclass(frozen=True)
class VGG(Architecture):
    """VGG's five stages of 3x3 convolutions with batch norm, each with 2x2 max pooling, and one dense layer.

    VGG-11 has 9,228,362 trainable parameters for 10 classes of 32x32x3 images. Common CIFAR code has 9,231,114: it
    keeps the convolutions' 2,752 biases, which the following batch norms make redundant. The study prints about 11
    million. Pooling keeps an odd last row or column and a side of 1, so that any image size works.
    """

    depth: int = option(11, "layers as VGG counts them: 11, 13, 16 or 19")
    width: float = option(1.0, "multiplies the channels of every stage", above=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth not in _CONVOLUTIONS:
            known = ", ".join(map(str, _CONVOLUTIONS))
            raise UserError(f"vgg: `depth` should be one of {known}. Received: {self.depth}")

    def features(self, x: keras.KerasTensor, factory: LayerFactory) -> keras.KerasTensor:
        """Five stages and global average pooling, of one position for 32x32 images: (batch, 512 * width)."""
        channels = scaled(self.width, 64, 128, 256, 512, 512)
        for stage, (filters, count) in enumerate(zip(channels, _CONVOLUTIONS[self.depth], strict=True), start=1):
            for i in range(1, count + 1):
                x = factory.conv(x, filters, 3, f"stage{stage}_conv{i}")
                if i == count:
                    x = factory.output(x, f"stage{stage}_output")
                x = keras.layers.ReLU(name=f"stage{stage}_relu{i}")(x)
            x = keras.layers.MaxPooling2D(2, padding="same", name=f"stage{stage}_pool", data_format=NHWC)(x)
        return keras.layers.GlobalAveragePooling2D(name="pool", data_format=NHWC)(x)
