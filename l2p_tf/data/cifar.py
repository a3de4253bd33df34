"""CIFAR-10 and CIFAR-100, read through TensorFlow Datasets."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from l2p_tf.data import tfds
from l2p_tf.data.base import DATASETS, Dataset, Source
from l2p_tf.options import option


@dataclasses.dataclass(frozen=True)
class _Cifar(Dataset):
    """Base of both sets: 32x32 color images, augmented by crops from 4 pixels of padding and by flips."""

    title: ClassVar[str]
    num_classes: ClassVar[int]

    crop_padding: int = option(4, "zeros around a training image before a random crop; 0 for no crop", low=0, high=64)
    flip: bool = option(True, "whether training images are mirrored at random")

    def identity(self, data_dir: str) -> str | None:
        """See `Dataset.identity`."""
        return tfds.identity(self.name, data_dir)

    def open(self, data_dir: str, download: bool) -> Source:
        """See `Dataset.open`."""
        wanted, expected = tfds.Tfds(dataset=self.name), ((32, 32, 3), self.num_classes)
        return tfds.open_source(
            wanted, data_dir, download, title=self.title, official_encoding="png", expected=expected
        )


@DATASETS.register("cifar10")
@dataclasses.dataclass(frozen=True)
class Cifar10(_Cifar):
    """CIFAR-10: 60,000 color images of 32x32 in 10 classes, through TensorFlow Datasets."""

    title = "CIFAR-10"
    num_classes = 10


@DATASETS.register("cifar100")
@dataclasses.dataclass(frozen=True)
class Cifar100(_Cifar):
    """CIFAR-100: 60,000 color images of 32x32 in 100 classes, through TensorFlow Datasets."""

    title = "CIFAR-100"
    num_classes = 100
