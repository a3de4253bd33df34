"""Crops of images and their resizing: the central square, and random crops for training on large images.

TensorFlow is imported when pixels are resized, so that scanning this package for data sets stays fast.
"""

from __future__ import annotations

import concurrent.futures
import functools
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from l2p_tf.data.base import Array

Box = tuple[int, int, int, int]
"""Top, left, height and width of a crop, in pixels."""
_TRIES = 10
_LEAST_ASPECT, _GREATEST_ASPECT = 3 / 4, 4 / 3


def random_box(random: np.random.Generator, height: int, width: int, least: float, aspect: float = 1.0) -> Box:
    """Draws a random resized crop, as usual for ImageNet.

    Its share of the area is uniform from `least` to 1, and its aspect ratio log-uniform from 3/4 to 4/3 of `aspect`; if
    ten draws do not fit into the image, the largest central crop of that aspect ratio is used.

    Args:
      random: random generator.
      height: height of the image.
      width: width of the image.
      least: smallest share of the image's area.
      aspect: width by height of the resized crop.
    """
    for _ in range(_TRIES):
        area = random.uniform(least, 1.0) * height * width
        drawn = aspect * math.exp(random.uniform(math.log(_LEAST_ASPECT), math.log(_GREATEST_ASPECT)))
        rows, columns = round(math.sqrt(area / drawn)), round(math.sqrt(area * drawn))
        if 0 < rows <= height and 0 < columns <= width:
            top, left = random.integers(0, (height - rows + 1, width - columns + 1))
            return int(top), int(left), rows, columns
    rows, columns = min(height, max(1, round(width / aspect))), min(width, max(1, round(height * aspect)))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def resized(image: Any, height: int, width: int) -> Any:
    """Resizes an image tensor to uint8 (height, width, C), bilinearly with antialiasing."""
    import tensorflow as tf

    pixels = tf.image.resize(image, (height, width), method="bilinear", antialias=True)
    pixels.set_shape((height, width, image.shape[-1]))
    return tf.cast(tf.clip_by_value(tf.round(pixels), 0.0, 255.0), tf.uint8)


def square(image: Any, size: int, share: float) -> Any:
    """Converts an image tensor to a uint8 square (size, size, C).

    Args:
      image: uint8 (H, W, C) of any size.
      size: side of the square.
      share: share of the shorter side that the central square spans; 0 stretches the whole image.
    """
    import tensorflow as tf

    if share:
        height, width = tf.shape(image)[0], tf.shape(image)[1]
        shorter = tf.cast(tf.minimum(height, width), tf.float32)
        side = tf.maximum(1, tf.cast(tf.round(share * shorter), tf.int32))
        top, left = (height - side) // 2, (width - side) // 2
        image = image[top : top + side, left : left + side]
    return resized(image, size, size)


@functools.cache
def cropper(height: int, width: int, channels: int) -> Callable[[Array, Box], Array]:
    """Returns a function that cuts a box from an image (uint8, any size) and resizes it to uint8 (height, width, C)."""
    import tensorflow as tf

    @tf.function(input_signature=(tf.TensorSpec((None, None, channels), tf.uint8), tf.TensorSpec((4,), tf.int32)))
    def crop(image: Any, box: Any) -> Any:
        with tf.device("/CPU:0"):
            return resized(tf.slice(image, [box[0], box[1], 0], [box[2], box[3], -1]), height, width)

    compiled = crop.get_concrete_function()

    def run(image: Array, box: Box) -> Array:
        with tf.device("/CPU:0"):
            return compiled(tf.constant(image), tf.constant(box, tf.int32)).numpy()

    return run


@functools.cache
def workers() -> concurrent.futures.ThreadPoolExecutor:
    """Threads that read, decode and resize images, one per core."""
    return concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="images")
