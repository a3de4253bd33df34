"""What a paper claims of its table or figure, and whether one's own results bear it out."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from scipy import stats

from l2p_tf.evaluation.records import CLEAN
from l2p_tf.experiments.definition import Claim
from l2p_tf.reporting.format import listed, plain, plural
from l2p_tf.reporting.load import Run
from l2p_tf.reporting.pairs import Member, group_of, images_of, member_of
from l2p_tf.reporting.reproduction import Reproduction, found
from l2p_tf.reporting.section import Section
from l2p_tf.reporting.sections.norms import found_of, sizes_of
from l2p_tf.reporting.stats import holm
from l2p_tf.reporting.subjects import Measured, Subject, subjects
from l2p_tf.reporting.table import Cell, Column, Table
from l2p_tf.types import UserError

NAME = "claims"
LEVEL = 0.05
_TONES = {"borne out": "good", "not borne out": "bad", "undecided": "unknown", "not measured": "unknown"}
_NOTE = (
    "What the paper says, in our words, and whether these results bear it out. Two runs are compared on the same "
    "images by a paired test (McNemar's, or its extension to repeats), sizes of perturbations by Welch's; p-values are "
    f"corrected for the number of comparisons within a claim (Holm), and a difference counts where p < {LEVEL:g} and "
    "its 95% interval leaves out 0. A claim is borne out where all its differences count and have its sign, not borne "
    "out where one counts and has the other sign, and undecided otherwise. What is said of curves over epochs goes by "
    "their first and last values, and of robustness curves by their points, without a test. All rests on one training "
    "of each run."
)
_CAPTION = "Claim, verdict, and the figures behind it. Differences are in points of accuracy, with their 95% intervals."
_LEAST = 1.1


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a claim is borne out, and what that rests on."""

    word: str
    text: str


@dataclasses.dataclass(frozen=True)
class Results:
    """The runs of an experiment by the names that it has for them."""

    reproduction: Reproduction
    runs: Mapping[str, Run]

    def attacks(self, spec: str) -> Sequence[str]:
        """The attacks as they were run."""
        return self.reproduction.attacks[spec]

    def measured(self, name: str, attack: str, checkpoint: str) -> tuple[Subject, Measured] | None:
        """An attack on a run at some weights, any where `checkpoint` is empty; None if not measured."""
        for subject in self.subjects:
            if name in self.runs and subject.run is self.runs[name] and checkpoint in ("", subject.place[0]):
                for one in subject.measured:
                    if one.key == (attack, "l2p_tf"):
                        return subject, one
        return None

    @functools.cached_property
    def subjects(self) -> list[Subject]:
        """The runs with what was measured on them."""
        return subjects(list(self.runs.values()))

    def norms(self, name: str, attack: str, checkpoint: str) -> np.ndarray | None:
        """Norms of the perturbations that succeeded, of the first repeat; None if not measured."""
        met = found(self.runs[name], attack, checkpoint) if name in self.runs else None
        return None if met is None else found_of(met[0], met[1].records[:1]).norms

    def point(self, name: str, attack: str) -> tuple[float, float] | None:
        """Clean accuracy, and mean norm of the perturbations that succeeded; None where either was not measured."""
        if name not in self.runs:
            return None
        clean, met = found(self.runs[name], CLEAN), found(self.runs[name], attack)
        mean = sizes_of(met[0], met[1].records).mean if met else None
        return None if clean is None or mean is None else (clean[1].accuracy, mean)


Check = Callable[[Results, Mapping[str, object]], Verdict]
CHECKS: dict[str, Check] = {}


def section(reproduction: Reproduction, runs: Sequence[Run]) -> Section | None:
    """A row for each claim of an experiment; None where it has none.

    Raises:
      UserError: a claim has no check, or not the options that this needs, or arrays cannot be read.
    """
    by_name = {name: run for name in reproduction.keys if (run := reproduction.run(name, runs)) is not None}
    results = Results(reproduction, by_name)
    judged = [(claim, judge(claim, results)) for claim in reproduction.experiment.claims]
    if not judged:
        return None
    heads = (Column("Claim", figures=False), Column("Verdict", figures=False), Column("Here", figures=False))
    rows = [(Cell(c.text), Cell(v.word, tone=_TONES[v.word]), Cell(v.text)) for c, v in judged]
    lines = [{"claim": claim.text, "verdict": verdict.word, "figures": verdict.text} for claim, verdict in judged]
    note = " ".join([_NOTE, *(() if reproduction.table else reproduction.choices)])
    poor = _untrained(results)
    if poor:
        note += f" Too poor on clean images for what they say here to tell anything: {listed(poor)}."
    return Section(
        NAME, "What the paper claims", (Table("", _CAPTION, heads, tuple(rows)),), tuple(lines), note, leading=True
    )


