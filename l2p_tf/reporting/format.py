"""How figures are put into words, the same on the page, in Markdown and on the console."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from l2p_tf.evaluation.records import CLEAN, Record

DASH = "\N{EN DASH}"
"""What stands where nothing was measured."""

_NORMS = {"l0": "L0", "l1": "L1", "l2": "L2", "linf": "L∞"}
_CLEAN = "Clean"
_BACKENDS = {"cleverhans": "CleverHans", "foolbox": "Foolbox", "art": "ART"}

# From this many examples on, the second decimal of a percentage is worth printing.
_FINE = 2000


def plain(value: Any, limit: int | None = None) -> str:
    """Any value as one line of printable text; names of runs and classes are input and may hold anything.

    Args:
      value: what to show.
      limit: number of characters after which the text is cut off.
    """
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    # Cc: control characters (terminal escapes, NUL); Cf: invisible ones, such as those that reverse the reading order.
    text = "".join(" " if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") else c for c in text)
    text = re.sub(r" +", " ", text).strip() or "(no name)"
    return text if limit is None or len(text) <= limit else text[: limit - 1].rstrip() + "…"


def percent(share: float, count: int) -> str:
    """A share as a percentage without its sign, as fine as `count` examples allow."""
    return f"{100 * share:.{2 if count >= _FINE else 1}f}"


def interval(low: float, high: float, count: int) -> str:
    """An interval of shares in percent: its ends with a dash between them."""
    return f"{percent(low, count)}\N{EN DASH}{percent(high, count)}"


def number(value: float) -> str:
    """A published number in percent: at least one decimal, two where it has them."""
    text = f"{value:.2f}"
    return text[:-1] if text.endswith("0") else text


def signed(value: float, count: int) -> str:
    """A difference in percentage points with its sign, `−` being a true minus."""  # noqa: RUF002
    text = f"{abs(value):.{2 if count >= _FINE else 1}f}"
    return ("+" if value >= 0 else "\N{MINUS SIGN}") + text


def epsilon(value: float) -> str:
    """A radius: `8/255` where it is a whole number of gray levels and no short decimal, otherwise a decimal number."""
    shown, levels = f"{value:.4g}", round(value * 255)
    in_levels = float(shown) != value and 0 < levels <= 255 and abs(value * 255 - levels) < 1e-4
    return f"{levels}/255" if in_levels else shown


def norm_name(norm: str | None) -> str:
    """`L∞`, `L2`, `L1`, `L0`."""
    return _NORMS.get(str(norm), plain(norm))


def backend_name(backend: str) -> str:
    """Whose implementation it is, as its makers write it."""
    return _BACKENDS.get(backend, plain(backend))


def minimal(record: Record) -> bool:
    """Whether a record is of an attack that looks for the smallest perturbation that succeeds, with no limit to it."""
    return record.attack != CLEAN and record.norm is not None and record.epsilon is None


def strength(record: Record) -> str:
    """What an attack was allowed, in one line: size of the perturbation, steps, restarts, draws and whose it is."""
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
    """The attack in a few words, with whose it is where that is not this package."""
    return plain(record.label) + ("" if record.backend == "l2p_tf" else f" ({backend_name(record.backend)})")


def attack_names(records: Sequence[Record]) -> list[str]:
    """Names of attacks, clean among them, that tell each from the others.

    Only where needed they have its radius, or its spec, or the number of images that it was tried on.
    """
    names = [_CLEAN if record.attack == CLEAN else attack_name(record) for record in records]
    at = [
        name if record.epsilon is None else f"{name}, ε {epsilon(record.epsilon)}"
        for name, record in zip(names, records, strict=True)
    ]
    told = [at[i] if names.count(name) > 1 else name for i, name in enumerate(names)]
    for details in ([f": {plain(r.attack)}" for r in records], [f", n = {r.count:,}" for r in records]):
        alike = [{detail for detail, name in zip(details, told, strict=True) if name == mine} for mine in told]
        told = [f"{told[i]}{details[i]}" if len(alike[i]) > 1 else told[i] for i in range(len(told))]
    return told


def sentence(text: str) -> str:
    """Text that begins with a capital letter."""
    return text[:1].upper() + text[1:]


def titled(title: str, part: str) -> str:
    """A title with what part of a whole is shown; empty for the whole."""
    return f"{title}: {part}" if part else title


def _allowed(record: Record) -> list[str]:
    if minimal(record):
        return [f"smallest {norm_name(record.norm)}"]
    if record.epsilon is None:
        return []
    if record.norm == "l0" and record.backend == "l2p_tf":  # Others count numbers, not pixels.
        return [plural(round(record.epsilon), "pixel")]
    return ([norm_name(record.norm)] if record.norm else []) + [f"ε {epsilon(record.epsilon)}"]


def plural(count: int, noun: str) -> str:
    """`1 step`, `20 steps`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def among_training(facts: Mapping[str, int | None]) -> str:
    """What a manifest says of a model on other data than it was trained on: whether it was trained on those images."""
    images, trained_on = plural(facts["images"] or 0, "image"), facts["trained_on"]
    if trained_on is None:
        return f"whether some of the {images} are among its training images is not known"
    share = f"{trained_on:,} of the {images} are" if trained_on else f"none of the {images} is"
    return f"{share} among its training images, pixel by pixel"


def listed(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def several(names: Sequence[str], most: int = 5) -> str:
    """Names, each once, as `listed` has them; of many the first few and how many more there are."""
    found = list(dict.fromkeys(names))
    return listed(found) if len(found) <= most else f"{', '.join(found[:most])} and {len(found) - most:,} more"


def duration(seconds: float) -> str:
    """`48 s`, `12 min`, `3.4 h`, `27 days`."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 259_200 else f"{seconds / 86_400:,.0f} days"


def pace(seconds: float) -> str:
    """Time for one image: `0.25 ms`, `12 ms`, `1.3 s`, `12 min`."""
    if seconds >= 1:
        return duration(seconds)
    value = 1000 * seconds
    return f"{value:.0f} ms" if value >= 9.95 else f"{value:.2g} ms"


def setting_text(value: Any) -> str:
    """A value of a manifest as one line: lists of plain values with semicolons, `none` for nothing."""
    if value is None or value in ("", [], {}):
        return "none"
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return plain("; ".join(map(str, value)))
    return plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def escape_markdown(text: str) -> str:
    """Text in which neither Markdown nor HTML sees markup."""
    return re.sub(r"([\\`*_\[\]#!|<>&~])", r"\\\1", text)
