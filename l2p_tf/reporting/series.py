"""Runs of a sweep: their kinds, labels, curves and display order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from l2p_tf.reporting.format import listed
from l2p_tf.reporting.measured import Evaluated
from l2p_tf.reporting.methods import DEFENSE, MODEL, SEED, Pairs, Value, given, setting, setting_name, spec_of, swept

# Plots with more curves are unreadable.
CURVES = 9


@dataclasses.dataclass(frozen=True)
class Kind:
    """Runs that one curve can join: same defense, model, training data and number of images.

    Attributes:
      defense: its name.
      model: its name.
      options: given options of both, such as `defense.steps` and `model.width`, except swept ones.
      data: fingerprint of the training data; empty if unknown.
      count: number of clean images evaluated; 0 for none.
      swept: the swept settings in order, without the seed.
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
        return spec_of(self.defense, [pair for pair in self.of(DEFENSE) if isinstance(pair[1], str)])

    def of(self, part: str) -> Pairs:
        """Returns the options of the defense or of the model."""
        return tuple(pair for pair in self.options if pair[0].startswith(part))

    def as_swept(self, key: str) -> Kind:
        """Returns the kind it would be if this setting had been swept."""
        return dataclasses.replace(self, options=tuple(pair for pair in self.options if pair[0] != key), swept=(key,))


@dataclasses.dataclass(frozen=True)
class Series:
    """Runs of one kind that differ in one setting: the points of a curve.

    Attributes:
      method: label of their kind.
      along: the setting in which they differ; empty for repeats with other seeds, which make no curve.
      fixed: the other settings of the sweep, which all runs share.
      runs: the runs, in the order of the setting, or of the seed.
    """

    method: str
    along: str
    fixed: Pairs
    runs: tuple[Evaluated, ...]

    @property
    def label(self) -> str:
        """Method and common settings: `pgd, model.width=2`."""
        return ", ".join([self.method, *(setting(*pair) for pair in self.fixed)])

    @property
    def values(self) -> list[Value]:
        """Values of the setting, or of the seed, one per run."""
        return [swept(model.run)[self.along or SEED] for model in self.runs]

    def over_seeds(self) -> Series:
        """Returns the series without its seed, so that all repeats have the same label."""
        return dataclasses.replace(self, fixed=tuple(pair for pair in self.fixed if pair[0] != SEED))


def labels(evaluated: Sequence[Evaluated]) -> dict[Evaluated, str]:
    """Returns the label of each run's kind: its method, with whatever distinguishes it from the others.

    Runs without a sweep get the label of the first sweep along a single setting that differs from them in that setting
    only: they belong to it when methods are compared.
    """
    kinds = {model: _kind(model) for model in evaluated}
    methods = list(dict.fromkeys(kind.method for kind in kinds.values()))
    met = sorted(dict.fromkeys(kinds.values()), key=lambda kind: methods.index(kind.method))
    leaders = {kind: _leader(kind, met) for kind in met}
    others = list(dict.fromkeys(leaders.values()))
    return {model: _label(leaders[kind], others) for model, kind in kinds.items()}


def by_label(evaluated: Sequence[Evaluated]) -> dict[str, list[Evaluated]]:
    """Groups runs by label; kinds of one method follow each other, in order of appearance."""
    names = labels(evaluated)
    methods = list(dict.fromkeys(_kind(model).method for model in evaluated))
    groups: dict[str, list[Evaluated]] = {}
    for model in sorted(evaluated, key=lambda model: methods.index(_kind(model).method)):
        groups.setdefault(names[model], []).append(model)
    return groups


def series(evaluated: Sequence[Evaluated]) -> list[Series]:
    """Returns the curves of the swept runs, by kind and then by their common settings.

    A curve runs along a setting of the defense; along another one if the defense's were not swept or have only one
    value.
    """
    return [curve for label, runs in swept_kinds(evaluated) for curve in series_along(label, runs, along_of(runs))]


def swept_kinds(evaluated: Sequence[Evaluated]) -> list[tuple[str, list[Evaluated]]]:
    """Returns the swept runs of each kind, which share the swept settings, with their label."""
    names = labels(evaluated)
    kinds: dict[Kind, list[Evaluated]] = {}
    for runs in by_label(evaluated).values():
        for model in runs:
            if swept(model.run):
                kinds.setdefault(_kind(model), []).append(model)
    return [(names[runs[0]], runs) for runs in kinds.values()]


