"""Runs of a sweep: which of them make one curve, and in which order they are shown."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

from l2p_tf.reporting.kinds import DEFENSE, SEED, Pairs, Value, by_label, kinds, labels, setting, swept
from l2p_tf.reporting.runs import Run
from l2p_tf.reporting.subjects import Subject

# A plot with more curves than this is no longer read.
CURVES = 9


@dataclasses.dataclass(frozen=True)
class Series:
    """Runs of one kind that differ in one setting: the points of a curve.

    Attributes:
      method: what their kind is called.
      along: the setting in which they differ; empty for repeats with other seeds, which make no curve.
      fixed: the other settings of the sweep, which all have in common.
      subjects: the runs, in the order of the setting, or of the seed.
    """

    method: str
    along: str
    fixed: Pairs
    subjects: tuple[Subject, ...]

    @property
    def label(self) -> str:
        """Method and common settings: `pgd, model.width=2`."""
        return ", ".join([self.method, *(setting(*pair) for pair in self.fixed)])

    @property
    def values(self) -> list[Value]:
        """The values of the setting, or else of the seed, one a run."""
        return [swept(subject.run)[self.along or SEED] for subject in self.subjects]

    def over_seeds(self) -> Series:
        """The same without its seed: all repeats have this one's label."""
        return dataclasses.replace(self, fixed=tuple(pair for pair in self.fixed if pair[0] != SEED))


def settings_of(run: Run) -> tuple[str, ...]:
    """All swept settings of a run, in words."""
    return tuple(setting(*pair) for pair in swept(run).items())


def series(found: Sequence[Subject]) -> list[Series]:
    """The curves that the swept ones of some comparable runs make, by kind and then by their common settings.

    Along a curve changes a setting of the defense; another one where the defense's were not swept or have but one
    value.
    """
    return [one for label, mine in swept_kinds(found) for one in series_along(label, mine, along_of(mine))]


def swept_kinds(found: Sequence[Subject]) -> list[tuple[str, list[Subject]]]:
    """The swept runs of each kind, which have all been swept along the same settings, with what to call it."""
    names = labels(found)
    groups = [(names[kind], [one for one in mine if swept(one.run)]) for kind, mine in kinds(found).items()]
    return [(label, mine) for label, mine in groups if mine]


def series_along(method: str, found: Sequence[Subject], along: str) -> list[Series]:
    """The curves of one kind along one of its settings: one for each choice of the others, the seed among them.

    Without a setting that is a single one, of all repeats.
    """
    groups: dict[Pairs, list[Subject]] = {}
    for subject in found:
        others = {key: value for key, value in swept(subject.run).items() if key != (along or SEED)}
        groups.setdefault(tuple(sorted(others.items())), []).append(subject)
    # Those without a seed come before those with one, and each setting's values in their order.
    order = sorted(groups, key=lambda fixed: (len(fixed), [(key, _order(value)) for key, value in fixed]))
    return [Series(method, along, fixed, _sorted(groups[fixed], along or SEED)) for fixed in order]


def along_of(found: Sequence[Subject]) -> str:
    """The setting that changes along the curves of one kind; empty where only the seed does."""
    values: dict[str, set[Value]] = {}
    for subject in found:
        for key, value in swept(subject.run).items():
            values.setdefault(key, set()).add(value)
    values.pop(SEED, None)
    return max(values, key=lambda key: (len(values[key]) > 1, key.startswith(DEFENSE), len(values[key])), default="")


def unswept(found: Iterable[Subject]) -> list[Subject]:
    """Those that are no part of a sweep."""
    return [subject for subject in found if not swept(subject.run)]


def ordered(found: Sequence[Subject]) -> list[Subject]:
    """Comparable runs in the order to show them in: those of no sweep, then curve by curve."""
    return [*unswept(found), *(subject for one in series(found) for subject in one.subjects)]


def panels(found: Sequence[Subject]) -> list[tuple[str, list[Subject]]]:
    """Runs in groups that one plot can hold, each with what to call it.

    All in one; or else each kind with several runs by itself, and those with a single one together.
    """
    if len(found) <= CURVES:
        return [("", ordered(found))]
    groups = [(label, ordered(mine)) for label, mine in by_label(found).items()]
    single = [mine[0] for _, mine in groups if len(mine) == 1]
    if len(single) > 1:
        groups = [(label, mine) for label, mine in groups if len(mine) > 1]
        groups = [*_parts(single, "single runs" if groups else ""), *groups]
    return [(label, mine[i : i + CURVES]) for label, mine in groups for i in range(0, len(mine), CURVES)]


def _parts(found: Sequence[Subject], label: str) -> list[tuple[str, list[Subject]]]:
    """Runs in as few parts of like size as plots can hold."""
    count = -(-len(found) // CURVES)
    bounds = [round(i * len(found) / count) for i in range(count + 1)]
    parts = [list(found[low:high]) for low, high in itertools.pairwise(bounds)]
    of = [f"{i + 1} of {count}" if count > 1 else "" for i in range(count)]
    return [(" ".join(filter(None, (label, kind))), part) for kind, part in zip(of, parts, strict=True)]


def _sorted(found: Sequence[Subject], key: str) -> tuple[Subject, ...]:
    return tuple(sorted(found, key=lambda subject: _order(swept(subject.run)[key])))


def _order(value: Value) -> tuple[bool, float, str]:
    return (True, 0.0, value) if isinstance(value, str) else (False, value, "")
