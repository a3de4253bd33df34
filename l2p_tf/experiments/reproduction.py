"""A paper's table beside one's own figures: what is printed, what was measured, and by how much they differ."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from l2p_tf.experiments.definition import Experiment, Measure
from l2p_tf.experiments.printed import PERCENT, Place, PrintedNumber, PrintedTable, same_dataset
from l2p_tf.reporting.examples import perturbations
from l2p_tf.reporting.format import DASH, interval, percent, plain
from l2p_tf.reporting.load import Run
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import Section
from l2p_tf.reporting.table import NOTHING, Cell, Column, Table, figures, share_of

NAME = "reproduction"
_WIDE = 6
_CAPTION = (
    "In each field what was measured, ± its standard deviation over repeats, with the 95% interval of an accuracy and "
    "the number of images; then the published figure{difference}. † marks a published figure that cannot be taken at "
    "its word."
)
_SCALED = (
    "In miniature, at the scale {scale}: other data, smaller networks, fewer epochs, larger perturbations and shorter "
    "attacks than names and heads say, which are the paper's; the settings below are those that were run. It tests the "
    "way to the table or figure, not the paper."
)


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """An experiment with its results.

    Attributes:
      experiment: what is reproduced.
      keys: fingerprints of the trainings, by name of the run.
      places: rows and columns of the printed table where a run stands, by its name.
      attacks: the attacks that each spec in the experiment stands for, as they were run.
      table: the printed table; None for a figure.
      scale: spec of the scale where that is not the paper's; empty where it is.
    """

    experiment: Experiment
    keys: Mapping[str, str]
    places: Mapping[str, Sequence[tuple[str, str]]]
    attacks: Mapping[str, Sequence[str]]
    table: PrintedTable | None
    scale: str = ""

    @property
    def title(self) -> str:
        """Of the experiment, with its scale."""
        return f"{self.experiment.title}, in miniature ({self.scale})" if self.scale else self.experiment.title

    @property
    def choices(self) -> tuple[str, ...]:
        """What is not the paper's; a sentence each."""
        return (_SCALED.format(scale=self.scale),) if self.scale else self.experiment.choices

    def run(self, name: str, runs: Sequence[Run]) -> Run | None:
        """A run of the experiment among those of a report; None where it is not there."""
        return next((run for run in runs if run.key == self.keys.get(name)), None)

    def at(self, row: str, column: str) -> str:
        """The run that stands in a place of the table; empty where none does."""
        return next((name for name, places in self.places.items() if (row, column) in places), "")

    def name_of(self, run: Run) -> str:
        """What the experiment calls a run of a report; its own name where it is none of the experiment's."""
        return next((name for name, key in self.keys.items() if key == run.key), run.name)


