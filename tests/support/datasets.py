"""Data sets made by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from array_record.python import array_record_module

from l2p_tf.data import Dataset, Source, Split


@dataclasses.dataclass(frozen=True)
class Fake(Dataset):
    """A data set of the images it is given."""

    def identity(self, data_dir):
        return "fake 1"

    def open(self, data_dir, download):
        return self.source


def fake(images, labels, num_classes=3, short=0, **options):
    """One whose two splits are these images; batches leave out the last `short` of them."""
    thing = Fake(**options)
    labels = np.asarray(labels)

    def batches():
        for start in range(0, len(images) - short, 7):
            yield images[start : start + 7]

    part = Split(labels, batches)
    names = tuple(f"class {i}" for i in range(num_classes))
    shape = tuple(images.shape[1:])
    object.__setattr__(thing, "name", "fake")
    object.__setattr__(thing, "source", Source("Fake", "made up", shape, names, part, part))
    return thing


def noise(count, shape=(6, 5, 3), seed=0):
    """So many uint8 images."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def write_tfds(
    root, name="cifar10", version="3.0.2", shape=(32, 32, 3), classes=10, encoding="png", train=None, label="label",
    named=True, first=0, file_format="tfrecord", test=None, image="image", config="", only="",
):  # fmt: skip
    """Prepares a data set as TFDS does: 40 training images in two files, 20 test images.

    `train` may be other images, `test` too; both may also be files of images that are opened. `named` may be texts
    that stand for the classes. `only` names the one split there is then, of the test images.
    """
    folder = root / name / config / version
    folder.mkdir(parents=True)
    features = tfds.features.FeaturesDict({
        image: tfds.features.Image(shape=shape, encoding_format=encoding),
        label: (
            tfds.features.ClassLabel(num_classes=classes) if named is True
            else tfds.features.Text() if named else tfds.features.Scalar(np.int64)
        ),
    })  # fmt: skip
    train = noise(40, shape) if train is None else train
    test = noise(20, (*train[0].shape,), seed=1) if test is None else test
    parts = {only: [test]} if only else {"train": [train[:25], train[25:]], "test": [test]}
    splits = []
    for split, shards in parts.items():
        position = 0
        for number, images in enumerate(shards):
            file = folder / f"{name}-{split}.{file_format}-{number:05d}-of-{len(shards):05d}"
            writer = (
                tf.io.TFRecordWriter(str(file)) if file_format == "tfrecord"
                else array_record_module.ArrayRecordWriter(str(file), "group_size:1")
            )  # fmt: skip
            for pixels in images:
                number = first + position % classes
                kind = number if isinstance(named, bool) else named[number]
                example = features.encode_example({image: pixels, label: kind})
                writer.write(features.serialize_example(example))
                position += 1
            writer.close()
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name=name, split=split, filetype_suffix=file_format
        )
        lengths = [len(images) for images in shards]
        splits.append(tfds.core.SplitInfo(split, lengths, num_bytes=1, filename_template=template))
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=name,
        version=tfds.core.Version(version),
        data_dir=str(folder),
        module_name="__main__",
        config_name=config or None,
    )
    info = tfds.core.dataset_info.DatasetInfo(builder=identity, features=features, description="Ten kinds.\n\nMore.")
    info.set_file_format(file_format, override=True)
    info.set_splits(tfds.core.splits.SplitDict(splits))
    info.write_to_directory(folder)
    return folder
