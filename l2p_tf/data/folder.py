"""Images in a folder for each class, optionally within train, validation and test folders."""

from __future__ import annotations

import dataclasses
import pathlib

from l2p_tf import files
from l2p_tf.data.base import DATASETS
from l2p_tf.data.decoding import SUFFIXES
from l2p_tf.data.image_files import ALL, ImageFiles, Item
from l2p_tf.data.own import TEST, TRAIN, VALIDATION
from l2p_tf.options import option
from l2p_tf.types import UserError


@DATASETS.register("folder")
@dataclasses.dataclass(frozen=True)
class Folder(ImageFiles):
    """Image files in a folder for each class, optionally within folders train, validation and test.

    The classes are the sorted folder names; all files in such a folder, at any depth, are its images. Hidden files are
    ignored, as are files outside class folders unless their names are those of images. Without folders train,
    validation and test, all are test images unless `test_share` is given.
    """

    train: str = option(TRAIN, "name of the folder of training images")
    validation: str = option(VALIDATION, "name of the folder of validation images, instead of `--validation_share`")
    test: str = option(TEST, "name of the folder of test images, such as val")

    def listed(self) -> dict[str, list[Item]]:
        """See `ImageFiles.listed`."""
        if not self.place.is_dir():
            raise UserError(f"`path` should be a folder with a folder for each class. Received: {self.path!r}")
        splits = {self.train: TRAIN, self.validation: VALIDATION, self.test: TEST}
        inside = _folders(self.place)
        if not set(splits) & {folder.name for folder in inside}:
            return {ALL: _items(inside)}
        for folder in inside:
            if folder.name not in splits:
                raise UserError(
                    f"{str(folder)!r} should be {', '.join(splits)}, as its neighbors are: `train`, `validation` and "
                    "`test` of folder(...) name them."
                )
        return {splits[folder.name]: _items(_folders(folder)) for folder in inside}


def _folders(place: pathlib.Path) -> list[pathlib.Path]:
    """Returns the sorted subfolders; raises UserError if an image lies next to them."""
    inside = sorted(path for path in place.iterdir() if not files.is_hidden(path.name))
    for path in inside:
        if path.suffix.lower() in SUFFIXES and not path.is_dir():
            raise UserError(f"{str(path)!r} should lie in a folder that is named like its class.")
    return [path for path in inside if path.is_dir()]


def _items(folders: list[pathlib.Path]) -> list[Item]:
    items = [Item(file, folder.name) for folder in folders for file in files.contents(folder).values()]
    for item in items:
        if not item.file.is_file():  # Pipes may be endless.
            raise UserError(f"{str(item.file)!r} should be an image file. It is none, or a link that leads nowhere.")
    return items
