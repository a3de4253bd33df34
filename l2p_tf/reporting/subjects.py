"""What was measured on each run on one set of images: for tables and plots that set runs side by side.

One rule says which of several evaluations of the same counts, in every table and plot: that on the most images; of
those on as many, one whose results per image are there, then the one with the most repeats, then the first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

from l2p_tf.evaluation.records import CLEAN, Record, Summary, summarize
from l2p_tf.reporting.runs import Evaluation, Run
from l2p_tf.reporting.text import minimal, plain

T = TypeVar("T")
Place = tuple[str, str, str]
"""Weights, data set and split: what runs have in common that may be set side by side."""

Trial = tuple[str, str, int]
"""An attack, whose it is, and on how many images it was tried: what figures have in common that one curve may join."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """One attack on one run, or the run on clean images.

    Attributes:
      evaluation: where it comes from.
      summary: the records.
      clean: the run on the same images when clean; None where that was not measured.
    """

    evaluation: Evaluation
    summary: Summary
    clean: Summary | None

    @property
    def first(self) -> Record:
        """The first record, for what all have in common."""
        return self.summary.first

    @property
    def key(self) -> tuple[str, str]:
        """The attack and whose it is: what it may be compared by."""
        return self.first.attack, self.first.backend

    @property
    def trial(self) -> Trial:
        """The same, and on how many images."""
        return *self.key, self.first.count

    @property
    def has_arrays(self) -> bool:
        """Whether there are results per image."""
        outputs = self.evaluation.artifact.manifest["outputs"] if self.evaluation.artifact else {}
        return all(record.arrays in outputs for record in self.summary.records)

    @property
    def sized(self) -> bool:
        """Whether there are arrays, and something to tell which images were right before."""
        return self.evaluation.artifact is not None and self.clean is not None


@dataclasses.dataclass(frozen=True)
class Subject:
    """A run at some weights on one split of a data set, with everything measured there on its own examples.

    Attributes:
      run: the run.
      place: weights, data set and split.
      measured: clean and attacks; of several evaluations under one attack that which counts.
      replaced: those that do not count.
    """

    run: Run
    place: Place
    measured: tuple[Measured, ...]
    replaced: tuple[Measured, ...] = ()

    @property
    def name(self) -> str:
        """The run's name, with the weights where they are not the best ones."""
        return self.run.named(self.place[0])

    @property
    def where(self) -> str:
        """Data set and split, in words."""
        _, dataset, split = self.place
        return f"{self.run.title_of(dataset)}, {plain(split)}"

    @property
    def title(self) -> str:
        """Data set and split, and the weights where they are not the best ones, in words."""
        checkpoint = self.place[0]
        return self.where if checkpoint == "best" else f"{self.where}, {plain(checkpoint)} weights"

    @property
    def clean(self) -> Summary | None:
        """The run on clean images; None where that was not measured."""
        return next((one.summary for one in self.measured if one.first.attack == CLEAN), None)

    @property
    def bounded(self) -> list[Measured]:
        """Attacks that keep to a given size."""
        return [one for one in self.measured if one.first.attack != CLEAN and not minimal(one.first)]

    def minimal(self, *norms: str) -> list[Measured]:
        """Attacks of smallest norm whose perturbations can be measured, of these norms."""
        return [one for one in self.measured if minimal(one.first) and one.sized and one.first.norm in norms]


def subjects(runs: Sequence[Run]) -> list[Subject]:
    """Every run with what was measured on it, by weights, data set and split, in the order of the runs."""
    return [subject for run in runs for subject in _subjects(run)]


def by_place(found: Sequence[Subject]) -> dict[Place, list[Subject]]:
    """Those that may be compared."""
    places: dict[Place, list[Subject]] = {}
    for subject in found:
        places.setdefault(subject.place, []).append(subject)
    return places


def strongest(found: Iterable[T], same: Callable[[T], Hashable], evidence: Callable[[T], Any]) -> list[T]:
    """Of those that are the same the one with the most evidence, the first of equals, in order of appearance."""
    kept: dict[Hashable, T] = {}
    for one in found:
        if same(one) not in kept or evidence(one) > evidence(kept[same(one)]):
            kept[same(one)] = one
    return list(kept.values())


def _subjects(run: Run) -> list[Subject]:
    places: dict[Place, list[Measured]] = {}
    for evaluation in run.evaluations:
        summaries = summarize(record for record in evaluation.records if record.source is None)
        for summary in summaries:
            first = summary.first
            clean = next((s for s in summaries if s.first.attack == CLEAN and _same(s.first, first)), None)
            place = (evaluation.checkpoint, first.dataset, first.split)
            places.setdefault(place, []).append(Measured(evaluation, summary, clean))
    made = []
    for place, found in places.items():
        kept = strongest(found, lambda one: one.key, _evidence)
        replaced = tuple(one for one in found if not any(one is other for other in kept))
        made.append(Subject(run, place, tuple(kept), replaced))
    return made


def _same(a: Record, b: Record) -> bool:
    return (a.dataset, a.split, a.count) == (b.dataset, b.split, b.count)


def _evidence(one: Measured) -> tuple[int, bool, int]:
    return one.first.count, one.has_arrays, len(one.summary.records)
