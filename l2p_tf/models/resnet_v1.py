"""ResNet for small images (He et al. 2016, section 4.2), the ResNet-V1 of Learn2Perturb's tables."""

from __future__ import annotations

import dataclasses

import keras

from l2p_tf.layers.factory import LayerFactory
from l2p_tf.layers.image import PaddedSubsample
from l2p_tf.models.base import MODELS, Architecture, scaled
from l2p_tf.models.residual import residual_body
from l2p_tf.options import option
from l2p_tf.types import UserError


@MODELS.register("resnet_v1")
@dataclasses.dataclass(frozen=True)
class ResNetV1(Architecture):
    """ResNet with 6k+2 layers in three stages of 16, 32 and 64 channels, and shortcuts without parameters."""

    depth: int = option(20, "layers: 8, 14, 20, 32, 44, 56, 110 or another 6k+2", low=8)
    width: float = option(1.0, "multiplies the channels of every stage", above=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.depth - 2) % 6:
            raise UserError(f"resnet_v1: `depth` should be 6k+2, such as 8, 20, 32, 44 or 56. Received: {self.depth}")

    def features(self, x: keras.KerasTensor, factory: LayerFactory) -> keras.KerasTensor:
        """Stem, three stages of basic blocks, global average pooling."""
        channels = scaled(self.width, 16, 32, 64)
        return residual_body(x, channels, [(self.depth - 2) // 6] * 3, factory, _subsample)


def _subsample(x: keras.KerasTensor, filters: int, strides: int, factory: LayerFactory, name: str) -> keras.KerasTensor:
    del factory
    return PaddedSubsample(filters, strides, name=name)(x)
