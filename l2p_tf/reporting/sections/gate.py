"""Whether the required accuracies were reached."""

from __future__ import annotations

from l2p_tf.evaluation.gate import Outcome
from l2p_tf.reporting.format import plain
from l2p_tf.reporting.load import Run
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import Section, section
from l2p_tf.reporting.table import Cell, Column, Table, figures, in_percent

_CAPTION = (
    "What was required of each run (--require). The lower end of the 95% interval is held against it, so that a run "
    "does not pass by chance."
)
_COLUMNS = (
    Column("Run", figures=False), Column("Attack", figures=False), Column("Required", "%"), Column("Accuracy", "%"),
    Column("At least", "%, at 95%"), Column("Verdict", figures=False),
)  # fmt: skip


@section("gate", "Requirements", order=5)
def gate(results: Results) -> Section | None:
    """One row per requirement, and a warning for each that is missed."""
    found = [(run, outcome) for run in results.all_runs for outcome in run.outcomes]
    if not found:
        return None
    rows = [_figures(*pair) for pair in found]
    missed = [f"A requirement is missed: {plain(one.text)}." for _, one in found if not one.met]
    return Section((Table("", _CAPTION, _COLUMNS, tuple(_cells(*pair) for pair in found)),), figures(rows),
                   warnings=tuple(missed))  # fmt: skip


def _cells(run: Run, one: Outcome) -> tuple[Cell, ...]:
    verdict = Cell("met" if one.met else "missed", tone="good" if one.met else "bad", value=float(one.met))
    shares = (Cell(f"{100 * share:.1f}", value=share) for share in (one.share, one.accuracy, one.low))
    return Cell(run.name), Cell(plain(one.label)), *shares, verdict


def _figures(run: Run, one: Outcome) -> dict[str, object]:
    shares = {name: in_percent(getattr(one, name)) for name in ("share", "accuracy", "low")}
    return {"run": run.name, "attack": plain(one.attack), **shares, "count": one.count, "met": one.met}
