"""Image files as arrays, read by Pillow: one rule for each kind of pixels, one line for each file that is no image."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from l2p_tf.data.base import Array
from l2p_tf.data.crops import workers
from l2p_tf.types import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""As Pillow names them; those it would run another program for are not among them."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
_TURNED = (5, 6, 7, 8)
"""Orientations of EXIF that swap height and width."""


@dataclasses.dataclass(frozen=True)
class Header:
    """What the head of an image file tells.

    Attributes:
      height: in pixels, as it is shown.
      width: likewise.
      colored: whether it is stored in color.
    """

    height: int
    width: int
    colored: bool


@dataclasses.dataclass(frozen=True)
class Form:
    """What images are brought to.

    Attributes:
      height: of all.
      width: of all.
      channels: 1 or 3.
      center_crop: of an image that is resized, share of the largest central part of that shape that is kept; 0 takes
        the whole image, stretched.
    """

    height: int
    width: int
    channels: int
    center_crop: float = 0.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return self.height, self.width, self.channels

    def of(self, picture: Image.Image) -> Array:
        """A picture, gray or RGB, in this form: uint8 (height, width, channels).

        Bilinear, smoothed where it shrinks. Gray is repeated in color; color becomes gray by its luma (ITU-R 601-2).
        """
        size = self.width, self.height
        if picture.size != size:
            scale = min(picture.width / self.width, picture.height / self.height) * self.center_crop
            width, height = (self.width * scale, self.height * scale) if self.center_crop else picture.size
            left, top = (picture.width - width) / 2, (picture.height - height) / 2
            box = left, top, left + width, top + height
            picture = picture.resize(size, Image.Resampling.BILINEAR, box=box)
        pixels = np.asarray(picture.convert("RGB" if self.channels == 3 else "L"))
        return pixels.reshape(self.shape)


def headers(files: Sequence[pathlib.Path]) -> list[Header]:
    """What the heads of image files tell, read in parallel; UserError names one that is no image."""
    with _strict():
        return list(workers().map(_header, files))


def decoded(files: Sequence[pathlib.Path], form: Form) -> Array:
    """Image files in one form, read in parallel: uint8 (n, height, width, channels); UserError names a bad one."""
    with _strict():
        return np.stack(list(workers().map(lambda file: form.of(_picture(file)), files)))


@contextlib.contextmanager
def _strict() -> Iterator[None]:
    """Within it more pixels than Pillow thinks sound are an error, and remarks on metadata are not made."""
    Image.init()  # Before threads do.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


@contextlib.contextmanager
def _opened(file: pathlib.Path) -> Iterator[Image.Image]:
    try:
        with Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN]) as picture:
            yield picture
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(
            f"{str(file)!r} should have at most {Image.MAX_IMAGE_PIXELS:,} pixels. It has more, and is not read."
        ) from error
    # Pillow's decoders raise anything on damage: OSError, SyntaxError, struct.error, ValueError, EOFError ...
    except Exception as error:
        said = "no such image is in it" if isinstance(error, UnidentifiedImageError) else str(error)
        raise UserError(f"{str(file)!r} should be a whole image ({', '.join(FORMATS)}): {said}") from error


def _header(file: pathlib.Path) -> Header:
    with _opened(file) as picture:
        width, height = picture.size
        # Pillow itself turns the sizes of TIFF.
        turned = picture.format != "TIFF" and picture.getexif().get(ExifTags.Base.Orientation) in _TURNED
        return Header(*((width, height) if turned else (height, width)), colored=not _is_gray(picture))


def _is_gray(picture: Image.Image) -> bool:
    if picture.mode in ("P", "PA"):
        return not np.ptp(np.reshape(picture.getpalette("RGB") or [], (-1, 3)), axis=1).any()
    return picture.mode in ("1", "L", "LA", "La", "I", "F") or picture.mode.startswith("I;16")


def _picture(file: pathlib.Path) -> Image.Image:
    """An image file as a picture of 8 bits, gray (L) or RGB, without transparency, upright; of several the first."""
    with _opened(file) as opened:
        opened.load()
        picture = ImageOps.exif_transpose(opened)
        # PNG and PPM of 16 bits may come as I.
        if picture.mode.startswith("I;16") or (picture.mode == "I" and opened.format in ("PNG", "PPM")):
            return _of_16_bits(picture)
        if picture.mode in ("I", "F"):
            raise ValueError("it has 32 bits in a pixel; 8 or 16 can be read")
        gray = _is_gray(picture)
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        return picture.convert("L" if gray else "RGB")


def _of_16_bits(picture: Image.Image) -> Image.Image:
    """The upper 8 bits, as Pillow takes those of color; the gray level that stands for transparency becomes white."""
    levels = np.asarray(picture)
    pixels = (levels >> 8).astype(np.uint8)
    if isinstance(clear := picture.info.get("transparency"), int):
        pixels[levels == clear] = 255
    return Image.fromarray(pixels)
