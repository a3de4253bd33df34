"""Sections of an experiment's report: the printed table compared with measurements, and the paper's claims."""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from l2p_tf.evaluation.records import CLEAN
from l2p_tf.experiments.claims import LEVEL
from l2p_tf.experiments.definition import Experiment, Measure
from l2p_tf.experiments.evidence import Evidence
from l2p_tf.experiments.printed import PERCENT, Place, PrintedNumber, PrintedTable, same_dataset
from l2p_tf.reporting.examples import perturbations
from l2p_tf.reporting.format import DASH, interval, listed, percent, plain
from l2p_tf.reporting.load import Run
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import Make, Section, registered
from l2p_tf.reporting.table import NOTHING, Cell, Column, Table, figures, share_of

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
_TONES = {"borne out": "good", "not borne out": "bad", "undecided": "unknown", "not measured": "unknown"}
_CLAIMS_NOTE = (
    "What the paper says, in our words, and whether these results bear it out. Two runs are compared on the same "
    "images by a paired test (McNemar's, or its extension to repeats), sizes of perturbations by Welch's; p-values are "
    f"corrected for the number of comparisons within a claim (Holm), and a difference counts where p < {LEVEL:g} and "
    "its 95% interval leaves out 0. A claim is borne out where all its differences count and have its sign, not borne "
    "out where one counts and has the other sign, and undecided otherwise. What is said of curves over epochs goes by "
    "their first and last values, and of robustness curves by their points, without a test. All rests on one training "
    "of each run."
)
_CLAIMS = "Claim, verdict, and the figures behind it. Differences are in points of accuracy, with their 95% intervals."


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """An experiment with its trainings.

    Attributes:
      experiment: what is reproduced.
      keys: fingerprints of the trainings, by name of the run.
      places: rows and columns of each run in the printed table, by its name.
      attacks: the actual attacks for each spec in the experiment.
      table: the printed table; None for a figure.
      scale: spec of the scale; empty for the paper's.
    """

    experiment: Experiment
    keys: Mapping[str, str]
    places: Mapping[str, Sequence[tuple[str, str]]]
    attacks: Mapping[str, Sequence[str]]
    table: PrintedTable | None
    scale: str = ""

    @property
    def title(self) -> str:
        """Title of the experiment, with its scale."""
        return f"{self.experiment.title}, in miniature ({self.scale})" if self.scale else self.experiment.title

    @property
    def choices(self) -> tuple[str, ...]:
        """Deviations from the paper; one sentence each."""
        return (_SCALED.format(scale=self.scale),) if self.scale else self.experiment.choices

    @property
    def described(self) -> dict[str, object]:
        """Manifest entries of its report."""
        return {"experiment": msgspec.to_builtins(self.experiment)}

    @property
    def sections(self) -> list[Make]:
        """Functions that make the sections of its report."""
        return [functools.partial(table_section, self), functools.partial(claims_section, self)]


@dataclasses.dataclass(frozen=True)
class _Figure:
    """A measured value in its metric's unit, and its row of `Results.summaries`; None for a mean."""

    value: float
    row: Any = None


def claims_section(reproduction: Reproduction, results: Results) -> Section | None:
    """One row per claim of an experiment; None if it has none.

    Raises:
      UserError: arrays cannot be read.
    """
    experiment = reproduction.experiment
    evidence = Evidence(results, reproduction.keys, reproduction.attacks)
    judged = [(claim.text, *claim.judge(evidence)) for claim in experiment.claims]
    if not judged:
        return None
    columns = tuple(Column(label, figures=False) for label in ("Claim", "Verdict", "Here"))
    rows = tuple((Cell(claim), Cell(word, tone=_TONES[word]), Cell(text)) for claim, word, text in judged)
    notes = [_CLAIMS_NOTE, *(() if reproduction.table else reproduction.choices)]
    if poor := _untrained(evidence):
        notes.append(f"Too poor on clean images for what they say here to tell anything: {listed(poor)}.")
    if experiment.figure:
        (title,) = (entry.title for entry in registered() if entry.name == experiment.figure)
        notes.append(f"The figure itself is among the plots below: {title}.")
    texts = figures([dict(zip(("claim", "verdict", "figures"), row, strict=True)) for row in judged])
    table = Table("", _CLAIMS, columns, rows)
    return Section((table,), texts, " ".join(notes), name="claims", title="What the paper claims")