def series_along(method: str, evaluated: Sequence[Evaluated], along: str) -> list[Series]:
    """Returns the curves of one kind along one of its settings: one for each choice of the others, including the seed.

    Without a setting, a single series of all repeats.
    """
    key = along or SEED
    groups: dict[Pairs, list[Evaluated]] = {}
    for model in evaluated:
        others = tuple(sorted(pair for pair in swept(model.run).items() if pair[0] != key))
        groups.setdefault(others, []).append(model)
    # Those without a seed come first; each setting's values are sorted.
    order = sorted(groups, key=lambda fixed: (len(fixed), [(name, _order(value)) for name, value in fixed]))
    sort = {fixed: sorted(groups[fixed], key=lambda model: _order(swept(model.run)[key])) for fixed in order}
    return [Series(method, along, fixed, tuple(runs)) for fixed, runs in sort.items()]


def along_of(evaluated: Sequence[Evaluated]) -> str:
    """Returns the setting along the curves of one kind; empty if only the seed varies."""
    values: dict[str, set[Value]] = {}
    for model in evaluated:
        for key, value in swept(model.run).items():
            values.setdefault(key, set()).add(value)
    values.pop(SEED, None)
    return max(values, key=lambda key: (len(values[key]) > 1, key.startswith(DEFENSE), len(values[key])), default="")


def unswept(evaluated: Iterable[Evaluated]) -> list[Evaluated]:
    """Returns the runs that belong to no sweep."""
    return [model for model in evaluated if not swept(model.run)]


def ordered(evaluated: Sequence[Evaluated]) -> list[Evaluated]:
    """Returns comparable runs in display order: those of no sweep, then curve by curve."""
    return [*unswept(evaluated), *(run for curve in series(evaluated) for run in curve.runs)]


def panels(evaluated: Sequence[Evaluated]) -> list[tuple[str, list[Evaluated]]]:
    """Splits runs into groups that fit one plot each, with labels.

    All in one if possible; otherwise each kind with several runs separately, and single runs together.
    """
    if len(evaluated) <= CURVES:
        return [("", ordered(evaluated))]
    groups = [(label, ordered(runs)) for label, runs in by_label(evaluated).items()]
    single = [runs[0] for _, runs in groups if len(runs) == 1]
    if len(single) > 1:
        groups = [("single runs", single), *((label, runs) for label, runs in groups if len(runs) > 1)]
    return [
        (label if len(part) == len(runs) else f"{label}, {i + 1}", part)
        for label, runs in groups
        for i, part in enumerate(runs[start : start + CURVES] for start in range(0, len(runs), CURVES))
    ]


def _kind(evaluated: Evaluated) -> Kind:
    run, clean, tried = evaluated.run, evaluated.clean, swept(evaluated.run)
    (defense, own), (model, others) = given(run, "defense"), given(run, "model")
    options = tuple(pair for pair in own + others if pair[0] not in tried)
    names = tuple(sorted(key for key in tried if key != SEED))
    return Kind(defense, model, options, run.input("data"), clean.count if clean else 0, names)


def _leader(kind: Kind, met: Sequence[Kind]) -> Kind:
    if kind.swept:
        return kind
    return next((other for other in met if len(other.swept) == 1 and kind.as_swept(other.swept[0]) == other), kind)


def _label(kind: Kind, others: Sequence[Kind]) -> str:
    alike = [other for other in others if other.method == kind.method]
    own = [
        pair
        for pair in kind.of(DEFENSE)
        if isinstance(pair[1], str) or len({dict(other.options).get(pair[0]) for other in alike}) > 1
    ]
    parts = [spec_of(kind.defense, own)]
    if kind.model and len({(other.model, other.of(MODEL)) for other in alike}) > 1:
        parts.append(spec_of(kind.model, kind.of(MODEL)))
    if kind.data and len({other.data for other in alike}) > 1:
        parts.append(f"data {kind.data[:8]}")
    if kind.count and len({other.count for other in alike}) > 1:
        parts.append(f"n = {kind.count:,}")
    same = [other for other in alike if other != kind and dataclasses.replace(kind, swept=other.swept) == other]
    if kind.swept and any(other.swept for other in same):
        parts.append(f"by {listed([setting_name(key) for key in kind.swept])}")
    return ", ".join(parts)


def _order(value: Value) -> tuple[bool, float, str]:
    return (True, 0.0, value) if isinstance(value, str) else (False, value, "")
