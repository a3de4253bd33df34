"""Validates radii and step sizes in pixels of [0, 1], and detects those probably meant for 0..255."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from l2p_tf.types import Norm, UserError

_WIDE = 0.5
"""l_inf radius at which a gray image can hide any other; no defense is meant to hold beyond it."""
_HINT = "pixels are in [0, 1]; did you mean"


def check_radii(thing: Any, shape: Sequence[int | None] = ()) -> None:
    """Checks the radii and step sizes among the options of an attack or a defense.

    Args:
      thing: its `epsilon` and `step_size` are in its `norm` (default l_inf), its `l2_epsilon` and `l2_step_size` in
      l_2; missing ones and None are skipped.
      shape: shape of one image, to check radii in l_2 and l_1 against the diagonal of the unit cube; empty to check
      those in l_inf.

    Raises:
      UserError: a radius reaches beyond every image.
    """
    for name in ("epsilon", "step_size", "l2_epsilon", "l2_step_size"):
        value = getattr(thing, name, None)
        if isinstance(value, int | float):
            norm = Norm.L2 if name.startswith("l2_") else getattr(thing, "norm", Norm.LINF)
            check_radius(type(thing).__name__, name, value, norm, shape)


def check_linf(name: str, value: float) -> None:
    """Raises UserError if an l_inf radius called `name` is above 1; warns if it is above 0.5."""
    check_radius("", name, value, Norm.LINF, ())


def check_radius(owner: str, name: str, value: float, norm: Norm | None, shape: Sequence[int | None]) -> None:
    """Checks one radius; `owner` is what it belongs to."""
    said = f"{owner}: `{name}`" if owner else f"`{name}`"
    linf = norm is Norm.LINF and not shape  # Already checked at construction.
    if linf and value > 1:
        raise UserError(f"{said} should be at most 1 in linf: {_HINT} {value:g}/255? Received: {value:g}")
    if linf and value > _WIDE:
        # Without the owner and from a fixed place, so that attacks with the same budget cause only one warning.
        warnings.warn(f"`{name}` is {value:g} in linf: {_HINT} {value:g}/255?", UserWarning, stacklevel=1)
    if norm in (Norm.L2, Norm.L1) and shape and None not in shape:
        count = math.prod(size or 0 for size in shape)
        diagonal = count if norm is Norm.L1 else math.sqrt(count)
        if value > diagonal:
            sides = "x".join(map(str, shape))
            raise UserError(
                f"{said} should be at most {diagonal:.4g} in {norm}, the diagonal of all {sides} images: "
                f"{_HINT} {value:g}/255? Received: {value:g}"
            )


@contextlib.contextmanager
def any_radius() -> Iterator[None]:
    """Suppresses the warning about radii up to 1, for attacks that are meant to succeed on everything."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pixels are in .0, 1.; did you mean")
        yield
