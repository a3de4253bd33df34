"""What a paper claims of its table or figure, and whether one's own results bear it out."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from l2p_tf.evaluation.records import CLEAN
from l2p_tf.experiments.definition import Claim
from l2p_tf.experiments.reproduction import Reproduction, measured_on
from l2p_tf.experiments.reproduction import section as table_section
from l2p_tf.reporting.examples import perturbations
from l2p_tf.reporting.format import listed, plain, plural
from l2p_tf.reporting.load import Run
from l2p_tf.reporting.measured import Evaluated
from l2p_tf.reporting.pairs import Member, group_of, images_of, member_of
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import Section
from l2p_tf.reporting.stats import holm
from l2p_tf.reporting.table import Cell, Column, Table, figures
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
class Evidence:
    """The results of an experiment, with its runs by the names that it has for them."""

    reproduction: Reproduction
    results: Results
    runs: Mapping[str, Run]

    def attacks(self, spec: str) -> Sequence[str]:
        """The attacks as they were run."""
        return self.reproduction.attacks[spec]

    def measured(self, name: str, attack: str, checkpoint: str) -> tuple[Evaluated, Any] | None:
        """An attack on a run at some weights, any where `checkpoint` is empty, with its row; None if not measured."""
        for one in self.results.evaluated:
            if name in self.runs and one.run is self.runs[name] and checkpoint in ("", one.place[0]):
                for row in one.rows:
                    if (row.attack, row.backend) == (attack, "l2p_tf"):
                        return one, row
        return None

    def norms(self, name: str, attack: str, checkpoint: str) -> np.ndarray | None:
        """Norms of the perturbations that succeeded, of the first repeat; None if not measured."""
        row = measured_on(self.results, self.runs[name], attack, checkpoint) if name in self.runs else None
        if row is None:
            return None
        first = dataclasses.replace(row.measured.summary, records=row.measured.summary.records[:1])
        return perturbations(dataclasses.replace(row.measured, summary=first)).norms

    def point(self, name: str, attack: str) -> tuple[float, float] | None:
        """Clean accuracy, and mean norm of the perturbations that succeeded; None where either was not measured."""
        if name not in self.runs:
            return None
        clean, row = (measured_on(self.results, self.runs[name], spec) for spec in (CLEAN, attack))
        mean = perturbations(row.measured).mean if row else None
        return None if clean is None or mean is None else (clean.accuracy, mean)


Check = Callable[[Evidence, Mapping[str, object]], Verdict]
CHECKS: dict[str, Check] = {}


def section(reproduction: Reproduction, results: Results) -> Section | None:
    """A row for each claim of an experiment; None where it has none.

    Raises:
      UserError: a claim has no check, or not the options that this needs, or arrays cannot be read.
    """
    runs = {name: run for name in reproduction.keys if (run := reproduction.run(name, results.all_runs)) is not None}
    evidence = Evidence(reproduction, results, runs)
    judged = [(claim, judge(claim, evidence)) for claim in reproduction.experiment.claims]
    if not judged:
        return None
    columns = (Column("Claim", figures=False), Column("Verdict", figures=False), Column("Here", figures=False))
    rows = [(Cell(c.text), Cell(v.word, tone=_TONES[v.word]), Cell(v.text)) for c, v in judged]
    texts = figures([{"claim": claim.text, "verdict": v.word, "figures": v.text} for claim, v in judged])
    note = " ".join([_NOTE, *(() if reproduction.table else reproduction.choices)])
    poor = _untrained(evidence)
    if poor:
        note += f" Too poor on clean images for what they say here to tell anything: {listed(poor)}."
    if reproduction.experiment.figure:
        note += " The figure itself is among the plots below."
    return Section((Table("", _CAPTION, columns, tuple(rows)),), texts, note, name=NAME, title="What the paper claims")


def of_report(reproduction: Reproduction) -> dict[str, Any]:
    """What `report.make` is to be given for the report of an experiment."""
    experiment = reproduction.experiment
    return {
        "title": reproduction.title,
        "sections": [functools.partial(make_section, reproduction) for make_section in (table_section, section)],
        "described": {"experiment": json.loads(json.dumps(dataclasses.asdict(experiment)))},
    }


def judge(claim: Claim, evidence: Evidence) -> Verdict:
    """Looks for one claim in the evidence.

    Raises:
      UserError: it has no check, or not the options that this needs, or arrays cannot be read.
    """
    if claim.check not in CHECKS:
        raise UserError(f"`check` of a claim should be one of {', '.join(CHECKS)}. Received: {claim.check!r}")
    try:
        return CHECKS[claim.check](evidence, claim.options)
    except KeyError as error:
        raise UserError(f"The claim {claim.text!r} should have the option {error} of its check.") from error


def _check(name: str) -> Callable[[Check], Check]:
    def register(function: Check) -> Check:
        CHECKS[name] = function
        return function

    return register


@_check("above")
def above(evidence: Evidence, options: Mapping[str, object]) -> Verdict:
    """`run` keeps more images right than each of `than`, under each attack of `attack`; `checkpoint` weights."""
    checkpoint = str(options.get("checkpoint", ""))
    other_checkpoint = str(options.get("than_checkpoint", checkpoint))
    return _tally([
        _paired(evidence, attack, (str(options["run"]), checkpoint), (other, other_checkpoint))
        for attack in evidence.attacks(str(options["attack"]))
        for other in chosen(options["than"], evidence.runs)
    ])  # fmt: skip


@_check("larger")
def larger(evidence: Evidence, options: Mapping[str, object]) -> Verdict:
    """Attacks of smallest norm need larger perturbations on `run` than on each of `than`."""
    return _tally([
        _welch(evidence, attack, str(options["run"]), other)
        for attack in evidence.attacks(str(options["attack"]))
        for other in chosen(options["than"], evidence.runs)
    ])  # fmt: skip


@_check("falls")
def falls(evidence: Evidence, options: Mapping[str, object]) -> Verdict:
    """Every one of `runs` keeps fewer images right under the last of the attacks of `attack` than under the first."""
    attacks = evidence.attacks(str(options["attack"]))
    names = chosen(options["runs"], evidence.runs)
    return _tally([_paired(evidence, attacks[0], (name, ""), (name, ""), attacks[-1]) for name in names])


@_check("highest")
def highest(evidence: Evidence, options: Mapping[str, object]) -> Verdict:
    """Of `runs`, `run` keeps the most images right under `attack`."""
    best = str(options["run"])
    others = [name for name in chosen(options["runs"], evidence.runs) if name != best]
    attack = evidence.attacks(str(options["attack"]))[0]
    return _tally([_paired(evidence, attack, (best, ""), (name, "")) for name in others])


@_check("moves")
def moves(evidence: Evidence, options: Mapping[str, object]) -> Verdict:
    """A column of `run`'s history, or the mean over layers of a `parameter` of its noise, `rises` or `falls`.

    From its first value with the noise on, or from that after a share `since` of the values, to its last; `by` is the
    least factor that counts, 1.1 where it is not given; a smaller change leaves the claim undecided.
    """
    name, direction = str(options["run"]), str(options["direction"])
    run = evidence.runs.get(name)
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
def outside(evidence: Evidence, options: Mapping[str, object]) -> Verdict:
    """The curve of `runs` lies outside that of `than`: larger perturbations at the same clean accuracy."""
    attack = evidence.attacks(str(options["attack"]))[0]
    mine = [point for name in chosen(options["runs"], evidence.runs) if (point := evidence.point(name, attack))]
    others = sorted(point for name in chosen(options["than"], evidence.runs) if (point := evidence.point(name, attack)))
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
    evidence: Evidence, attack: str, mine: tuple[str, str], other: tuple[str, str], other_attack: str = ""
) -> Compared | None:
    """Two runs, or one at two weights or under two attacks, on the same images; None where that was not measured."""
    sides = [evidence.measured(mine[0], attack, mine[1]), evidence.measured(other[0], other_attack or attack, other[1])]
    found = [side for side in sides if side and side[1].measured.has_arrays]
    if len(found) < 2:
        return None
    a, b = (member_of(*side) for side in found)
    if images_of(a.row.measured) != images_of(b.row.measured) or not np.array_equal(a.index, b.index):
        return None
    (pair,) = group_of([a, b]).pairs
    sign = 1.0 if pair.first is a else -1.0
    low, high = sorted((100 * sign * pair.low, 100 * sign * pair.high))
    names = [_side(member, mine[0] == other[0]) for member in (a, b)]
    return Compared(" \N{MINUS SIGN} ".join(names), 100 * sign * pair.difference, low, high, pair.p)


def _side(member: Member, same: bool) -> str:
    row, run = member.row, member.evaluated.run
    what = [plain(row.label), *([plain(row.weights)] if row.weights != "best" else [])]
    detail = f" ({', '.join(what)})" if same else ""
    return f"{run.name}{detail} {100 * row.accuracy:.1f}"


def _welch(evidence: Evidence, attack: str, mine: str, other: str) -> Compared | None:
    sides = [evidence.norms(name, attack, "") for name in (mine, other)]
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


def _untrained(evidence: Evidence) -> list[str]:
    """Runs that get less than half as many clean images right as the best of them, with that share."""
    clean = {name: met[1].accuracy for name in evidence.runs if (met := evidence.measured(name, CLEAN, ""))}
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
