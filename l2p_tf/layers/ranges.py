"""Pixel ranges that models are trained on, and the conversion of images in [0, 1] to them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from l2p_tf.contract import RANGES
from l2p_tf.layers.image import ChannelNormalization
from l2p_tf.layers.networks import operations_of

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CAFFE = (103.939, 116.779, 123.68)


def in_range(images: Any, name: str) -> Any:
    """Converts images in [0, 1], eager or symbolic, to the named range."""
    if name == "0..255":
        return keras.layers.Rescaling(255.0, name="to_255")(images)
    if name == "-1..1":
        return keras.layers.Rescaling(2.0, -1.0, name="to_minus_1_1")(images)
    if name == "torch":
        return ChannelNormalization(*_IMAGENET, name="imagenet_statistics")(images)
    if name == "caffe":
        means = [mean / 255 for mean in _CAFFE]
        return ChannelNormalization(means, [1 / 255] * 3, name="imagenet_means")(keras.ops.flip(images, -1))
    return images


def candidates(channels: int) -> tuple[str, ...]:
    """Returns the ranges that apply to images with this number of channels."""
    return RANGES if channels == 3 else RANGES[:3]


def told_by_layers(model: keras.Model) -> tuple[str, str] | None:
    """Infers the input range from a model's own rescaling layers; returns it and the last such layer's name.

    None if no such layer precedes the first one with a kernel.
    """
    width = 1.0
    for layer in operations_of(model):
        if hasattr(layer, "kernel"):
            return None
        if isinstance(layer, keras.layers.Rescaling):
            width *= abs(np.max(layer.scale))
        elif isinstance(layer, keras.layers.Normalization | ChannelNormalization):
            own = layer.std if isinstance(layer, ChannelNormalization) else np.sqrt(np.asarray(layer.variance))
            width /= max(float(np.mean(own)), 1e-9)
        else:
            continue
        for name, span in (("0..1", 1.0), ("0..255", 255.0)):
            if 0.4 <= span * width <= 20:
                return name, layer.name
    return None
