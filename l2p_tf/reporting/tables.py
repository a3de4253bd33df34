"""The comparison of runs: one row per model, one column per attack, as data, Markdown, CSV and on the console."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import rich.console
import rich.table
from rich.text import Text

from l2p_tf.evaluation.records import CLEAN, Record, summarize
from l2p_tf.reporting import (
    backends,
    blocks,
    certified,
    checks,
    epsilons,
    latex,
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
from l2p_tf.reporting.entries import Column, Entry, Key, Row
from l2p_tf.reporting.matched import Match
from l2p_tf.reporting.paired import Paired
from l2p_tf.reporting.published import Target
from l2p_tf.reporting.runs import Run
from l2p_tf.reporting.sheets import Section, in_percent, to_csv
from l2p_tf.reporting.text import DASH, attack_names, escape_markdown, minimal, plain
from l2p_tf.reporting.text import strength as budget

_CAPTION = (
    "Accuracy in percent, \N{PLUS-MINUS SIGN} its standard deviation over repeats where a model was judged more than once; "
    "below it the 95% interval (Wilson\N{RIGHT SINGLE QUOTATION MARK}s, for the number of images n)."
)
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
class Table:
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

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    sections: tuple[Section, ...] = ()
    transferred: tuple[str, ...] = ()
    paired: Paired = Paired()

    @property
    def caption(self) -> str:
        """What the figures of the comparison are."""
        entries = [entry for row in self.rows for entry in row.entries.values()]
        smallest = _SMALLEST if any(entry.sizes for entry in entries) else ""
        return _CAPTION + smallest + (_PUBLISHED if any(entry.published for entry in entries) else "")

    def to_markdown(self) -> str:
        """All tables, with warnings and notes, as GitHub Markdown; all text in it is escaped."""
        heads = ["Run", "Defense", "Model", "Data"]
        lines = [_line([*heads, *(f"{escape_markdown(c.label)}<br>{escape_markdown(c.detail)}" for c in self.columns)])]
        lines.append("|" + " --- |" * len(heads) + " ---: |" * len(self.columns))
        for row in self.rows:
            data = f"{row.dataset}, {row.split}" if row.dataset else ""
            cells = [_markdown(row.entries.get(column.key)) for column in self.columns]
            lines.append(_line([*(escape_markdown(text) for text in (row.name, row.defense, row.model, data)), *cells]))
        blocks = [
            *(["\n".join(lines)] if self.rows else []),
            *(f"**Warning:** {escape_markdown(text)}" for text in self.warnings),
            *(escape_markdown(text) for text in self.notes),
            *(section.to_markdown() for section in self.sections),
        ]
        return "\n\n".join(blocks) + "\n"

    def to_latex(self) -> str:
        """The comparison in LaTeX; all text in it is escaped."""
        heads = [("Run",), *((column.label, column.detail) for column in self.columns)]
        rows = [[(row.name,), *(_lines(row.entries.get(c.key)) for c in self.columns)] for row in self.rows]
        return latex.table(self.caption, [False, *(True for _ in self.columns)], [heads, *rows])

    def to_csv(self) -> str:
        """One line per run and attack; accuracies, intervals, spreads and differences in percent."""
        found = [(row, row.entries.get(column.key)) for row in self.rows for column in self.columns]
        return to_csv(_CSV, [_csv_fields(row, entry) for row, entry in found if entry])

    def to_rich(self) -> rich.table.Table:
        """The table for a console: a row for each attack, as there are more attacks than runs, and lines are short."""
        shown = rich.table.Table(title="Accuracy in percent (95% interval)", title_justify="left")
        shown.add_column("attack", overflow="fold")
        for row in self.rows:
            # Names are folded; a number or an interval stays whole.
            words = [w for c in self.columns for w in _console(row.entries.get(c.key)).split()]
            least = max(map(len, words), default=1)
            shown.add_column(Text(row.name), justify="right", overflow="fold", min_width=least)
        for column in self.columns:
            head = Text(column.label)
            head.append(f"\n{column.detail}", style="dim")
            shown.add_row(head, *(Text(_console(row.entries.get(column.key))) for row in self.rows))
        return shown

    def to_console(self, console: rich.console.Console) -> None:
        """Prints all tables, warnings and notes, for lines of the console's width."""
        if len(self.rows) > blocks.ACROSS and self.columns:
            for block in blocks.blocks(self.rows, self.columns, console.width):
                console.print(block)
        elif self.columns:
            console.print(self.to_rich())
        for warning in self.warnings:
            console.print(Text(f"Warning: {warning}", style="bold"))
        for note in self.notes:
            console.print(Text(note))
        for section in self.sections:
            if section.brief:
                console.print(Text("\n".join([f"{section.title}:", *section.brief])))
                continue
            for shown in section.to_rich() if section.console else ():
                console.print(shown)


def comparison(runs: Sequence[Run], match: Match | None = None) -> Table:
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
    return Table(tuple(shown), tuple(rows), tuple(warnings), tuple(said), tuple(sections), tuple(met), tested)


def _rows(run: Run, target: Target | None, said: list[str]) -> list[Row]:
    """The rows of one run: one for each choice of weights, data set and split that was attacked."""
    groups: dict[tuple[str, str, str], dict[Key, Entry]] = {}
    for evaluation in run.evaluations:
        for summary in summarize(record for record in evaluation.records if record.source is None):
            first = summary.first
            entries = groups.setdefault((evaluation.which, first.dataset, first.split), {})
            sizes = norms.sizes_if_minimal(evaluation, summary)
            entry = Entry(summary, target.cell_for(first) if target else None, sizes)
            key = (first.attack, first.backend)
            kept = entries[key] = _stronger(entries.get(key), entry)
            if kept is not entry and _differ(kept, entry):
                said.append(
                    f"{run.name} was judged more than once under {plain(first.label)}; shown is the evaluation with "
                    f"the most examples, then the most repeats ({kept.count:,} and {len(kept.summary.records)})."
                )
    several = len({(dataset, split) for _, dataset, split in groups}) > 1
    rows = []
    for (which, dataset, split), entries in groups.items():
        parts = ([which] if which != "best" else []) + ([run.title_of(dataset), plain(split)] if several else [])
        name = f"{run.name} ({', '.join(parts)})" if parts else run.name
        rows.append(Row(run, name, run.title_of(dataset), plain(split), entries, target, which))
    return rows


def _stronger(old: Entry | None, new: Entry) -> Entry:
    def evidence(entry: Entry) -> tuple[int, int]:
        return entry.count, len(entry.summary.records)

    return new if old is None or evidence(new) > evidence(old) else old


def _differ(a: Entry, b: Entry) -> bool:
    return [r.correct for r in a.summary.records] != [r.correct for r in b.summary.records] or a.count != b.count


def _columns(firsts: Mapping[Key, Record]) -> list[Column]:
    labels = attack_names(list(firsts.values()))
    found = zip(labels, firsts.items(), strict=True)
    return [Column(key, label, budget(record), minimal(record)) for label, (key, record) in found]


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


def _lines(entry: Entry | None) -> tuple[str, ...]:
    """The lines of an entry, its second in brackets."""
    if entry is None:
        return (DASH,)
    first, second, *below = entry.lines
    return first, f"({second})", *below


def _console(entry: Entry | None) -> str:
    first, *below = _lines(entry)
    return "\n".join([" ".join([first, *below[:1]]), *below[1:]])


def _markdown(entry: Entry | None) -> str:
    return "<br>".join(_lines(entry))


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
