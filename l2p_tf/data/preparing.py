"""Creates the data artifact: images copied as arrays or streamed from TFDS; labels, splits and statistics."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from l2p_tf import artifacts, files, progress
from l2p_tf.data.base import Array, Dataset, Source, Split, Stored, stratified
from l2p_tf.data.contact_sheet import contact_sheet
from l2p_tf.data.records import Records, open_builder
from l2p_tf.data.store import INFO, STREAM, DataInfo, check_limit
from l2p_tf.data.streaming import StreamedImages, StreamInfo
from l2p_tf.data.view import ImageView
from l2p_tf.environment import user_path
from l2p_tf.registry import spec_of
from l2p_tf.types import UserError

STREAM_BYTES = 4 * 10**9
"""By default, sets whose copy would be larger are streamed."""
_CHUNK_BYTES = 16 << 20
# Distinct numbers per draw, so that the same seed does not draw the same positions twice; `store` has another.
_LIMIT_TRAIN, _LIMIT_TEST, _VALIDATION = range(3)


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
    stream: str = "auto",
    say: Callable[[str], object] = lambda text: None,
) -> artifacts.Artifact:
    """Writes a data set as an artifact, unless it exists already.

    Args:
      dataset: the data set.
      output: folder to create.
      data_dir: folder of prepared TFDS data sets; empty for the default.
      download: whether a missing data set may be downloaded.
      seed: seed of the validation split and the limited subsets.
      validation_share: share of the training images held out for validation, in [0, 1); ignored for sets with
      validation images.
      overwrite: replace an artifact made with other options.
      limit_train: maximum number of training images (including validation), every class keeping its share.
      limit_test: maximum number of test images.
      stream: `off` copies the images; `on` reads them from TFDS's files; `auto` does so if the copy would be larger
      than `STREAM_BYTES`, or if random crops are cut from the images before resizing.
      say: called with a message if there is nothing to do.

    Raises:
      UserError: an option is out of range, the data are missing or damaged, or `output` has other options.
    """
    if not 0 <= validation_share < 1:
        raise UserError(f"`validation_share` should be at least 0 and below 1. Received: {validation_share}")
    if seed < 0:
        raise UserError(f"`seed` should be at least 0. Received: {seed}")
    check_limit("limit_train", limit_train)
    check_limit("limit_test", limit_test)
    if stream not in (choices := ("auto", "on", "off")):
        raise UserError(f"`stream` should be one of {', '.join(choices)}. Received: {stream!r}")
    path = user_path(output)
    recorded = _recorded(path, overwrite)
    # A finished artifact stays up to date if its source is missing.
    source_name = dataset.identity(data_dir) or recorded.get("source")
    opened = None
    if source_name is None:
        # Download first, because what it provides is part of the request.
        opened = dataset.open(data_dir, download)
        source_name = dataset.identity(data_dir)
    options: dict[str, Any] = {
        "dataset": spec_of(dataset),
        "dataset_options": dataset.options(),
        "source": source_name,
        "seed": seed,
        "validation_share": validation_share,
        "limit_train": limit_train,
        "limit_test": limit_test,
    }
    if stream != "auto":
        streamed = stream == "on"
    elif recorded and not (overwrite and {**recorded, **options} != recorded):
        streamed = recorded.get("streamed", False)
    else:
        opened = opened or dataset.open(data_dir, download)
        streamed = _streams(dataset, opened, options)
    options["streamed"] = streamed
    with artifacts.produce(path, "data", options, seed=seed, overwrite=overwrite) as work:
        if work is None:
            say(f"{str(path)!r} is up to date")
        else:
            work.clear()
            try:
                source = opened or dataset.open(data_dir, download)
                if streamed:
                    work.notes["streamed_from"] = str(_stored(dataset, source).folder.absolute())
                _write(work.path, dataset, source, options)
            except BaseException:
                # Takes seconds and cannot be resumed, so partial files are removed.
                shutil.rmtree(work.path, ignore_errors=True)
                raise
    return artifacts.read(path, "data", verify=False)


def _recorded(path: pathlib.Path, overwrite: bool) -> dict[str, Any]:
    """Returns the options of a finished artifact; empty if there is none, or a damaged one that may be replaced."""
    if not (path / artifacts.MANIFEST).is_file():
        return {}
    try:
        return artifacts.read(path, "data", verify=False).options
    except UserError:
        if not overwrite:
            raise
        return {}


def _streams(dataset: Dataset, source: Source, options: dict[str, Any]) -> bool:
    """Whether `stream=auto` streams a set."""
    if source.stored is None:
        return False
    count = sum(_limited(len(getattr(source, name).labels), options, name) for name in ("train", "test"))
    size = count * int(np.prod(source.image_shape))
    return size > STREAM_BYTES or bool(dataset.random_crop and source.stored.image_size)


def _stored(dataset: Dataset, source: Source) -> Stored:
    if source.stored is None:
        raise UserError(f"`stream` should be auto or off for {dataset.short_name}, which is no set of TFDS.")
    return source.stored


def _write(folder: pathlib.Path, dataset: Dataset, source: Source, options: dict[str, Any]) -> None:
    """Writes the files of the artifact, as its options say; without the images if they are streamed."""
    source_name, seed = str(options["source"]), options["seed"]
    stored = source.stored if options["streamed"] else None
    if dataset.random_crop and source.stored and source.stored.image_size and not stored:
        raise UserError("`stream` should be auto or on where random crops are cut from images before they are resized.")
    images: dict[str, Array | StreamedImages] = {}
    labels, num_classes = {}, len(source.class_names)
    if num_classes < 2:
        raise UserError(f"{source_name} should have at least two classes. Received: {num_classes}")
    kept_of = {}
    for name, split, draw in (("train", source.train, _LIMIT_TRAIN), ("test", source.test, _LIMIT_TEST)):
        total = len(split.labels)
        missing = name == "test" and not total and not len(source.train.labels)
        if missing or split.labels.min(initial=0) < 0 or split.labels.max(initial=0) >= num_classes:
            received = f"{split.labels.min()} to {split.labels.max()}" if total else "none"
            raise UserError(f"{source_name}: {name} labels should be from 0 to {num_classes - 1}. Received: {received}")
        # Every class keeps its share, separately for training and validation images.
        groups = split.labels + num_classes * (np.arange(total) >= total - source.validation) * (name == "train")
        kept = kept_of[name] = stratified(groups, _limited(total, options, name), [seed, draw])
        if not total:
            images[name] = nothing = np.empty((0, *source.image_shape), np.uint8)
            _save(folder / f"{name}_{'places' if stored else 'images'}.npy", nothing)
        elif stored:
            places = Records(open_builder(stored.folder), stored.splits[name]).places()[kept]
            _save(folder / f"{name}_places.npy", places)
            images[name] = StreamedImages(stored, name, places, source.image_shape)
        else:
            file = folder / f"{name}_images.npy"
            _write_images(file, split, kept, source.image_shape, f"{dataset.short_name} {name}")
            images[name] = np.load(file, mmap_mode="r")
        labels[name] = split.labels[kept].astype(np.int32)
        _save(folder / f"{name}_labels.npy", labels[name])
    validation = _validation(source, kept_of["train"], labels["train"], options["validation_share"], seed)
    train = np.setdiff1d(np.arange(len(labels["train"])), validation)
    _save(folder / "train_index.npy", train)
    _save(folder / "validation_index.npy", validation)
    view = ImageView(images["train"], train)
    parts = {"train": labels["train"][train], "validation": labels["train"][validation], "test": labels["test"]}
    mean, std = _statistics(view, f"Statistics of {dataset.short_name}") if len(train) else ((), ())
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
        random_crop=dataset.random_crop,
    )
    if stored:
        artifacts.write_json(folder / STREAM, dataclasses.asdict(StreamInfo.of(stored, dataset.short_name)))
    if not len(train):
        view = ImageView(images["test"], np.arange(len(labels["test"])))
    sheet = contact_sheet(view, parts["train" if len(train) else "test"], source.class_names)
    artifacts.atomic_write(folder / "samples.png", lambda file: sheet.save(file, format="png"))
    artifacts.write_json(folder / INFO, dataclasses.asdict(info))


def _validation(source: Source, kept: Array, labels: Array, share: float, seed: int) -> npt.NDArray[np.int64]:
    """Returns the positions of the validation images among the kept training images, given their labels."""
    if source.validation:
        validation = np.flatnonzero(kept >= len(source.train.labels) - source.validation)
        if len(validation) == len(kept):
            raise UserError(f"`limit_train` should leave a training image. Received: {len(kept)}")
        return validation
    held_out = round(share * len(labels))
    if held_out >= len(labels) > 0:
        raise UserError(f"`validation_share` should leave a training image. Received: {share}")
    return stratified(labels, held_out, [seed, _VALIDATION])


def _save(file: pathlib.Path, array: Array) -> None:
    artifacts.atomic_write(file, lambda out: np.save(out, array, allow_pickle=False))


def _write_images(file: pathlib.Path, split: Split, kept: Array, shape: tuple[int, int, int], title: str) -> None:
    """Writes the images at the sorted positions `kept` of a split as one `.npy` file.

    The file is appended to rather than mapped: memory use stays constant, and a full disk is an error instead of a
    crash.
    """
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(kept), *shape)}
    read = written = 0
    with (
        files.replacing(file) as temporary,
        temporary.open("wb") as out,
        progress.bar(f"Writing {title}", len(kept), "images") as advance,
    ):
        np.lib.format.write_array_header_1_0(out, header)
        for batch in split.batches():
            if batch.dtype != np.uint8 or batch.shape[1:] != shape:
                raise UserError(
                    f"{title}: images should be uint8 of shape {shape}; give `image_size` where they differ in size. "
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
        raise UserError(f"{title}: there should be {len(split.labels)} images. Received: {read}")


def _statistics(images: ImageView, title: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of pixels in [0, 1], summed exactly in integers chunk by chunk."""
    total = np.zeros(images.shape[-1], np.uint64)
    squares = np.zeros_like(total)
    count = int(np.prod(images.shape[:-1]))
    chunk = max(1, _CHUNK_BYTES // int(np.prod(images.shape[1:])))
    with progress.bar(title, len(images), "images") as advance:
        for start in range(0, len(images), chunk):
            pixels = images[start : start + chunk].reshape(-1, images.shape[-1])
            total += pixels.sum(axis=0, dtype=np.uint64)
            squares += np.square(pixels, dtype=np.uint16).sum(axis=0, dtype=np.uint64)
            advance(len(pixels) * len(images) // count)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())


def _limited(count: int, options: dict[str, Any], name: str) -> int:
    limit: int | None = options[f"limit_{name}"]
    return count if limit is None else min(limit, count)
