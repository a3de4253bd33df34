"""The YAML that heads a model card: a small part of the language, which every parser of it reads alike."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence

Value = str | int | float | Mapping[str, "Value"] | Sequence["Value"]

# What a parser takes as it is; the rest, line breaks of every kind among it, is written as an escape.
_ODD = re.compile("[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


def front_matter(values: Mapping[str, Value]) -> str:
    """A mapping as a YAML document between lines of dashes.

    Args:
      values: texts, numbers, lists and mappings of them; the keys are words, the texts may hold anything.
    """
    return "\n".join(["---", *_lines(values, ""), "---"]) + "\n"


def scalar(value: str | int | float) -> str:
    """A text, always in quotes, or a number.

    Raises:
      ValueError: a number is not finite.
    """
    if isinstance(value, str):
        return _ODD.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))
    if isinstance(value, int):
        return json.dumps(value)
    if not math.isfinite(value):
        raise ValueError(f"`value` should be finite. Received: {value!r}")
    digits, _, power = repr(float(value)).partition("e")
    # YAML 1.1 takes 1e-05 for a text.
    return f"{digits}{'' if '.' in digits else '.0'}{'e' + power if power else ''}"


def _lines(value: Value, indent: str) -> list[str]:
    lines = []
    pairs = value.items() if isinstance(value, Mapping) else [("-", one) for one in _sequence(value)]
    for key, inner in pairs:
        head = f"{indent}-" if not isinstance(value, Mapping) else f"{indent}{key}:"
        if isinstance(inner, str | int | float):
            lines.append(f"{head} {scalar(inner)}")
        elif not inner:
            lines.append(f"{head} {'{}' if isinstance(inner, Mapping) else '[]'}")
        elif head.endswith("-"):
            # The first line of what is in a list follows its dash.
            first, *rest = _lines(inner, f"{indent}  ")
            lines += [f"{head} {first.lstrip()}", *rest]
        else:
            lines += [head, *_lines(inner, f"{indent}  ")]
    return lines


def _sequence(value: Value) -> Sequence[Value]:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
