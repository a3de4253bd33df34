"""The colors of the page, and how they stand out from each other."""

import pathlib
import re

import numpy as np

from l2p_tf.reporting import page

_CSS = (pathlib.Path(page.__file__).parent / "templates" / "style.css").read_text("utf-8")
LIGHT, DARK, PRINT = (
    dict(re.findall(r"--([\w-]+): (#\w+)", block)) for block in re.findall(r":root \{(.*?)\}", _CSS, re.DOTALL)
)


def rgb(color):
    """A color of the style sheet, 0 to 255."""
    digits = color.removeprefix("#")
    digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
    return tuple(int(digits[i : i + 2], 16) for i in (0, 2, 4))


def _luminance(color):
    parts = np.array(color) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def contrast(a, b):
    """The contrast of two colors as the Web Content Accessibility Guidelines have it, 1 to 21."""
    low, high = sorted((_luminance(a), _luminance(b)))
    return (high + 0.05) / (low + 0.05)
