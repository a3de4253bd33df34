"""Images as arrays in an `.npz` file, named as Keras or MedMNIST do."""

from __future__ import annotations

import dataclasses
import functools
import zipfile
from collections.abc import Iterator

import numpy as np
from PIL import Image

from l2p_tf.artifacts import digest_file
from l2p_tf.data.base import DATASETS, Array, Source, Split
from l2p_tf.data.decoding import Form
from l2p_tf.data.own import READ_BYTES, TEST, TRAIN, VALIDATION, OwnImages
from l2p_tf.schema import read_header, reading
from l2p_tf.types import UserError

_NAMES = {
    TRAIN: (("x_train", "y_train"), ("train_images", "train_labels")),
    VALIDATION: (("x_val", "y_val"), ("val_images", "val_labels")),
    TEST: (("x_test", "y_test"), ("test_images", "test_labels")),
}
"""Names of images and labels, by split."""
_EXPECTED = "hold images and labels as NumPy writes them"


@dataclasses.dataclass(frozen=True)
class _Images:
    """An array of images in the file: name, shape as (n, height, width, channels), dtype and labels."""

    name: str
    shape: tuple[int, int, int, int]
    dtype: np.dtype
    labels: Array


@DATASETS.register("npz")
@dataclasses.dataclass(frozen=True)
class Npz(OwnImages):
    """Arrays in an `.npz`: x_test and y_test, x_train and y_train, optionally x_val and y_val.

    Alternatively test_images and test_labels, and so on. Images are uint8, or floats in [0, 1], which are rounded to
    255ths, of shape (n, height, width) or (n, height, width, channels) with 1 or 3 channels; labels are whole numbers
    from 0, of shape (n,) or (n, 1). Without training images, models can be evaluated on the set but not trained;
    without test images, they are trained, and evaluated on validation images only. Nothing is unpickled.
    """

    def identity(self, data_dir: str) -> str | None:
        """See `Dataset.identity`."""
        return f"npz, sha256 {digest_file(self.place)[:32]}" if self.place.is_file() else None

    def open(self, data_dir: str, download: bool) -> Source:
        """See `Dataset.open`."""
        if not self.place.is_file():
            raise UserError(f"`path` should be an .npz file. Received: {self.path!r}")
        with reading(self.place, _EXPECTED), zipfile.ZipFile(self.place) as archive:
            arrays = {split: part for split, pairs in _NAMES.items() if (part := self._found(archive, pairs))}
            if not {TRAIN, TEST} & set(arrays):
                names_there = ", ".join(name.removesuffix(".npy") for name in archive.namelist())
                raise ValueError(
                    f"there should be x_test and y_test, or x_train and y_train. There are: {names_there or 'none'}"
                )
        kinds = {images.shape[1:] for images in arrays.values()}
        if len({kind if not self.image_size else kind[2] for kind in kinds}) > 1:
            raise UserError(f"{str(self.place)!r} should hold images of one shape. It holds: {sorted(kinds)}")
        form = self.form(*next(iter(arrays.values())).shape[1:])
        names = self.names_up_to(1 + max(int(images.labels.max()) for images in arrays.values()))
        parts = {
            split: Split(images.labels, functools.partial(self._batches, images, form))
            for split, images in arrays.items()
        }
        return self.source(form.shape, names, parts)

    def _found(self, archive: zipfile.ZipFile, pairs: tuple[tuple[str, str], ...]) -> _Images | None:
        """Returns the images of a split and their labels, or None; raises ValueError if they are invalid."""
        headers = {}
        for name in {name for pair in pairs for name in pair if f"{name}.npy" in archive.namelist()}:
            with archive.open(f"{name}.npy") as stream:
                headers[name] = read_header(stream)
        for images, labels in pairs:
            if images not in headers and labels not in headers:
                continue
            for name, other in ((images, labels), (labels, images)):
                if name not in headers:
                    raise ValueError(f"`{name}` is not there, but `{other}` is")
            shape, fortran, dtype = headers[images]
            if len(shape) == 3:
                shape = (*shape, 1)
            if len(shape) != 4 or shape[3] not in (1, 3) or 0 in shape:
                raise ValueError(
                    f"`{images}` should have shape (n, height, width) or (n, height, width, channels) with 1 or 3 "
                    f"channels, not {headers[images][0]}"
                )
            if dtype != np.uint8 and dtype.kind != "f":
                raise ValueError(f"`{images}` should be uint8, or floats in [0, 1], not {dtype}")
            if fortran:
                raise ValueError(f"`{images}` should be in C order, as np.ascontiguousarray makes it")
            if headers[labels][0] not in ((shape[0],), (shape[0], 1)) or headers[labels][2].kind not in "iu":
                raise ValueError(
                    f"`{labels}` should be whole numbers of shape ({shape[0]},), a class each, not "
                    f"{headers[labels][2]} of shape {headers[labels][0]}"
                )
            with archive.open(f"{labels}.npy") as stream:
                numbers = np.lib.format.read_array(stream, allow_pickle=False).reshape(-1).astype(np.int64)
            if numbers.min() < 0:
                raise ValueError(f"`{labels}` should be whole numbers from 0, not {numbers.min()}")
            return _Images(images, shape, dtype, numbers)
        return None

    def _batches(self, images: _Images, form: Form) -> Iterator[Array]:
        row = int(np.prod(images.shape[1:]))
        step = max(1, READ_BYTES // (row * images.dtype.itemsize))
        with (
            reading(self.place, _EXPECTED),
            zipfile.ZipFile(self.place) as archive,
            archive.open(f"{images.name}.npy") as stream,
        ):
            read_header(stream)
            for start in range(0, images.shape[0], step):
                count = min(step, images.shape[0] - start)
                content = stream.read(count * row * images.dtype.itemsize)
                if len(content) != count * row * images.dtype.itemsize:
                    raise ValueError(f"`{images.name}` ends within image {start}")
                pixels = np.frombuffer(content, images.dtype).reshape(count, *images.shape[1:])
                if images.dtype != np.uint8:
                    pixels = _of_floats(pixels, images.name)
                yield pixels if pixels.shape[1:] == form.shape else np.stack([form.of(_picture(x)) for x in pixels])


def _of_floats(pixels: Array, name: str) -> Array:
    if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
        raise ValueError(
            f"`{name}` should be uint8, or floats in [0, 1]; it has numbers from {pixels.min():g} to {pixels.max():g}"
        )
    return np.round(255 * pixels.astype(np.float32)).astype(np.uint8)


def _picture(image: Array) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
