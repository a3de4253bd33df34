"""Radii and step sizes in pixels of [0, 1]: refused or told where they look as if they were meant for 0..255."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from l2p_tf.types import Norm, UserError

_WIDE = 0.5
"""The l_inf radius from which a gray image can hide any other: no defense is meant to hold beyond it."""
_HINT = "pixels are in [0, 1]; did you mean"


def check_radii(thing: Any, shape: Sequence[int | None] = ()) -> None:
    """Checks the radii and step sizes among the options of an attack or a defense.

    Args:
      thing: its `epsilon` and `step_size` are in its `norm` (l_inf where it has none), its `l2_epsilon` and
        `l2_step_size` in l_2; those it lacks, or that are None, are left out.
      shape: of one image, to check those in l_2 and l_1, in which no two images are farther apart than the cube's
        corners; empty to check those in l_inf.

    Raises:
      UserError: one reaches beyond every image.
    """
    for name in ("epsilon", "step_size", "l2_epsilon", "l2_step_size"):
        value = getattr(thing, name, None)
        if isinstance(value, int | float):
            norm = Norm.L2 if name.startswith("l2_") else getattr(thing, "norm", Norm.LINF)
            check_radius(type(thing).__name__, name, value, norm, shape)


def check_linf(name: str, value: float) -> None:
    """UserError where an l_inf radius called `name` is above 1, a warning where it is above 0.5."""
    check_radius("", name, value, Norm.LINF, ())


def check_radius(owner: str, name: str, value: float, norm: Norm | None, shape: Sequence[int | None]) -> None:
    """The same of one radius; `owner` is what it belongs to."""
    said = f"{owner}: `{name}`" if owner else f"`{name}`"
    linf = norm is Norm.LINF and not shape  # Those were judged when the thing was made.
    if linf and value > 1:
        raise UserError(f"{said} should be at most 1 in linf: {_HINT} {value:g}/255? Received: {value:g}")
    if linf and value > _WIDE:
        # Told from here, and without the owner: once, however many attacks share the budget.
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
    """Within it radii up to 1 are made without a warning, for attacks that are meant to succeed on everything."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pixels are in .0, 1.; did you mean")
        yield
