"""Base of the sets of image files, in folders or listed in a file."""

from __future__ import annotations

import abc
import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from l2p_tf.artifacts import digest_file
from l2p_tf.data import decoding
from l2p_tf.data.base import Array, Source, Split, stratified
from l2p_tf.data.crops import workers
from l2p_tf.data.own import READ_BYTES, TEST, TRAIN, OwnImages
from l2p_tf.options import option
from l2p_tf.progress import bar
from l2p_tf.types import UserError

ALL = "all"
"""Split of images that are not divided."""
_HEADS = 512
"""Number of files whose headers are read at a time."""


@dataclasses.dataclass(frozen=True)
class Item:
    """An image file and the name of its class."""

    file: pathlib.Path
    label: str


@dataclasses.dataclass(frozen=True)
class ImageFiles(OwnImages):
    """Base of the sets of image files."""

    channels: str = option(
        "auto", "auto: color where any image is stored in color. Gray is repeated in color, transparency laid over "
        "white; of 16 bits the upper 8 are kept; photographs are turned upright as their EXIF data say; of several "
        "pictures in a file the first counts", choices=("auto", "gray", "color"),
    )  # fmt: skip
    test_share: float = option(
        0.0, "where none are set apart, share of the images held out for testing; 0 makes images that are not divided "
        "test images all: models are judged on them, but not trained", low=0, high=0.9,
    )  # fmt: skip

    @abc.abstractmethod
    def listed(self) -> dict[str, list[Item]]:
        """Returns the files by split, possibly `ALL`, in their final order, without reading them.

        Raises:
          UserError: the files are not laid out as this kind of set requires.
        """

    def identity(self, data_dir: str) -> str | None:
        """See `Dataset.identity`: a digest of all files with their labels, independent of their location."""
        if not self.place.exists():
            return None
        listed = self.listed()
        digest, files = hashlib.sha256(), [item.file for items in listed.values() for item in items]
        with bar(f"Checksums of {self.label}", len(files), "files") as advance:
            digests = workers().map(digest_file, files)
            for split, items in listed.items():
                for item in items:
                    digest.update(f"{split}\0{item.label}\0{next(digests)}\n".encode("utf-8", "surrogateescape"))
                    advance()
        return f"{self.name}, sha256 {digest.hexdigest()[:32]}"

    def open(self, data_dir: str, download: bool) -> Source:
        """See `Dataset.open`."""
        listed = {split: items for split, items in self.listed().items() if items}
        all_items = [item for items in listed.values() for item in items]
        if not all_items:
            raise UserError(f"{str(self.place)!r} should hold images. It holds: none")
        names, numbers = self.numbered([item.label for item in all_items])
        form = self._form([item.file for item in all_items])
        parts = {}
        for split, items in self._divided(listed, numbers).items():
            labels = np.array([numbers[item.label] for item in items], np.int64)
            parts[split] = Split(labels, functools.partial(_batches, [item.file for item in items], form))
        return self.source(form.shape, names, parts)

    def _divided(self, listed: dict[str, list[Item]], numbers: dict[str, int]) -> dict[str, list[Item]]:
        """Returns the files by split; splits off test images if there are none."""
        if TEST in listed:
            if self.test_share:
                raise UserError(f"`test_share` should be 0 for {str(self.place)!r}, which has test images.")
            return listed
        if not self.test_share:
            if ALL in listed:
                return {TEST: listed[ALL]}
            raise UserError(f"`test_share` should be above 0 for {str(self.place)!r}, which has no test images.")
        undivided = listed.pop(ALL if ALL in listed else TRAIN, [])
        labels = np.array([numbers[item.label] for item in undivided], np.int64)
        # Independent of the run's seed, so that runs with different seeds are evaluated on the same images.
        held_out = set(stratified(labels, round(self.test_share * len(undivided)), seed=0).tolist())
        divided = {TRAIN: [item for number, item in enumerate(undivided) if number not in held_out]}
        return {**listed, **divided, TEST: [undivided[number] for number in sorted(held_out)]}

    def _form(self, files: Sequence[pathlib.Path]) -> decoding.Form:
        """Returns the common format; raises UserError for an invalid image, or differing sizes without `image_size`."""
        first, colored = decoding.headers(files[:1])[0], self.channels == "color"
        with bar(f"Sizes of {self.label}", len(files), "images") as advance:
            for start in range(0, len(files), _HEADS):
                some = files[start : start + _HEADS]
                for file, header in zip(some, decoding.headers(some), strict=True):
                    colored |= header.colored and self.channels == "auto"
                    if not self.image_size and (header.height, header.width) != (first.height, first.width):
                        raise UserError(
                            f"`image_size` should be given, as images differ in size: {str(files[0])!r} has "
                            f"{first.height}x{first.width} pixels, {str(file)!r} {header.height}x{header.width}."
                        )
                    advance()
        return self.form(first.height, first.width, 3 if colored else 1)


def _batches(files: Sequence[pathlib.Path], form: decoding.Form) -> Iterator[Array]:
    step = max(1, READ_BYTES // int(np.prod(form.shape)))
    for start in range(0, len(files), step):
        yield decoding.decoded(files[start : start + step], form)
