"""The wide-stage ResNet that Learn2Perturb calls ResNet-V2: four stages from 64 channels, 1x1 shortcuts, 3x3 stem."""

from __future__ import annotations

import dataclasses

import keras

from l2p_tf.layers.factory import LayerFactory
from l2p_tf.models.base import MODELS, Architecture, scaled
from l2p_tf.models.residual import residual_body
from l2p_tf.options import option
from l2p_tf.types import UserError

_BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


@MODELS.register("resnet_v2")
@dataclasses.dataclass(frozen=True)
class ResNetV2(Architecture):
    """ResNet with four stages of 64 to 512 channels and projected shortcuts (not the pre-activation network)."""

    depth: int = option(18, "layers: 10, 18 or 34")
    width: float = option(1.0, "multiplies the channels of every stage", above=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth not in _BLOCKS:
            raise UserError(
                f"resnet_v2: `depth` should be one of {', '.join(map(str, _BLOCKS))}. Received: {self.depth}"
            )

    def features(self, x: keras.KerasTensor, factory: LayerFactory) -> keras.KerasTensor:
        """Stem, four stages of basic blocks, global average pooling."""
        channels = scaled(self.width, 64, 128, 256, 512)
        return residual_body(x, channels, _BLOCKS[self.depth], factory, _project)


def _project(x: keras.KerasTensor, filters: int, strides: int, factory: LayerFactory, name: str) -> keras.KerasTensor:
    return factory.conv(x, filters, 1, name, strides=strides)
