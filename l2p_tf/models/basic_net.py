"""A small network with two convolutions, used as BasicNet of the 2021 study of adversarial training (Tables 1, 4)."""

from __future__ import annotations

import dataclasses

import keras

from l2p_tf.layers.factory import LayerFactory
from l2p_tf.layers.image import NHWC
from l2p_tf.models.base import MODELS, Architecture, scaled
from l2p_tf.options import option


@MODELS.register("basic_net")
@dataclasses.dataclass(frozen=True)
class BasicNet(Architecture):
    """Two 5x5 convolutions (6, 16 channels) with 2x2 max pooling, two dense layers (120, 84): LeNet's proportions.

    The study does not specify its BasicNet; this one is our choice. Unlike LeNet's, the convolutions are padded, so
    that any image size works, and pooling keeps an odd last row or column. For 32x32x3 images the first dense layer
    therefore has 8x8x16 inputs, not 5x5x16: 136,886 trainable parameters for 10 classes, instead of 62,006.
    """

    width: float = option(1.0, "multiplies the channels and the units of the dense layers", above=0)

    def features(self, x: keras.KerasTensor, factory: LayerFactory) -> keras.KerasTensor:
        """Two convolutions, each with ReLU and pooling, then two dense layers with ReLU: (batch, 84 * width)."""
        *channels, first, second = scaled(self.width, 6, 16, 120, 84)
        for i, filters in enumerate(channels, start=1):
            x = factory.output(factory.conv(x, filters, 5, f"conv{i}", normalize=False), f"conv{i}_output")
            x = keras.layers.ReLU(name=f"conv{i}_relu")(x)
            x = keras.layers.MaxPooling2D(2, padding="same", name=f"pool{i}", data_format=NHWC)(x)
        x = keras.layers.Flatten(name="flat", data_format=NHWC)(x)
        for i, units in enumerate((first, second), start=1):
            x = keras.layers.ReLU(name=f"dense{i}_relu")(factory.dense(x, units, f"dense{i}"))
        return x
