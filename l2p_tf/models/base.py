"""Base class of architectures: options, and how to build a classifier from them."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence

import keras
import numpy as np

from l2p_tf.layers.factory import LayerFactory
from l2p_tf.layers.noise import noise_parameters
from l2p_tf.options import Options
from l2p_tf.registry import Registry
from l2p_tf.types import UserError


@dataclasses.dataclass(frozen=True)
class Architecture(Options, abc.ABC):
    """A network architecture. Registered architectures are named by specs such as `resnet_v1(depth=20)`."""

    def build(
        self,
        image_shape: Sequence[int],
        classes: int,
        factory: LayerFactory | None = None,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
    ) -> keras.Model:
        """Builds a classifier: float32 images in [0, 1], NHWC, to float32 logits.

        Args:
          image_shape: height, width and channels.
          classes: number of classes.
          factory: makes the layers; a defense's own, or None for plain ones.
          mean: channel means of the normalization, one for all or one per channel.
          std: channel standard deviations, above 0.

        Raises:
          UserError: `mean` or `std` does not fit the channels.
        """
        channels = image_shape[-1]
        for name, values in (("mean", mean), ("std", std)):
            if len(values) not in (1, channels):
                raise UserError(
                    f"`{name}` should be one number or {channels}, one per channel. Received: {list(values)}"
                )
        if min(std) <= 0:
            raise UserError(f"`std` should be above 0 in every channel. Received: {list(std)}")
        images = keras.Input(tuple(image_shape), name="images", dtype="float32")
        means, stds = (np.broadcast_to(np.asarray(values, float), channels).tolist() for values in (mean, std))
        factory = factory or LayerFactory()
        logits = self.logits(factory.image(images, "normalization", means, stds), classes, factory)
        # A linear activation in float32 keeps logits float32 under mixed precision.
        logits = keras.layers.Activation("linear", dtype="float32", name="predictions")(logits)
        return keras.Model(images, logits, name="classifier")

    def logits(self, x: keras.KerasTensor, classes: int, factory: LayerFactory) -> keras.KerasTensor:
        """Maps normalized images to logits (batch, classes); by default a dense layer on the features."""
        return factory.dense(self.features(x, factory), classes, "logits")

    @abc.abstractmethod
    def features(self, x: keras.KerasTensor, factory: LayerFactory) -> keras.KerasTensor:
        """Maps normalized images to the input of the last layer: (batch, n) for a dense layer."""


def scaled(width: float, *channels: int) -> list[int]:
    """Multiplies channels or units by a network's width; each is rounded and at least 1."""
    return [max(1, round(c * width)) for c in channels]


MODELS: Registry[Architecture] = Registry("model", "l2p_tf.models")


def trainable_parameters(model: keras.Model) -> int:
    """Number of trainable parameters without those of the noise, as papers count them."""
    noise = {id(v) for v in noise_parameters(model)}
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables if id(v) not in noise)
