"""What a report calls the method of a run: its defense, with what tells it from others; and the settings swept."""

from __future__ import annotations

from collections.abc import Sequence

from l2p_tf.registry import parse_spec
from l2p_tf.reporting.format import epsilon, plain
from l2p_tf.reporting.load import Run
from l2p_tf.types import UserError

Value = float | str
Pairs = tuple[tuple[str, Value], ...]

SEED = "train.seed"
"""What is swept for repeats: runs that differ in nothing else are of one setting."""

DEFENSE, MODEL = "defense.", "model."
"""Beginnings of the settings of a defense and of a model."""


def swept(run: Run) -> dict[str, Value]:
    """The settings of a run that its sweep tried values of; empty where it is no part of one."""
    settings = run.option("sweep", None)
    return {str(key): _value(value) for key, value in settings.items()} if isinstance(settings, dict) else {}


def method_of(run: Run) -> str:
    """The run's method: `pgd`, `pgd(norm=l2)`; its own name where its training was not given.

    That is its defense with those of the options given that are words, but for swept ones: numbers tell apart runs of
    one method, words methods.
    """
    name, options = given(run, "defense")
    return spec_of(name, [pair for pair in options if isinstance(pair[1], str) and pair[0] not in swept(run)])


def given(run: Run, part: str) -> tuple[str, Pairs]:
    """The name of a run's `defense` or `model`, and the options given of it, as `defense.steps`."""
    if not run.train:
        return run.name if part == "defense" else "", ()
    spec = str(run.option(part))
    try:
        name, values = parse_spec(spec)
    except UserError:  # Of another version or another maker.
        return plain(spec), ()
    return name, tuple((f"{part}.{key}", _value(values[key])) for key in sorted(values))


def spec_of(name: str, options: Sequence[tuple[str, Value]]) -> str:
    """A defense or model with options, in words: `pgd(norm=l2, steps=7)`."""
    words = [f"{key.partition('.')[2]}={value_name(value)}" for key, value in options]
    return plain(f"{name}({', '.join(words)})" if words else name)


def setting(key: str, value: Value) -> str:
    """A setting in words: `epsilon=0.02`, `model.width=2`."""
    return f"{setting_name(key)}={value_name(value)}"


def setting_name(key: str) -> str:
    """What a setting is called: those of the defense by their own name alone."""
    return plain(key.removeprefix(DEFENSE))


def settings_of(run: Run) -> tuple[str, ...]:
    """All swept settings of a run, in words."""
    return tuple(setting(*pair) for pair in swept(run).items())


def value_name(value: Value) -> str:
    """A value in words; what is a number of gray levels as such."""
    return plain(value) if isinstance(value, str) else epsilon(value)


def _value(value: object) -> Value:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number else str(value)  # type: ignore[arg-type]
