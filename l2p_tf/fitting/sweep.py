"""Families of trainings: every combination of some values of some options, each a run of its own."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
import re
from collections.abc import Sequence
from typing import Any

from l2p_tf.defenses.base import DerivedDefense
from l2p_tf.fitting.options import TrainOptions
from l2p_tf.registry import parse_number, shown
from l2p_tf.types import UserError

Value = float | str

_MOST = 10_000
"""Runs of one family."""

_TRAINING = (
    "epochs", "batch_size", "optimizer", "learning_rate", "drop_factor", "momentum", "weight_decay", "augment", "ema",
    "early_stopping", "precision", "seed",
)  # fmt: skip
"""Fields of `TrainOptions` that may be swept by their own name."""


@dataclasses.dataclass(frozen=True)
class Axis:
    """What one `--sweep` says.

    Attributes:
      option: an option of the defense, of the model or of the training.
      values: at least one, in order.
      defense: name of the only defense it is for; empty for every one that has the option.
    """

    option: str
    values: tuple[Value, ...]
    defense: str = ""


def parse_axis(text: str) -> Axis:
    """Reads `epsilon=0.01,0.02`, `pgd.epsilon=4/255,8/255` or `strategy=rand,max`; UserError where it is not that."""
    found = re.fullmatch(r"\s*(?:(\w+)\.)?(\w+)\s*=(.*)", text)
    values = [part.strip() for part in found.group(3).split(",")] if found else []
    if not found or not all(values):
        raise UserError(
            f"`sweep` should be written OPTION=VALUE,VALUE, perhaps with DEFENSE. before it. Received: {text!r}"
        )
    parsed = tuple(dict.fromkeys(_value(value) for value in values))
    return Axis(found.group(2), parsed, found.group(1) or "")


def points(base: Sequence[TrainOptions], axes: Sequence[Axis]) -> list[TrainOptions]:
    """Every training of a family: for each of `base`, the product of the axes whose option it has.

    A point is named after its base and its values, such as `pgd-epsilon_0.02-width_2`, and says them in `sweep`, as
    `defense.epsilon`, `model.width` or `train.learning_rate`.

    Args:
      base: the trainings to vary, such as one per defense.
      axes: what is varied; none gives `base` itself.

    Raises:
      UserError: no training has an axis's option, two axes have the same one, or a value is not accepted.
    """
    found: list[TrainOptions] = []
    for axis in axes:
        if not any(_owner(options, axis) for options in base):
            raise UserError(
                f"`sweep` should name an option of the defense, of the model, or one of {', '.join(_TRAINING)}. "
                f"Received: {axis.option!r}" + (f" of {axis.defense!r}" if axis.defense else "")
            )
    for options in base:
        own = [axis for axis in axes if _owner(options, axis)]
        doubled = {axis.option for axis in own if sum(axis.option == other.option for other in own) > 1}
        if doubled:
            raise UserError(f"`sweep` should name each option once. Received twice: {sorted(doubled)[0]!r}")
        if len(found) + math.prod(len(axis.values) for axis in own) > _MOST:
            raise UserError(f"`sweep` should give at most {_MOST:,} runs; it gives more.")
        for values in itertools.product(*(axis.values for axis in own)):
            found.append(_point(options, dict(zip(own, values, strict=True))))
    for name, times in collections.Counter(options.name for options in found).items():
        if times > 1:
            raise UserError(f"`sweep` should give every run a name of its own. Received twice: {name!r}")
    return found


def share(family: Sequence[TrainOptions], text: str) -> list[TrainOptions]:
    """The part of a family that `2/8` names: every eighth point, from the second on; all where the text is empty."""
    if not text:
        return list(family)
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text.strip())
    number, of = (int(part) for part in found.groups()) if found else (0, 0)
    if not 1 <= number <= of:
        raise UserError(f"`sweep_shard` should be written K/N, with K from 1 to N. Received: {text!r}")
    return list(family[number - 1 :: of])


def _owner(options: TrainOptions, axis: Axis) -> str:
    """Which part of a training has an axis's option: `defense`, `model`, `train`; empty for none."""
    name: str = options.defense.name  # type: ignore[attr-defined]
    if axis.defense not in ("", name):
        return ""
    derived = isinstance(options.defense, DerivedDefense)
    # What is made from another run has that run's model and training.
    for part in ("defense",) if derived else ("defense", "model"):
        if axis.option in {f.name for f in dataclasses.fields(getattr(options, part))}:
            return part
    return "train" if axis.option in _TRAINING and not derived else ""


def _point(options: TrainOptions, values: dict[Axis, Value]) -> TrainOptions:
    changes: dict[str, Any] = {}
    swept: dict[str, Value] = {}
    name = options.name
    for axis, value in values.items():
        owner = _owner(options, axis)
        if owner == "train":
            changes[axis.option] = _as(value, getattr(options, axis.option), axis.option)
        else:
            changes[owner] = changes.get(owner, getattr(options, owner)).replace(**{axis.option: _bool(value)})
        swept[f"{owner}.{axis.option}"] = value
        text = value if isinstance(value, str) else shown(value)
        name += f"-{axis.option}_{re.sub(r'[^A-Za-z0-9.]+', '_', text)}"
    return dataclasses.replace(options, **changes, name=name, sweep=swept)


def _value(text: str) -> Value:
    try:
        return parse_number(text)
    except UserError:
        return text


def _bool(value: Value) -> Any:
    return {"true": True, "false": False}.get(str(value).lower(), value)


def _as(value: Value, like: Any, name: str) -> Any:
    """A value of the type of the training's own."""
    value = _bool(value)
    if isinstance(like, bool | str):
        fits = isinstance(value, type(like))
    else:
        whole = isinstance(like, int)
        fits = isinstance(value, int | float) and not isinstance(value, bool) and (not whole or value == int(value))
        value = int(value) if fits and whole else value
    if not fits:
        raise UserError(f"`{name}` of the sweep should be of the kind of {like!r}. Received: {value!r}")
    return value
