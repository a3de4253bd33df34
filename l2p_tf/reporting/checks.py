"""Whether an accuracy under attack comes from robustness, or from gradients that mislead the attack."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from l2p_tf.evaluation.inspections import Inspection
from l2p_tf.evaluation.masking import CHECKS, FAIL, LEVEL, NOT_NEEDED, PASS, UNMEASURED, Finding, Share
from l2p_tf.reporting import signs
from l2p_tf.reporting.runs import Run
from l2p_tf.reporting.section import Section
from l2p_tf.reporting.subjects import strongest
from l2p_tf.reporting.table import Cell, Column, Table, in_percent, rounded
from l2p_tf.reporting.text import epsilon, interval, listed, norm_name, percent, plain

NAME = "checks"
_TITLE = "Gradient-masking checks"
# What a column is sorted by: failures first.
_ORDER = {FAIL: 0.0, UNMEASURED: 1.0, NOT_NEEDED: 1.0, PASS: 2.0}
_TONES = {PASS: "good", FAIL: "bad", UNMEASURED: "unknown", NOT_NEEDED: "unknown"}
_TOLD = "from its attacks"
# With more runs than this the checks go across: runs are then more than checks.
_ACROSS = 5
_NOTE = (
    "An accuracy under attack may come from robustness, or from gradients that mislead the attack. Each check compares "
    "attacks on the same images, those that the model gets right, by exact one-sided tests: a sign test where two "
    "attacks are compared, binomial tests of shares. A check fails if its test rejects at the "
    f"{100 * LEVEL:g}% level; passing all of them is no proof of robustness."
)
_CAPTION = (
    "Below each verdict the figures of its check, in images of all that were judged; "
    f"shares with 95% intervals are in {NAME}.csv."
)
_FIGURES = {
    "one_step": "fooled by FGSM, by PGD",
    "black_box": "fooled by PGD, without gradients, only so",
    "transfer": "fooled by its own, by transferred, only so",
    "unbounded": "fooled at \N{GREEK SMALL LETTER EPSILON} 1",
    "random_search": "fooled of what PGD left",
    "budget": "fooled as \N{GREEK SMALL LETTER EPSILON} grows",
    "eot": "fooled with one draw, with more, only so",
    "loss": "rises, beats random",
    "gradients": "without a gradient",
}
_HINT = (
    " What was not measured, --checks=100 measures on 100 images (in stages.attack and stages.pipeline); transferred "
    "examples need --transfer."
)


@dataclasses.dataclass(frozen=True)
class Judged:
    """All checks of one run on one split.

    Attributes:
      run: the run.
      name: its name, with the weights where they are not the best ones.
      dataset: the data set.
      split: its split.
      inspection: what a checks stage found; None where only attacks can tell.
      findings: one for each check.
    """

    run: Run
    name: str
    dataset: str
    split: str
    inspection: Inspection | None
    findings: tuple[Finding, ...]

    def those(self, verdict: str) -> list[Finding]:
        """The findings of a verdict."""
        return [finding for finding in self.findings if finding.verdict == verdict]


def judged(runs: Sequence[Run]) -> list[Judged]:
    """Every run with its checks: of a checks stage, that on the most images, else what its attacks tell.

    Raises:
      UserError: arrays cannot be read.
    """
    known = {run.key: run for run in runs}
    found = []
    for run in runs:
        told = signs.findings(run, known)
        stages = [((c.checkpoint, one.dataset, one.split), one) for c in run.checked for one in c.records]
        inspected = dict(strongest(stages, lambda pair: pair[0], lambda pair: pair[1].count))
        for place in dict.fromkeys([*inspected, *told]):
            inspection, checkpoint = inspected.get(place), place[0]
            # Only a report knows of examples that were made on other runs.
            mine = {finding.check: finding for finding in inspection.findings} if inspection else {}
            theirs = {finding.check: finding for finding in told.get(place, [])}
            if inspection:
                decided = {c: f for c, f in theirs.items() if f.verdict in (PASS, FAIL)}
                theirs |= {c: dataclasses.replace(f, reason=_TOLD) for c, f in decided.items()}
            best = {c: f for c, f in mine.items() if f.verdict != UNMEASURED or c not in theirs}
            # More images, or a stronger attack, may show what the stage did not see.
            for check, other in theirs.items():
                if other.verdict == FAIL and best.get(check, other).verdict == PASS:
                    best[check] = dataclasses.replace(other, reason=f"{_TOLD}; the checks stage passes it")
            findings = tuple({**theirs, **best}[check] for check in CHECKS)
            found.append(Judged(run, run.named(checkpoint), *place[1:], inspection, findings))
    return found


def warnings(found: Sequence[Judged]) -> list[str]:
    """One sentence for each run that fails a check."""
    said = []
    for one in found:
        failed, made = one.those(FAIL), one.those(FAIL) + one.those(PASS)
        if failed:
            why = "; ".join(f"{CHECKS[f.check].title}: {CHECKS[f.check].failed}" for f in failed)
            said.append(
                f"{one.name} fails {len(failed)} of the {len(made)} checks for gradient masking that were made, so its "
                f"accuracy under attack may be overstated ({why})."
            )
    return said


def section(found: Sequence[Judged]) -> Section | None:
    """A table of runs by checks, and what each check expects; None where nothing was checked."""
    if not any(one.those(PASS) or one.those(FAIL) for one in found):
        return None
    sheets = [*_verdicts(found), *_failures(found)]
    lines = tuple(line for one in found for finding in one.findings for line in _lines(one, finding))
    open_ones = any(one.those(UNMEASURED) for one in found)
    note = _NOTE + _HINT * open_ones
    return Section(NAME, _TITLE, tuple(sheets), lines, note)


def _measured(found: Sequence[Judged]) -> list[str]:
    """The checks that a run was measured by, or of which it is said why not."""
    return [
        check
        for i, check in enumerate(CHECKS)
        if any(one.findings[i].verdict != UNMEASURED or one.findings[i].reason for one in found)
    ]


def _caption(shown: Sequence[str]) -> str:
    missing = [meaning.title for check, meaning in CHECKS.items() if check not in shown]
    return f"{_CAPTION} Measured on no run: {listed(missing)}." if missing else _CAPTION


def _failures(found: Sequence[Judged]) -> list[Table]:
    """What speaks against the runs that fail; nothing where none does."""
    rows = [
        (Cell(one.name), Cell(CHECKS[f.check].title), Cell(_sentence(f)), Cell(*_figures(f)))
        for one in found
        for f in one.those(FAIL)
    ]
    heads = tuple(Column(label, figures=False) for label in ("Run", "Check", "What it says", "Figures"))
    return (
        [Table("Failed checks", "Counts, shares in percent and their 95% intervals.", heads, tuple(rows))]
        if rows
        else []
    )


def _verdicts(found: Sequence[Judged]) -> list[Table]:
    """Checks by runs, each check with what it expects; runs by checks where there are many runs.

    Checks that were measured on no run are left to the caption.
    """
    shown = _measured(found)
    fields = [{finding.check: _field(finding) for finding in one.findings} for one in found]
    if len(found) <= _ACROSS:
        heads = [Column("Check", figures=False)]
        for one in found:
            field = _head(one)
            heads.append(Column(field.text, "; ".join(field.below), figures=False))
        rows = [
            (
                Cell(CHECKS[check].title, (CHECKS[check].expects, f"Figures: {_FIGURES[check]}.")),
                *(mine[check] for mine in fields),
            )
            for check in shown
        ]
        return [Table("Verdicts", _caption(shown), tuple(heads), tuple(rows))]
    heads = [Column("Run", figures=False), *(Column(CHECKS[c].title, _FIGURES[c], figures=False) for c in shown)]
    rows = [(_head(one), *(mine[check] for check in shown)) for one, mine in zip(found, fields, strict=True)]
    return [Table("Verdicts", _caption(shown), tuple(heads), tuple(rows)), _meanings(shown)]


def _meanings(shown: Sequence[str]) -> Table:
    rows = tuple((Cell(CHECKS[check].title), Cell(CHECKS[check].expects)) for check in shown)
    heads = tuple(Column(label, figures=False) for label in ("Check", "What it expects"))
    return Table("What the checks expect", "What a sound model does.", heads, rows)


def _head(one: Judged) -> Cell:
    below = [f"{one.run.title_of(one.dataset)}, {plain(one.split)}"]
    if one.inspection:
        found = one.inspection
        below.append(f"{norm_name(found.norm)} ε {epsilon(found.epsilon)}")
        below.append(f"{found.correct:,} right of {found.count:,}")
    else:
        below.append(_TOLD)
    return Cell(one.name, tuple(below))


def _field(finding: Finding) -> Cell:
    below = [text for text in (_counts(finding), plain(finding.reason) if finding.reason else "") if text]
    return Cell(finding.verdict, tuple(below), tone=_TONES[finding.verdict], value=_ORDER[finding.verdict])


def _counts(finding: Finding) -> str:
    """The figures of a check, each by its name, and of how many images; empty where there are none."""
    hits = [f"{plain(share.label)}: {share.hits:,}" for share in finding.shares]
    counts = dict.fromkeys(f"{share.count:,}" for share in finding.shares)
    return f"{', '.join(hits)} of {' and '.join(counts)}" if hits else ""


def _sentence(finding: Finding) -> str:
    failed = CHECKS[finding.check].failed
    return f"{failed[:1].upper()}{failed[1:]}."


def _figures(finding: Finding) -> tuple[str, tuple[str, ...]]:
    first, *others = map(_figure, finding.shares)
    return first, tuple(others)


def _figure(share: Share) -> str:
    shown = f"{percent(share.value, share.count)}; {interval(*share.interval, share.count)}"
    return f"{plain(share.label)}: {share.hits:,} of {share.count:,} ({shown})"


def _lines(one: Judged, finding: Finding) -> list[dict[str, object]]:
    return [
        {
            "run": one.name, "dataset": one.dataset, "split": one.split,
            "epsilon": rounded(one.inspection.epsilon if one.inspection else None), "check": finding.check,
            "verdict": finding.verdict, "p": rounded(finding.p), "figure": plain(share.label) if share else "",
            "hits": share.hits if share else "", "count": share.count if share else "",
            "share": in_percent(share.value if share and share.count else None),
            "low": in_percent(share.interval[0] if share else None),
            "high": in_percent(share.interval[1] if share else None), "reason": finding.reason,
            "expects": CHECKS[finding.check].expects,
        }
        for share in finding.shares or (None,)
    ]  # fmt: skip
