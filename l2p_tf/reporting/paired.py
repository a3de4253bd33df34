"""Runs compared in pairs on the same images: who is better under an attack, and who cannot be told apart."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np

from l2p_tf.evaluation.records import Record, Summary
from l2p_tf.reporting.arrays import read_arrays
from l2p_tf.reporting.runs import Run
from l2p_tf.reporting.significance import difference_interval, holm, mcnemar, sign_flip
from l2p_tf.reporting.subjects import Measured, Subject, by_place, subjects
from l2p_tf.reporting.text import minimal, several

NAME = "paired"
LEVEL = 0.05
"""A run is called better where the corrected p-value is below this."""

Key = tuple[str, str]
Who = tuple[str, str, str, str]
"""Key of a run, weights, data set and split."""


@dataclasses.dataclass(frozen=True)
class Member:
    """A run in a comparison.

    Attributes:
      subject: the run.
      summary: what was measured on it.
      index: positions of the images in their split, (count,).
      times: of how many evaluations each image was classified correctly, (count,) int64.
    """

    subject: Subject
    summary: Summary
    index: np.ndarray
    times: np.ndarray

    @property
    def repeats(self) -> int:
        """Number of evaluations."""
        return len(self.summary.records)


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two runs on the same images, the one with the higher accuracy first.

    Attributes:
      first: the run that is ahead; of two that are level, the one that comes first in the report.
      second: the other.
      difference: by how much it is ahead, as a share.
      low: lower end of the 95% interval of the difference, for this pair by itself.
      high: upper end of it.
      p: p-value of the exact sign-flip test, McNemar's for single evaluations.
      corrected: the same, corrected for the number of pairs under this attack.
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
        """Whether the first may be called better than the second."""
        # Over few repeats the test may be surer than the interval, which takes each answer singly: both count.
        return self.corrected < LEVEL and self.low > 0


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs under one attack, or on clean images, judged on the same images.

    Attributes:
      record: the first of them, for what all have in common.
      members: the runs, the highest accuracy first.
      pairs: every two of them.
    """

    record: Record
    members: tuple[Member, ...]
    pairs: tuple[Pair, ...]


@dataclasses.dataclass(frozen=True)
class Paired:
    """All comparisons of a report.

    Attributes:
      groups: two runs or more each.
      notes: which runs could not be compared, and why; a sentence each.
    """

    groups: tuple[Group, ...] = ()
    notes: tuple[str, ...] = ()

    def between(self, attack: Key, a: Who, b: Who) -> Pair | None:
        """The comparison of two runs under an attack (spec and backend); None where there is none."""
        for group in self.groups:
            if (group.record.attack, group.record.backend) == attack:
                for pair in group.pairs:
                    if {who(pair.first.subject), who(pair.second.subject)} == {a, b}:
                        return pair
        return None


def who(subject: Subject) -> Who:
    """What a run is found by in `Paired.between`."""
    return subject.run.key, *subject.place


def compared(runs: Sequence[Run]) -> Paired:
    """Compares every two runs on clean images and under every attack of a given size that both met on the same images.

    The same images are the same positions of the same split of the same data, at the same choice of weights.

    Raises:
      UserError: the arrays of an attack stage cannot be read.
    """
    groups: list[Group] = []
    bare, apart = [], []
    for place in by_place(subjects(runs)).values():
        met: dict[Key, list[tuple[Subject, Measured]]] = {}
        for subject in place:
            for one in subject.measured:
                if not minimal(one.first):
                    met.setdefault(one.key, []).append((subject, one))
        for found in met.values():
            if len(found) < 2:
                continue
            bare += [subject.name for subject, one in found if not one.has_arrays]
            parts: dict[object, list[Member]] = {}
            for subject, one in found:
                if one.has_arrays:
                    member = member_of(subject, one)
                    parts.setdefault((images_of(subject, one), member.index.tobytes()), []).append(member)
            groups += [group_of(members) for members in parts.values() if len(members) > 1]
            if len(parts) > 1:
                apart += [member.subject.name for members in parts.values() for member in members]
    return Paired(tuple(groups), _notes(bare, apart))


def group_of(members: Sequence[Member]) -> Group:
    """Every two of some runs judged on the same images."""
    ordered = sorted(members, key=lambda member: -member.summary.accuracy)
    chosen = np.array(list(itertools.combinations(range(len(ordered)), 2)))
    a, b = chosen.T
    repeats = np.array([member.repeats for member in ordered])
    shares = np.stack([member.times / member.repeats for member in ordered])
    count = shares.shape[1]
    means = shares.mean(1)
    centered = shares - means[:, None]
    covariance = (centered @ centered.T / count)[a, b]
    low, high = difference_interval(means[a], means[b], covariance, count)
    p = _p_values(ordered, repeats, a, b)
    pairs = tuple(
        Pair(ordered[i], ordered[j], float(means[i] - means[j]), float(low[k]), float(high[k]), float(p[k]), float(c))
        for k, (i, j, c) in enumerate(zip(a, b, holm(p), strict=True))
    )
    return Group(ordered[0].summary.first, tuple(ordered), pairs)


def _p_values(members: Sequence[Member], repeats: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    times = np.stack([member.times for member in members])
    right = (times > 0).astype(np.float64)
    # Of single evaluations: how many images only one of two got right, for all pairs at once.
    alone = right @ (1 - right.T)
    p = mcnemar(alone[a, b], alone[b, a])
    for k in np.flatnonzero((repeats[a] > 1) | (repeats[b] > 1)):
        i, j = a[k], b[k]
        common = math.lcm(int(repeats[i]), int(repeats[j]))
        p[k] = sign_flip(times[i] * (common // repeats[i]) - times[j] * (common // repeats[j]))
    return p


def member_of(subject: Subject, one: Measured) -> Member:
    """What was measured on a run, image by image.

    Raises:
      UserError: the arrays of an attack stage cannot be read.
    """
    records = one.summary.records
    arrays = [read_arrays(one.evaluation, record, "index", "correct") for record in records]
    times = np.stack([values["correct"].astype(bool) for values in arrays]).sum(0, dtype=np.int64)
    return Member(subject, one.summary, arrays[0]["index"].astype(np.int64), times)


def images_of(subject: Subject, one: Measured) -> str:
    """What tells the images of a split from others: their digest where the data are at hand, or that of the data."""
    data, artifact = subject.run.data, one.evaluation.artifact
    used = str(artifact.manifest["inputs"].get("data", "")) if artifact else ""
    # Where the same images were split into training and validation anew, those of the test are what they were.
    if data and data.fingerprint == used and one.first.split == "test":
        return str(data.manifest["outputs"].get("test_images.npy", used))
    return used


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
