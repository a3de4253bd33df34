"""Whether an accuracy under attack comes from robustness, or from gradients that mislead the attack."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from l2p_tf.evaluation.inspections import Inspection
from l2p_tf.evaluation.masking import CHECKS, FAIL, LEVEL, NOT_NEEDED, PASS, UNMEASURED, Finding, Share, unmeasured
from l2p_tf.reporting.format import epsilon, interval, listed, norm_name, percent, plain, sentence, several
from l2p_tf.reporting.load import Run
from l2p_tf.reporting.measured import strongest
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import Section, section
from l2p_tf.reporting.table import Cell, Column, Table, figures, in_percent, rounded
from l2p_tf.reporting.transferred import transfer_findings

# What a column is sorted by: failures first.
_ORDER = {FAIL: 0.0, UNMEASURED: 1.0, NOT_NEEDED: 1.0, PASS: 2.0}
_TONES = {PASS: "good", FAIL: "bad", UNMEASURED: "unknown", NOT_NEEDED: "unknown"}
# With more runs than this the checks go across: runs are then more than checks.
_ACROSS = 5
_NOTE = (
    "An accuracy under attack may come from robustness, or from gradients that mislead the attack. Each check compares "
    "attacks on the same images, those that the model gets right, by exact one-sided tests: a sign test where two "
    "attacks are compared, binomial tests of shares. A check fails if its test rejects at the "
    f"{100 * LEVEL:g}% level; passing all of them is no proof of robustness."
)
_CAPTION = (
    "Below each verdict the figures of its check, in images of all that were judged; shares with 95% intervals are in "
    "checks.csv."
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


@dataclasses.dataclass(frozen=True)
class Checked:
    """All checks of one run on one split.

    Attributes:
      run: the run.
      name: its name, with the weights where they are not the best ones.
      dataset: the data set.
      split: its split.
      inspection: what a checks stage measured; None where only transferred examples tell.
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


@section("checks", "Gradient-masking checks", order=35)
def checks(results: Results) -> Section | None:
    """A table of runs by checks, what each check expects, and a warning for each run that fails one."""
    checked = results.once(checked_of)
    unchecked = [run.name for run in results.all_runs if run.records and not run.checked]
    remarks = (_unchecked(unchecked),) if unchecked else ()
    if not any(one.those(PASS) or one.those(FAIL) for one in checked):
        return Section(note=" ".join(remarks)) if remarks else None
    tables = [*_verdicts(checked), *_failures(checked)]
    rows = [row for one in checked for finding in one.findings for row in _rows(one, finding)]
    return Section(tuple(tables), figures(rows), _NOTE, warnings=tuple(_warnings(checked)), remarks=remarks)


def checked_of(results: Results) -> list[Checked]:
    """Every run with its checks, of the checks stage on the most images, and those of transferred examples.

    Raises:
      UserError: arrays cannot be read.
    """
    made = []
    for run in results.all_runs:
        stages = [((stage.checkpoint, one.dataset, one.split), one) for stage in run.checked for one in stage.records]
        inspected = dict(strongest(stages, lambda pair: pair[0], lambda pair: pair[1].count))
        transferred = transfer_findings(run, results)
        for place in dict.fromkeys([*inspected, *transferred]):
            inspection = inspected.get(place)
            known = {finding.check: finding for finding in inspection.findings} if inspection else {}
            # Only a report knows of examples that were made on other runs.
            known |= {"transfer": transferred[place]} if place in transferred else {}
            findings = tuple(known.get(check, unmeasured(check)) for check in CHECKS)
            made.append(Checked(run, run.named(place[0]), *place[1:], inspection, findings))
    return made


def _unchecked(names: Sequence[str]) -> str:
    return (
        f"Signs of gradient masking were not looked for on {several(names)}; --checks=100 of stages.attack and "
        "stages.pipeline does so on 100 images."
    )


def _warnings(checked: Sequence[Checked]) -> list[str]:
    """One sentence for each run that fails a check."""
    warnings = []
    for one in checked:
        failed = one.those(FAIL)
        if failed:
            why = "; ".join(f"{CHECKS[f.check].title}: {CHECKS[f.check].failed}" for f in failed)
            warnings.append(
                f"{one.name} fails {len(failed)} of the {len(failed + one.those(PASS))} checks for gradient masking "
                f"that were made, so its accuracy under attack may be overstated ({why})."
            )
    return warnings


