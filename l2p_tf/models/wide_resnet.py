"""Wide residual networks (Zagoruyko and Komodakis 2016), such as WRN-28-10 of PixelDP in Learn2Perturb's Table 4."""

from __future__ import annotations

import dataclasses

import keras

from l2p_tf.layers.factory import LayerFactory
from l2p_tf.layers.image import NHWC
from l2p_tf.models.base import MODELS, Architecture, scaled
from l2p_tf.options import option
from l2p_tf.types import UserError


@MODELS.register("wide_resnet")
@dataclasses.dataclass(frozen=True)
class WideResNet(Architecture):
    """ResNet with 6k+4 layers: batch norm and ReLU before each convolution, three stages of 16, 32, 64 wide channels.

    No dropout. WRN-28-10 has 36,479,194 trainable parameters for 10 classes of 32x32x3 images.
    """

    depth: int = option(28, "layers: 10, 16, 22, 28, 34, 40 or another 6k+4", low=10)
    width: float = option(10.0, "widening factor: multiplies the channels of every stage, not of the stem", above=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.depth - 4) % 6:
            raise UserError(f"wide_resnet: `depth` should be 6k+4, such as 10, 16, 28 or 40. Received: {self.depth}")

    def features(self, x: keras.KerasTensor, factory: LayerFactory) -> keras.KerasTensor:
        """A 3x3 stem, three stages of blocks, a last batch norm, global average pooling: (batch, 64 * width)."""
        x = factory.output(factory.conv(x, 16, 3, "stem", normalize=False, bias=False), "stem_output")
        for stage, filters in enumerate(scaled(self.width, 16, 32, 64), start=1):
            for block in range(1, (self.depth - 4) // 6 + 1):
                strides = 2 if stage > 1 and block == 1 else 1
                x = _block(x, filters, strides, factory, f"stage{stage}_block{block}")
        x = keras.layers.ReLU(name="relu")(factory.norm(x, "norm"))
        return keras.layers.GlobalAveragePooling2D(name="pool", data_format=NHWC)(x)


def _block(x: keras.KerasTensor, filters: int, strides: int, factory: LayerFactory, name: str) -> keras.KerasTensor:
    passed = x
    x = keras.layers.ReLU(name=f"{name}_relu1")(factory.norm(x, f"{name}_norm"))
    if strides > 1 or x.shape[-1] != filters:
        # A projection takes the input of the convolutions; the identity takes the block's raw input.
        passed = factory.conv(x, filters, 1, f"{name}_shortcut", strides=strides, normalize=False, bias=False)
    # The batch norm before the second convolution directly follows the first one and is merged with it.
    x = keras.layers.ReLU(name=f"{name}_relu2")(factory.conv(x, filters, 3, f"{name}_conv1", strides=strides))
    x = factory.conv(x, filters, 3, f"{name}_conv2", normalize=False, bias=False)
    return factory.output(keras.layers.Add(name=f"{name}_sum")([x, passed]), f"{name}_output")
