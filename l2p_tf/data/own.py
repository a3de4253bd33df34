"""Base of the user's own image sets: folders, lists and arrays."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np

from l2p_tf.data.base import NO_IMAGES, Dataset, Source, Split
from l2p_tf.data.decoding import Form
from l2p_tf.environment import user_path
from l2p_tf.options import option
from l2p_tf.types import UserError

TRAIN, VALIDATION, TEST = "train", "validation", "test"
READ_BYTES = 4 << 20
"""Approximate number of bytes of a set held in memory at a time."""
_MOST_CLASSES = 10_000


@dataclasses.dataclass(frozen=True)
class OwnImages(Dataset):
    """Base of the sets in a file or folder of the user.

    Records keep only the last part of the path, and identify the content by a digest: the same images at another place
    are the same set.
    """

    path: str = option("", "where it is")
    title: str = option("", "how reports name it; empty takes the last part of `path`")
    image_size: tuple[int, ...] = option(
        (), "side of the square that images are resized to, or (height, width), bilinear and smoothed where they "
        "shrink; empty keeps their size, which is one for all then", low=1, high=4096,
    )  # fmt: skip
    center_crop: float = option(
        0.0, "with `image_size`, share of the largest central part of that shape that is resized, 0.875 as is usual "
        "for ImageNet; 0 stretches whole images", low=0, high=1,
    )  # fmt: skip
    class_names: tuple[str, ...] = option(
        (), "names of the classes in the order of their labels, as a model has them that is judged; empty takes those "
        "that occur"
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.image_size) > 2:
            raise UserError(f"`image_size` should be one number or (height, width). Received: {self.image_size}")
        if len(set(self.class_names)) < len(self.class_names):
            raise UserError(f"`class_names` should name each class once. Received: {self.class_names}")

    @property
    def place(self) -> pathlib.Path:
        """Absolute path of the set; raises UserError if it was not given."""
        if not self.path:
            raise UserError(f"`path` should be given: {self.name}(path=...). Received: ''")
        return user_path(self.path).absolute()

    @property
    def label(self) -> str:
        """Name in reports."""
        return self.title or self.place.name

    @property
    def short_name(self) -> str:
        """Name under which results are filed."""
        return re.sub(r"[^\w.-]+", "_", self.label)

    def recorded(self) -> Self:
        """Keeps only the last part of the path, for records."""
        return self.replace(path=self.place.name) if self.path else self

    def form(self, height: int, width: int, channels: int) -> Form:
        """Returns the common format of images, given their original size and channels."""
        if self.image_size:
            height, width = self.image_size[0], self.image_size[-1]
        return Form(height, width, channels, self.center_crop)

    def source(self, shape: tuple[int, int, int], names: Sequence[str], parts: Mapping[str, Split]) -> Source:
        """Builds the `Source` that `open` returns.

        Args:
          shape: shape of every image.
          names: names of the classes.
          parts: test images, and optionally training and validation images.

        Raises:
          UserError: validation images without training images, or images of a class without training images.
        """
        train, validation, test = (parts.get(name, NO_IMAGES) for name in (TRAIN, VALIDATION, TEST))
        if len(validation.labels) and not len(train.labels):
            raise UserError(f"{str(self.place)!r} should hold training images, as it holds validation images.")
        for name, part in ((VALIDATION, validation), (TEST, test)) if len(train.labels) else ():
            unknown = np.setdiff1d(part.labels, train.labels)
            if len(unknown):
                raise UserError(
                    f"{str(self.place)!r} should hold training images of every class. Class {names[unknown[0]]!r} has "
                    f"{name} images alone."
                )
        return Source(
            title=self.label,
            note=f"{self.name} {self.place.name}",
            image_shape=shape,
            class_names=tuple(names),
            train=Split(
                np.concatenate([train.labels, validation.labels]),
                lambda: itertools.chain(train.batches(), validation.batches()),
            ),
            test=test,
            validation=len(validation.labels),
        )

    def numbered(self, labels: Sequence[str]) -> tuple[tuple[str, ...], dict[str, int]]:
        """Numbers the classes by their names.

        Args:
          labels: name of each image's class.

        Returns:
          The names of all classes in order, and the number of each.

        Raises:
          UserError: a name is not among `class_names`.
        """
        names = self.class_names or tuple(sorted(set(labels)))
        numbers = {name: number for number, name in enumerate(names)}
        unknown = sorted(set(labels) - set(numbers))
        if unknown:
            raise UserError(f"`class_names` should name every class in {str(self.place)!r}. Missing: {unknown[0]!r}")
        return names, numbers

    def names_up_to(self, count: int) -> tuple[str, ...]:
        """Returns names of classes numbered below `count`; raises UserError if `class_names` are fewer."""
        if count > _MOST_CLASSES:
            raise UserError(f"{str(self.place)!r} should have labels below {_MOST_CLASSES}. It has: {count - 1}")
        if self.class_names and len(self.class_names) < count:
            raise UserError(
                f"`class_names` should name {count} classes, as {str(self.place)!r} has labels up to {count - 1}. "
                f"Received: {len(self.class_names)}"
            )
        return self.class_names or tuple(map(str, range(count)))
