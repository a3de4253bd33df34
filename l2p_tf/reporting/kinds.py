"""Which runs are of one kind: told apart by nothing but what was swept. What a report calls them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from l2p_tf.registry import parse_spec
from l2p_tf.reporting.runs import Run
from l2p_tf.reporting.subjects import Subject
from l2p_tf.reporting.text import epsilon, listed, plain
from l2p_tf.types import UserError

Value = float | str
Pairs = tuple[tuple[str, Value], ...]

SEED = "train.seed"
"""What is swept for repeats: runs that differ in nothing else are of one setting."""

DEFENSE, MODEL = "defense.", "model."
"""Beginnings of the settings of a defense and of a model."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """Runs that one curve may join: of one defense, one model, one training data and on one number of images.

    Attributes:
      defense: its name.
      model: its name.
      options: those given of both, as `defense.steps` and `model.width`, but for swept ones.
      data: fingerprint of what they were trained on; empty where that is not known.
      count: clean images that they were judged on; 0 for none.
      swept: the settings that were swept, in order, but for the seed.
    """

    defense: str
    model: str
    options: Pairs
    data: str
    count: int
    swept: tuple[str, ...]

    @property
    def method(self) -> str:
        """The defense with its options that are words: `pgd(norm=l2)`."""
        return _spec(self.defense, [pair for pair in self.of(DEFENSE) if isinstance(pair[1], str)])

    def of(self, part: str) -> Pairs:
        """The options of the defense or of the model."""
        return tuple(pair for pair in self.options if pair[0].startswith(part))

    def swept_too(self, key: str) -> Kind:
        """The kind that it would be had this setting been swept."""
        return dataclasses.replace(self, options=tuple(pair for pair in self.options if pair[0] != key), swept=(key,))


def swept(run: Run) -> dict[str, Value]:
    """The settings of a run that its sweep tried values of; empty where it is no part of one."""
    found = run.option("sweep", None)
    return {str(key): _value(value) for key, value in found.items()} if isinstance(found, dict) else {}


def kind_of(subject: Subject) -> Kind:
    """What a run is one of; one whose training was not given is of a kind of its own."""
    run, clean = subject.run, subject.clean
    tried = swept(run)
    (defense, own), (model, others) = _given(run, "defense"), _given(run, "model")
    options = tuple(pair for pair in own + others if pair[0] not in tried)
    names = tuple(sorted(key for key in tried if key != SEED))
    return Kind(defense, model, options, run.input("data"), clean.first.count if clean else 0, names)


def method_of(run: Run) -> str:
    """The run's method: `pgd`, `pgd(norm=l2)`; its own name where its training was not given.

    That is its defense with those of the options given that are words, but for swept ones: numbers tell apart runs of
    one method, words methods.
    """
    name, options = _given(run, "defense")
    return _spec(name, [pair for pair in options if isinstance(pair[1], str) and pair[0] not in swept(run)])


def kinds(found: Sequence[Subject]) -> dict[Kind, list[Subject]]:
    """Runs by their kind; kinds of one method follow each other, in order of appearance."""
    groups: dict[Kind, list[Subject]] = {}
    for subject in found:
        groups.setdefault(kind_of(subject), []).append(subject)
    methods = list(dict.fromkeys(kind.method for kind in groups))
    return {kind: groups[kind] for kind in sorted(groups, key=lambda kind: methods.index(kind.method))}


def labels(found: Sequence[Subject]) -> dict[Kind, str]:
    """What to call each kind among some runs: its method, with what else it takes to tell it from the others.

    Runs without a sweep are called as the first sweep along a single setting that differs from them in that alone: they
    count for it where methods are compared.
    """
    met = list(kinds(found))
    leaders = {kind: _leader(kind, met) for kind in met}
    told = {kind: _label(kind, list(dict.fromkeys(leaders.values()))) for kind in leaders.values()}
    return {kind: told[leader] for kind, leader in leaders.items()}


def by_label(found: Sequence[Subject]) -> dict[str, list[Subject]]:
    """Runs by what their kind is called among them."""
    names = labels(found)
    groups: dict[str, list[Subject]] = {}
    for kind, mine in kinds(found).items():
        groups.setdefault(names[kind], []).extend(mine)
    return groups


def setting(key: str, value: Value) -> str:
    """A setting in words: `epsilon=0.02`, `model.width=2`."""
    return f"{setting_name(key)}={shown(value)}"


def setting_name(key: str) -> str:
    """What a setting is called: those of the defense by their own name alone."""
    return plain(key.removeprefix(DEFENSE))


def shown(value: Value) -> str:
    """A value in words; what is a number of gray levels as such."""
    return plain(value) if isinstance(value, str) else epsilon(value)


def _leader(kind: Kind, met: Sequence[Kind]) -> Kind:
    if kind.swept:
        return kind
    return next((one for one in met if len(one.swept) == 1 and kind.swept_too(one.swept[0]) == one), kind)


def _label(kind: Kind, others: Sequence[Kind]) -> str:
    alike = [other for other in others if other.method == kind.method]
    own = [
        pair
        for pair in kind.of(DEFENSE)
        if isinstance(pair[1], str) or len({dict(other.options).get(pair[0]) for other in alike}) > 1
    ]
    parts = [_spec(kind.defense, own)]
    if kind.model and len({(other.model, other.of(MODEL)) for other in alike}) > 1:
        parts.append(_spec(kind.model, kind.of(MODEL)))
    if kind.data and len({other.data for other in alike}) > 1:
        parts.append(f"data {kind.data[:8]}")
    if kind.count and len({other.count for other in alike}) > 1:
        parts.append(f"n = {kind.count:,}")
    if kind.swept and any(other.swept and _differ_in_sweep(kind, other) for other in alike):
        parts.append(f"by {listed([setting_name(key) for key in kind.swept])}")
    return ", ".join(parts)


def _differ_in_sweep(kind: Kind, other: Kind) -> bool:
    return kind != other and dataclasses.replace(kind, swept=other.swept) == other


def _given(run: Run, part: str) -> tuple[str, Pairs]:
    """The name of a run's defense or model, and the options given of it."""
    if not run.train:
        return run.name if part == "defense" else "", ()
    spec = str(run.option(part))
    try:
        name, values = parse_spec(spec)
    except UserError:  # Of another version or another maker.
        return plain(spec), ()
    return name, tuple((f"{part}.{key}", _value(values[key])) for key in sorted(values))


def _spec(name: str, options: Sequence[tuple[str, Value]]) -> str:
    words = [f"{key.partition('.')[2]}={shown(value)}" for key, value in options]
    return plain(f"{name}({', '.join(words)})" if words else name)


def _value(value: object) -> Value:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number else str(value)  # type: ignore[arg-type]
