"""The same attacks by two implementations, side by side on the same examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from l2p_tf.evaluation.records import CLEAN, Summary, summarize
from l2p_tf.reporting.arrays import read_arrays
from l2p_tf.reporting.runs import Evaluation, Run
from l2p_tf.reporting.section import Section
from l2p_tf.reporting.subjects import strongest
from l2p_tf.reporting.table import Cell, Column, Table, accuracy, in_percent
from l2p_tf.reporting.text import pace, percent, plain, signed, strength

OWN, OTHER = "l2p_tf", "cleverhans"
_CAPTION = (
    "The same attack on the same images, by this package and by CleverHans. Accuracy in percent, ± its standard "
    "deviation over repeats where there are several, with its 95% interval. The difference is CleverHans minus l2p_tf, "
    "in percentage points: below 0, that of CleverHans was the stronger one. Disagree: images that one attack left "
    "classified correctly and the other did not, in the first repeat. Time is per image, and depends on the device."
)


@dataclasses.dataclass(frozen=True)
class Pair:
    """One attack on one run by both implementations.

    Attributes:
      own: what this package's attack left.
      other: what CleverHans's left.
      disagree: number of images, in the first repeat, that only one of them left classified correctly.
    """

    own: Summary
    other: Summary
    disagree: int

    @property
    def difference(self) -> float:
        """CleverHans minus l2p_tf, as a share."""
        return self.other.accuracy - self.own.accuracy


def section(runs: Sequence[Run]) -> Section | None:
    """A row for each attack that a run was put to by both implementations; None where there is none.

    Raises:
      UserError: the arrays of such an attack cannot be read.
    """
    rows, lines = [], []
    for run in runs:
        for evaluation, pair in pairs_of(run):
            name = run.named(evaluation.checkpoint)
            rows.append(_row(run, name, pair))
            lines.append(_line(name, pair))
    if not rows:
        return None
    heads = (
        Column("Run", figures=False), Column("Attack", figures=False), Column("l2p_tf"), Column("CleverHans"),
        Column("Difference", "points"), Column("Disagree", "images"), Column("Time", "l2p_tf"),
        Column("Time", "CleverHans"),
    )  # fmt: skip
    return Section("backends", "Backends side by side", (Table("", _CAPTION, heads, tuple(rows)),), tuple(lines))


def pairs_of(run: Run) -> list[tuple[Evaluation, Pair]]:
    """The attacks that a run was put to by both implementations on the same images.

    Where there are several pairs of an attack, the one on the most images.

    Raises:
      UserError: arrays cannot be read.
    """
    found: list[tuple[Evaluation, Pair]] = []
    for mine, own in _summaries(run, OWN):
        for theirs, other in _summaries(run, OTHER):
            if _what(mine, own) != _what(theirs, other) or own.first.count != other.first.count:
                continue
            a = read_arrays(mine, own.first, "index", "correct")
            b = read_arrays(theirs, other.first, "index", "correct")
            if np.array_equal(a["index"], b["index"]):
                found.append((mine, Pair(own, other, int((a["correct"] != b["correct"]).sum()))))
    return strongest(found, lambda pair: _what(pair[0], pair[1].own), lambda pair: pair[1].own.first.count)


def _summaries(run: Run, backend: str) -> Iterator[tuple[Evaluation, Summary]]:
    for evaluation in run.evaluations:
        if evaluation.artifact:
            attacks = (r for r in evaluation.records if r.attack != CLEAN and r.source is None)
            for summary in summarize(record for record in attacks if record.backend == backend):
                yield evaluation, summary


def _what(evaluation: Evaluation, summary: Summary) -> tuple[str, ...]:
    first = summary.first
    return evaluation.checkpoint, first.dataset, first.split, first.attack


def _row(run: Run, name: str, pair: Pair) -> tuple[Cell, ...]:
    first = pair.own.first
    data = f"{run.title_of(first.dataset)}, {plain(first.split)}"
    return (
        Cell(name, (data, f"n = {first.count:,}")),
        Cell(plain(first.label), (strength(first),)),
        accuracy(pair.own),
        accuracy(pair.other),
        Cell(signed(100 * pair.difference, first.count)),
        Cell(f"{pair.disagree:,}", (f"{percent(pair.disagree / first.count, first.count)}%",)),
        Cell(pace(_seconds(pair.own)), value=_seconds(pair.own)),
        Cell(pace(_seconds(pair.other)), value=_seconds(pair.other)),
    )


def _seconds(summary: Summary) -> float:
    """Time per image and repeat."""
    return sum(record.seconds for record in summary.records) / sum(record.count for record in summary.records)


def _line(name: str, pair: Pair) -> dict[str, object]:
    first = pair.own.first
    return {
        "run": name, "dataset": first.dataset, "split": first.split, "attack": first.attack, "norm": first.norm,
        "epsilon": first.epsilon, "steps": first.steps, "restarts": first.restarts, "draws": first.draws,
        "prediction_draws": first.prediction_draws, "count": first.count, "repeats": len(pair.own.records),
        "repeats_cleverhans": len(pair.other.records),
        "accuracy": in_percent(pair.own.accuracy), "accuracy_cleverhans": in_percent(pair.other.accuracy),
        "difference": in_percent(pair.difference), "disagree": pair.disagree,
        "seconds": float(f"{_seconds(pair.own):.6g}"), "seconds_cleverhans": float(f"{_seconds(pair.other):.6g}"),
    }  # fmt: skip
