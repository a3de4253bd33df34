"""Options: fields of frozen dataclasses with a default, a help line and bounds, coerced and checked at construction."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import sys
import types
import typing
from typing import Any

from l2p_tf.types import UserError

_LARGEST = 2**31 - 1
"""Upper limit of integer options, which become int32."""


def option(
    default: Any,
    help: str,  # noqa: A002 - the word every command line uses
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] | None = None,
    flag: str = "",
    specs: str = "",
) -> Any:
    """Defines a field of an `Options` or `StageOptions` dataclass.

    Args:
      default: default value.
      help: what it decides, in one line.
      low: minimum.
      high: maximum.
      above: exclusive lower bound.
      choices: accepted values.
      flag: for `StageOptions`, its flag on the command line; empty for its own name.
      specs: for `StageOptions`, the registry that parses its specs, such as `l2p_tf.attacks:ATTACKS`.
    """
    metadata = {
        "help": help, "low": low, "high": high, "above": above, "choices": choices, "flag": flag, "specs": specs,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=metadata)


def further(help: str) -> Any:  # noqa: A002 - as above
    """Defines the field of an `Options` dataclass that collects unknown options, for others to validate.

    In a spec they appear like the others. The field holds pairs of names and values, sorted; it may be given as a
    dictionary. Values are numbers, words, truth values, None, or tuples of those.
    """
    return dataclasses.field(default=(), metadata={"help": help, "further": True})


def further_of(options: type) -> str:
    """Returns the name of the field defined by `further`; empty if there is none."""
    return next((field.name for field in dataclasses.fields(options) if field.metadata.get("further")), "")


@dataclasses.dataclass(frozen=True)
class Options:
    """Base of everything named by a spec. Values are coerced to the declared type and checked at construction.

    Raises:
      UserError: a value has the wrong type or is not accepted.
    """

    plugin: typing.ClassVar[str] = ""
    """The plugin that registered it, with a digest of its code."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            owner = f"{type(self).__name__}: "
            if field.metadata.get("further"):
                object.__setattr__(self, field.name, _pairs(owner, getattr(self, field.name)))
                continue
            value = _coerce(owner, field.name, getattr(self, field.name), hints[field.name])
            _check(owner, field.name, value, field.metadata)
            object.__setattr__(self, field.name, value)

    def options(self) -> dict[str, Any]:
        """Returns all options as JSON-compatible values, including the plugin if there is one."""
        thing = self.recorded()
        values = {
            f.name: (str(v) if isinstance(v := getattr(thing, f.name), enum.Enum) else v)
            for f in dataclasses.fields(thing)
        }
        rest: Any = values.pop(further_of(type(thing)), ())
        values |= dict(rest)
        return {**values, "plugin": self.plugin} if self.plugin else values

    def recorded(self) -> typing.Self:
        """Returns the form used in records, which is independent of folders and locations."""
        return self

    def replace(self, **changes: Any) -> typing.Self:
        """Returns a copy with some options changed."""
        return dataclasses.replace(self, **changes)


@dataclasses.dataclass(frozen=True)
class StageOptions:
    """Base of the options of a training, an evaluation, checks or certificates: each `option` is also a flag.

    Values are coerced to the declared type and checked at construction; those parsed from specs may be given as specs.

    Raises:
      UserError: a value has the wrong type or is not accepted.
    """

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in declared(type(self)):
            value = getattr(self, field.name)
            if field.metadata["specs"] and isinstance(value, str):
                value = _read(field.metadata["specs"], value, many=typing.get_origin(hints[field.name]) is tuple)
            value = _coerce("", flag_of(field), value, hints[field.name])
            _check("", flag_of(field), value, field.metadata)
            object.__setattr__(self, field.name, value)


def declared(options: type) -> list[dataclasses.Field[Any]]:
    """Returns the fields of a dataclass defined by `option`."""
    return [field for field in dataclasses.fields(options) if "help" in field.metadata]


def flag_of(field: dataclasses.Field[Any]) -> str:
    """Returns the flag of an option of `StageOptions`."""
    return field.metadata["flag"] or field.name


def _read(where: str, text: str, many: bool) -> Any:
    """Parses specs; returns None for a single empty spec."""
    module, _, name = where.partition(":")
    registry = getattr(importlib.import_module(module), name)
    return tuple(registry.parse_list(text)) if many else registry.parse(text) if text.strip() else None


def is_finite(value: float) -> bool:
    """Whether a number, possibly an integer, fits a finite float."""
    return abs(value) <= sys.float_info.max


def _pairs(owner: str, values: Any) -> tuple[tuple[str, Any], ...]:
    """Returns names and plain values, sorted by name; lists become tuples."""

    def plain(name: str, value: Any) -> Any:
        if isinstance(value, tuple | list):
            return tuple(plain(name, item) for item in value)
        if isinstance(value, int | float) and not is_finite(value):
            raise UserError(f"{owner}`{name}` should be finite. Received: {value!r}")
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise UserError(
            f"{owner}`{name}` should be a number, a word, a truth value, or a tuple of those. Received: {value!r}"
        )

    return tuple(sorted((str(name), plain(name, value)) for name, value in dict(values).items()))


def _coerce(owner: str, name: str, value: Any, hint: Any) -> Any:
    """Converts `value` to the type `hint`, if that is lossless."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for kind in kinds:
        if kind is type(None):
            if value is None:
                return None
        elif isinstance(kind, type) and issubclass(kind, enum.Enum):
            if value in [member.value for member in kind]:
                return kind(value)
            raise UserError(f"{owner}`{name}` should be one of {', '.join(m.value for m in kind)}. Received: {value!r}")
        elif kind in (int, float) and isinstance(value, int | float) and not isinstance(value, bool):
            if is_finite(value) and (kind is float or value == int(value)):
                return kind(value)
        elif typing.get_origin(kind) is tuple and isinstance(value, tuple | list | int | float | str):
            items = value if isinstance(value, tuple | list) else (value,)
            return tuple(_coerce(owner, name, item, typing.get_args(kind)[0]) for item in items)
        elif kind in (str, bool, Options) and isinstance(value, kind):
            return value
    wanted = " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds)
    raise UserError(f"{owner}`{name}` should be of type {wanted}. Received: {value!r}")


def _check(owner: str, name: str, value: Any, metadata: Any) -> None:
    if value is None:
        return
    choices, low, high, above = (metadata.get(key) for key in ("choices", "low", "high", "above"))
    for item in value if isinstance(value, tuple) else (value,):
        if choices and item not in choices:
            received = str(item) if isinstance(item, enum.Enum) else item
            raise UserError(f"{owner}`{name}` should be one of {', '.join(choices)}. Received: {received!r}")
        if low is not None and not item >= low:
            raise UserError(f"{owner}`{name}` should be at least {low}. Received: {value!r}")
        if above is not None and not item > above:
            raise UserError(f"{owner}`{name}` should be above {above}. Received: {value!r}")
        limit = _LARGEST if high is None and isinstance(item, int) else high
        if limit is not None and not item <= limit:
            raise UserError(f"{owner}`{name}` should be at most {limit}. Received: {value!r}")


def bounds_of(metadata: Any) -> str:
    """Describes the bounds of a number in a few words; empty if there are none."""
    words = (("low", "at least"), ("above", "above"), ("high", "at most"))
    return ", ".join(f"{word} {metadata[key]:g}" for key, word in words if metadata.get(key) is not None)
