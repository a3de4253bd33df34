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
    outcomes = [(run, outcome) for run in results.all_runs for outcome in run.outcomes]
    if not outcomes:
        return None
    rows = [_figures(*pair) for pair in outcomes]
    missed = [f"A requirement is missed: {plain(o.text)}." for _, o in outcomes if not o.met]
    return Section((Table("", _CAPTION, _COLUMNS, tuple(_cells(*pair) for pair in outcomes)),), figures(rows),
                   warnings=tuple(missed))  # fmt: skip


def _cells(run: Run, outcome: Outcome) -> tuple[Cell, ...]:
    verdict = Cell("met" if outcome.met else "missed", tone="good" if outcome.met else "bad", value=float(outcome.met))
    shares = (Cell(f"{100 * share:.1f}", value=share) for share in (outcome.share, outcome.accuracy, outcome.low))
    return Cell(run.name), Cell(plain(outcome.label)), *shares, verdict


def _figures(run: Run, outcome: Outcome) -> dict[str, object]:
    shares = {name: in_percent(getattr(outcome, name)) for name in ("share", "accuracy", "low")}
    return {"run": run.name, "attack": plain(outcome.attack), **shares, "count": outcome.count, "met": outcome.met}
