"""Gradient masking checks: whether an accuracy under attack may come from misleading gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from l2p_tf.evaluation.masking.record import FAIL, NOT_NEEDED, PASS, UNMEASURED, Finding, Inspection, unmeasured
from l2p_tf.evaluation.masking.rules import CHECKS, LEVEL
from l2p_tf.reporting.format import epsilon, listed, norm_name, plain, several
from l2p_tf.reporting.load import Run
from l2p_tf.reporting.measured import strongest
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import Section, section
from l2p_tf.reporting.table import Cell, Column, Table, figures, in_percent, rounded
from l2p_tf.reporting.transferred import transfer_findings

# Sort keys of verdicts: failures first.
_ORDER = {FAIL: 0.0, UNMEASURED: 1.0, NOT_NEEDED: 1.0, PASS: 2.0}
_TONES = {PASS: "good", FAIL: "bad", UNMEASURED: "unknown", NOT_NEEDED: "unknown"}
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


@dataclasses.dataclass(frozen=True)
class _Checked:
    """All checks of one run on one split.

    Attributes:
      run: the run.
      name: its name, with the weights if they are not the best ones.
      dataset: the data set.
      split: its split.
      inspection: results of a checks stage; None if only transferred examples are available.
      findings: one per check.
    """

    run: Run
    name: str
    dataset: str
    split: str
    inspection: Inspection | None
    findings: tuple[Finding, ...]

    def failed(self) -> list[Finding]:
        """Returns the failed checks."""
        return [finding for finding in self.findings if finding.verdict == FAIL]

    def decided(self) -> list[Finding]:
        """Returns the checks that passed or failed."""
        return [finding for finding in self.findings if finding.verdict in (PASS, FAIL)]


@section("checks", "Gradient-masking checks", order=35)
def checks(results: Results) -> Section | None:
    """A table of runs by checks, one of what each check expects, and a warning for each run that fails a check."""
    unchecked = [run.name for run in results.all_runs if run.records and not run.checked]
    remarks = (
        f"Signs of gradient masking were not looked for on {several(unchecked)}; --checks=100 of stages.attack and "
        "stages.pipeline does so on 100 images.",
    ) if unchecked else ()  # fmt: skip
    checked = _checked(results)
    if not any(run.decided() for run in checked):
        return Section(note=" ".join(remarks)) if remarks else None
    rows = [row for run in checked for finding in run.findings for row in _rows(run, finding)]
    warnings = [_warning(run) for run in checked if run.failed()]
    return Section(_tables(checked), figures(rows), _NOTE, warnings=tuple(warnings), remarks=remarks)


def _checked(results: Results) -> list[_Checked]:
    """Returns every run with its checks: from the checks stage on the most images, and from transferred examples."""
    checked = []
    for run in results.all_runs:
        stages = [((stage.checkpoint, i.dataset, i.split), i) for stage in run.checked for i in stage.records]
        inspections = dict(strongest(stages, lambda pair: pair[0], lambda pair: pair[1].count))
        transferred = transfer_findings(run, results)
        for place in dict.fromkeys([*inspections, *transferred]):
            inspection = inspections.get(place)
            known = {finding.check: finding for finding in inspection.findings} if inspection else {}
            # Only a report knows of examples made on other runs.
            known |= {"transfer": transferred[place]} if place in transferred else {}
            findings = tuple(known.get(check, unmeasured(check)) for check in CHECKS)
            checked.append(_Checked(run, run.named(place[0]), *place[1:], inspection, findings))
    return checked


def _warning(checked: _Checked) -> str:
    failed = checked.failed()
    why = "; ".join(f"{CHECKS[finding.check].title}: {CHECKS[finding.check].failed}" for finding in failed)
    return (
        f"{checked.name} fails {len(failed)} of the {len(checked.decided())} checks for gradient masking that were "
        f"made, so its accuracy under attack may be overstated ({why})."
    )


def _tables(checked: Sequence[_Checked]) -> tuple[Table, Table]:
    """Returns verdicts by run and check, and expectations; checks undecided on all runs are only in the caption."""
    findings = [finding for run in checked for finding in run.findings]
    decided = {finding.check for finding in findings if finding.verdict != UNMEASURED or finding.reason}
    rated = [check for check in CHECKS if check in decided]
    missing = [meaning.title for check, meaning in CHECKS.items() if check not in decided]
    caption = f"{_CAPTION} Measured on no run: {listed(missing)}." if missing else _CAPTION
    heads = (Column("Run", figures=False), *(Column(CHECKS[c].title, CHECKS[c].figures, figures=False) for c in rated))
    verdicts = [(_head(run), *(_verdict(f) for f in run.findings if f.check in decided)) for run in checked]
    expected = [(Cell(CHECKS[check].title), Cell(CHECKS[check].expects)) for check in rated]
    return (
        Table("Verdicts", caption, heads, tuple(verdicts)),
        Table(
            "What the checks expect", "What a sound model does.",
            tuple(Column(label, figures=False) for label in ("Check", "What it expects")), tuple(expected),
        ),
    )  # fmt: skip


def _head(checked: _Checked) -> Cell:
    below = [f"{checked.run.title_of(checked.dataset)}, {plain(checked.split)}"]
    if inspection := checked.inspection:
        below.append(f"{norm_name(inspection.norm)} ε {epsilon(inspection.epsilon)}")
        below.append(f"{inspection.correct:,} right of {inspection.count:,}")
    return Cell(checked.name, tuple(below))


def _verdict(finding: Finding) -> Cell:
    """Returns the verdict, with its figures and the reason if there is none."""
    hits = ", ".join(f"{plain(share.label)}: {share.hits:,}" for share in finding.shares)
    counts = " and ".join(dict.fromkeys(f"{share.count:,}" for share in finding.shares))
    below = [f"{hits} of {counts}"] if hits else []
    below += [plain(finding.reason)] if finding.reason else []
    return Cell(finding.verdict, tuple(below), tone=_TONES[finding.verdict], value=_ORDER[finding.verdict])


def _rows(checked: _Checked, finding: Finding) -> list[dict[str, object]]:
    return [
        {
            "run": checked.name, "dataset": checked.dataset, "split": checked.split,
            "epsilon": rounded(checked.inspection.epsilon if checked.inspection else None), "check": finding.check,
            "verdict": finding.verdict, "p": rounded(finding.p), "figure": plain(share.label) if share else "",
            "hits": share.hits if share else None, "count": share.count if share else None,
            "share": in_percent(share.value if share and share.count else None),
            "low": in_percent(share.interval[0] if share else None),
            "high": in_percent(share.interval[1] if share else None), "reason": finding.reason,
            "expects": CHECKS[finding.check].expects,
        }
        for share in finding.shares or (None,)
    ]  # fmt: skip