def _untrained(evidence: Evidence) -> list[str]:
    """Returns runs with less than half the clean accuracy of the best one, with that accuracy."""
    clean = {name: row.accuracy for name in evidence.runs if (row := evidence.row(name, CLEAN)) is not None}
    most = max(clean.values(), default=0.0)
    return [f"{name} ({100 * share:.1f}% clean)" for name, share in clean.items() if share < most / 2]


def table_section(reproduction: Reproduction, results: Results) -> Section | None:
    """The printed table compared with measurements; None for a figure.

    Raises:
      UserError: the arrays of an attack cannot be read.
    """
    table = reproduction.table
    if table is None:
        return None
    measured = dict(_measured(reproduction, results, table))
    datasets = {figure.row.dataset for figure in measured.values() if figure.row is not None}
    others = sorted(name for name in datasets if not same_dataset(name, table.dataset))
    rows = [_row(table, cell, measured.get(place), not others) for place, cell in table.cells.items()]
    notes = [f"{reproduction.experiment.about}."]
    if others:
        title = next((run.title_of(others[0]) for run in results.all_runs if run.info.get("name") == others[0]),
                     plain(others[0]))  # fmt: skip
        notes.append(
            f"Measured on {title}, published for {table.dataset}: the two are no comparison, and no difference is "
            "shown."
        )
    notes += [f"† {reason}." for reason in dict.fromkeys(cell.reason for cell in table.cells.values()) if reason]
    notes += [f"{row}: {facts.source}." for row, facts in table.facts.items() if facts.source]
    sheet = _sheet(table, measured, not others)
    text = " ".join([*notes, *reproduction.choices])
    return Section((sheet,), figures(rows), text, name="reproduction", title="Published and measured")


def measures(experiment: Experiment, table: PrintedTable) -> list[Measure]:
    """Returns the sources of a table's cells: the experiment's, and accuracies under the table's own settings."""
    named = {measure.metric for measure in experiment.measured}
    own = {key: m.spec for key, m in table.metrics.items() if m.spec and m.unit == PERCENT and key not in named}
    return [*experiment.measured, *(Measure(key, spec) for key, spec in own.items())]


def _measured(reproduction: Reproduction, results: Results, table: PrintedTable) -> Iterator[tuple[Place, _Figure]]:
    # Means come after the values they average.
    wanted = sorted(measures(reproduction.experiment, table), key=lambda measure: bool(measure.of))
    evidence = Evidence(results, reproduction.keys, reproduction.attacks)
    at = {place: name for name, places in reproduction.places.items() for place in places}
    for (row, column), name in at.items():
        values: dict[str, _Figure | None] = {}
        for measure in (one for one in wanted if one.row in ("", row) and one.column in ("", column)):
            made_on = table.metrics[measure.metric].source
            source = measure.source or (made_on and at.get((row, made_on), made_on))
            parts = [value for key in measure.of if (value := values.get(key)) is not None]
            if not measure.of:
                values[measure.metric] = _figure(evidence, name, measure, source, table.split)
            elif len(parts) == len(measure.of):
                values[measure.metric] = _Figure(statistics.fmean(part.value for part in parts))
        yield from (((row, column, key), value) for key, value in values.items() if value is not None)


def _figure(evidence: Evidence, name: str, measure: Measure, source: str, split: str) -> _Figure | None:
    """Returns the measurement on a run; None if there is none.

    Args:
      evidence: the results.
      name: name of the run.
      measure: what is measured.
      source: run that the images were made on; empty for the run itself.
      split: split of the table.
    """
    run = evidence.runs.get(name)
    if run is None:
        return None
    if measure.statistic == "seconds_per_epoch":
        return _seconds_per_epoch(run)
    specs = evidence.attacks.get(measure.attack, ())
    # Images made on the run itself are no transfer, and those made on others need their source.
    if not specs or (source and evidence.keys.get(source, run.key) == run.key):
        return None
    row = evidence.row(name, specs[0], source=source)
    if row is None or row.split != split:
        return None
    if measure.statistic == "accuracy":
        return _Figure(100 * row.accuracy, row)
    sizes = perturbations(row.measured)
    value = sizes.mean if measure.statistic == "mean_l2" else sizes.median
    return None if value is None else _Figure(value, row)


