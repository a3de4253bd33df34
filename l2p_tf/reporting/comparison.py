"""The comparison of runs: one row per model, one column per attack, as data, Markdown, CSV and on the console."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence

import rich.console
from rich.text import Text

from l2p_tf.evaluation.records import CLEAN, Record, Summary
from l2p_tf.reporting import (
    backends,
    certified,
    checks,
    epsilons,
    matched_table,
    norms,
    notes,
    paired,
    paired_table,
    power,
    published,
    strength,
    sweep_table,
    transfer,
)
from l2p_tf.reporting.entries import AttackColumn, Entry, Key, Row
from l2p_tf.reporting.matched import Match
from l2p_tf.reporting.paired import Paired
from l2p_tf.reporting.published import Target
from l2p_tf.reporting.runs import Run
from l2p_tf.reporting.section import Section
from l2p_tf.reporting.subjects import subjects
from l2p_tf.reporting.table import NOTHING, Cell, Column, Table, accuracy, in_percent
from l2p_tf.reporting.text import attack_names, escape_markdown, minimal, plain
from l2p_tf.reporting.text import strength as budget

NAME = "comparison"
_CAPTION = (
    "Accuracy in percent, \N{PLUS-MINUS SIGN} its standard deviation over repeats where a model was judged more than "
    "once; below it the 95% interval (Wilson\N{RIGHT SINGLE QUOTATION MARK}s, for the number of images n)."
)
# With more runs than this a console shows accuracies without their intervals.
_FEW = 8
_SMALLEST = (
    " An attack that looks for the smallest perturbation leaves next to nothing by construction: its column has the "
    "median norm of the perturbations that succeeded instead; the larger, the more robust."
)
_PUBLISHED = (
    " Where a run reproduces a printed number under the same setting, that number follows, with measured minus "
    "published in brackets."
)
_CSV = (
    "run", "defense", "model", "dataset", "attack", "norm", "epsilon", "steps", "restarts", "draws", "prediction_draws",
    "backend", "repeats", "count", "accuracy", "low", "high", "spread", "published", "published_spread",
    "difference", "suspect",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The comparison.

    Attributes:
      columns: clean first, then the attacks in the order they were met.
      rows: the models, in the order of the runs.
      warnings: what makes a figure less than it seems; a sentence each.
      notes: what was left out and why, and why a published number is suspect; a sentence each.
      sections: the tables beside it, such as those of transferred examples.
      transferred: names of the runs that only met transferred examples.
      paired: the runs compared in pairs.
    """

    columns: tuple[AttackColumn, ...]
    rows: tuple[Row, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    sections: tuple[Section, ...] = ()
    transferred: tuple[str, ...] = ()
    paired: Paired = Paired()

    @property
    def table(self) -> Table:
        """A row for each model, a column for each attack; what all rows have in common is said in the caption."""
        entries = [entry for row in self.rows for entry in row.entries.values()]
        images = {accuracy(entry.summary).below[1] for entry in entries}
        facts = {name: {getattr(row, name) for row in self.rows if row.entries} for name in ("data", "model")}
        common = [*(next(iter(found)) for found in (*facts.values(), images) if len(found) == 1)]
        caption = _CAPTION + _SMALLEST * any(entry.sizes is not None for entry in entries)
        caption += _PUBLISHED * any(entry.published is not None for entry in entries)
        caption += f" All rows: {'; '.join(filter(None, common))}." if any(common) else ""
        columns = (Column("Run", figures=False), *(Column(column.label, column.detail) for column in self.columns))
        rows = []
        for row in self.rows:
            below = [text for text in (row.defense, row.model, row.data) if text and text not in common]
            cells = [row.entries[c.key].cell(common) if c.key in row.entries else NOTHING for c in self.columns]
            rows.append((Cell(row.name, tuple(below)), *cells))
        return Table("", caption, columns, tuple(rows))

    @property
    def all_sections(self) -> list[Section]:
        """The comparison, with one line of its CSV per run and attack, and the sections beside it, in their order."""
        found = [(row, row.entries.get(column.key)) for row in self.rows for column in self.columns]
        lines = tuple(_csv_fields(row, entry) for row, entry in found if entry)
        own = [Section(NAME, "Comparison", (self.table,), lines, remarks=self.notes, stem="table")] if self.rows else []
        return [*(s for s in self.sections if s.leading), *own, *(s for s in self.sections if not s.leading)]

    def to_markdown(self) -> str:
        """Warnings and all tables with their notes as GitHub Markdown; all text in it is escaped."""
        warnings = [f"**Warning:** {escape_markdown(text)}" for text in self.warnings]
        notes = [] if self.rows else [escape_markdown(text) for text in self.notes]
        return "\n\n".join([*warnings, *notes, *(section.to_markdown() for section in self.all_sections)]) + "\n"

    def to_console(self, console: rich.console.Console) -> None:
        """Prints the comparison, or where nothing is compared the first of the other sections, and the warnings."""
        if any(row.entries for row in self.rows):
            console.print(self._hardest_first().to_rich(console.width, 2 if len(self.rows) <= _FEW else 1))
        else:
            for table in (table for section in self.sections[:1] for table in section.tables):
                console.print(table.to_rich(console.width))
        for warning in self.warnings:
            console.print(Text(f"Warning: {warning}", style="bold"))

    def _hardest_first(self) -> Table:
        """The comparison for a console, columns that have no room at its end; its title says what figures are."""

        def left(column: AttackColumn) -> tuple[bool, bool, float]:
            found = [row.entries[column.key].summary.accuracy for row in self.rows if column.key in row.entries]
            return column.key[0] != CLEAN, column.minimal, statistics.fmean(found)

        turned = len(self.rows) < len(self.columns)
        columns = self.columns if turned else tuple(sorted(self.columns, key=left))
        counts = sorted({entry.count for row in self.rows for entry in row.entries.values()})
        images = f"n = {counts[0]:,}" + (f" to {counts[-1]:,}" if len(counts) > 1 else "")
        return dataclasses.replace(
            dataclasses.replace(self, columns=columns).table, title=f"Accuracy in percent, 95% interval; {images}"
        )


def compare(runs: Sequence[Run], match: Match | None = None) -> Comparison:
    """Compares runs by all that was measured on them.

    Args:
      runs: the runs.
      match: at which clean accuracies methods are to be compared; None for where it is of use.

    Raises:
      UserError: a run names a published row that is not there, or arrays that a table needs cannot be read.
    """
    columns: dict[Key, Record] = {}
    rows: list[Row] = []
    said: list[str] = []
    for run in runs:
        reference = str(run.option("published", "") or "")
        target = published.load().target(reference) if reference else None
        mine = _rows(run, target, said)
        # Of a run that was not given and only met transferred examples there is nothing to compare.
        rows += mine or ([Row(run, run.name, "", "", {}, target)] if run.train else [])
        for row in mine:
            for key, entry in row.entries.items():
                columns.setdefault(key, entry.summary.first)
        if not run.train:
            said.append(f"The training of {run.name} was not given: its settings and curves are missing here.")
    ordered = sorted(columns, key=lambda key: key[0] != CLEAN)
    tested, judged = paired.compared(runs), checks.judged(runs)
    said += [*notes.averaged(runs), *notes.targeted(rows), *notes.of_published(rows), *tested.notes]
    warnings = [*notes.invalid(rows), *notes.without_eot(rows), *strength.warnings(rows)]
    warnings += checks.warnings(judged)
    shown = _columns({key: columns[key] for key in ordered})
    beside = (epsilons.section, certified.section, power.section, norms.section, transfer.section, backends.section)
    found = [sweep_table.section(runs), matched_table.section(runs, match or Match()), *(find(runs) for find in beside)]
    found = [checks.section(judged), paired_table.section(tested), *found, strength.section(runs)]
    sections = [section for section in found if section]
    met = [run.name for run in runs if run.records and all(record.source is not None for record in run.records)]
    return Comparison(tuple(shown), tuple(rows), tuple(warnings), tuple(said), tuple(sections), tuple(met), tested)


def _rows(run: Run, target: Target | None, said: list[str]) -> list[Row]:
    """The rows of one run: one for each choice of weights, data set and split that was attacked."""
    found = subjects([run])
    several = len({subject.place[1:] for subject in found}) > 1
    rows = []
    for subject in found:
        checkpoint, dataset, split = subject.place
        kept = {one.key: one for one in subject.measured}
        for other in subject.replaced:
            one = kept[other.key]
            if _differ(one.summary, other.summary):
                said.append(
                    f"{run.name} was judged more than once under {plain(one.first.label)}; shown is the evaluation on "
                    f"the most images, with the most repeats ({one.first.count:,} and {len(one.summary.records)})."
                )
        entries = {
            key: Entry(
                one.summary,
                target.cell_for(one.first) if target else None,
                norms.sizes_if_minimal(one.evaluation, one.summary),
            )
            for key, one in kept.items()
        }
        parts = [plain(checkpoint)] if checkpoint != "best" else []
        parts += [run.title_of(dataset), plain(split)] if several else []
        name = f"{run.name} ({', '.join(parts)})" if parts else run.name
        rows.append(Row(run, name, run.title_of(dataset), plain(split), entries, target, checkpoint))
    return rows


def _differ(a: Summary, b: Summary) -> bool:
    return [record.correct for record in a.records] != [record.correct for record in b.records]


def _columns(firsts: Mapping[Key, Record]) -> list[AttackColumn]:
    labels = attack_names(list(firsts.values()))
    found = zip(labels, firsts.items(), strict=True)
    return [AttackColumn(key, label, budget(record), minimal(record)) for label, (key, record) in found]


def _csv_fields(row: Row, entry: Entry) -> dict[str, object]:
    first, cell, spread = entry.summary.first, entry.published, entry.summary.spread
    difference = entry.difference
    return {
        "run": row.name, "defense": row.defense, "model": row.model, "dataset": row.dataset, "attack": first.attack,
        "norm": first.norm, "epsilon": first.epsilon, "steps": first.steps, "restarts": first.restarts,
        "draws": first.draws, "prediction_draws": first.prediction_draws, "backend": first.backend,
        "repeats": len(entry.summary.records), "count": first.count,
        "accuracy": in_percent(entry.summary.accuracy), "low": in_percent(entry.summary.low),
        "high": in_percent(entry.summary.high), "spread": in_percent(spread),
        "published": cell.value if cell else "", "published_spread": cell.spread if cell else "",
        "difference": "" if difference is None else round(difference, 4),
        "suspect": str(cell.suspect).lower() if cell else "",
    }  # fmt: skip
