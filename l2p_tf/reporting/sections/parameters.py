"""Size and training of each run."""

from __future__ import annotations

from typing import Any

from l2p_tf.reporting.format import duration, plain
from l2p_tf.reporting.load import Run
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import Section, section
from l2p_tf.reporting.table import Cell, Column, Table, columns_of, figures

_CAPTION = "Size and training of each run. Noise parameters are counted apart from those of the network itself."
_COLUMNS = (
    Column("Run", figures=False), Column("Parameters"), Column("Noise parameters"), Column("Epochs"),
    Column("Best epoch"), Column("Images/s"), Column("Time"), Column("Device", figures=False),
)  # fmt: skip


@section("parameters", "Parameters", order=120)
def parameters(results: Results) -> Section | None:
    """One row per training."""
    trained = [run for run in results.all_runs if run.train]
    if not trained:
        return None
    names = ("run", "defense", "model", "parameters", "noise_parameters", "epochs", "best_epoch", "seconds_per_epoch")
    rows = [columns_of(row, *names) for row in results.runs.itertuples() if row.folder]
    return Section((Table("", _CAPTION, _COLUMNS, tuple(map(_row, trained))),), figures(rows))


def _row(run: Run) -> tuple[Cell, ...]:
    manifest = run.train.manifest if run.train else {}
    pace, best, seconds = run.note("images_per_second"), run.note("best_epoch"), manifest.get("seconds")
    return (
        Cell(run.name),
        Cell(_count(run.note("parameters"))),
        Cell(_count(run.note("noise_parameters"))),
        Cell(_count(run.option("epochs", None))),
        Cell(_count(best + 1 if isinstance(best, int) else best)),
        Cell(f"{pace:,.0f}" if isinstance(pace, int | float) else ""),
        Cell(duration(seconds), value=float(seconds)) if isinstance(seconds, int | float) else Cell(""),
        Cell(plain(manifest.get("device", ""))),
    )


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else ""