def _seconds_per_epoch(run: Run) -> _Figure | None:
    pace, counts = run.note("images_per_second"), run.info.get("counts")
    images = counts.get("train") if isinstance(counts, dict) else None
    return _Figure(images / pace) if images and isinstance(pace, int | float) and pace else None


def _sheet(table: PrintedTable, measured: Mapping[Place, _Figure], comparable: bool) -> Table:
    """Lays out the table for readability: few metrics are columns, many are rows."""
    across = [(c, m) for c in table.columns for m in table.metrics if any((r, c, m) in table.cells for r in table.rows)]
    if len(across) <= _WIDE:
        heads = [Column(plain(column), table.metrics[metric].label) for column, metric in across]
        lines = [(Cell(plain(r), _parameters(table, r)), [(r, c, m) for c, m in across]) for r in table.rows]
    else:
        heads = [Column(plain(column)) for column in table.columns]
        lines = [
            (Cell(metric.label, (plain(r),) * (len(table.rows) > 1)), [(r, c, m) for c in table.columns])
            for r in table.rows
            for m, metric in table.metrics.items()
        ]
    rows = [
        (head, *(_field(table, place, measured.get(place), comparable) for place in places))
        for head, places in lines
        if any(place in table.cells for place in places)
    ]
    caption = _CAPTION.format(difference=", and measured minus published" * comparable)
    return Table("", caption, (Column("Row", figures=False), *heads), tuple(rows))


def _parameters(table: PrintedTable, row: str) -> tuple[str, ...]:
    facts = table.facts.get(row)
    return (f"{facts.parameters:,} parameters published",) if facts and facts.parameters else ()


def _field(table: PrintedTable, place: Place, figure: _Figure | None, comparable: bool) -> Cell:
    """Returns a cell of the table: the measurement, and below it the published number and the difference."""
    cell, is_share = table.cells.get(place), table.metrics[place[-1]].unit == PERCENT
    text, below = DASH, []
    if figure:
        row = figure.row if is_share else None
        count = 100 if row is None else row.count
        text = percent(figure.value / 100, count) if is_share else f"{figure.value:.4g}"
        if row is not None:
            text += f" ± {percent(row.spread, count)}" if row.repeats > 1 else ""
            below += [interval(row.low, row.high, count), f"n = {count:,}"]
    if cell:
        below.append(f"published {cell.text}")
        if figure and comparable:
            apart = figure.value - cell.value
            size = f"{abs(apart):.2f}" if is_share else f"{abs(apart):.3g}"
            below.append(("+" if apart >= 0 else "\N{MINUS SIGN}") + size)
    return Cell(text, tuple(below)) if cell or figure else NOTHING


def _row(table: PrintedTable, cell: PrintedNumber, figure: _Figure | None, comparable: bool) -> dict[str, object]:
    unit, row = table.metrics[cell.metric].unit, figure.row if figure else None
    ends = share_of(row.accuracy, row.count) if row is not None and unit == PERCENT else {}
    spread = round(100 * row.spread, 4) if row is not None and ends and row.repeats > 1 else None
    return {
        "table": table.name, "row": cell.row, "column": cell.column, "metric": cell.metric, "unit": unit,
        "published": cell.value, "published_spread": cell.spread, "suspect": str(bool(cell.reason)).lower(),
        "measured": round(figure.value, 4) if figure else None, "low": ends.get("low"), "high": ends.get("high"),
        "spread": spread,
        "difference": round(figure.value - cell.value, 4) if figure and comparable else None,
        **{name: getattr(row, name, None) for name in ("count", "repeats", "attack", "run", "dataset")},
    }  # fmt: skip
