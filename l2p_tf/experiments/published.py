"""Report section that compares published numbers with the runs that reproduce them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from l2p_tf.experiments.printed import PrintedNumber, Target, target
from l2p_tf.reporting.format import listed, signed
from l2p_tf.reporting.load import Run
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import Section
from l2p_tf.reporting.table import NOTHING, Cell, Column, Table, accuracy, accuracy_of, columns_of, figures, in_percent

_CAPTION = (
    "What a run reproduces and what was measured under the same setting: accuracy in percent, \N{PLUS-MINUS SIGN} its "
    "standard deviation over repeats, with its 95% interval; the difference is measured minus published. † marks a "
    "published number that cannot be taken at its word."
)
_COLUMNS = (
    Column("Run", figures=False), Column("What", figures=False), Column("Measured"), Column("Published"),
    Column("Difference"),
)  # fmt: skip
_FIGURES = (
    "run", "target", "metric", "attack", "repeats", "count", "measured", "low", "high", "spread", "published",
    "published_spread", "difference", "suspect",
)  # fmt: skip
_Pair = tuple[PrintedNumber, Any]
"""A published number, and the matching row of `Results.attacks`; None if not measured."""


def section(results: Results) -> Section | None:
    """One row per published number of each run with `--published`; None if no run has it.

    Raises:
      UserError: a run names an unknown published row.
    """
    rows: list[tuple[Cell, ...]] = []
    values: list[dict[str, object]] = []
    remarks: list[str] = []
    for run in results.all_runs:
        if not (reference := str(run.option("published", ""))):
            continue
        wanted = target(reference)
        pairs = _pairs(results, run, wanted)
        rows += [_cells(run, wanted, *pair) for pair in pairs]
        values += [_values(run, wanted, *pair) for pair in pairs]
        printed, own = wanted.facts.parameters, run.note("parameters")
        if printed is not None and isinstance(own, int):
            names = Cell(run.name, (wanted.title,)), Cell("Trainable parameters")
            apart = f"{own - printed:+,}".replace("-", "\N{MINUS SIGN}")
            rows.append((*names, Cell(f"{own:,}"), Cell(f"{printed:,}"), Cell(apart if own != printed else "")))
            same = {"run": run.name, "target": wanted.reference, "metric": "parameters", "suspect": "false"}
            values.append(same | {"measured": own, "published": printed, "difference": own - printed})
        remarks += _remarks(run, wanted, pairs)
    if not rows:
        return None
    table = Table("", _CAPTION, _COLUMNS, tuple(rows))
    csv = figures(values).reindex(columns=list(_FIGURES))
    return Section((table,), csv, remarks=tuple(dict.fromkeys(remarks)), name="published", title="Published numbers")


def _pairs(results: Results, run: Run, wanted: Target) -> list[_Pair]:
    """Returns each published number with its measurements, for any weights."""
    rows = [row for model in results.evaluated if model.run is run for row in model.rows]
    pairs: list[_Pair] = []
    for cell in wanted.cells.values():
        pairs += [(cell, row) for row in rows if wanted.cell_for(row.measured.first) is cell] or [(cell, None)]
    return pairs


def _cells(run: Run, wanted: Target, cell: PrintedNumber, row: Any) -> tuple[Cell, ...]:
    name, label = run.name if row is None else row.name, wanted.table.metrics[cell.metric].label
    names = Cell(name, (wanted.title,)), Cell(label, () if row is None else (row.allowed,))
    if row is None:
        return *names, NOTHING, Cell(cell.text), NOTHING
    return *names, accuracy(row), Cell(cell.text), Cell(signed(100 * row.accuracy - cell.value, row.count))


def _values(run: Run, wanted: Target, cell: PrintedNumber, row: Any) -> dict[str, object]:
    values: dict[str, object] = {
        "run": run.name if row is None else row.name, "target": wanted.reference, "metric": cell.metric,
        "published": cell.value, "published_spread": cell.spread, "suspect": str(bool(cell.reason)).lower(),
    }  # fmt: skip
    if row is None:
        return values
    shares = accuracy_of(row)
    values |= {"measured": shares.pop("accuracy"), "spread": in_percent(row.spread) if row.repeats > 1 else None}
    difference = round(100 * row.accuracy - cell.value, 4)
    return values | columns_of(row, "attack", "repeats", "count") | shares | {"difference": difference}


def _remarks(run: Run, wanted: Target, pairs: Sequence[_Pair]) -> list[str]:
    """Returns what was not measured, caveats, and suspect numbers; one sentence each."""
    metrics, remarks = wanted.table.metrics, []
    cells = [cell for cell, row in pairs if row is not None]
    if missing := [metrics[cell.metric].spec for cell, row in pairs if row is None]:
        remarks.append(
            f"{run.name} is to reproduce {wanted.title}. The paper's setting was not measured here for: "
            f"{listed(missing)}, on {wanted.table.dataset} ({wanted.table.split})."
        )
    ours = [metrics[cell.metric].ours for cell in cells if metrics[cell.metric].ours]
    remarks += [f"{wanted.title}: {note}." for note in [*wanted.notes, *ours] if cells]
    return [*remarks, *(f"† suspect: {cell.reason}." for cell in cells if cell.reason)]
