"""Base class of data sets: options, and a source that yields images in order and in batches."""

from __future__ import annotations

import abc
import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from l2p_tf.options import Options, option
from l2p_tf.registry import Registry

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Split:
    """One split of a source.

    Attributes:
      labels: int array of shape (N,).
      batches: starts a pass over the images: uint8 arrays of shape (n, H, W, C), N images in all, in the labels' order.
    """

    labels: Array
    batches: Callable[[], Iterator[Array]]


NO_IMAGES = Split(np.empty(0, np.int64), lambda: iter(()))
"""An empty split."""


@dataclasses.dataclass(frozen=True)
class Stored:
    """Where TFDS stores the images of a source, and how they are processed on reading.

    Attributes:
      folder: the prepared data set.
      splits: TFDS splits for `train`, if there is one, and `test`.
      image_size: side of the square that images are resized to; 0 keeps their size.
      center_crop: share of the shorter side that the central square spans; 0 takes whole images.
      image: name of the image feature.
    """

    folder: pathlib.Path
    splits: dict[str, str]
    image_size: int
    center_crop: float
    image: str


@dataclasses.dataclass(frozen=True)
class Source:
    """An opened data set.

    Attributes:
      title: name in reports, such as `CIFAR-10 (JPEG)`.
      note: its origin, in one sentence.
      image_shape: (height, width, channels), the same for every image; 1 or 3 channels.
      class_names: names of the classes, by label.
      train: the training images (validation images are split off later); empty if the set is for evaluation only.
      test: the test images.
      stored: where images can be read by index; None if they can only be read in order.
      validation: number of training images, at the end, that are the validation split; 0 if the set has none.
    """

    title: str
    note: str
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    train: Split
    test: Split
    stored: Stored | None = None
    validation: int = 0


@dataclasses.dataclass(frozen=True)
class Dataset(Options, abc.ABC):
    """Base of the data sets. The three options here set the augmentation of training images."""

    name: ClassVar[str]

    crop_padding: int = option(0, "zeros around a training image before a random crop; 0 for no crop", low=0, high=64)
    flip: bool = option(False, "whether training images are mirrored at random")
    random_crop: float = option(
        0.0, "smallest share of a training image that a random resized crop takes, 0.08 for ImageNet; 0 for no crop",
        low=0, high=1,
    )  # fmt: skip

    @property
    def short_name(self) -> str:
        """Name under which results are filed."""
        return self.name

    @abc.abstractmethod
    def identity(self, data_dir: str) -> str | None:
        """Returns name, version and encoding of the data `open` would read, without reading it; None if it is missing.

        Raises:
          UserError: the folder holds something else.
        """

    @abc.abstractmethod
    def open(self, data_dir: str, download: bool) -> Source:
        """Finds the data (or downloads it, if `download` is set) and opens it.

        Args:
          data_dir: folder of prepared data sets; empty for the default.
          download: whether missing data may be downloaded.

        Raises:
          UserError: the data are missing, damaged, or not this data set.
        """


DATASETS: Registry[Dataset] = Registry("data set", "l2p_tf.data")


def stratified(labels: Array, count: int, seed: int | Sequence[int]) -> npt.NDArray[np.int64]:
    """Draws `count` positions such that every class keeps its share, to within one example.

    Args:
      labels: int array of shape (N,).
      count: number to draw, from 0 to N.
      seed: seed of the draw.

    Returns:
      Sorted distinct positions, int64 of shape (count,).
    """
    if not 0 <= count <= len(labels):
        raise ValueError(f"`count` should be between 0 and {len(labels)}. Received: {count}")
    random = np.random.default_rng(seed)
    classes, sizes = np.unique(labels, return_counts=True)
    # Largest remainder method in integers: floating-point shares would round some classes down by one.
    take, remainder = np.divmod(sizes.astype(np.int64) * count, max(len(labels), 1))
    order = np.lexsort((random.permutation(len(classes)), -remainder))
    take[order[: count - int(take.sum())]] += 1
    drawn = [random.permutation(np.flatnonzero(labels == c))[:n] for c, n in zip(classes, take, strict=True)]
    return np.sort(np.concatenate([np.empty(0, np.int64), *drawn]).astype(np.int64))
