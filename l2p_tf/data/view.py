"""Images of a file, read when they are asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from l2p_tf.data.base import Array


class ImageView:
    """Some of the images of a memory-mapped file, read when indexed.

    `view[i]` is one image (H, W, C); `view[a:b]` and `view[positions]` are batches (n, H, W, C): uint8, in memory.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, images: Array, index: npt.NDArray[np.int64]) -> None:
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
