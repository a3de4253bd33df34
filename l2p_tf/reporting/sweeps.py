"""Runs of a sweep: which settings were tried, and which runs make one curve."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from l2p_tf.registry import parse_spec
from l2p_tf.reporting.runs import Run
from l2p_tf.reporting.subjects import Subject
from l2p_tf.reporting.text import epsilon, plain
from l2p_tf.types import UserError

Value = float | str
_OWN = "defense."
# A plot with more curves than this is no longer read.
CURVES = 9


@dataclasses.dataclass(frozen=True)
class Series:
    """Runs of one method that differ in one setting: the points of a curve.

    Attributes:
      method: the defense's name.
      along: the setting in which they differ.
      fixed: the other settings of the sweep, which all have in common.
      subjects: the runs, in the order of the setting.
    """

    method: str
    along: str
    fixed: tuple[tuple[str, Value], ...]
    subjects: tuple[Subject, ...]

    @property
    def label(self) -> str:
        """Method and common settings: `pgd, model.width=2`."""
        return ", ".join([self.method, *(setting(*pair) for pair in self.fixed)])

    @property
    def values(self) -> list[Value]:
        """The setting's values, one a run."""
        return [swept(subject.run)[self.along] for subject in self.subjects]


def swept(run: Run) -> dict[str, Value]:
    """The settings of a run that its sweep tried values of; empty where it is no part of one."""
    found = run.option("sweep", None)
    return {str(key): _value(value) for key, value in found.items()} if isinstance(found, dict) else {}


def method_of(run: Run) -> str:
    """The run's method: `pgd`, `pgd(norm=l2)`; its own name where its training was not given.

    That is its defense with those of the options given that are words, but for swept ones: numbers tell apart runs of
    one method, words methods.
    """
    if not run.train:
        return run.name
    spec = str(run.option("defense"))
    try:
        name, values = parse_spec(spec)
    except UserError:
        return plain(spec)
    words = [
        f"{key}={value}"
        for key, value in values.items()
        if isinstance(value, str | bool) and f"{_OWN}{key}" not in swept(run)
    ]
    return plain(f"{name}({', '.join(words)})" if words else name)


def setting(key: str, value: Value) -> str:
    """A setting in words: `epsilon=0.02`, `model.width=2`."""
    return f"{setting_name(key)}={shown(value)}"


def setting_name(key: str) -> str:
    """What a setting is called: those of the defense by their own name alone."""
    return plain(key.removeprefix(_OWN))


def shown(value: Value) -> str:
    """A value in words; what is a number of gray levels as such."""
    return plain(value) if isinstance(value, str) else epsilon(value)


def settings_of(run: Run) -> tuple[str, ...]:
    """All swept settings of a run, in words."""
    return tuple(setting(*pair) for pair in swept(run).items())


def series(found: Sequence[Subject]) -> list[Series]:
    """The curves that the swept ones of some comparable runs make, by method and then by their common settings.

    Along a curve changes a setting of the defense; another one where the defense's were not swept or have but one value.
    """
    curves = []
    for method, mine in by_method([subject for subject in found if swept(subject.run)]).items():
        curves += series_along(method, mine, along_of(mine))
    return curves


def series_along(method: str, found: Sequence[Subject], along: str) -> list[Series]:
    """The curves of one method along one setting: one for each choice of the others."""
    groups: dict[tuple[tuple[str, Value], ...], list[Subject]] = {}
    for subject in found:
        values = swept(subject.run)
        if along in values:
            groups.setdefault(tuple((k, v) for k, v in sorted(values.items()) if k != along), []).append(subject)
    # As many settings in common come first as few, and each setting's values in their order.
    order = sorted(groups, key=lambda fixed: (len(fixed), [(key, _order(value)) for key, value in fixed]))
    return [Series(method, along, fixed, _sorted(groups[fixed], along)) for fixed in order]


def along_of(found: Sequence[Subject]) -> str:
    """The setting that changes along the curves of one method, whose runs are all swept."""
    values: dict[str, set[Value]] = {}
    for subject in found:
        for key, value in swept(subject.run).items():
            values.setdefault(key, set()).add(value)
    return max(values, key=lambda key: (len(values[key]) > 1, key.startswith(_OWN), len(values[key])))


def by_method(found: Iterable[Subject]) -> dict[str, list[Subject]]:
    """Runs by the name of their defense, in order of appearance."""
    groups: dict[str, list[Subject]] = {}
    for subject in found:
        groups.setdefault(method_of(subject.run), []).append(subject)
    return groups


def unswept(found: Iterable[Subject]) -> list[Subject]:
    """Those that are no part of a sweep."""
    return [subject for subject in found if not swept(subject.run)]


def ordered(found: Sequence[Subject]) -> list[Subject]:
    """Comparable runs in the order to show them in: those of no sweep, then curve by curve."""
    return [*unswept(found), *(subject for one in series(found) for subject in one.subjects)]


def panels(found: Sequence[Subject]) -> list[tuple[str, list[Subject]]]:
    """Runs in groups that one plot can hold, each with what to call it: all in one, or else each method by itself."""
    if len(found) <= CURVES:
        return [("", ordered(found))]
    groups = [(method, ordered(mine)) for method, mine in by_method(found).items()]
    return [(method, mine[i : i + CURVES]) for method, mine in groups for i in range(0, len(mine), CURVES)]


def _sorted(found: Sequence[Subject], along: str) -> tuple[Subject, ...]:
    return tuple(sorted(found, key=lambda subject: _order(swept(subject.run)[along])))


def _order(value: Value) -> tuple[bool, float, str]:
    return (True, 0.0, value) if isinstance(value, str) else (False, value, "")


def _value(value: object) -> Value:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number else str(value)  # type: ignore[arg-type]
