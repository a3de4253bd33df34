"""The comparison of runs: one row per model, one column per attack, as data, Markdown, CSV and on the console."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence

import rich.console
import rich.table
from rich.text import Text

from l2p_tf.evaluation.records import CLEAN, Record, Summary, summarize
from l2p_tf.reporting import published
from l2p_tf.reporting.published import Cell, Target
from l2p_tf.reporting.runs import Run, from_records
from l2p_tf.reporting.text import escape_markdown, interval, listed, number, percent, plain, signed, strength

Key = tuple[str, str]
_CSV = (
    "run", "defense", "model", "dataset", "attack", "norm", "epsilon", "steps", "restarts", "draws", "backend",
    "repeats", "count", "accuracy", "low", "high", "spread", "published", "published_spread", "difference", "suspect",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Column:
    """One attack, or none (`clean`).

    Attributes:
      key: spec and backend.
      label: the attack in a few words, different from every other column's.
      detail: what it was allowed.
    """

    key: Key
    label: str
    detail: str


@dataclasses.dataclass(frozen=True)
class Entry:
    """One measured accuracy and the number printed for it.

    Attributes:
      summary: the measurement.
      published: the printed number; None where there is none for this run and attack.
    """

    summary: Summary
    published: Cell | None = None

    @property
    def count(self) -> int:
        """Number of examples."""
        return self.summary.first.count

    @property
    def difference(self) -> float | None:
        """Measured minus published, in percentage points."""
        return None if self.published is None else 100 * self.summary.accuracy - self.published.value

    @property
    def accuracy(self) -> str:
        """Accuracy in percent, as text."""
        return percent(self.summary.accuracy, self.count)

    @property
    def interval(self) -> str:
        """95% interval in percent, as text."""
        return interval(self.summary.low, self.summary.high, self.count)

    @property
    def spread(self) -> str | None:
        """Standard deviation over the repeats in percentage points, as text; None for a single one."""
        return None if self.summary.spread is None else percent(self.summary.spread, self.count)

    @property
    def comparison(self) -> str | None:
        """Published number, spread and difference, as text; None where nothing is published."""
        cell, difference = self.published, self.difference
        if cell is None or difference is None:
            return None
        spread = "" if cell.spread is None else f" ± {number(cell.spread)}"
        return f"{number(cell.value)}{spread}{' †' if cell.suspect else ''} ({signed(difference, self.count)})"


@dataclasses.dataclass(frozen=True)
class Row:
    """One model on one split of one data set.

    Attributes:
      run: where it comes from.
      name: name of the run, with what sets this row apart from the run's others.
      dataset: title of the data set, its name where the title is not known; empty where the run was not attacked.
      split: its split; empty likewise.
      entries: what was measured, by column.
      target: what the run is to reproduce; None for nothing.
    """

    run: Run
    name: str
    dataset: str
    split: str
    entries: Mapping[Key, Entry]
    target: Target | None

    @property
    def defense(self) -> str:
        """The defense as the training was told; empty where the training was not given."""
        return plain(self.run.option("defense")) if self.run.train else ""

    @property
    def model(self) -> str:
        """The architecture as the training was told; empty where the training was not given."""
        return plain(self.run.option("model")) if self.run.train else ""

    @property
    def attacked(self) -> list[Entry]:
        """The entries of attacks, without the clean one."""
        return [entry for (attack, _), entry in self.entries.items() if attack != CLEAN]


@dataclasses.dataclass(frozen=True)
class Table:
    """The comparison.

    Attributes:
      columns: clean first, then the attacks in the order they were met.
      rows: the models, in the order of the runs.
      warnings: what makes a figure less than it seems; a sentence each.
      notes: what was left out and why, and why a published number is suspect; a sentence each.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    def to_markdown(self) -> str:
        """The table with its warnings and notes as GitHub Markdown; all text in it is escaped."""
        heads = ["Run", "Defense", "Model", "Data"]
        lines = [_line([*heads, *(f"{escape_markdown(c.label)}<br>{escape_markdown(c.detail)}" for c in self.columns)])]
        lines.append("|" + " --- |" * len(heads) + " ---: |" * len(self.columns))
        for row in self.rows:
            data = f"{row.dataset}, {row.split}" if row.dataset else ""
            cells = [_markdown(row.entries.get(column.key)) for column in self.columns]
            lines.append(_line([*(escape_markdown(text) for text in (row.name, row.defense, row.model, data)), *cells]))
        blocks = [
            "\n".join(lines),
            *(f"**Warning:** {escape_markdown(text)}" for text in self.warnings),
            *(escape_markdown(text) for text in self.notes),
        ]
        return "\n\n".join(blocks) + "\n"

    def to_csv(self) -> str:
        """One line per run and attack; accuracies, intervals, spreads and differences in percent."""
        stream = io.StringIO(newline="")
        writer = csv.DictWriter(stream, _CSV, lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            for column in self.columns:
                if column.key in row.entries:
                    writer.writerow(_csv_fields(row, row.entries[column.key]))
        return stream.getvalue()

    def to_rich(self) -> rich.table.Table:
        """The table for a console."""
        shown = rich.table.Table(title="Accuracy in percent (95% interval)", title_justify="left")
        shown.add_column("run", overflow="fold")
        for column in self.columns:
            shown.add_column(Text(f"{column.label}\n{column.detail}"), justify="right")
        for row in self.rows:
            cells = [_console(row.entries.get(column.key)) for column in self.columns]
            shown.add_row(Text(row.name), *(Text(cell) for cell in cells))
        return shown

    def to_console(self, console: rich.console.Console) -> None:
        """Prints the table, its warnings and notes."""
        console.print(self.to_rich())
        for warning in self.warnings:
            console.print(Text(f"Warning: {warning}", style="bold"))
        for note in self.notes:
            console.print(Text(note))


def comparison(runs: Sequence[Run]) -> Table:
    """Compares runs by all that was measured on them.

    Raises:
      UserError: a run names a published row that is not there.
    """
    columns: dict[Key, Record] = {}
    rows: list[Row] = []
    notes: list[str] = []
    for run in runs:
        reference = str(run.option("published", "") or "")
        target = published.load().target(reference) if reference else None
        mine = _rows(run, target, notes)
        rows += mine or [Row(run, run.name, "", "", {}, target)]
        for row in mine:
            for key, entry in row.entries.items():
                columns.setdefault(key, entry.summary.first)
        if not run.train:
            notes.append(f"The training of {run.name} was not given: its settings and curves are missing here.")
    ordered = sorted(columns, key=lambda key: key[0] != CLEAN)
    notes += _published_notes(rows)
    warnings = [text for row in rows if (text := _without_eot(row))]
    return Table(tuple(_columns({key: columns[key] for key in ordered})), tuple(rows), tuple(warnings), tuple(notes))


def console_table(records: Iterable[Record]) -> rich.table.Table:
    """The comparison of bare records for a console: what an attack stage prints at its end."""
    return comparison(from_records(records)).to_rich()


def _rows(run: Run, target: Target | None, notes: list[str]) -> list[Row]:
    """The rows of one run: one for each choice of weights, data set and split that was attacked."""
    groups: dict[tuple[str, str, str], dict[Key, Entry]] = {}
    for evaluation in run.evaluations:
        for summary in summarize(evaluation.records):
            first = summary.first
            entries = groups.setdefault((evaluation.which, first.dataset, first.split), {})
            entry = Entry(summary, target.cell_for(first) if target else None)
            key = (first.attack, first.backend)
            kept = entries[key] = _stronger(entries.get(key), entry)
            if kept is not entry and _differ(kept, entry):
                notes.append(
                    f"{run.name} was judged more than once under {plain(first.label)}; shown is the evaluation with "
                    f"the most examples, then the most repeats ({kept.count:,} and {len(kept.summary.records)})."
                )
    several = len({(dataset, split) for _, dataset, split in groups}) > 1
    rows = []
    for (which, dataset, split), entries in groups.items():
        parts = ([which] if which != "best" else []) + ([run.title_of(dataset), plain(split)] if several else [])
        name = f"{run.name} ({', '.join(parts)})" if parts else run.name
        rows.append(Row(run, name, run.title_of(dataset), plain(split), entries, target))
    return rows


def _stronger(old: Entry | None, new: Entry) -> Entry:
    def evidence(entry: Entry) -> tuple[int, int]:
        return entry.count, len(entry.summary.records)

    return new if old is None or evidence(new) > evidence(old) else old


def _differ(a: Entry, b: Entry) -> bool:
    return [r.correct for r in a.summary.records] != [r.correct for r in b.summary.records] or a.count != b.count


def _columns(firsts: Mapping[Key, Record]) -> list[Column]:
    labels = [plain(record.label) if key[0] != CLEAN else "Clean" for key, record in firsts.items()]
    columns = []
    for label, (key, record) in zip(labels, firsts.items(), strict=True):
        shown = f"{label}: {plain(record.attack)}" if labels.count(label) > 1 else label
        columns.append(Column(key, shown, strength(record)))
    return columns


def _without_eot(row: Row) -> str | None:
    """The warning for a randomized model whose noise no attack averaged away."""
    records = [record for entry in row.attacked for record in entry.summary.records if record.randomized]
    if not records or any(record.draws > 1 for record in records):
        return None
    return (
        f"{row.name} is randomized, and no attack on it averaged its gradients over draws of the noise (EOT). "
        "Its accuracy under attack may be overstated."
    )


def _published_notes(rows: Sequence[Row]) -> list[str]:
    notes: list[str] = []
    for row in rows:
        if not row.target:
            continue
        cells = [entry.published for entry in row.entries.values() if entry.published]
        missing = row.target.missing({cell.metric for cell in cells})
        if missing:
            notes.append(
                f"{row.name} is to reproduce {row.target.title}. The paper's setting was not measured here for: "
                f"{listed(missing)}, on {row.target.dataset} ({row.target.split})."
            )
        notes += [f"† suspect: {row.target.reasons[c.reason]}." for c in cells if c.suspect and c.reason]
    return list(dict.fromkeys(notes))


def _csv_fields(row: Row, entry: Entry) -> dict[str, object]:
    first, cell, spread = entry.summary.first, entry.published, entry.summary.spread
    difference = entry.difference
    return {
        "run": row.name, "defense": row.defense, "model": row.model, "dataset": row.dataset, "attack": first.attack,
        "norm": first.norm, "epsilon": first.epsilon, "steps": first.steps, "restarts": first.restarts,
        "draws": first.draws, "backend": first.backend, "repeats": len(entry.summary.records), "count": first.count,
        "accuracy": _round(entry.summary.accuracy), "low": _round(entry.summary.low),
        "high": _round(entry.summary.high), "spread": "" if spread is None else _round(spread),
        "published": cell.value if cell else "", "published_spread": cell.spread if cell else "",
        "difference": "" if difference is None else round(difference, 4),
        "suspect": str(cell.suspect).lower() if cell else "",
    }  # fmt: skip


def _round(share: float) -> float:
    return round(100 * share, 4)


def _console(entry: Entry | None) -> str:
    if entry is None:
        return "–"  # noqa: RUF001
    spread = f" ± {entry.spread}" if entry.spread is not None else ""
    paper = f"\npublished {entry.comparison}" if entry.comparison else ""
    return f"{entry.accuracy}{spread}\n({entry.interval})\nn = {entry.count:,}{paper}"


def _markdown(entry: Entry | None) -> str:
    return "–" if entry is None else _console(entry).replace("\n", "<br>")  # noqa: RUF001


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
