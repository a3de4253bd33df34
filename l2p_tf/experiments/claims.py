"""Claims of papers about a table or figure, and tests of them on one's own results.

Each kind of claim is a class with its settings, whose `judge` says whether the results support the claim.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from scipy import stats

from l2p_tf.experiments.evidence import Evidence
from l2p_tf.reporting.format import plain, plural
from l2p_tf.reporting.measured import Evaluated
from l2p_tf.reporting.pairs import group_of, images_of, member_of
from l2p_tf.reporting.stats import holm

LEVEL = 0.05
_LEAST = 1.1

Verdict = tuple[str, str]
"""`borne out`, `not borne out`, `undecided` or `not measured`; and the supporting figures as text."""


class Claim(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="check"):
    """Base of all claims; each `judge` tests the claim on results, and raises UserError if they cannot be read.

    Attributes:
      text: the claim, paraphrased.
    """

    text: str


class Above(Claim, tag="above", frozen=True, kw_only=True):
    """`run` is more accurate than each of `than`, under each attack of `attack`."""

    run: str
    than: tuple[str, ...]
    attack: str
    checkpoint: str = ""
    than_checkpoint: str = ""

    def judge(self, evidence: Evidence) -> Verdict:
        """Judges by paired tests."""
        weights = self.checkpoint, self.than_checkpoint or self.checkpoint
        return _tally([
            _paired(evidence, (self.run, attack, weights[0]), (other, attack, weights[1]))
            for attack in evidence.attacks[self.attack]
            for other in chosen(self.than, evidence.runs)
        ])  # fmt: skip


class Larger(Claim, tag="larger", frozen=True, kw_only=True):
    """Minimizing attacks need larger perturbations on `run` than on each of `than`."""

    run: str
    than: tuple[str, ...]
    attack: str

    def judge(self, evidence: Evidence) -> Verdict:
        """Judges by Welch's test."""
        return _tally([
            _welch(evidence, attack, self.run, other)
            for attack in evidence.attacks[self.attack]
            for other in chosen(self.than, evidence.runs)
        ])  # fmt: skip


class Falls(Claim, tag="falls", frozen=True, kw_only=True):
    """Each of `runs` is more accurate under the first than under the last of the attacks of `attack`."""

    runs: tuple[str, ...]
    attack: str

    def judge(self, evidence: Evidence) -> Verdict:
        """Judges by paired tests."""
        attacks = evidence.attacks[self.attack]
        names = chosen(self.runs, evidence.runs)
        return _tally([_paired(evidence, (name, attacks[0], ""), (name, attacks[-1], "")) for name in names])


class Highest(Claim, tag="highest", frozen=True, kw_only=True):
    """Of `runs`, `run` is the most accurate under `attack`."""

    run: str
    runs: tuple[str, ...]
    attack: str

    def judge(self, evidence: Evidence) -> Verdict:
        """Judges by paired tests."""
        attack = evidence.attacks[self.attack][0]
        others = [name for name in chosen(self.runs, evidence.runs) if name != self.run]
        return _tally([_paired(evidence, (self.run, attack, ""), (name, attack, "")) for name in others])


class Moves(Claim, tag="moves", frozen=True, kw_only=True):
    """A `column` of `run`'s history, or the mean over layers of a noise `parameter`, rises or falls.

    Compares the last value with the first one with the noise on, or with the one after a share `since` of the values;
    `by` is the smallest factor that counts. By default, a smaller change leaves the claim undecided.
    """

    run: str
    direction: Literal["rises", "falls"]
    column: str = ""
    parameter: str = ""
    since: float = 0.0
    by: float = _LEAST

    def judge(self, evidence: Evidence) -> Verdict:
        """Judges by the first and the last value, without a test."""
        values = self._values(evidence)
        if len(values) < 2:
            return "not measured", f"{self.run} has no such curve."
        begun = min(int(self.since * len(values)), len(values) - 2)
        first, last = float(values[begun]), float(values[-1])
        start, end = (first, last) if self.direction == "rises" else (last, first)
        factor = end / start if start else math.inf
        text = f"{self.parameter or self.column} of {self.run} went from {first:.4g} to {last:.4g} over "
        small = self.by == _LEAST and factor > 1 / _LEAST
        word = "borne out" if factor >= self.by else "undecided" if small else "not borne out"
        return word, f"{text}{plural(len(values) - begun, 'value')}."

    def _values(self, evidence: Evidence) -> np.ndarray:
        history = evidence.runs[self.run].history if self.run in evidence.runs else None
        if history is None:
            return np.empty(0)
        if not self.parameter:
            curve = history.curve(self.column)
            return np.empty(0) if curve is None else curve[1]
        means = history.noise_means(self.parameter)
        if means is None:
            return np.empty(0)
        on = history.epochs >= (history.noise_start or 0)
        return np.asarray(means[on & ~np.isnan(means)])