@dataclasses.dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes:
      value: in the unit of its metric.
      spread: over repeats; None for a single one, or where there is none.
      row: the accuracy that it is, of `Results.summaries`; None where it is none.
      dataset: what it was measured on; empty where that does not matter.
    """

    value: float
    spread: float | None = None
    row: Any = None
    dataset: str = ""


def measured_on(results: Results, run: Run, attack: str, checkpoint: str = "", source: str = "") -> Any:
    """The row of an attack on a run, of `Results.summaries`, on the most images; None where it was not measured.

    Args:
      results: those of the report.
      run: the run.
      attack: spec of the attack; `clean` for none.
      checkpoint: `best` or `last`; empty for whichever there is.
      source: fingerprint of the run that the images were made on; empty for the run itself.
    """
    rows = [
        row
        for row in results.summaries.itertuples()
        if row.measured.run is run and (row.attack, row.backend) == (attack, "l2p_tf")
        if checkpoint in ("", row.weights) and _made_on(row) == source
    ]
    # The best weights count before the last ones.
    return max(sorted(rows, key=lambda row: row.weights != "best"), key=lambda row: row.count, default=None)


def _made_on(row: Any) -> str:
    source = row.measured.first.source
    return "" if source is None else row.measured.evaluation.key_of(source)


def section(reproduction: Reproduction, results: Results) -> Section | None:
    """The printed table with one's own figures; None for a figure.

    Raises:
      UserError: the arrays of an attack cannot be read.
    """
    table, runs = reproduction.table, results.all_runs
    if table is None:
        return None
    measured = _measured(reproduction, results, table)
    others = sorted({f.dataset for f in measured.values() if f.dataset and not same_dataset(f.dataset, table.dataset)})
    rows = [_row(table, measured, cell, not others) for cell in table.cells.values()]
    note = _note(reproduction, table, others, runs)
    tables = (_sheet(table, measured, not others),)
    return Section(tables, figures(rows), note, name=NAME, title="Published and measured")


def _sheet(table: PrintedTable, measured: Mapping[Place, Figure], comparable: bool) -> Table:
    """The table as wide as can be read: metrics go across where they are few, and down where not."""
    across = [(c, m) for c in table.columns for m in table.metrics if any((r, c, m) in table.cells for r in table.rows)]
    if len(across) <= _WIDE:
        heads = [Column(plain(column), table.metrics[metric].label) for column, metric in across]
        rows = [
            (
                Cell(plain(row), _parameters(table, row)),
                *(_field(table, measured, (row, *at), comparable) for at in across),
            )
            for row in table.rows
        ]
    else:
        heads = [Column(plain(column)) for column in table.columns]
        down = [
            (r, m) for r in table.rows for m in table.metrics if any((r, c, m) in table.cells for c in table.columns)
        ]
        rows = [
            (
                Cell(table.metrics[metric].label, (plain(row),) if len(table.rows) > 1 else ()),
                *(_field(table, measured, (row, column, metric), comparable) for column in table.columns),
            )
            for row, metric in down
        ]
    return Table(
        "",
        _CAPTION.format(difference=", and measured minus published" * comparable),
        (Column("Row", figures=False), *heads),
        tuple(rows),
    )


def _note(reproduction: Reproduction, table: PrintedTable, others: Sequence[str], runs: Sequence[Run]) -> str:
    notes = [f"{reproduction.experiment.about}."]
    if others:
        title = next((run.title_of(others[0]) for run in runs if run.info.get("name") == others[0]), plain(others[0]))
        notes.append(
            f"Measured on {title}, published for {table.dataset}: the two are no comparison, and no difference is "
            "shown."
        )
    notes += [f"† {reason}." for reason in dict.fromkeys(cell.reason for cell in table.cells.values()) if reason]
    notes += [f"{row}: {facts.source}." for row, facts in table.facts.items() if facts.source]
    return " ".join([*notes, *reproduction.choices])


def measures(experiment: Experiment, table: PrintedTable) -> list[Measure]:
    """What fills a table: as the experiment says, and accuracies under the table's own settings."""
    told = {measure.metric for measure in experiment.measured}
    own = {key: one.spec for key, one in table.metrics.items() if one.spec and one.unit == PERCENT and key not in told}
    return [*experiment.measured, *(Measure(key, spec) for key, spec in own.items())]


def _measured(reproduction: Reproduction, results: Results, table: PrintedTable) -> dict[Place, Figure]:
    wanted = measures(reproduction.experiment, table)
    measured: dict[Place, Figure] = {}
    for name, places in reproduction.places.items():
        run = reproduction.run(name, results.all_runs)
        for row, column in places if run else ():
            for measure in wanted:
                if not measure.of and measure.row in ("", row) and measure.column in ("", column):
                    figure = _figure(reproduction, table, results, run, measure, row)  # type: ignore[arg-type]
                    measured |= {} if figure is None else {(row, column, measure.metric): figure}
    for measure in wanted:
        for row, column in {(row, column) for row, column, _ in measured} if measure.of else ():
            parts = [measured[row, column, key] for key in measure.of if (row, column, key) in measured]
            if len(parts) == len(measure.of):
                mean = statistics.fmean(part.value for part in parts)
                measured[row, column, measure.metric] = Figure(mean, dataset=parts[0].dataset)
    return measured


