"""The perturbation generator network (adversarial training with a perturbation generator network, Appendix A)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras

from l2p_tf.layers.image import NHWC


def build_generator(image_shape: Sequence[int], classes: int, width: float = 1.0) -> keras.Model:
    """G(grad_x F_y, x, y): maps the classifier's gradient, the image and the label to a perturbation in tanh space.

    Label, dense 1024, dense, reshaped to 128 maps of a quarter of the image's sides, two up-convolutions of stride 2;
    gradient and image are concatenated at the image's size, and two convolutions of stride 1 give the perturbation. The
    label is concatenated before every layer up to that point. 3x3 kernels, ReLU (the paper does not state the hidden
    activations), a linear last layer. Sides not divisible by four are rounded up, and the maps cropped.

    Args:
      image_shape: height, width and channels.
      classes: number of classes.
      width: multiplies the hidden channels and the first dense layer.

    Returns:
      A model from [gradient, images, labels], float32 (batch, height, width, channels) twice and one-hot (batch,
      classes), to float32 (batch, height, width, channels).
    """
    height, breadth, channels = image_shape
    maps, units = (max(1, round(n * width)) for n in (128, 1024))
    rows, columns = math.ceil(height / 4), math.ceil(breadth / 4)
    gradient = keras.Input(tuple(image_shape), name="gradient")
    images = keras.Input(tuple(image_shape), name="images")
    labels = keras.Input((classes,), name="labels")
    # He-normal suits ReLU; the last layer is initialized small, so that the first perturbations are small.
    hidden = {"activation": "relu", "kernel_initializer": "he_normal"}
    x = keras.layers.Dense(units, name="dense1", **hidden)(labels)
    x = keras.layers.Concatenate(name="label1")([x, labels])
    x = keras.layers.Dense(rows * columns * maps, name="dense2", **hidden)(x)
    x = keras.layers.Reshape((rows, columns, maps), name="maps")(x)
    point = keras.layers.Reshape((1, 1, classes), name="point")(labels)
    for n in (1, 2):
        planes = keras.layers.UpSampling2D(x.shape[1:3], name=f"planes{n}", data_format=NHWC)(point)
        x = keras.layers.Concatenate(name=f"label{n + 1}")([x, planes])
        x = keras.layers.Conv2DTranspose(maps, 3, 2, padding="same", name=f"up{n}", data_format=NHWC, **hidden)(x)
    rest = [(4 * rows - height), (4 * columns - breadth)]
    if any(rest):
        x = keras.layers.Cropping2D([(n // 2, n - n // 2) for n in rest], name="crop", data_format=NHWC)(x)
    x = keras.layers.Concatenate(name="seen")([x, images, gradient])
    # A transposed convolution of stride 1 is a convolution with a flipped kernel.
    x = keras.layers.Conv2D(maps, 3, padding="same", name="up3", data_format=NHWC, **hidden)(x)
    small = keras.initializers.RandomNormal(stddev=0.01)
    x = keras.layers.Conv2D(channels, 3, padding="same", kernel_initializer=small, dtype="float32", name="perturbation",
                            data_format=NHWC)(x)  # fmt: skip
    return keras.Model([gradient, images, labels], x, name="generator")
