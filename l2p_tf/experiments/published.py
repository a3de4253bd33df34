"""The section of a report that sets published numbers beside the runs whose trainings say what they reproduce."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from l2p_tf.experiments.printed import PrintedNumber, Target, target
from l2p_tf.reporting.format import listed, plain, signed
from l2p_tf.reporting.load import Run
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import Section
from l2p_tf.reporting.table import NOTHING, Cell, Column, Table, accuracy, accuracy_of, columns_of, figures, in_percent

NAME = "published"
_CAPTION = (
    "What a run reproduces and what was measured under the same setting: accuracy in percent, \N{PLUS-MINUS SIGN} its "
    "standard deviation over repeats, with its 95% interval; the difference is measured minus published. † marks a "
    "published number that cannot be taken at its word."
)
_PARAMETERS = "Trainable parameters"


def section(results: Results) -> Section | None:
    """A row for each published number of each run with `--published`; None where no run has it.

    Raises:
      UserError: a run names a published row that is not there.
    """
    rows: list[tuple[Cell, ...]] = []
    lines: list[dict[str, object]] = []
    remarks: list[str] = []
    for run in results.all_runs:
        reference = str(run.option("published", ""))
        if not reference:
            continue
        wanted = target(reference)
        measured = _measured(results, run, wanted)
        for name, cell, one in measured:
            rows.append(_row(name, wanted, cell, one))
            lines.append(_line(name, wanted, cell, one))
        printed, own = wanted.facts.parameters, run.note("parameters")
        if printed is not None:
            known = isinstance(own, int)
            apart = f"{own - printed:+,}".replace("-", "\N{MINUS SIGN}") if known and own != printed else ""
            names = Cell(run.name, (wanted.title,)), Cell(_PARAMETERS)
            rows.append((*names, Cell(f"{own:,}") if known else NOTHING, Cell(f"{printed:,}"), Cell(apart)))
            lines.append(_fields(run.name, wanted, "parameters", printed) | {
                "measured": own if known else None, "difference": own - printed if known else None,
            })  # fmt: skip
        remarks += _remarks(run, wanted, measured)
    if not rows:
        return None
    heads = (Column("Run", figures=False), Column("What", figures=False), Column("Measured"), Column("Published"),
             Column("Difference"))  # fmt: skip
    table = Table("", _CAPTION, heads, tuple(rows))
    return Section(
        (table,), figures(lines), remarks=tuple(dict.fromkeys(remarks)), name=NAME, title="Published numbers"
    )


def _measured(results: Results, run: Run, wanted: Target) -> list[tuple[str, PrintedNumber, Any]]:
    """Each published number with the run's name and the row measured for it, by any weights; None where nothing was."""
    measured: list[tuple[str, PrintedNumber, Any]] = []
    rows = [row for one in results.evaluated if one.run is run for row in one.rows]
    for cell in wanted.cells.values():
        same = [(row.name, cell, row) for row in rows if wanted.cell_for(row.measured.first) is cell]
        measured += same or [(run.name, cell, None)]
    return measured


def _row(name: str, wanted: Target, cell: PrintedNumber, row: Any) -> tuple[Cell, ...]:
    what = Cell(wanted.table.metrics[cell.metric].label, (row.allowed,) if row else ())
    names = Cell(plain(name), (wanted.title,)), what
    if row is None:
        return *names, NOTHING, Cell(cell.text), NOTHING
    difference = Cell(signed(100 * row.accuracy - cell.value, row.count))
    return *names, accuracy(row), Cell(cell.text), difference


def _line(name: str, wanted: Target, cell: PrintedNumber, row: Any) -> dict[str, object]:
    line = _fields(name, wanted, cell.metric, cell.value)
    line |= {"published_spread": cell.spread, "suspect": str(bool(cell.reason)).lower()}
    if row is None:
        return line
    shares = accuracy_of(row)
    return line | {
        **columns_of(row, "attack", "repeats", "count"), "measured": shares["accuracy"], "low": shares["low"],
        "high": shares["high"], "spread": in_percent(row.spread) if row.repeats > 1 else None,
        "difference": round(100 * row.accuracy - cell.value, 4),
    }  # fmt: skip


def _fields(name: str, wanted: Target, metric: str, published: float) -> dict[str, object]:
    names = ("attack", "repeats", "count", "measured", "low", "high", "spread")
    return {
        "run": name, "target": wanted.reference, "metric": metric, **dict.fromkeys(names), "published": published,
        "published_spread": None, "difference": None, "suspect": "false",
    }  # fmt: skip


def _remarks(run: Run, wanted: Target, measured: Sequence[tuple[str, PrintedNumber, Any]]) -> list[str]:
    """What was not measured, what is to be known of the numbers, and which of them are suspect; a sentence each."""
    metrics = wanted.table.metrics
    missing = [metrics[cell.metric].spec for _, cell, row in measured if row is None]
    cells = [cell for _, cell, row in measured if row is not None]
    remarks = []
    if missing:
        remarks.append(
            f"{run.name} is to reproduce {wanted.title}. The paper's setting was not measured here for: "
            f"{listed(missing)}, on {wanted.table.dataset} ({wanted.table.split})."
        )
    ours = [metrics[cell.metric].ours for cell in cells if metrics[cell.metric].ours]
    remarks += [f"{wanted.title}: {note}." for note in [*wanted.notes, *ours] if cells]
    return [*remarks, *(f"† suspect: {cell.reason}." for cell in cells if cell.reason)]
