"""Converts images and labels given in various forms to arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from l2p_tf.types import UserError


def arrays_of(images: Any, labels: Any = None) -> tuple[Any, Any]:
    """Converts a `tf.data.Dataset` of images and labels to arrays, in order; other inputs are returned unchanged.

    Args:
      images: an array or tensor, or a finite data set of (image, label), batched or not.
      labels: an array or tensor; None with a data set, which includes them.

    Raises:
      UserError: labels are missing or given twice, or the data set is infinite, empty or of another structure.
    """
    if not isinstance(images, tf.data.Dataset):
        if labels is None:
            raise UserError("`labels` should be given, one for each image, unless `images` is a tf.data.Dataset.")
        return images, labels
    if labels is not None:
        raise UserError("`labels` should not be given with a tf.data.Dataset, which has them: (image, label).")
    spec = images.element_spec
    ranks = [getattr(part, "shape", tf.TensorShape(None)).rank for part in spec] if isinstance(spec, tuple) else []
    if ranks not in ([3, 0], [4, 1]):
        raise UserError(
            "`images` should be an array, or a tf.data.Dataset of (image, label), in batches or one by one, where an "
            f"image is (height, width, channels) and a label a whole number. Received: a Dataset of {spec}"
        )
    if images.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise UserError("`images` should be a data set that ends; take() or repeat(1) makes it one.")
    batches = list((images if ranks == [4, 1] else images.batch(256)).as_numpy_iterator())
    if not batches:
        raise UserError("`images` should have at least one image. Received: an empty tf.data.Dataset")
    pictures, classes = zip(*batches, strict=True)
    return np.concatenate(pictures), np.concatenate(classes)
