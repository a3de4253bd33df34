"""Any image classification set of TensorFlow Datasets (TFDS), read in order and in pieces.

TensorFlow and TFDS take seconds to import; this module imports them only when data are opened, so that `--help` and the
check whether an artifact is up to date stay quick.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import errno
import functools
import json
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import logging

from l2p_tf.data.base import DATASETS, Array, Dataset, Source, Split
from l2p_tf.environment import user_path
from l2p_tf.options import option
from l2p_tf.types import UserError

_NAME = re.compile(r"\w+(/[\w.+-]+)?(:[\d*]+(\.[\d*]+){2})?")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_READ_BYTES = 4 << 20


@DATASETS.register("tfds")
@dataclasses.dataclass(frozen=True)
class Tfds(Dataset):
    """Any image classification set of TensorFlow Datasets, by its name there."""

    dataset: str = option("svhn_cropped", "its name in TFDS: NAME, 'NAME/CONFIG' or 'NAME:VERSION'")
    image_size: int = option(0, "side of the square that images are resized to; 0 keeps their size", low=0, high=1024)
    train_split: str = option("train", "its split for training, such as 'train+extra'")
    test_split: str = option("test", "its split for testing")
    crop_padding: int = option(4, "zeros around a training image before a random crop; 0 for no crop", low=0, high=64)

    @property
    def short_name(self) -> str:
        """The name results are filed under."""
        return self.dataset.partition(":")[0].replace("/", "_")

    def identity(self, data_dir: str) -> str | None:
        """See `Dataset.identity`."""
        return identity(self.dataset, data_dir)

    def open(self, data_dir: str, download: bool) -> Source:
        """See `Dataset.open`."""
        return open_source(
            self.dataset,
            data_dir,
            download,
            title=self.short_name,
            image_size=self.image_size,
            splits=(self.train_split, self.test_split),
        )


def identity(name: str, data_dir: str) -> str | None:
    """Name, version and image encoding of the prepared data set `name`; None where there is none.

    Raises:
      UserError: its metadata are damaged or name another data set.
    """
    folder = _locate(name, data_dir)
    if folder is None:
        return None
    try:
        info = json.loads((folder / "dataset_info.json").read_text("utf-8"))
        features = json.loads((folder / "features.json").read_text("utf-8"))
        found, version = info["name"], info["version"]
        image = features.get("featuresDict", {}).get("features", {}).get("image", {}).get("image", {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(_damaged(folder, error)) from error
    if found != _base(name):
        raise UserError(f"{str(folder)!r} should hold the data set {_base(name)!r}. It holds: {found!r}")
    config = f"/{info['configName']}" if info.get("configName") else ""
    encoding = image.get("encodingFormat")
    return f"tfds {found}{config}/{version}" + (f" ({encoding})" if encoding else "")


def open_source(
    name: str,
    data_dir: str,
    download: bool,
    *,
    title: str,
    official_encoding: str | None = None,
    expected: tuple[tuple[int, int, int], int] | None = None,
    image_size: int = 0,
    splits: tuple[str, str] = ("train", "test"),
) -> Source:
    """Opens a prepared data set of TFDS, or downloads and prepares it.

    Args:
      name: its name in TFDS, with configuration and version where wanted.
      data_dir: the folder of TFDS; empty for its default.
      download: whether it may be downloaded when it is not there.
      title: how to name it in a report.
      official_encoding: how TFDS itself stores its images; another encoding is then put behind the title.
      expected: image shape and number of classes it must have, or None for any.
      image_size: side of the square that images are resized to; 0 keeps their size.
      splits: the splits for training and testing.

    Raises:
      UserError: it is not there, damaged, or holds no images with class labels of the expected kind.
    """
    folder = _locate(name, data_dir)
    if folder is None:
        folder = _download(name, data_dir, download)
    tfds = _import_tfds()
    described = identity(name, data_dir)
    try:
        with _quiet_log():
            builder = tfds.builder_from_directory(folder)
        features = dict(builder.info.features)
    except Exception as error:  # TFDS raises whatever its parsers raise
        raise UserError(_damaged(folder, error)) from error
    image, label = features.get("image"), features.get("label")
    if not isinstance(image, tfds.features.Image) or label is None:
        raise UserError(f"{str(folder)!r} should have the features image and label. It has: {', '.join(features)}")
    if not isinstance(label, tfds.features.ClassLabel) and not _is_integer(label):
        raise UserError(f"{str(folder)!r} should have one whole number a label. It has: {label}")
    if image.shape[-1] not in (1, 3) or image.np_dtype != np.uint8:
        raise UserError(
            f"{str(folder)!r} should hold uint8 images with 1 or 3 channels. "
            f"It holds: {np.dtype(image.np_dtype).name} images of shape {image.shape}"
        )
    reader = _Reader(builder, folder, image_size)
    train, test = map(reader.split, splits)
    if isinstance(label, tfds.features.ClassLabel):
        class_names = tuple(label.names)
    else:
        class_names, train, test = _named_by_number(train, test)
    if expected and (tuple(image.shape), len(class_names)) != expected:
        raise UserError(
            f"{str(folder)!r} should hold images of shape {expected[0]} in {expected[1]} classes. "
            f"It holds: shape {tuple(image.shape)}, {len(class_names)} classes"
        )
    first = next(reader.images(splits[0], 1))
    encoding = image.encoding_format
    differs = official_encoding is not None and encoding and encoding != official_encoding
    summary = (builder.info.description or "").strip().split("\n\n")[0]
    return Source(
        title=f"{title} ({encoding.upper()})" if differs else title,
        note=f"{described}: {' '.join(summary.split())}",
        image_shape=(int(first.shape[1]), int(first.shape[2]), int(first.shape[3])),
        class_names=class_names,
        train=train,
        test=test,
    )


def _is_integer(label: Any) -> bool:
    """Whether a feature of TFDS is a single whole number."""
    return getattr(label, "shape", None) == () and np.issubdtype(getattr(label, "np_dtype", object), np.integer)


def _named_by_number(train: Split, test: Split) -> tuple[tuple[str, ...], Split, Split]:
    """Classes of a set that gives them as numbers without names: every number that occurs is a class of that name."""
    numbers = np.unique(np.concatenate([train.labels, test.labels]))
    train, test = (Split(np.searchsorted(numbers, split.labels), split.batches) for split in (train, test))
    return tuple(map(str, numbers)), train, test


class _Reader:
    """Reads labels and images of a builder, in the order they are stored in."""

    def __init__(self, builder: Any, folder: pathlib.Path, image_size: int) -> None:
        self._builder = builder
        self._folder = folder
        self._image_size = image_size

    def split(self, name: str) -> Split:
        dataset = self._dataset(name, "label").batch(8192)
        with self._errors(name):
            labels = np.concatenate([np.empty(0, np.int64), *dataset.as_numpy_iterator()])
        count = self._builder.info.splits[name].num_examples
        if len(labels) != count or count == 0:
            raise UserError(f"{str(self._folder)!r} should hold {count} {name} images. It holds: {len(labels)}")
        return Split(labels, functools.partial(self.images, name))

    def images(self, name: str, batch_size: int | None = None) -> Iterator[Array]:
        dataset = self._dataset(name, "image")
        if self._image_size:
            dataset = dataset.map(self._resize, num_parallel_calls=2)
        shape = dataset.element_spec.shape
        if batch_size is None:
            pixels = 3 * 256 * 256 if None in shape else int(np.prod(shape))
            batch_size = max(1, min(1024, _READ_BYTES // pixels))
        with self._errors(name):
            yield from dataset.batch(batch_size).prefetch(1).as_numpy_iterator()

    def _dataset(self, name: str, feature: str) -> Any:
        tfds = _import_tfds()
        # One file after another and no cache: the order does not depend on how many files there are, and memory
        # stays flat.
        config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
        try:
            with _quiet_log():
                dataset = self._builder.as_dataset(
                    split=name,
                    decoders=tfds.decode.PartialDecoding({feature: True}),
                    read_config=config,
                    shuffle_files=False,
                )
        except (ValueError, KeyError, AssertionError) as error:
            known = ", ".join(self._builder.info.splits)
            raise UserError(
                f"A split of {self._builder.name} should be made of {known}, such as 'train[:90%]'. Received: {name!r}"
            ) from error
        return dataset.map(lambda example: example[feature])

    def _resize(self, image: Any) -> Any:
        import tensorflow as tf

        resized = tf.image.resize(image, (self._image_size, self._image_size), method="bilinear", antialias=True)
        resized.set_shape((self._image_size, self._image_size, image.shape[-1]))
        return tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)

    @contextlib.contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        import tensorflow as tf

        try:
            yield
        except tf.errors.OpError as error:
            if "different shapes" in error.message:
                raise UserError(
                    f"`image_size` should be given: the {name} images of {self._builder.name} differ in size. "
                    "Received: 0"
                ) from error
            raise UserError(_damaged(self._folder, f"{name} images: {error.message}")) from error


def _locate(name: str, data_dir: str) -> pathlib.Path | None:
    """The folder of the newest prepared version of `name`, or None."""
    if not _NAME.fullmatch(name):
        raise UserError(f"`dataset` should be NAME, NAME/CONFIG or NAME:VERSION as in TFDS. Received: {name!r}")
    base, _, version = name.partition(":")
    # A data set with configurations has one level of folders more.
    for level in ("", "*/"):
        files = (_data_root(data_dir) / base).glob(f"{level}{version or '*'}/dataset_info.json")
        folders = [file.parent for file in files if _VERSION.fullmatch(file.parent.name)]
        configs = sorted({folder.parent.name for folder in folders})
        if len(configs) > 1:
            raise UserError(f"`dataset` should name one of the configurations {', '.join(configs)}. Received: {name!r}")
        if folders:
            return max(folders, key=lambda folder: [int(part) for part in folder.name.split(".")])
    return None


def _download(name: str, data_dir: str, download: bool) -> pathlib.Path:
    """Downloads and prepares `name`, and returns its folder."""
    root = _data_root(data_dir)
    wanted = (
        f"`data_dir` should hold the prepared data set in {name.partition(':')[0]}/VERSION. Received: {str(root)!r}"
    )
    if not download:
        raise UserError(f"{wanted}, where there is none, and downloads are off.")
    if data_dir and not root.is_dir():
        # It is more often misspelled than new.
        raise UserError(
            f"`data_dir` should be a folder that exists; make it first to download there. Received: {str(root)!r}"
        )
    tfds = _import_tfds()
    try:
        builder = tfds.builder(name, data_dir=str(root))
    except tfds.core.DatasetNotFoundError as error:
        near = difflib.get_close_matches(_base(name), tfds.list_builders(), n=3)
        hint = f"Near: {', '.join(near)}" if near else "See tensorflow.org/datasets for the names"
        raise UserError(f"`dataset` should be a data set of TFDS. Received: {name!r}. {hint}.") from error
    except Exception as error:  # a wrong version or configuration; TFDS raises many types for them
        raise UserError(f"`dataset` should be a data set of TFDS. Received: {name!r} ({_line(error)})") from error
    try:
        with _quiet_log(), _few_retries(), _nothing_left(root, _base(name)):
            builder.download_and_prepare()
    except ImportError as error:
        raise UserError(f"Preparing {name!r} needs a Python package that is not installed. ({_line(error)})") from error
    except Exception as error:  # sockets, HTTP, archives, checksums: all mean the same to the user
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS):
            raise
        raise UserError(
            f"{wanted}, where there is none, and the download failed: run once with a network. ({_line(error)})"
        ) from error
    folder = _locate(name, data_dir)
    if folder is None:
        raise UserError(f"{wanted}, where there is none after the download.")
    return folder


@contextlib.contextmanager
def _nothing_left(root: pathlib.Path, base: str) -> Iterator[None]:
    """Removes what a failed download has put into the folder of TFDS, down to the folder itself where that is new."""
    places = (root / base, root / "downloads", root)

    def entries() -> set[pathlib.Path]:
        return {path for place in places if place.is_dir() for path in place.iterdir()}

    before, there = entries(), root.exists()
    try:
        yield
    except BaseException:
        for path in entries() - before:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        if not there:
            with contextlib.suppress(OSError):
                root.rmdir()
        raise


@contextlib.contextmanager
def _few_retries() -> Iterator[None]:
    """TFDS tries ten times over three minutes before it says that there is no network; three times are enough."""
    from tensorflow_datasets.core.download import downloader

    retries = downloader.MAX_RETRIES
    downloader.MAX_RETRIES = 3
    try:
        yield
    finally:
        downloader.MAX_RETRIES = retries


@contextlib.contextmanager
def _quiet_log() -> Iterator[None]:
    """Holds back TFDS's notes on what it reads, and its warnings about its own outdated calls."""
    level = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _data_root(data_dir: str) -> pathlib.Path:
    """The folder of TFDS; where none is given, the one TFDS itself would use."""
    return user_path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def _base(name: str) -> str:
    """The name of the data set without configuration and version."""
    return re.split("[/:]", name)[0]


def _damaged(folder: pathlib.Path, error: object) -> str:
    return f"{str(folder)!r} is damaged: delete it and prepare it again. ({_line(error)})"


def _line(error: object) -> str:
    """An error in one line of limited length, without TensorFlow's node names."""
    text = re.sub(r"\{\{.*?\}\}|\[Op:.*", "", str(error))
    kind = "" if isinstance(error, str) else f"{type(error).__name__}: "
    return (kind + " ".join(text.split()))[:300]


def _import_tfds() -> Any:
    """TFDS with TensorFlow; what TensorFlow's libraries print while they load is dropped, as no setting silences it."""
    if "tensorflow" not in sys.modules:
        sys.stderr.flush()
        saved = os.dup(2)
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, saved)
            null = os.open(os.devnull, os.O_WRONLY)
            stack.callback(os.close, null)
            os.dup2(null, 2)
            stack.callback(os.dup2, saved, 2)
            import tensorflow as tf  # noqa: F401
    import tensorflow_datasets as tfds

    return tfds