def judge(claim: Claim, results: Results) -> Verdict:
    """Looks for one claim in the results.

    Raises:
      UserError: it has no check, or not the options that this needs, or arrays cannot be read.
    """
    if claim.check not in CHECKS:
        raise UserError(f"`check` of a claim should be one of {', '.join(CHECKS)}. Received: {claim.check!r}")
    try:
        return CHECKS[claim.check](results, claim.options)
    except KeyError as error:
        raise UserError(f"The claim {claim.text!r} should have the option {error} of its check.") from error


def _check(name: str) -> Callable[[Check], Check]:
    def register(function: Check) -> Check:
        CHECKS[name] = function
        return function

    return register


@_check("above")
def above(results: Results, options: Mapping[str, object]) -> Verdict:
    """`run` keeps more images right than each of `than`, under each attack of `attack`; `checkpoint` weights."""
    checkpoint = str(options.get("checkpoint", ""))
    other_checkpoint = str(options.get("than_checkpoint", checkpoint))
    return _tally([
        _paired(results, attack, (str(options["run"]), checkpoint), (other, other_checkpoint))
        for attack in results.attacks(str(options["attack"]))
        for other in chosen(options["than"], results.runs)
    ])  # fmt: skip


@_check("larger")
def larger(results: Results, options: Mapping[str, object]) -> Verdict:
    """Attacks of smallest norm need larger perturbations on `run` than on each of `than`."""
    return _tally([
        _welch(results, attack, str(options["run"]), other)
        for attack in results.attacks(str(options["attack"]))
        for other in chosen(options["than"], results.runs)
    ])  # fmt: skip


@_check("falls")
def falls(results: Results, options: Mapping[str, object]) -> Verdict:
    """Every one of `runs` keeps fewer images right under the last of the attacks of `attack` than under the first."""
    attacks = results.attacks(str(options["attack"]))
    names = chosen(options["runs"], results.runs)
    return _tally([_paired(results, attacks[0], (name, ""), (name, ""), attacks[-1]) for name in names])


@_check("highest")
def highest(results: Results, options: Mapping[str, object]) -> Verdict:
    """Of `runs`, `run` keeps the most images right under `attack`."""
    best = str(options["run"])
    others = [name for name in chosen(options["runs"], results.runs) if name != best]
    attack = results.attacks(str(options["attack"]))[0]
    return _tally([_paired(results, attack, (best, ""), (name, "")) for name in others])


@_check("moves")
def moves(results: Results, options: Mapping[str, object]) -> Verdict:
    """A column of `run`'s history, or the mean over layers of a `parameter` of its noise, `rises` or `falls`.

    From its first value with the noise on, or from that after a share `since` of the values, to its last; `by` is the
    least factor that counts, 1.1 where it is not given; a smaller change leaves the claim undecided.
    """
    name, direction = str(options["run"]), str(options["direction"])
    run = results.runs.get(name)
    values = _history(run, options) if run else np.empty(0)
    if len(values) < 2:
        return Verdict("not measured", f"{name} has no such curve.")
    begun = min(int(float(str(options.get("since", 0.0))) * len(values)), len(values) - 2)
    first, last = float(values[begun]), float(values[-1])
    least = float(str(options.get("by", _LEAST)))
    start, end = (first, last) if direction == "rises" else (last, first)
    factor = end / start if start else math.inf
    what = str(options.get("parameter") or options.get("column"))
    text = f"{what} of {name} went from {first:.4g} to {last:.4g} over {plural(len(values) - begun, 'value')}."
    small = least == _LEAST and factor > 1 / _LEAST
    word = "borne out" if factor >= least else "undecided" if small else "not borne out"
    return Verdict(word, text)


@_check("outside")
def outside(results: Results, options: Mapping[str, object]) -> Verdict:
    """The curve of `runs` lies outside that of `than`: larger perturbations at the same clean accuracy."""
    attack = results.attacks(str(options["attack"]))[0]
    mine = [point for name in chosen(options["runs"], results.runs) if (point := results.point(name, attack))]
    others = sorted(point for name in chosen(options["than"], results.runs) if (point := results.point(name, attack)))
    if not mine or not others:
        return Verdict("not measured", "One of the curves has no points.")
    clean, rho = np.array(others).T
    within = [(x, y, float(np.interp(x, clean, rho))) for x, y in mine if clean[0] <= x <= clean[-1]]
    if not within:
        return Verdict("undecided", "No two runs come near enough in clean accuracy.")
    ahead = sum(y > other for _, y, other in within)
    text = f"Outside at {ahead} of {plural(len(within), 'point')} within the other's range of clean accuracy: "
    text += "; ".join(f"{100 * x:.1f}%: {y:.3g} against {other:.3g}" for x, y, other in within) + "."
    word = "borne out" if ahead == len(within) else "not borne out" if not ahead else "undecided"
    return Verdict(word, text)


def chosen(names: object, runs: Iterable[str]) -> list[str]:
    """Runs by a name, a list of them, or patterns such as `pgd-epsilon_*`; a name that is not there stays."""
    found: list[str] = []
    for one in [names] if isinstance(names, str) else [str(name) for name in names]:  # type: ignore[attr-defined]
        found += fnmatch.filter(runs, one) or ([] if "*" in one else [one])
    return list(dict.fromkeys(found))