class Outside(Claim, tag="outside", frozen=True, kw_only=True):
    """The curve of `runs` lies outside that of `than`: larger perturbations at the same clean accuracy."""

    runs: tuple[str, ...]
    than: tuple[str, ...]
    attack: str

    def judge(self, evidence: Evidence) -> Verdict:
        """Judges by the points of both curves, without a test."""
        attack = evidence.attacks[self.attack][0]
        points, others = (
            sorted(point for name in chosen(names, evidence.runs) if (point := evidence.point(name, attack)))
            for names in (self.runs, self.than)
        )
        if not points or not others:
            return "not measured", "One of the curves has no points."
        clean, rho = np.array(others).T
        within = [(x, y, float(np.interp(x, clean, rho))) for x, y in points if clean[0] <= x <= clean[-1]]
        if not within:
            return "undecided", "No two runs come near enough in clean accuracy."
        ahead = sum(y > other for _, y, other in within)
        text = f"Outside at {ahead} of {plural(len(within), 'point')} within the other's range of clean accuracy: "
        text += "; ".join(f"{100 * x:.1f}%: {y:.3g} against {other:.3g}" for x, y, other in within) + "."
        return "borne out" if ahead == len(within) else "not borne out" if not ahead else "undecided", text


AnyClaim = Above | Larger | Falls | Highest | Moves | Outside


def chosen(names: Iterable[str], runs: Iterable[str]) -> list[str]:
    """Resolves runs by name, or by patterns such as `pgd-epsilon_*`; unknown names are kept."""
    runs = list(runs)
    matches = [fnmatch.filter(runs, name) or ([] if "*" in name else [name]) for name in names]
    return list(dict.fromkeys(run for matching in matches for run in matching))


@dataclasses.dataclass(frozen=True)
class _Difference:
    """A difference in points of accuracy or in norm, with its 95% interval and p-value."""

    text: str
    value: float
    low: float
    high: float
    p: float

    def counts(self, corrected: float) -> bool:
        """Whether it is significantly different from 0."""
        return corrected < LEVEL and (self.low > 0 or self.high < 0)

    def __str__(self) -> str:
        return f"{self.text} = {_signed(self.value)} ({_signed(self.low)} to {_signed(self.high)})"


def _paired(evidence: Evidence, *sides: tuple[str, str, str]) -> _Difference | None:
    """Compares two runs, or one with two weights or attacks, on the same images; None if not measured.

    Args:
      evidence: the results.
      sides: run, attack and weights of both sides.
    """
    rows = [evidence.row(*side) for side in sides]
    if not all(row is not None and row.measured.has_arrays for row in rows):
        return None
    a, b = (member_of(Evaluated(row.measured.run, (row,)), row) for row in rows)
    if images_of(rows[0].measured) != images_of(rows[1].measured) or not np.array_equal(a.index, b.index):
        return None
    (pair,) = group_of([a, b]).pairs
    sign = 100.0 if pair.first is a else -100.0
    low, high = sorted((sign * pair.low, sign * pair.high))
    names = [_side(row, sides[0][0] == sides[1][0]) for row in rows]
    return _Difference(" \N{MINUS SIGN} ".join(names), sign * pair.difference, low, high, pair.p)


def _side(row: Any, same: bool) -> str:
    """Formats a run with its accuracy; adds attack and weights if both sides are the same run."""
    details = ", ".join([plain(row.label), *([plain(row.weights)] if row.weights != "best" else [])])
    return f"{row.run}{f' ({details})' * same} {100 * row.accuracy:.1f}"


def _welch(evidence: Evidence, attack: str, *names: str) -> _Difference | None:
    """Compares sizes of perturbations on two runs; None if not measured."""
    norms = [evidence.norms(name, attack) for name in names]
    if min(map(len, norms)) < 2:
        return None
    test = stats.ttest_ind(*norms, equal_var=False)
    low, high = test.confidence_interval(0.95)
    text = " \N{MINUS SIGN} ".join(f"{name} {side.mean():.3g}" for name, side in zip(names, norms, strict=True))
    return _Difference(text, float(norms[0].mean() - norms[1].mean()), float(low), float(high), float(test.pvalue))


def _tally(differences: Sequence[_Difference | None]) -> Verdict:
    """Returns the verdict on a claim that all of some differences are above 0."""
    known = [difference for difference in differences if difference is not None]
    if not known or len(known) < len(differences):
        return "not measured", f"{len(known)} of {plural(len(differences), 'comparison')} could be made."
    corrected = holm([difference.p for difference in known]).tolist()
    counting = [difference.value for difference, p in zip(known, corrected, strict=True) if difference.counts(p)]
    higher = sum(value > 0 for value in counting)
    lower = len(counting) - higher
    word = "borne out" if higher == len(known) else "not borne out" if lower else "undecided"
    if len(known) == 1:
        return word, f"{known[0]}, p = {corrected[0]:.2g}."
    least, *_, most = sorted(known, key=lambda difference: difference.value)
    level = f"{len(known) - len(counting)} with no significant difference"
    text = f"Of {len(known)} comparisons {higher} higher, {lower} lower, {level}. "
    return word, f"{text}Least: {least}. Most: {most}."


def _signed(value: float) -> str:
    text = f"{abs(value):.1f}" if abs(value) >= 10 else f"{abs(value):.2g}"
    return ("\N{MINUS SIGN}" if value < 0 else "+") + text
