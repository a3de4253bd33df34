"""The data artifact: images as arrays or streamed from TFDS; labels, a validation split, and statistics.

It is written once and read in batches.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Any

import numpy as np
import numpy.typing as npt

from l2p_tf import artifacts
from l2p_tf.data.base import Array, Stored, stratified
from l2p_tf.data.streaming import StreamedImages, StreamInfo
from l2p_tf.data.view import ImageView
from l2p_tf.schema import Count, Positive, Share, read_json, reading
from l2p_tf.types import UserError

INFO = "info.json"
STREAM = "stream.json"
SPLITS = ("train", "validation", "test")
# Distinct numbers per draw, so that the same seed does not draw the same positions twice; `preparing` has the others.
_SAMPLE = 3


@dataclasses.dataclass(frozen=True)
class DataInfo:
    """Description of a data artifact.

    Attributes:
      name: name under which results are filed.
      title: name in reports.
      spec: canonical spec of the data set.
      image_shape: (height, width, channels).
      num_classes: number of classes.
      class_names: names by label.
      counts: number of images by split.
      class_counts: number of images by split and label.
      mean: per channel, of the training images in [0, 1]; empty if there are none and the set is for evaluation only.
      std: likewise.
      crop_padding: zeros around a training image before a random crop.
      flip: whether training images are mirrored at random.
      random_crop: smallest share of a training image that a random resized crop takes; 0 for no crop.
      source: name, version and encoding of the source.
      note: its origin, in one sentence.
    """

    name: str
    title: str
    spec: str
    image_shape: tuple[Positive, Positive, Positive]
    num_classes: Positive
    class_names: tuple[str, ...]
    counts: dict[str, Count]
    class_counts: dict[str, list[Count]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_padding: Count
    flip: bool
    source: str
    note: str
    random_crop: Share = 0.0

    def __post_init__(self) -> None:
        if len(self.class_names) != self.num_classes:
            raise ValueError(f"`class_names` should name {self.num_classes} classes")
        if not set(SPLITS) <= set(self.counts):
            raise ValueError(f"`counts` should tell of {', '.join(SPLITS)}")
        numbers = self.image_shape[2] if self.counts["train"] else 0
        if len(self.mean) != numbers or len(self.std) != numbers:
            raise ValueError(f"`mean` and `std` should have {numbers} numbers each")

    @classmethod
    def read(cls, file: pathlib.Path) -> DataInfo:
        """Reads `info.json`; raises UserError if it is invalid."""
        return read_json(file, cls, "describe a data artifact")

    def summary(self) -> str:
        """Returns counts, shape and statistics in two lines."""
        counts = ", ".join(f"{self.counts[name]:,} {name}" for name in SPLITS)
        shape = "x".join(str(size) for size in self.image_shape)
        mean, std = (", ".join(f"{value:.4f}" for value in values) for values in (self.mean, self.std))
        measured = f"mean {mean}; std {std}" if mean else "no training images: models are judged on it, not trained"
        return f"{self.title}: {counts} images of {shape} in {self.num_classes} classes\n{measured}"


class ImageData:
    """An opened data artifact. Images stay on disk until they are indexed, streamed ones in the files of TFDS.

    Attributes:
      artifact: the artifact.
      info: its description.
    """

    def __init__(self, artifact: artifacts.Artifact) -> None:
        self.artifact = artifact
        self.info = DataInfo.read(artifact.path / INFO)
        train, test = self._load("train_labels"), self._load("test_labels")
        parts = {name: self._load(f"{name}_index") for name in ("train", "validation")}
        streamed = (artifact.path / STREAM).is_file()
        images = self._streamed() if streamed else {n: self._load(f"{n}_images", mmap=True) for n in ("train", "test")}
        self._splits = {name: (ImageView(images["train"], index), train[index]) for name, index in parts.items()}
        self._splits["test"] = (ImageView(images["test"], np.arange(len(test))), test)
        with reading(artifact.path, "hold images as its info.json describes them"):
            self._check(images, {"train": train, "test": test}, parts)

    def _streamed(self) -> dict[str, StreamedImages]:
        stored = _stored_of(self.artifact)
        return {
            name: StreamedImages(stored, name, self._load(f"{name}_places"), self.info.image_shape)
            for name in ("train", "test")
        }

    def _check(self, images: dict[str, Any], labels: dict[str, Array], parts: dict[str, Array]) -> None:
        info = self.info
        for name, kept in labels.items():
            if images[name].dtype != np.uint8 or images[name].shape != (len(kept), *info.image_shape):
                raise ValueError(f"its {name} images are {images[name].dtype} of shape {images[name].shape}")
            if kept.dtype != np.int32 or not ((kept >= 0) & (kept < info.num_classes)).all():
                raise ValueError(f"{name}_labels.npy should be int32, from 0 to {info.num_classes - 1}")
        for name, index in parts.items():
            if index.dtype != np.int64 or not ((index >= 0) & (index < len(labels["train"]))).all():
                raise ValueError(f"{name}_index.npy should be int64, from 0 to {len(labels['train']) - 1}")
        counts = {name: len(index) for name, index in (*parts.items(), ("test", labels["test"]))}
        if info.counts != counts:
            raise ValueError(f"{INFO} counts {info.counts}, the files {counts}")

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> ImageData:
        """Opens a data artifact after verifying its integrity.

        Raises:
          UserError: it is missing, unfinished or damaged.
        """
        return cls(artifacts.read(path, "data"))

    def split(self, name: str) -> tuple[ImageView, npt.NDArray[np.int32]]:
        """Returns images (lazy, uint8 (N, H, W, C)) and labels (int32 (N,)) of `train`, `validation` or `test`."""
        if name not in self._splits:
            raise UserError(f"`split` should be one of {', '.join(SPLITS)}. Received: {name!r}")
        return self._splits[name]

    def select(
        self, name: str, limit: int | None = None, seed: int = 0
    ) -> tuple[npt.NDArray[np.int64], ImageView, npt.NDArray[np.int32]]:
        """Returns a split, or a part of it in which every class keeps its share; images are read when indexed.

        Args:
          name: `train`, `validation` or `test`.
          limit: maximum number of images; None for all.
          seed: seed of the selection.

        Returns:
          Positions in the split (sorted, int64 (n,)), images (lazy, uint8 (n, H, W, C)) and labels (int32 (n,)).

        Raises:
          UserError: the split is empty, or `limit` is not positive.
        """
        images, labels = self.split(name)
        if not len(images):
            raise UserError(f"{str(self.artifact.path)!r} has no {name} images.")
        check_limit("limit", limit)
        count = len(images) if limit is None else min(limit, len(images))
        index = stratified(labels, count, [seed, _SAMPLE])
        return index, ImageView(images.base, images.index[index]), labels[index]

    def sample(
        self, name: str, limit: int | None = None, seed: int = 0
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
        """As `select`, with the images in memory."""
        index, images, labels = self.select(name, limit, seed)
        return index, images[:], labels

    def _load(self, name: str, mmap: bool = False) -> Array:
        file = self.artifact.path / f"{name}.npy"
        with reading(file, "be an array of the data stage, but is missing or damaged"):
            # Mapped first, so that a header that promises more than the file holds fails before memory is allocated.
            array = np.load(file, mmap_mode="r", allow_pickle=False)
            return array if mmap else np.array(array)


def at_hand(artifact: artifacts.Artifact) -> bool:
    """Whether the images of a data artifact are available: in itself, or in the files they are streamed from."""
    if not (artifact.path / STREAM).is_file():
        return "test_images.npy" in artifact.manifest.get("outputs", {})
    try:
        _stored_of(artifact)
    except UserError:
        return False
    return True


def _stored_of(artifact: artifacts.Artifact) -> Stored:
    """Returns where images are streamed from, and how; raises UserError if one of its files has changed."""
    info = read_json(artifact.path / STREAM, StreamInfo, "say where images are streamed from")
    folder = pathlib.Path(str(artifact.manifest["notes"].get("streamed_from")))
    info.check(folder)
    return info.stored(folder)


def check_limit(name: str, limit: int | None) -> None:
    """Raises UserError if a limit is below 1."""
    if limit is not None and limit < 1:
        raise UserError(f"`{name}` should be at least 1. Received: {limit}")
