"""The data artifact: images as plain arrays, labels, a validation split, statistics. Written once, read in pieces."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from l2p_tf import artifacts, files, progress
from l2p_tf.data.base import Array, Dataset, Source, Split, stratified
from l2p_tf.data.contact_sheet import contact_sheet
from l2p_tf.data.view import ImageView
from l2p_tf.environment import user_path
from l2p_tf.registry import spec_of
from l2p_tf.schema import Count, Positive, read_json, reading
from l2p_tf.types import UserError

INFO = "info.json"
SPLITS = ("train", "validation", "test")
_CHUNK = 1024
# One number per draw, so that the same seed does not draw the same positions twice.
_LIMIT_TRAIN, _LIMIT_TEST, _VALIDATION, _SAMPLE = range(4)


@dataclasses.dataclass(frozen=True)
class DataInfo:
    """What a data artifact says about itself.

    Attributes:
      name: name that results are filed under.
      title: how to name it in a report.
      spec: canonical spec of the data set.
      image_shape: (height, width, channels).
      num_classes: number of classes.
      class_names: names by label.
      counts: number of images by split.
      class_counts: number of images by split and label.
      mean: per channel, of the training images in [0, 1].
      std: per channel, of the training images in [0, 1].
      crop_padding: zeros around a training image before a random crop.
      flip: whether training images are mirrored at random.
      source: name, version and encoding of what was read.
      note: where it is from, in a sentence.
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

    def __post_init__(self) -> None:
        if len(self.class_names) != self.num_classes:
            raise ValueError(f"`class_names` should name {self.num_classes} classes")
        if len(self.mean) != self.image_shape[2] or len(self.std) != self.image_shape[2]:
            raise ValueError(f"`mean` and `std` should have {self.image_shape[2]} numbers each")
        if not set(SPLITS) <= set(self.counts):
            raise ValueError(f"`counts` should tell of {', '.join(SPLITS)}")

    @classmethod
    def read(cls, file: pathlib.Path) -> DataInfo:
        """Reads `info.json`; UserError where it is not one."""
        return read_json(file, cls, "describe a data artifact")

    def summary(self) -> str:
        """Counts, shape and statistics, in two lines."""
        counts = ", ".join(f"{self.counts[name]:,} {name}" for name in SPLITS)
        shape = "x".join(str(size) for size in self.image_shape)
        mean, std = (", ".join(f"{value:.4f}" for value in values) for values in (self.mean, self.std))
        return f"{self.title}: {counts} images of {shape} in {self.num_classes} classes\nmean {mean}; std {std}"


