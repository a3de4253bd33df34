"""Formats figures as text, consistently on the page, in Markdown and on the console."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from l2p_tf.evaluation.records import CLEAN, Record

DASH = "\N{EN DASH}"
"""Shown if nothing was measured."""

_NORMS = {"l0": "L0", "l1": "L1", "l2": "L2", "linf": "L∞"}
_CLEAN = "Clean"
_BACKENDS = {"cleverhans": "CleverHans", "foolbox": "Foolbox", "art": "ART"}

# From this number of examples on, the second decimal of a percentage is significant.
_FINE = 2000


def plain(value: Any, limit: int | None = None) -> str:
    """Converts any value to one line of printable text; names of runs and classes are arbitrary input.

    Args:
      value: the value.
      limit: maximum number of characters.
    """
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    # Cc: control characters (terminal escapes, NUL); Cf: invisible ones, such as those that reverse the reading order.
    text = "".join(" " if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") else c for c in text)
    text = re.sub(r" +", " ", text).strip() or "(no name)"
    return text if limit is None or len(text) <= limit else text[: limit - 1].rstrip() + "…"


def percent(share: float, count: int) -> str:
    """Formats a share in percent, without sign, with the decimals that `count` examples justify."""
    return f"{100 * share:.{2 if count >= _FINE else 1}f}"


def interval(low: float, high: float, count: int) -> str:
    """Formats an interval of shares in percent, with a dash between its ends."""
    return f"{percent(low, count)}\N{EN DASH}{percent(high, count)}"


def number(value: float) -> str:
    """Formats a published number in percent: at least one decimal, two if it has them."""
    text = f"{value:.2f}"
    return text[:-1] if text.endswith("0") else text


def signed(value: float, count: int) -> str:
    """Formats a difference in percentage points with its sign, using a true minus sign."""
    text = f"{abs(value):.{2 if count >= _FINE else 1}f}"
    return ("+" if value >= 0 else "\N{MINUS SIGN}") + text


def epsilon(value: float) -> str:
    """Formats a radius: `8/255` for a whole number of gray levels that is no short decimal, otherwise a decimal."""
    decimal, levels = f"{value:.4g}", round(value * 255)
    in_levels = float(decimal) != value and 0 < levels <= 255 and abs(value * 255 - levels) < 1e-4
    return f"{levels}/255" if in_levels else decimal


def norm_name(norm: str | None) -> str:
    """Returns `L∞`, `L2`, `L1` or `L0`."""
    return _NORMS.get(str(norm), plain(norm))


def backend_name(backend: str) -> str:
    """Returns the official name of an attack's implementation."""
    return _BACKENDS.get(backend, plain(backend))


def minimal(record: Record) -> bool:
    """Whether a record is of an attack that minimizes the perturbation without a limit."""
    return record.attack != CLEAN and record.norm is not None and record.epsilon is None


def strength(record: Record) -> str:
    """Describes an attack in one line: size of the perturbation, steps, restarts, draws and implementation."""
    if record.attack == CLEAN:
        return "unperturbed images"
    parts = [*_allowed(record)]
    if record.steps:
        parts.append(plural(record.steps, "step"))
    if record.restarts > 1:
        parts.append(plural(record.restarts, "restart"))
    if record.draws > 1:
        parts.append(f"EOT over {record.draws} draws")
    if record.backend != "l2p_tf":
        parts.append(backend_name(record.backend))
    return ", ".join(parts)


def attack_name(record: Record) -> str:
    """Returns the attack's label, with its implementation if it is not this package's."""
    return plain(record.label) + ("" if record.backend == "l2p_tf" else f" ({backend_name(record.backend)})")


def attack_names(records: Sequence[Record]) -> list[str]:
    """Returns distinct names of attacks, including clean.

    Radius, spec or number of images are added only if needed to distinguish them.
    """
    names = [_CLEAN if record.attack == CLEAN else attack_name(record) for record in records]
    at = [
        name if record.epsilon is None else f"{name}, ε {epsilon(record.epsilon)}"
        for name, record in zip(names, records, strict=True)
    ]
    labels = [at[i] if names.count(name) > 1 else name for i, name in enumerate(names)]
    for details in ([f": {plain(r.attack)}" for r in records], [f", n = {r.count:,}" for r in records]):
        alike = [{detail for detail, name in zip(details, labels, strict=True) if name == label} for label in labels]
        labels = [f"{labels[i]}{details[i]}" if len(alike[i]) > 1 else labels[i] for i in range(len(labels))]
    return labels


def sentence(text: str) -> str:
    """Capitalizes the first letter."""
    return text[:1].upper() + text[1:]


def titled(title: str, part: str) -> str:
    """Appends the name of a part to a title; empty for the whole."""
    return f"{title}: {part}" if part else title


def _allowed(record: Record) -> list[str]:
    if minimal(record):
        return [f"smallest {norm_name(record.norm)}"]
    if record.epsilon is None:
        return []
    if record.norm == "l0" and record.backend == "l2p_tf":  # Other libraries count entries, not pixels.
        return [plural(round(record.epsilon), "pixel")]
    return ([norm_name(record.norm)] if record.norm else []) + [f"ε {epsilon(record.epsilon)}"]


def plural(count: int, noun: str) -> str:
    """Returns `1 step`, `20 steps`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def among_training(facts: Mapping[str, int | None]) -> str:
    """Describes a manifest's note on evaluation data: how many images the model was trained on."""
    images, trained_on = plural(facts["images"] or 0, "image"), facts["trained_on"]
    if trained_on is None:
        return f"whether some of the {images} are among its training images is not known"
    share = f"{trained_on:,} of the {images} are" if trained_on else f"none of the {images} is"
    return f"{share} among its training images, pixel by pixel"


def listed(names: list[str]) -> str:
    """Returns `a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def several(names: Sequence[str], most: int = 5) -> str:
    """Lists unique names as `listed` does; if there are many, the first few and the number of others."""
    unique = list(dict.fromkeys(names))
    return listed(unique) if len(unique) <= most else f"{', '.join(unique[:most])} and {len(unique) - most:,} more"


def duration(seconds: float) -> str:
    """Returns `48 s`, `12 min`, `3.4 h`, `27 days`."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 259_200 else f"{seconds / 86_400:,.0f} days"


def pace(seconds: float) -> str:
    """Formats the time per image: `0.25 ms`, `12 ms`, `1.3 s`, `12 min`."""
    if seconds >= 1:
        return duration(seconds)
    value = 1000 * seconds
    return f"{value:.0f} ms" if value >= 9.95 else f"{value:.2g} ms"


def setting_text(value: Any) -> str:
    """Formats a manifest value as one line: lists of plain values with semicolons, `none` for empty values."""
    if value is None or value in ("", [], {}):
        return "none"
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return plain("; ".join(map(str, value)))
    return plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def escape_markdown(text: str) -> str:
    """Escapes markup of Markdown and HTML."""
    return re.sub(r"([\\`*_\[\]#!|<>&~])", r"\\\1", text)
