"""Names of methods: a run's defense with distinguishing options; and the swept settings."""

from __future__ import annotations

from collections.abc import Sequence

from l2p_tf.registry import parse_spec
from l2p_tf.reporting.format import epsilon, plain
from l2p_tf.reporting.load import Run
from l2p_tf.types import UserError

Value = float | str
Pairs = tuple[tuple[str, Value], ...]

SEED = "train.seed"
"""Swept for repeats: runs that differ only in it belong to one setting."""

DEFENSE, MODEL = "defense.", "model."
"""Prefixes of the settings of a defense and of a model."""


def swept(run: Run) -> dict[str, Value]:
    """Returns the settings of a run that its sweep varied; empty if it belongs to none."""
    settings = run.option("sweep", None)
    return {str(key): _value(value) for key, value in settings.items()} if isinstance(settings, dict) else {}


def method_of(run: Run) -> str:
    """Returns the run's method: `pgd`, `pgd(norm=l2)`; the run's own name if its training was not given.

    The method is the defense with its given options that are words and not swept: numbers distinguish runs of one
    method, words distinguish methods.
    """
    name, options = given(run, "defense")
    return spec_of(name, [pair for pair in options if isinstance(pair[1], str) and pair[0] not in swept(run)])


def given(run: Run, part: str) -> tuple[str, Pairs]:
    """Returns the name of a run's `defense` or `model`, and its given options, such as `defense.steps`."""
    if not run.train:
        return run.name if part == "defense" else "", ()
    spec = str(run.option(part))
    try:
        name, values = parse_spec(spec)
    except UserError:  # Written by another version or another program.
        return plain(spec), ()
    return name, tuple((f"{part}.{key}", _value(values[key])) for key in sorted(values))


def spec_of(name: str, options: Sequence[tuple[str, Value]]) -> str:
    """Formats a defense or model with options: `pgd(norm=l2, steps=7)`."""
    words = [f"{key.partition('.')[2]}={value_name(value)}" for key, value in options]
    return plain(f"{name}({', '.join(words)})" if words else name)


def setting(key: str, value: Value) -> str:
    """Formats a setting: `epsilon=0.02`, `model.width=2`."""
    return f"{setting_name(key)}={value_name(value)}"


def setting_name(key: str) -> str:
    """Returns the name of a setting, without the prefix `defense.`."""
    return plain(key.removeprefix(DEFENSE))


def settings_of(run: Run) -> tuple[str, ...]:
    """Returns all swept settings of a run as text."""
    return tuple(setting(*pair) for pair in swept(run).items())


def value_name(value: Value) -> str:
    """Formats a value; multiples of 1/255 as such."""
    return plain(value) if isinstance(value, str) else epsilon(value)


def _value(value: object) -> Value:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number else str(value)  # type: ignore[arg-type]
