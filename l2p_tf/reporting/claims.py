"""What a paper claims of its table or figure, and whether one's own results bear it out."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from scipy import stats

from l2p_tf.evaluation.records import CLEAN
from l2p_tf.experiments.definition import Claim
from l2p_tf.reporting.arrays import read_arrays
from l2p_tf.reporting.norms import found_of, sizes_of
from l2p_tf.reporting.reproduction import Reproduction, found
from l2p_tf.reporting.runs import Run
from l2p_tf.reporting.sheets import Field, Head, Section, Sheet
from l2p_tf.reporting.significance import sign_flip
from l2p_tf.reporting.text import plural
from l2p_tf.types import UserError

NAME = "claims"
LEVEL = 0.05
_TONES = {"borne out": "good", "not borne out": "bad", "undecided": "unknown", "not measured": "unknown"}
_NOTE = (
    "What the paper says, in our words, and whether these results bear it out. Accuracies are compared on the same "
    f"images by a paired test (McNemar's, or its extension to repeats), sizes of perturbations by Welch's test; a "
    f"difference counts at p < {LEVEL:g}, each by itself. A claim is borne out where all differences have its sign and "
    "count, undecided where they do not count, and each rests on one training of each run."
)
_CAPTION = "Claim, verdict, and the figures behind it."


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

    def answers(self, name: str, attack: str, which: str) -> tuple[dict[int, int], int] | None:
        """How often each image was right, by its place in the split, and of how many repeats; None if not measured."""
        met = found(self.runs[name], attack, which) if name in self.runs else None
        if met is None:
            return None
        evaluation, summary = met
        times: dict[int, int] = {}
        for record in summary.records:
            arrays = read_arrays(evaluation, record, "index", "correct")
            for index, right in zip(arrays["index"].tolist(), arrays["correct"].tolist(), strict=True):
                times[index] = times.get(index, 0) + int(right)
        return times, len(summary.records)

    def norms(self, name: str, attack: str, which: str) -> np.ndarray | None:
        """Norms of the perturbations that succeeded; None if not measured."""
        met = found(self.runs[name], attack, which) if name in self.runs else None
        return None if met is None else found_of(met[0], met[1].records).norms

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
    heads = (Head("Claim", figures=False), Head("Verdict", figures=False), Head("Here", figures=False))
    rows = [(Field(c.text), Field(v.word, tone=_TONES[v.word]), Field(v.text)) for c, v in judged]
    lines = [{"claim": claim.text, "verdict": verdict.word, "figures": verdict.text} for claim, verdict in judged]
    note = " ".join([_NOTE, *(() if reproduction.table else reproduction.experiment.choices)])
    return Section(
        NAME, "What the paper claims", (Sheet("", _CAPTION, heads, tuple(rows)),), tuple(lines), note, leading=True
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
    """`run` keeps more images right than each of `than`, under each attack of `attack`; `which` weights."""
    which = str(options.get("which", ""))
    compared = []
    for attack in results.attacks(str(options["attack"])):
        mine = results.answers(str(options["run"]), attack, which)
        for other in chosen(options["than"], results.runs):
            compared.append(_paired(mine, results.answers(other, attack, str(options.get("than_which", which)))))
    return _tally(compared)


@_check("larger")
def larger(results: Results, options: Mapping[str, object]) -> Verdict:
    """Attacks of smallest norm need larger perturbations on `run` than on each of `than`."""
    compared = []
    for attack in results.attacks(str(options["attack"])):
        mine = results.norms(str(options["run"]), attack, "")
        for other in chosen(options["than"], results.runs):
            compared.append(_welch(mine, results.norms(other, attack, "")))
    return _tally(compared, "mean size")


@_check("falls")
def falls(results: Results, options: Mapping[str, object]) -> Verdict:
    """Every one of `runs` keeps fewer images right under the last of the attacks of `attack` than under the first."""
    attacks = results.attacks(str(options["attack"]))
    compared = [
        _paired(results.answers(name, attacks[0], ""), results.answers(name, attacks[-1], ""))
        for name in chosen(options["runs"], results.runs)
    ]
    return _tally(compared)


@_check("highest")
def highest(results: Results, options: Mapping[str, object]) -> Verdict:
    """Of `runs`, `run` keeps the most images right under `attack`."""
    attack, best = results.attacks(str(options["attack"]))[0], str(options["run"])
    others = [name for name in chosen(options["runs"], results.runs) if name != best]
    mine = results.answers(best, attack, "")
    pairs = [(name, _paired(mine, results.answers(name, attack, ""))) for name in others]
    if mine is None or any(pair is None for _, pair in pairs):
        return Verdict("not measured", "Not all of the runs were judged.")
    ahead = [(name, pair) for name, pair in pairs if pair and pair[0] < 0]
    text = f"{_share(mine)} for {best}; "
    if not ahead:
        return Verdict("borne out", text + "no other is higher.")
    name, worst = min(ahead, key=lambda one: one[1][0] if one[1] else 0.0)
    beaten = any(pair[1] < LEVEL for _, pair in ahead)
    text += f"{name} is higher by {-100 * worst[0]:.1f} points (p = {worst[1]:.2g})."
    return Verdict("not borne out" if beaten else "undecided", text)


@_check("moves")
def moves(results: Results, options: Mapping[str, object]) -> Verdict:
    """A column of `run`'s history, or the mean over layers of a `parameter` of its noise, `rises` or `falls`.

    From its first value with the noise on, or from that after a share `since` of the values, to its last; `by` is the
    least factor that counts.
    """
    name, direction = str(options["run"]), str(options["direction"])
    run = results.runs.get(name)
    values = _history(run, options) if run else np.empty(0)
    if len(values) < 2:
        return Verdict("not measured", f"{name} has no such curve.")
    begun = min(int(float(str(options.get("since", 0.0))) * len(values)), len(values) - 2)
    first, last = float(values[begun]), float(values[-1])
    factor = float(str(options.get("by", 1.0)))
    rose, fell = last > first * factor, last < first / factor
    what = str(options.get("parameter") or options.get("column"))
    text = f"{what} of {name} went from {first:.4g} to {last:.4g} over {plural(len(values) - begun, 'value')}."
    return Verdict("borne out" if (rose if direction == "rises" else fell) else "not borne out", text)


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


Compared = tuple[float, float] | None
"""A difference and its p-value; None where one side was not measured."""


def _paired(first: tuple[dict[int, int], int] | None, second: tuple[dict[int, int], int] | None) -> Compared:
    if first is None or second is None or first[0].keys() != second[0].keys():
        return None
    (mine, repeats), (others, times) = first, second
    # In whole numbers, whatever the numbers of repeats are.
    differences = np.array([times * mine[index] - repeats * others[index] for index in mine])
    return float(differences.mean()) / (repeats * times), sign_flip(differences)


def _welch(first: np.ndarray | None, second: np.ndarray | None) -> Compared:
    if first is None or second is None or min(len(first), len(second)) < 2:
        return None
    return float(first.mean() - second.mean()), float(stats.ttest_ind(first, second, equal_var=False).pvalue)


def _tally(compared: Sequence[Compared], what: str = "accuracy") -> Verdict:
    there = [one for one in compared if one is not None]
    if not there or len(there) < len(compared):
        return Verdict("not measured", f"{len(there)} of {plural(len(compared), 'comparison')} could be made.")
    higher = sum(p < LEVEL and difference > 0 for difference, p in there)
    lower = sum(p < LEVEL and difference < 0 for difference, p in there)
    low, high = min(d for d, _ in there), max(d for d, _ in there)
    scale, unit = (100.0, " points") if what == "accuracy" else (1.0, "")
    shown = f"{scale * low:+.3g}" if low == high else f"{scale * low:+.3g} to {scale * high:+.3g}"
    word = "borne out" if higher == len(there) else "not borne out" if lower else "undecided"
    if len(there) == 1:
        return Verdict(word, f"Difference in {what} {shown}{unit}, p = {there[0][1]:.2g}.")
    level = len(there) - higher - lower
    text = f"Of {plural(len(there), 'comparison')} {higher} higher, {lower} lower, {level} not told apart; "
    text += f"differences in {what} {shown}{unit}."
    return Verdict(word, text)


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


def _share(answers: tuple[dict[int, int], int]) -> str:
    times, repeats = answers
    return f"{100 * sum(times.values()) / (len(times) * repeats):.1f}%"
