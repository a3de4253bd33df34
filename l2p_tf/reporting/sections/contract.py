"""Findings about imported models."""

from __future__ import annotations

from l2p_tf.contract import BEWARE, FITS, MENDED
from l2p_tf.reporting.format import listed, plain
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import Section, section
from l2p_tf.reporting.table import NOTHING, Cell, Column, Table, figures

_CAPTION = (
    "What each model answers and expects, found out on labeled images when it was imported. What is mended is part of "
    "the classifier that was judged."
)
_TONES = {FITS: "good", MENDED: "unknown", BEWARE: "bad"}
_ORDER = {BEWARE: 0.0, MENDED: 1.0, FITS: 2.0}


@section("contract", "Models from elsewhere", order=37)
def contract(results: Results) -> Section | None:
    """A table of imported runs by check, and a warning for each with a problem."""
    contracts = {run.name: run.note("contract") for run in results.all_runs if run.note("contract")}
    if not contracts:
        return None
    checks = list(dict.fromkeys(finding["check"] for findings in contracts.values() for finding in findings))
    rows, lines, warnings = [], [], []
    for name, findings in contracts.items():
        cells = {finding["check"]: _cell(finding) for finding in findings}
        rows.append((Cell(name), *(cells.get(check, NOTHING) for check in checks)))
        lines += [{"run": name, **{key: plain(value) for key, value in finding.items()}} for finding in findings]
        beware = [plain(finding["text"]) for finding in findings if finding["verdict"] == BEWARE]
        warnings += [f"{name} was trained elsewhere. {text}" for text in beware]
    heads = [Column("Run", figures=False), *(Column(plain(check), figures=False) for check in checks)]
    remarks = (f"What {listed(list(contracts))} learned from is not known: images they are judged on may be among it.",)
    table = Table("", _CAPTION, tuple(heads), tuple(rows))
    return Section((table,), figures(lines), warnings=tuple(warnings), remarks=remarks)


def _cell(finding: dict[str, str]) -> Cell:
    verdict = finding["verdict"]
    return Cell(plain(verdict), (plain(finding["text"]),), tone=_TONES.get(verdict, ""), value=_ORDER.get(verdict))
