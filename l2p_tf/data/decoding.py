"""Decodes image files with Pillow: one rule per pixel format, and a one-line error for each invalid file."""

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
"""Pillow's names of the formats, without those that run external programs."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
_TURNED = (5, 6, 7, 8)
"""EXIF orientations that swap height and width."""


@dataclasses.dataclass(frozen=True)
class Header:
    """Properties from the header of an image file.

    Attributes:
      height: in pixels, after rotation.
      width: in pixels, after rotation.
      colored: whether it is stored in color.
    """

    height: int
    width: int
    colored: bool


@dataclasses.dataclass(frozen=True)
class Form:
    """Common format that images are converted to.

    Attributes:
      height: in pixels.
      width: in pixels.
      channels: 1 or 3.
      center_crop: when resizing, share of the largest central crop of that shape to keep; 0 stretches the whole image.
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
        """Converts a picture, gray or RGB, to this format: uint8 (height, width, channels).

        Resizing is bilinear with antialiasing. Gray is repeated in color; color becomes gray by its luma (ITU-R 601-2).
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
    """Reads headers of image files in parallel; raises UserError with the name of an invalid file."""
    with _strict():
        return list(workers().map(_header, files))


def decoded(files: Sequence[pathlib.Path], form: Form) -> Array:
    """Decodes image files in parallel: uint8 (n, height, width, channels); raises UserError for a bad file."""
    with _strict():
        return np.stack(list(workers().map(lambda file: form.of(_picture(file)), files)))


@contextlib.contextmanager
def _strict() -> Iterator[None]:
    """Turns Pillow's warnings about too many pixels into errors, and suppresses those about metadata."""
    Image.init()  # Must happen before threads use it.
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
    # On damage, Pillow's decoders raise anything: OSError, SyntaxError, struct.error, ValueError, EOFError ...
    except Exception as error:
        reason = "no such image is in it" if isinstance(error, UnidentifiedImageError) else str(error)
        raise UserError(f"{str(file)!r} should be a whole image ({', '.join(FORMATS)}): {reason}") from error


def _header(file: pathlib.Path) -> Header:
    with _opened(file) as picture:
        width, height = picture.size
        # Pillow already rotates the sizes of TIFF.
        turned = picture.format != "TIFF" and picture.getexif().get(ExifTags.Base.Orientation) in _TURNED
        return Header(*((width, height) if turned else (height, width)), colored=not _is_gray(picture))


def _is_gray(picture: Image.Image) -> bool:
    if picture.mode in ("P", "PA"):
        return not np.ptp(np.reshape(picture.getpalette("RGB") or [], (-1, 3)), axis=1).any()
    return picture.mode in ("1", "L", "LA", "La", "I", "F") or picture.mode.startswith("I;16")


def _picture(file: pathlib.Path) -> Image.Image:
    """Decodes an image file to 8 bits, gray (L) or RGB, opaque and upright; the first picture if it has several."""
    with _opened(file) as opened:
        opened.load()
        picture = ImageOps.exif_transpose(opened)
        # 16-bit PNG and PPM may be opened in mode I.
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
    """Keeps the upper 8 bits, as Pillow does for color; the gray level marked as transparent becomes white."""
    levels = np.asarray(picture)
    pixels = (levels >> 8).astype(np.uint8)
    if isinstance(clear := picture.info.get("transparency"), int):
        pixels[levels == clear] = 255
    return Image.fromarray(pixels)