class ImageData:
    """A data artifact, opened. Images stay on disk until they are indexed.

    Attributes:
      artifact: the artifact.
      info: what it says about itself.
    """

    def __init__(self, artifact: artifacts.Artifact) -> None:
        self.artifact = artifact
        self.info = DataInfo.read(artifact.path / INFO)
        train, test = self._load("train_labels"), self._load("test_labels")
        parts = {name: self._load(f"{name}_index") for name in ("train", "validation")}
        images = {name: self._load(f"{name}_images", mmap=True) for name in ("train", "test")}
        self._splits = {name: (ImageView(images["train"], index), train[index]) for name, index in parts.items()}
        self._splits["test"] = (ImageView(images["test"], np.arange(len(test))), test)
        with reading(artifact.path, "hold images as its info.json describes them"):
            self._check(images, {"train": train, "test": test}, parts)

    def _check(self, images: dict[str, Array], labels: dict[str, Array], parts: dict[str, Array]) -> None:
        info = self.info
        for name, kept in labels.items():
            if images[name].dtype != np.uint8 or images[name].shape != (len(kept), *info.image_shape):
                raise ValueError(f"{name}_images.npy has {images[name].dtype} of shape {images[name].shape}")
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
        """Opens a data artifact after checking that it is whole.

        Raises:
          UserError: there is none, or it is unfinished or damaged.
        """
        return cls(artifacts.read(path, "data"))

    def split(self, name: str) -> tuple[ImageView, npt.NDArray[np.int32]]:
        """Images (lazy, uint8 (N, H, W, C)) and labels (int32 (N,)) of `train`, `validation` or `test`."""
        if name not in self._splits:
            raise UserError(f"`split` should be one of {', '.join(SPLITS)}. Received: {name!r}")
        return self._splits[name]

    def sample(
        self, name: str, limit: int | None = None, seed: int = 0
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
        """Reads a split, or a part of it in which every class keeps its share.

        Args:
          name: `train`, `validation` or `test`.
          limit: at most how many images; None for all.
          seed: decides which.

        Returns:
          Positions in the split (sorted, int64 (n,)), images (uint8 (n, H, W, C)) and labels (int32 (n,)).

        Raises:
          UserError: the split is empty, or `limit` is not positive.
        """
        images, labels = self.split(name)
        if not len(images):
            raise UserError(f"{str(self.artifact.path)!r} has no {name} images.")
        _check_limit("limit", limit)
        count = len(images) if limit is None else min(limit, len(images))
        index = stratified(labels, count, [seed, _SAMPLE])
        return index, images[index], labels[index]

    def _load(self, name: str, mmap: bool = False) -> Array:
        file = self.artifact.path / f"{name}.npy"
        with reading(file, "be an array of the data stage, but is missing or damaged"):
            # Mapped first: a header that promises more than the file holds is refused before memory is taken.
            array = np.load(file, mmap_mode="r", allow_pickle=False)
            return array if mmap else np.array(array)


def prepare(
    dataset: Dataset,
    output: str | os.PathLike[str],
    *,
    data_dir: str = "",
    download: bool = True,
    seed: int = 0,
    validation_share: float = 0.1,
    overwrite: bool = False,
    limit_train: int | None = None,
    limit_test: int | None = None,
    say: Callable[[str], object] = lambda text: None,
) -> artifacts.Artifact:
    """Writes a data set as an artifact, or finds it there already.

    Args:
      dataset: the data set.
      output: the folder to make.
      data_dir: folder of prepared TFDS data sets; empty for the default place.
      download: whether the data set may be downloaded when it is not there.
      seed: decides the validation split and the limited subsets.
      validation_share: share of the training images held out for validation, in [0, 1).
      overwrite: replace what was made with other options.
      limit_train: at most how many training images (validation included), every class keeping its share.
      limit_test: at most how many test images.
      say: told when there is nothing to do.

    Raises:
      UserError: an option is out of range, the data are missing or damaged, or `output` was made otherwise.
    """
    if not 0 <= validation_share < 1:
        raise UserError(f"`validation_share` should be at least 0 and below 1. Received: {validation_share}")
    if seed < 0:
        raise UserError(f"`seed` should be at least 0. Received: {seed}")
    _check_limit("limit_train", limit_train)
    _check_limit("limit_test", limit_test)
    path = user_path(output)
    source_name = dataset.identity(data_dir) or _recorded_source(path)
    opened = None
    if source_name is None:
        # The download comes first: what it brings is part of the request.
        opened = dataset.open(data_dir, download)
        source_name = dataset.identity(data_dir)
    options = {
        "dataset": spec_of(dataset),
        "dataset_options": dataset.options(),
        "source": source_name,
        "seed": seed,
        "validation_share": validation_share,
        "limit_train": limit_train,
        "limit_test": limit_test,
    }
    with artifacts.produce(path, "data", options, seed=seed, overwrite=overwrite) as work:
        if work is None:
            say(f"{str(path)!r} is up to date")
        else:
            work.clear()
            try:
                source = opened or dataset.open(data_dir, download)
                limits = {"train": limit_train, "test": limit_test}
                _write(work.path, dataset, source, str(source_name), seed, validation_share, limits)
            except BaseException:
                # It takes seconds and cannot be continued, so nothing half-written is kept.
                shutil.rmtree(work.path, ignore_errors=True)
                raise
    return artifacts.read(path, "data", verify=False)


def _recorded_source(path: pathlib.Path) -> str | None:
    """What a finished artifact was read from: it stays up to date when its source is gone."""
    if not (path / artifacts.MANIFEST).is_file():
        return None
    return artifacts.read(path, "data", verify=False).options.get("source")


def _write(
    folder: pathlib.Path,
    dataset: Dataset,
    source: Source,
    source_name: str,
    seed: int,
    validation_share: float,
    limits: dict[str, int | None],
) -> None:
    labels, num_classes = {}, len(source.class_names)
    if num_classes < 2:
        raise UserError(f"{source_name} should have at least two classes. Received: {num_classes}")
    for name, split, draw in (("train", source.train, _LIMIT_TRAIN), ("test", source.test, _LIMIT_TEST)):
        if len(split.labels) == 0 or split.labels.min() < 0 or split.labels.max() >= num_classes:
            shown = f"{split.labels.min()} to {split.labels.max()}" if len(split.labels) else "none"
            raise UserError(f"{source_name}: {name} labels should be from 0 to {num_classes - 1}. Received: {shown}")
        limit = limits[name]
        count = len(split.labels) if limit is None else min(limit, len(split.labels))
        kept = stratified(split.labels, count, [seed, draw])
        _write_images(folder / f"{name}_images.npy", split, kept, source.image_shape, f"{dataset.short_name} {name}")
        labels[name] = split.labels[kept].astype(np.int32)
        _save(folder / f"{name}_labels.npy", labels[name])
    held_out = round(validation_share * len(labels["train"]))
    if held_out >= len(labels["train"]):
        raise UserError(f"`validation_share` should leave a training image. Received: {validation_share}")
    validation = stratified(labels["train"], held_out, [seed, _VALIDATION])
    train = np.setdiff1d(np.arange(len(labels["train"])), validation)
    _save(folder / "train_index.npy", train)
    _save(folder / "validation_index.npy", validation)
    images = ImageView(np.load(folder / "train_images.npy", mmap_mode="r"), train)
    parts = {"train": labels["train"][train], "validation": labels["train"][validation], "test": labels["test"]}
    mean, std = _statistics(images)
    info = DataInfo(
        name=dataset.short_name,
        title=source.title,
        spec=spec_of(dataset),
        image_shape=source.image_shape,
        num_classes=num_classes,
        class_names=source.class_names,
        counts={name: len(part) for name, part in parts.items()},
        class_counts={name: np.bincount(part, minlength=num_classes).tolist() for name, part in parts.items()},
        mean=mean,
        std=std,
        crop_padding=dataset.crop_padding,
        flip=dataset.flip,
        source=source_name,
        note=source.note,
    )
    sheet = contact_sheet(images, parts["train"], source.class_names)
    artifacts.atomic_write(folder / "samples.png", lambda file: sheet.save(file, format="png"))
    artifacts.write_json(folder / INFO, dataclasses.asdict(info))


def _save(file: pathlib.Path, array: Array) -> None:
    artifacts.atomic_write(file, lambda out: np.save(out, array, allow_pickle=False))


def _write_images(file: pathlib.Path, split: Split, kept: Array, shape: tuple[int, int, int], what: str) -> None:
    """Writes the images at the positions `kept` (sorted) of a split as one `.npy` file.

    The file is appended to rather than mapped: memory stays flat, and a full disk is an error instead of a crash.
    """
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(kept), *shape)}
    read = written = 0
    with (
        files.replacing(file) as temporary,
        temporary.open("wb") as out,
        progress.bar(f"Writing {what}", len(kept), "images") as advance,
    ):
        np.lib.format.write_array_header_1_0(out, header)
        for batch in split.batches():
            if batch.dtype != np.uint8 or batch.shape[1:] != shape:
                raise UserError(
                    f"{what}: images should be uint8 of shape {shape}; give `image_size` where they differ in size. "
                    f"Received: {batch.dtype} of shape {batch.shape[1:]}"
                )
            first, last = np.searchsorted(kept, (read, read + len(batch)))
            out.write(np.ascontiguousarray(batch[kept[first:last] - read]).data)
            read += len(batch)
            written += last - first
            advance(int(last - first))
            if written == len(kept) < len(split.labels):
                return
    if read != len(split.labels):
        raise UserError(f"{what}: there should be {len(split.labels)} images. Received: {read}")


def _statistics(images: ImageView) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of pixels in [0, 1], summed exactly in integers chunk by chunk."""
    total = np.zeros(images.shape[-1], np.uint64)
    squares = np.zeros_like(total)
    for start in range(0, len(images), _CHUNK):
        pixels = images[start : start + _CHUNK].reshape(-1, images.shape[-1])
        total += pixels.sum(axis=0, dtype=np.uint64)
        squares += np.square(pixels, dtype=np.uint16).sum(axis=0, dtype=np.uint64)
    count = int(np.prod(images.shape[:-1]))
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())


def _check_limit(name: str, limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise UserError(f"`{name}` should be at least 1. Received: {limit}")
