"""A contact sheet of samples from a data set."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from l2p_tf.data.base import Array
from l2p_tf.data.view import ImageView

_COLUMNS = 10
_MAX_CLASSES = 20
_CELL = 64
_GAP = 4


def contact_sheet(images: ImageView, labels: Array, class_names: tuple[str, ...]) -> Image.Image:
    """Draws one row per class (the first 20 classes): its name, then its first 10 images.

    Args:
      images: N images with 1 or 3 channels.
      labels: int array of shape (N,).
      class_names: names by label.
    """
    names = class_names[:_MAX_CLASSES]
    font = ImageFont.load_default(16)
    margin = 2 * _GAP + max(int(font.getlength(name)) for name in names)
    size = (margin + _COLUMNS * (_CELL + _GAP) + _GAP, len(names) * (_CELL + _GAP) + _GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for row, name in enumerate(names):
        top = _GAP + row * (_CELL + _GAP)
        draw.text((_GAP, top + _CELL // 2), name, fill="black", font=font, anchor="lm")
        for column, index in enumerate(np.flatnonzero(labels == row)[:_COLUMNS]):
            sheet.paste(_cell(images[int(index)]), (margin + column * (_CELL + _GAP), top))
    return sheet


def _cell(image: Array) -> Image.Image:
    """Fits an image into a cell: enlarged with visible pixels, or reduced smoothly."""
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    scale = _CELL / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS)
