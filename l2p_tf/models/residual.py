"""The body shared by the residual networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras

from l2p_tf.layers.factory import LayerFactory
from l2p_tf.layers.image import NHWC

Shortcut = Callable[[keras.KerasTensor, int, int, LayerFactory, str], keras.KerasTensor]


def residual_body(
    x: keras.KerasTensor, channels: Sequence[int], blocks: Sequence[int], factory: LayerFactory, shortcut: Shortcut
) -> keras.KerasTensor:
    """A 3x3 stem, stages of basic blocks (each but the first halves the sides), and global average pooling.

    Args:
      x: images (batch, height, width, channels).
      channels: channels of each stage.
      blocks: number of blocks of each stage.
      factory: makes the layers.
      shortcut: makes the shortcut if a block changes the shape, from (x, filters, strides, factory, name).

    Returns:
      Features (batch, channels[-1]).
    """
    x = factory.conv(x, channels[0], 3, "stem")
    x = keras.layers.ReLU(name="stem_relu")(factory.output(x, "stem_output"))
    for stage, (filters, count) in enumerate(zip(channels, blocks, strict=True), start=1):
        for block in range(1, count + 1):
            strides = 2 if stage > 1 and block == 1 else 1
            name = f"stage{stage}_block{block}"
            passed = x
            if strides > 1 or x.shape[-1] != filters:
                passed = shortcut(x, filters, strides, factory, f"{name}_shortcut")
            x = keras.layers.ReLU(name=f"{name}_relu1")(factory.conv(x, filters, 3, f"{name}_conv1", strides=strides))
            x = factory.conv(x, filters, 3, f"{name}_conv2")
            x = factory.output(keras.layers.Add(name=f"{name}_sum")([x, passed]), f"{name}_output")
            x = keras.layers.ReLU(name=f"{name}_relu2")(x)
    return keras.layers.GlobalAveragePooling2D(name="pool", data_format=NHWC)(x)