def _figure(
    reproduction: Reproduction, table: PrintedTable, results: Results, run: Run, measure: Measure, row: str
) -> Figure | None:
    if measure.statistic == "seconds_per_epoch":
        pace, counts = run.note("images_per_second"), run.info.get("counts")
        images = counts.get("train") if isinstance(counts, dict) else None
        return Figure(images / pace) if images and isinstance(pace, int | float) and pace else None
    specs = reproduction.attacks.get(measure.attack, ())
    made_on = measure.source or table.metrics[measure.metric].source
    source = measure.source or reproduction.at(row, made_on)
    # What was made on itself is no transfer, and what was made elsewhere has to be found there.
    if not specs or (made_on and reproduction.keys.get(source, run.key) == run.key):
        return None
    met = measured_on(results, run, specs[0], source=reproduction.keys[source] if made_on else "")
    if met is None or met.split != table.split:
        return None
    if measure.statistic == "accuracy":
        return Figure(100 * met.accuracy, 100 * met.spread if met.repeats > 1 else None, met, met.dataset)
    sizes = perturbations(met.measured)
    value = sizes.mean if measure.statistic == "mean_l2" else sizes.median
    return None if value is None else Figure(value, dataset=met.dataset)


def _parameters(table: PrintedTable, row: str) -> tuple[str, ...]:
    facts = table.facts.get(row)
    return (f"{facts.parameters:,} parameters published",) if facts and facts.parameters else ()


def _field(table: PrintedTable, measured: Mapping[Place, Figure], place: Place, comparable: bool) -> Cell:
    cell, figure = table.cells.get(place), measured.get(place)
    if cell is None and figure is None:
        return NOTHING
    unit = table.metrics[place[-1]].unit
    below = []
    if figure and figure.row:
        below += [interval(figure.row.low, figure.row.high, figure.row.count), f"n = {figure.row.count:,}"]
    if cell:
        below.append(f"published {cell.text}")
        if figure and comparable:
            below.append(f"{_signed(figure.value - cell.value, unit)}")
    return Cell(_shown(figure, unit) if figure else DASH, tuple(below))


def _shown(figure: Figure, unit: str) -> str:
    if unit != PERCENT:
        return f"{figure.value:.4g}"
    count = figure.row.count if figure.row else 100
    text = percent(figure.value / 100, count)
    return text if figure.spread is None else f"{text} ± {percent(figure.spread / 100, count)}"


def _signed(value: float, unit: str) -> str:
    text = f"{abs(value):.2f}" if unit == PERCENT else f"{abs(value):.3g}"
    return ("+" if value >= 0 else "\N{MINUS SIGN}") + text


def _row(
    table: PrintedTable, measured: Mapping[Place, Figure], cell: PrintedNumber, comparable: bool
) -> dict[str, object]:
    figure = measured.get((cell.row, cell.column, cell.metric))
    row = figure.row if figure else None
    interval_of = share_of(row.accuracy, row.count) if row else {}
    return {
        "table": table.name, "row": cell.row, "column": cell.column, "metric": cell.metric,
        "unit": table.metrics[cell.metric].unit, "published": cell.value, "published_spread": cell.spread,
        "suspect": str(bool(cell.reason)).lower(), "measured": round(figure.value, 4) if figure else None,
        "low": interval_of.get("low"), "high": interval_of.get("high"),
        "spread": round(figure.spread, 4) if figure and figure.spread is not None else None,
        "difference": round(figure.value - cell.value, 4) if figure and comparable else None,
        "count": row.count if row else None, "repeats": row.repeats if row else None,
        "attack": row.attack if row else None, "run": row.run if row else None,
        "dataset": figure.dataset if figure else None,
    }  # fmt: skip