@dataclasses.dataclass(frozen=True)
class Compared:
    """A difference that a claim is about.

    Attributes:
      text: the two sides in words, with their figures.
      difference: in points of accuracy, or in norm.
      low: lower end of its 95% interval.
      high: upper end.
      p: p-value, by itself.
    """

    text: str
    difference: float
    low: float
    high: float
    p: float

    def counts(self, corrected: float) -> bool:
        """Whether it is told from 0."""
        return corrected < LEVEL and (self.low > 0 or self.high < 0)

    @property
    def shown(self) -> str:
        """Sides, difference and interval, as text."""
        return f"{self.text} = {_signed(self.difference)} ({_signed(self.low)} to {_signed(self.high)})"


def _paired(
    results: Results, attack: str, mine: tuple[str, str], other: tuple[str, str], other_attack: str = ""
) -> Compared | None:
    """Two runs, or one at two weights or under two attacks, on the same images; None where that was not measured."""
    sides = [results.measured(mine[0], attack, mine[1]), results.measured(other[0], other_attack or attack, other[1])]
    found = [side for side in sides if side and side[1].has_arrays]
    if len(found) < 2:
        return None
    a, b = (member_of(*side) for side in found)
    if images_of(*found[0]) != images_of(*found[1]) or not np.array_equal(a.index, b.index):
        return None
    (pair,) = group_of([a, b]).pairs
    sign = 1.0 if pair.first is a else -1.0
    low, high = sorted((100 * sign * pair.low, 100 * sign * pair.high))
    names = [
        _side(member, one.first.label, mine[0] == other[0]) for member, (_, one) in zip((a, b), found, strict=True)
    ]
    return Compared(" \N{MINUS SIGN} ".join(names), 100 * sign * pair.difference, low, high, pair.p)


def _side(member: Member, label: str, same: bool) -> str:
    checkpoint = member.subject.place[0]
    what = f" ({', '.join([plain(label), *([plain(checkpoint)] if checkpoint != 'best' else [])])})" if same else ""
    return f"{member.subject.run.name}{what} {100 * member.summary.accuracy:.1f}"


def _welch(results: Results, attack: str, mine: str, other: str) -> Compared | None:
    sides = [results.norms(name, attack, "") for name in (mine, other)]
    found = [side for side in sides if side is not None and len(side) > 1]
    if len(found) < 2:
        return None
    test = stats.ttest_ind(*found, equal_var=False)
    low, high = test.confidence_interval(0.95)
    a, b = (side.mean() for side in found)
    text = f"{mine} {a:.3g} \N{MINUS SIGN} {other} {b:.3g}"
    return Compared(text, float(a - b), float(low), float(high), float(test.pvalue))


def _tally(compared: Sequence[Compared | None]) -> Verdict:
    there = [one for one in compared if one is not None]
    if not there or len(there) < len(compared):
        return Verdict("not measured", f"{len(there)} of {plural(len(compared), 'comparison')} could be made.")
    corrected = holm([one.p for one in there]).tolist()
    told = [one.counts(p) for one, p in zip(there, corrected, strict=True)]
    higher = sum(counts and one.difference > 0 for one, counts in zip(there, told, strict=True))
    lower = sum(told) - higher
    word = "borne out" if higher == len(there) else "not borne out" if lower else "undecided"
    if len(there) == 1:
        return Verdict(word, f"{there[0].shown}, p = {corrected[0]:.2g}.")
    least, most = (pick(there, key=lambda one: one.difference) for pick in (min, max))
    alike = f"{len(there) - sum(told)} with no significant difference"
    text = f"Of {len(there)} comparisons {higher} higher, {lower} lower, {alike}. "
    return Verdict(word, text + f"Least: {least.shown}. Most: {most.shown}.")


def _signed(value: float) -> str:
    text = f"{abs(value):.1f}" if abs(value) >= 10 else f"{abs(value):.2g}"
    return ("\N{MINUS SIGN}" if value < 0 else "+") + text


def _untrained(results: Results) -> list[str]:
    """Runs that get less than half as many clean images right as the best of them, with that share."""
    clean = {name: met[1].summary.accuracy for name in results.runs if (met := results.measured(name, CLEAN, ""))}
    most = max(clean.values(), default=0.0)
    return [f"{name} ({100 * share:.1f}% clean)" for name, share in clean.items() if share < most / 2]


def _history(run: Run, options: Mapping[str, object]) -> np.ndarray:
    if run.history is None:
        return np.empty(0)
    if "parameter" not in options:
        curve = run.history.curve(str(options["column"]))
        return np.empty(0) if curve is None else curve[1]
    means = run.history.noise_means(str(options["parameter"]))
    if means is None:
        return np.empty(0)
    start = run.history.noise_start
    on = run.history.epochs >= start if start is not None else np.ones(len(means), bool)
    return np.asarray(means[on & ~np.isnan(means)])
