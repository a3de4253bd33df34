"""Methods compared at the same clean accuracy: of each the run of its sweep that comes nearest to it."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence

from l2p_tf.evaluation.records import CLEAN, Record, Summary, summarize
from l2p_tf.reporting import power
from l2p_tf.reporting.families import LEAST, family_of
from l2p_tf.reporting.kinds import kind_of, labels, method_of
from l2p_tf.reporting.lines import Plot
from l2p_tf.reporting.norms import Sizes, sizes_of
from l2p_tf.reporting.runs import Run
from l2p_tf.reporting.subjects import Measured, Place, Subject, by_place, subjects
from l2p_tf.reporting.sweeps import ordered, series, unswept
from l2p_tf.reporting.transfer import begun_alike, relation_of, source_name
from l2p_tf.types import UserError

NAME = "matched"
_NATURAL = "none"
# What rounding may add to a difference of shares.
_SLACK = 1e-9


@dataclasses.dataclass(frozen=True)
class Match:
    """At which clean accuracies methods are to be compared.

    Attributes:
      wanted: the accuracies, as shares; none for that of the natural training on the same data.
      tolerance: how far from it a run may be, as a share.

    Raises:
      UserError: one of them is no share.
    """

    wanted: tuple[float, ...] = ()
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        for value in self.wanted:
            if not 0 < value <= 1:
                raise UserError(
                    f"`match` should be clean accuracies as shares, above 0 and at most 1. Received: {value!r}"
                )
        if not 0 <= self.tolerance < 1:
            raise UserError(
                f"`match_tolerance` should be a share, at least 0 and below 1. Received: {self.tolerance!r}"
            )


@dataclasses.dataclass(frozen=True)
class Pick:
    """The run of a method that comes nearest to a clean accuracy.

    Attributes:
      label: the method, with what of the sweep does not change along its curve.
      subject: the run.
      clean: its clean accuracy.
      within: whether it is within the tolerance.
    """

    label: str
    subject: Subject
    clean: Summary
    within: bool


@dataclasses.dataclass(frozen=True)
class MatchedAt:
    """Methods at one clean accuracy on the same images.

    Attributes:
      wanted: the clean accuracy.
      tolerance: how far from it a run may be.
      picks: one a method, in the order of the sweep.
    """

    wanted: float
    tolerance: float
    picks: tuple[Pick, ...]


@dataclasses.dataclass(frozen=True)
class BlackBox:
    """A run on examples that one attack made on another run.

    Attributes:
      source: that run.
      summary: what was left.
      alike: whether that run was trained with the seed and the architecture of the one attacked.
    """

    source: str
    summary: Summary
    alike: bool


@dataclasses.dataclass(frozen=True)
class Result:
    """One attack on one run.

    Attributes:
      measured: the attack with full access to the run.
      sizes: its L2 norms; None where they are not known.
      transferred: the same attack from runs that have none of its weights.
    """

    measured: Measured
    sizes: Sizes | None
    transferred: tuple[BlackBox, ...]

    @property
    def black_box(self) -> float | None:
        """Mean accuracy over the sources; None where there are none."""
        return mean([one.summary.accuracy for one in self.transferred])


def comparisons(runs: Sequence[Run], match: Match) -> list[MatchedAt]:
    """The comparisons there are to make: at the accuracies wanted, or where runs were swept at the natural one."""
    found = []
    for mine in by_place(subjects(runs)).values():
        groups = _methods(mine)
        swept = len(unswept(mine)) < len(mine)
        natural = [s.clean.accuracy for s in ordered(mine) if s.clean and method_of(s.run) == _NATURAL]
        wanted = match.wanted or tuple(natural[:1] if swept else ())
        for value in wanted:
            picks = [pick for label, group in groups.items() if (pick := _pick(label, group, value, match.tolerance))]
            if picks:
                found.append(MatchedAt(value, match.tolerance, tuple(picks)))
    return found


def results_of(subject: Subject, known: Mapping[str, Run]) -> list[Result]:
    """Every attack on a run.

    Args:
      subject: the run.
      known: all runs, by their keys.

    Raises:
      UserError: arrays cannot be read.
    """
    found = []
    for one in subject.measured:
        if one.first.attack != CLEAN:
            sizes = sizes_of(one.evaluation, one.summary.records, "l2") if one.sized else None
            found.append(Result(one, sizes, _transferred(subject, one, known)))
    return found


def in_few_radii(found: Sequence[Sequence[Result]]) -> list[list[Result]]:
    """The results of some runs, with one radius of each attack that was run at many: the same one for all runs.

    It is the largest, of those at which examples were transferred where there are such.
    """
    best: dict[object, tuple[bool, float]] = {}
    radii: dict[object, set[float]] = {}
    for result in (result for results in found for result in results):
        record = result.measured.first
        if record.epsilon is not None:
            family = family_of(record)
            radii.setdefault(family, set()).add(record.epsilon)
            best[family] = max(best.get(family, (False, 0.0)), (bool(result.transferred), record.epsilon))

    def kept(record: Record) -> bool:
        family = family_of(record)
        return len(radii.get(family, ())) < LEAST or record.epsilon == best[family][1]

    return [[result for result in results if kept(result.measured.first)] for results in found]


def plots(runs: Sequence[Run], match: Match) -> list[Plot]:
    """For each comparison the accuracy of its runs by the size of the perturbation.

    Raises:
      UserError: arrays cannot be read.
    """
    drawn: list[Plot] = []
    for i, one in enumerate(comparisons(runs, match)):
        picked = [pick.subject for pick in one.picks if pick.within]
        drawn += power.plots(picked, f"{NAME}-{i}", f"runs at a clean accuracy of {100 * one.wanted:.4g}%")
    return drawn


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _methods(found: Sequence[Subject]) -> dict[str, list[Subject]]:
    """Runs by curve, all seeds together; those that were not swept first.

    One that was not swept counts for a sweep along one setting from which it differs in that setting alone.
    """
    names = labels(found)
    groups: dict[str, list[Subject]] = {}
    for subject in unswept(found):
        groups.setdefault(names[kind_of(subject)], []).append(subject)
    for one in series(found):
        groups.setdefault(one.over_seeds().label, []).extend(one.subjects)
    return groups


def _pick(label: str, found: Sequence[Subject], wanted: float, tolerance: float) -> Pick | None:
    known = [(subject, subject.clean) for subject in found if subject.clean]
    if not known:
        return None
    subject, clean = min(known, key=lambda pair: abs(pair[1].accuracy - wanted))
    return Pick(label, subject, clean, abs(clean.accuracy - wanted) <= tolerance + _SLACK)


def _transferred(subject: Subject, one: Measured, known: Mapping[str, Run]) -> tuple[BlackBox, ...]:
    """The same attack from runs that have nothing of this one; of several from the same run that on the most images."""
    found: dict[str, BlackBox] = {}
    for evaluation in subject.run.evaluations:
        for summary in summarize(record for record in evaluation.records if record.source is not None):
            first = summary.first
            place: Place = (evaluation.checkpoint, first.dataset, first.split)
            if (place, (first.attack, first.backend)) != (subject.place, one.key):
                continue
            source = source_name(evaluation, first, known)
            more = source not in found or first.count > found[source].summary.first.count
            if more and not relation_of(evaluation, first, known):
                found[source] = BlackBox(source, summary, begun_alike(evaluation, first, known))
    return tuple(found.values())
