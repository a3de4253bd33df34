"""Image classification sets of TensorFlow Datasets (TFDS), read in order and in batches."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from l2p_tf.data import crops, records
from l2p_tf.data.base import DATASETS, NO_IMAGES, Array, Dataset, Source, Split, Stored
from l2p_tf.data.tfds_folder import base_name, damaged, downloaded, import_tfds, locate, quiet_log
from l2p_tf.options import option
from l2p_tf.types import UserError

_READ_BYTES = 4 << 20


@DATASETS.register("tfds")
@dataclasses.dataclass(frozen=True)
class Tfds(Dataset):
    """Any image classification set of TensorFlow Datasets, by its name there."""

    dataset: str = option("svhn_cropped", "its name in TFDS: NAME, 'NAME/CONFIG' or 'NAME:VERSION'")
    image_size: int = option(0, "side of the square that images are resized to; 0 keeps their size", low=0, high=1024)
    train_split: str = option(
        "train", "its split for training, such as 'train+extra'; a set without a split `train` is for judging alone"
    )
    test_split: str = option("test", "its split for testing")
    center_crop: float = option(
        0.0, "with `image_size`, share of the shorter side that the central square spans which is resized, 0.875 as is "
        "usual for ImageNet; 0 stretches whole images", low=0, high=1,
    )  # fmt: skip
    image: str = option("image", "its feature with the image")
    label: str = option("label", "its feature with the class: one of TFDS's, a whole number or a text")
    crop_padding: int = option(4, "zeros around a training image before a random crop; 0 for no crop", low=0, high=64)

    @property
    def short_name(self) -> str:
        """Name under which results are filed."""
        return self.dataset.partition(":")[0].replace("/", "_")

    def identity(self, data_dir: str) -> str | None:
        """See `Dataset.identity`."""
        return identity(self.dataset, data_dir)

    def open(self, data_dir: str, download: bool) -> Source:
        """See `Dataset.open`."""
        return open_source(self, data_dir, download, title=self.short_name)


def identity(name: str, data_dir: str) -> str | None:
    """Returns name, version and image encoding of the prepared data set `name`; None if there is none.

    Raises:
      UserError: its metadata are damaged or name another data set.
    """
    folder = locate(name, data_dir)
    if folder is None:
        return None
    try:
        info = json.loads((folder / "dataset_info.json").read_text("utf-8"))
        features = json.loads((folder / "features.json").read_text("utf-8"))
        stored_name, version = info["name"], info["version"]
        image = features.get("featuresDict", {}).get("features", {}).get("image", {}).get("image", {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(damaged(folder, error)) from error
    if stored_name != base_name(name):
        raise UserError(f"{str(folder)!r} should hold the data set {base_name(name)!r}. It holds: {stored_name!r}")
    config = f"/{info['configName']}" if info.get("configName") else ""
    encoding = image.get("encodingFormat")
    return f"tfds {stored_name}{config}/{version}" + (f" ({encoding})" if encoding else "")


def open_source(
    wanted: Tfds,
    data_dir: str,
    download: bool,
    *,
    title: str,
    official_encoding: str | None = None,
    expected: tuple[tuple[int, int, int], int] | None = None,
) -> Source:
    """Opens a prepared TFDS data set, or downloads and prepares it.

    Args:
      wanted: which set, and how it is read; its augmentation does not count.
      data_dir: the folder of TFDS; empty for its default.
      download: whether a missing data set may be downloaded.
      title: name in reports.
      official_encoding: TFDS's own image encoding; a different one is appended to the title.
      expected: required image shape and number of classes, or None for any.

    Raises:
      UserError: it is missing, damaged, or does not hold images with class labels of the expected kind.
    """
    folder = locate(wanted.dataset, data_dir) or downloaded(wanted.dataset, data_dir, download)
    tfds = import_tfds()
    described = identity(wanted.dataset, data_dir)
    features = wanted.image, wanted.label
    builder = records.open_builder(folder)
    known = dict(builder.info.features)
    image, label = map(known.get, features)
    if not isinstance(image, tfds.features.Image) or label is None:
        raise UserError(
            f"{str(folder)!r} should have the features {' and '.join(features)}. It has: {', '.join(known)}"
        )
    if not isinstance(label, tfds.features.ClassLabel | tfds.features.Text) and not _is_integer(label):
        raise UserError(f"{str(folder)!r} should have one whole number or text a label. It has: {label}")
    if image.shape[-1] not in (1, 3) or image.np_dtype != np.uint8:
        raise UserError(
            f"{str(folder)!r} should hold uint8 images with 1 or 3 channels. "
            f"It holds: {np.dtype(image.np_dtype).name} images of shape {image.shape}"
        )
    splits = {"train": wanted.train_split, "test": wanted.test_split}
    if splits["train"] == "train" and "train" not in builder.info.splits:
        del splits["train"]
    stored = Stored(folder, splits, wanted.image_size, wanted.center_crop, wanted.image)
    reader = _Reader(builder, stored, wanted.label)
    parts = {name: reader.split(split) for name, split in splits.items()}
    train, test = parts.get("train", NO_IMAGES), parts["test"]
    if isinstance(label, tfds.features.ClassLabel):
        class_names = tuple(label.names)
    else:
        class_names, train, test = _named(train, test)
    if expected and (tuple(image.shape), len(class_names)) != expected:
        raise UserError(
            f"{str(folder)!r} should hold images of shape {expected[0]} in {expected[1]} classes. "
            f"It holds: shape {tuple(image.shape)}, {len(class_names)} classes"
        )
    first = next(reader.images(splits["test"], 1))
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
        stored=stored,
    )


def _is_integer(label: Any) -> bool:
    return getattr(label, "shape", None) == () and np.issubdtype(getattr(label, "np_dtype", object), np.integer)


def _named(train: Split, test: Split) -> tuple[tuple[str, ...], Split, Split]:
    """Derives classes from labels that are numbers or texts: every distinct value is a class of that name."""
    values, labels = np.unique(np.concatenate([train.labels, test.labels]), return_inverse=True)
    names = (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values)
    train, test = Split(labels[: len(train.labels)], train.batches), Split(labels[len(train.labels) :], test.batches)
    return tuple(names), train, test


class _Reader:
    def __init__(self, builder: Any, stored: Stored, label: str) -> None:
        self._builder, self._stored, self._label = builder, stored, label

    def split(self, name: str) -> Split:
        dataset = self._dataset(name, self._label).batch(8192)
        with self._errors(name):
            labels = np.concatenate([np.empty(0, np.int64), *dataset.as_numpy_iterator()])
        count = self._builder.info.splits[name].num_examples
        if len(labels) != count or count == 0:
            raise UserError(f"{str(self._stored.folder)!r} should hold {count} {name} images. It holds: {len(labels)}")
        return Split(labels, functools.partial(self.images, name))

    def images(self, name: str, batch_size: int | None = None) -> Iterator[Array]:
        dataset = self._dataset(name, self._stored.image)
        if self._stored.image_size:
            square = functools.partial(crops.square, size=self._stored.image_size, share=self._stored.center_crop)
            dataset = dataset.map(square, num_parallel_calls=2)
        shape = dataset.element_spec.shape
        if batch_size is None:
            pixels = 3 * 256 * 256 if None in shape else int(np.prod(shape))
            batch_size = max(1, min(1024, _READ_BYTES // pixels))
        with self._errors(name):
            yield from dataset.batch(batch_size).prefetch(1).as_numpy_iterator()

    def _dataset(self, name: str, feature: str) -> Any:
        import tensorflow as tf

        tfds = import_tfds()
        # One file after another without cache, so that the order does not depend on the number of files and memory use
        # stays constant.
        config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
        try:
            if records.file_format(self._builder) == records.ARRAY_RECORD:  # `as_dataset` cannot read it
                examples = records.Records(self._builder, name)
                dataset = tf.data.Dataset.from_generator(
                    lambda: examples, output_signature=tf.TensorSpec((), tf.string)
                )
                return dataset.map(records.decoder(self._builder, feature), num_parallel_calls=2)
            with quiet_log():
                dataset = self._builder.as_dataset(
                    split=name,
                    decoders=tfds.decode.PartialDecoding({feature: True}),
                    read_config=config,
                    shuffle_files=False,
                )
        except UserError:
            raise
        except (ValueError, KeyError, AssertionError) as error:
            known = ", ".join(self._builder.info.splits)
            raise UserError(
                f"A split of {self._builder.name} should be made of {known}, such as 'train[:90%]'. Received: {name!r}"
            ) from error
        return dataset.map(lambda example: example[feature])

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
            raise UserError(damaged(self._stored.folder, f"{name} images: {error.message}")) from error
