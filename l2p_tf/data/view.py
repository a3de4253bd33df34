"""Lazily read images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from l2p_tf.data import crops
from l2p_tf.data.base import Array
from l2p_tf.data.streaming import StreamedImages


class ImageView:
    """A subset of the images of a memory-mapped file, or of streamed images, read when indexed.

    `view[i]` is one image (H, W, C); `view[a:b]` and `view[positions]` are batches (n, H, W, C): uint8, in memory.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, images: Array | StreamedImages, index: npt.NDArray[np.int64]) -> None:
        self.base = images
        self.index = index

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, C)."""
        return (len(self.index), *self.base.shape[1:])

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: int | slice | Array) -> Array:
        return np.array(self.base[self.index[key]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self[:] if dtype is None else self[:].astype(dtype)

    def cropped(self, positions: Array, box: Callable[[int, int, int], crops.Box]) -> Array:
        """Returns crops of images, resized to the common size; streamed images are cropped at their stored size.

        Args:
          positions: positions of the images, int (n,).
          box: returns the crop for a position and the height and width of its image.

        Returns:
          uint8 (n, H, W, C).
        """
        crop = crops.cropper(*self.shape[1:])
        original = self.base.original if isinstance(self.base, StreamedImages) else self.base.__getitem__

        def cut(position: int) -> Array:
            image = original(int(self.index[position]))
            return crop(image, box(position, *image.shape[:2]))

        return np.stack(list(crops.workers().map(cut, positions.tolist())))
