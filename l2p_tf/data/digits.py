"""Handwritten digits bundled with the package: small enough to try everything on a CPU, without network."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np

from l2p_tf.data.base import DATASETS, Array, Dataset, Source, Split, stratified
from l2p_tf.options import option


@DATASETS.register("digits")
@dataclasses.dataclass(frozen=True)
class Digits(Dataset):
    """1,797 handwritten digits of 8x8 gray pixels, bundled with the package.

    They are the test set of E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
    Repository, 1998, in the order of scikit-learn's `load_digits`. `digits.npz` holds `images`, uint8 (1797, 8, 8) from
    0 to 16, and `labels`, uint8 (1797,).

    There is no official test split. The one made here does not depend on the run's seed, so that runs with different
    seeds are evaluated on the same images.
    """

    test_share: float = option(0.2, "share of the images held out for testing", low=0.01, high=0.9)

    def identity(self, data_dir: str) -> str:
        """See `Dataset.identity`."""
        return "scikit-learn digits"

    def open(self, data_dir: str, download: bool) -> Source:
        """See `Dataset.open`."""
        with np.load(pathlib.Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
            images = np.round(file["images"] * (255 / 16)).astype(np.uint8)[..., np.newaxis]
            labels = file["labels"].astype(np.int64)
        test = stratified(labels, round(self.test_share * len(labels)), seed=0)
        train = np.setdiff1d(np.arange(len(labels)), test)
        return Source(
            title="Digits (8x8)",
            note="scikit-learn load_digits (UCI optical recognition of handwritten digits), 16 gray levels",
            image_shape=(8, 8, 1),
            class_names=tuple("0123456789"),
            train=_split(images[train], labels[train]),
            test=_split(images[test], labels[test]),
        )


def _split(images: Array, labels: Array) -> Split:
    return Split(labels, lambda: iter([images]))