def _measured(checked: Sequence[Checked]) -> list[str]:
    """The checks that a run was measured by, or of which it is said why not."""
    findings = [
        finding for one in checked for finding in one.findings if finding.verdict != UNMEASURED or finding.reason
    ]
    return [check for check in CHECKS if check in {finding.check for finding in findings}]


def _caption(shown: Sequence[str]) -> str:
    missing = [meaning.title for check, meaning in CHECKS.items() if check not in shown]
    return f"{_CAPTION} Measured on no run: {listed(missing)}." if missing else _CAPTION


def _failures(checked: Sequence[Checked]) -> list[Table]:
    """What speaks against the runs that fail; nothing where none does."""
    rows = [
        (Cell(one.name), Cell(CHECKS[f.check].title), Cell(f"{sentence(CHECKS[f.check].failed)}."), Cell(*_figures(f)))
        for one in checked
        for f in one.those(FAIL)
    ]
    heads = tuple(Column(label, figures=False) for label in ("Run", "Check", "What it says", "Figures"))
    return (
        [Table("Failed checks", "Counts, shares in percent and their 95% intervals.", heads, tuple(rows))]
        if rows
        else []
    )


def _verdicts(checked: Sequence[Checked]) -> list[Table]:
    """Checks by runs, each check with what it expects; runs by checks where there are many runs.

    Checks that were measured on no run are left to the caption.
    """
    shown = _measured(checked)
    fields = [{finding.check: _field(finding) for finding in one.findings} for one in checked]
    if len(checked) <= _ACROSS:
        heads = [Column("Check", figures=False)]
        for one in checked:
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
    rows = [(_head(one), *(mine[check] for check in shown)) for one, mine in zip(checked, fields, strict=True)]
    return [Table("Verdicts", _caption(shown), tuple(heads), tuple(rows)), _meanings(shown)]


def _meanings(shown: Sequence[str]) -> Table:
    rows = tuple((Cell(CHECKS[check].title), Cell(CHECKS[check].expects)) for check in shown)
    heads = tuple(Column(label, figures=False) for label in ("Check", "What it expects"))
    return Table("What the checks expect", "What a sound model does.", heads, rows)


def _head(one: Checked) -> Cell:
    below = [f"{one.run.title_of(one.dataset)}, {plain(one.split)}"]
    if one.inspection:
        inspection = one.inspection
        below.append(f"{norm_name(inspection.norm)} ε {epsilon(inspection.epsilon)}")
        below.append(f"{inspection.correct:,} right of {inspection.count:,}")
    return Cell(one.name, tuple(below))


def _field(finding: Finding) -> Cell:
    below = [text for text in (_counts(finding), plain(finding.reason) if finding.reason else "") if text]
    return Cell(finding.verdict, tuple(below), tone=_TONES[finding.verdict], value=_ORDER[finding.verdict])


def _counts(finding: Finding) -> str:
    """The figures of a check, each by its name, and of how many images; empty where there are none."""
    hits = [f"{plain(share.label)}: {share.hits:,}" for share in finding.shares]
    counts = dict.fromkeys(f"{share.count:,}" for share in finding.shares)
    return f"{', '.join(hits)} of {' and '.join(counts)}" if hits else ""


def _figures(finding: Finding) -> tuple[str, tuple[str, ...]]:
    first, *others = map(_figure, finding.shares)
    return first, tuple(others)


def _figure(share: Share) -> str:
    shown = f"{percent(share.value, share.count)}; {interval(*share.interval, share.count)}"
    return f"{plain(share.label)}: {share.hits:,} of {share.count:,} ({shown})"


def _rows(one: Checked, finding: Finding) -> list[dict[str, object]]:
    return [
        {
            "run": one.name, "dataset": one.dataset, "split": one.split,
            "epsilon": rounded(one.inspection.epsilon if one.inspection else None), "check": finding.check,
            "verdict": finding.verdict, "p": rounded(finding.p), "figure": plain(share.label) if share else "",
            "hits": share.hits if share else None, "count": share.count if share else None,
            "share": in_percent(share.value if share and share.count else None),
            "low": in_percent(share.interval[0] if share else None),
            "high": in_percent(share.interval[1] if share else None), "reason": finding.reason,
            "expects": CHECKS[finding.check].expects,
        }
        for share in finding.shares or (None,)
    ]  # fmt: skip
