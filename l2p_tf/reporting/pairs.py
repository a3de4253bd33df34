"""Paired comparisons of runs on the same images, with significance tests."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from l2p_tf.reporting.examples import read_arrays
from l2p_tf.reporting.format import minimal, several
from l2p_tf.reporting.measured import Evaluated, Measured, by_place
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.stats import difference_interval, holm, mcnemar, sign_flip

LEVEL = 0.05
"""Significance level of the corrected p-value."""


@dataclasses.dataclass(frozen=True)
class Member:
    """A run in a comparison.

    Attributes:
      evaluated: the run.
      row: its results, a row of `Results.attacks`.
      index: positions of the images in their split, (count,).
      times: number of repeats in which each image was classified correctly, (count,) int64.
    """

    evaluated: Evaluated
    row: Any
    index: np.ndarray
    times: np.ndarray

    @property
    def name(self) -> str:
        """The run's name, with the weights if they are not the best ones."""
        return self.evaluated.name


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two runs on the same images, the one with the higher accuracy first.

    Attributes:
      first: the leading run; of two with equal accuracy, the first in the report.
      second: the other.
      difference: its lead, as a share.
      low: lower end of the 95% interval of the difference, for this pair alone.
      high: upper end of it.
      p: p-value of the exact sign-flip test, McNemar's for single evaluations.
      corrected: p-value corrected for the number of pairs under this attack.
    """

    first: Member
    second: Member
    difference: float
    low: float
    high: float
    p: float
    corrected: float

    @property
    def better(self) -> bool:
        """Whether the first is significantly better than the second."""
        # With few repeats the test can be more certain than the interval, which treats answers separately: require
        # both.
        return self.corrected < LEVEL and self.low > 0


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs evaluated on the same images, under one attack or clean.

    Attributes:
      members: the runs, the highest accuracy first.
      pairs: all pairs of them.
    """

    members: tuple[Member, ...]
    pairs: tuple[Pair, ...]

    @property
    def row(self) -> Any:
        """The first member's row, for fields that all share."""
        return self.members[0].row


@dataclasses.dataclass(frozen=True)
class Pairs:
    """All paired comparisons of a report.

    Attributes:
      groups: groups of two or more runs.
      notes: which runs could not be compared, and why; one sentence each.
    """

    groups: tuple[Group, ...]
    notes: tuple[str, ...]

    def between(self, a: Any, b: Any) -> Pair | None:
        """Returns the comparison of two rows of `Results.attacks`, or None."""
        for pair in (pair for group in self.groups for pair in group.pairs):
            if {id(pair.first.row.measured), id(pair.second.row.measured)} == {id(a.measured), id(b.measured)}:
                return pair
        return None


def pairs_of(results: Results) -> Pairs:
    """Compares all pairs of runs evaluated on the same images, clean and under every attack of fixed budget.

    The same images are the same positions of the same split of the same data, with the same choice of weights.

    Raises:
      UserError: the arrays of an attack stage cannot be read.
    """
    groups: list[Group] = []
    bare, apart = [], []
    for place in by_place(results.evaluated):
        rows: dict[tuple[str, str], list[tuple[Evaluated, Any]]] = {}
        for model in place:
            for row in model.rows:
                if not minimal(row.measured.first):
                    rows.setdefault((row.attack, row.backend), []).append((model, row))
        for met in rows.values():
            if len(met) < 2:
                continue
            bare += [model.name for model, row in met if not row.measured.has_arrays]
            parts: dict[object, list[Member]] = {}
            for model, row in met:
                if row.measured.has_arrays:
                    member = member_of(model, row)
                    parts.setdefault((images_of(row.measured), member.index.tobytes()), []).append(member)
            groups += [group_of(members) for members in parts.values() if len(members) > 1]
            if len(parts) > 1:
                apart += [member.name for members in parts.values() for member in members]
    return Pairs(tuple(groups), _notes(bare, apart))


def group_of(members: Sequence[Member]) -> Group:
    """Compares all pairs of runs evaluated on the same images."""
    ordered = sorted(members, key=lambda member: -member.row.accuracy)
    a, b = np.array(list(itertools.combinations(range(len(ordered)), 2))).T
    repeats = np.array([member.row.repeats for member in ordered])
    shares = np.stack([member.times / member.row.repeats for member in ordered])
    count = shares.shape[1]
    means = shares.mean(1)
    centered = shares - means[:, None]
    covariance = (centered @ centered.T / count)[a, b]
    low, high = difference_interval(means[a], means[b], covariance, count)
    p = _p_values(ordered, repeats, a, b)
    columns = (a, b, means[a] - means[b], low, high, p, holm(p))
    pairs = (
        Pair(ordered[i], ordered[j], *figures) for i, j, *figures in zip(*map(np.ndarray.tolist, columns), strict=True)
    )
    return Group(tuple(ordered), tuple(pairs))


def _p_values(members: Sequence[Member], repeats: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    times = np.stack([member.times for member in members])
    right = (times > 0).astype(np.float64)
    # For single evaluations: numbers of images that only one of two got right, for all pairs at once.
    alone = right @ (1 - right.T)
    p = mcnemar(alone[a, b], alone[b, a])
    for k in np.flatnonzero((repeats[a] > 1) | (repeats[b] > 1)):
        i, j = a[k], b[k]
        common = math.lcm(int(repeats[i]), int(repeats[j]))
        p[k] = sign_flip(times[i] * (common // repeats[i]) - times[j] * (common // repeats[j]))
    return p


def member_of(evaluated: Evaluated, row: Any) -> Member:
    """Returns the results of a run per image.

    Raises:
      UserError: the arrays of an attack stage cannot be read.
    """
    measured = row.measured
    arrays = [read_arrays(measured.evaluation, record, "index", "correct") for record in measured.summary.records]
    times = np.stack([repeat["correct"].astype(bool) for repeat in arrays]).sum(0, dtype=np.int64)
    return Member(evaluated, row, arrays[0]["index"].astype(np.int64), times)


def images_of(measured: Measured) -> str:
    """Identifies the images of a split by their digest if the data are available, otherwise by that of the data."""
    used = measured.evaluation.data
    known = (measured.run.data, *(data for data, _ in measured.run.others.values()))
    data = next((data for data in known if data and data.fingerprint == used), None)
    # The test images stay the same if only training and validation are split differently.
    return (
        str(data.manifest["outputs"].get("test_images.npy", used)) if data and measured.first.split == "test" else used
    )


def _notes(bare: Sequence[str], apart: Sequence[str]) -> tuple[str, ...]:
    notes = []
    if bare:
        notes.append(f"Not compared in pairs, as their results per image are not at hand: {several(bare)}.")
    if apart:
        notes.append(
            f"Compared in pairs only where they were judged on the same images, which are not the same for all of: "
            f"{several(apart)}."
        )
    return tuple(notes)
