"""Console output of a report: one table that fits the width, and the warnings."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

import rich.console
from rich.text import Text

from l2p_tf.evaluation.records import CLEAN
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import Section, sections_of
from l2p_tf.reporting.sections.comparison import AttackColumn, Comparison, compare
from l2p_tf.reporting.table import Table

# With more runs than this, the console omits intervals.
_FEW = 8


def show(results: Results, console: rich.console.Console, sections: Sequence[Section] | None = None) -> None:
    """Prints the comparison (or the tables of the first other section if nothing is compared) and the warnings.

    Args:
      results: the results to report.
      console: destination.
      sections: sections of the results; computed if not given.

    Raises:
      UserError: arrays that a section needs cannot be read.
    """
    sections = sections_of(results) if sections is None else sections
    comparison = results.once(compare)
    if any(row.entries for row in comparison.rows):
        few = len(comparison.rows) <= _FEW
        console.print(_table(comparison, ", 95% interval" if few else "").to_rich(console.width, 2 if few else 1))
    else:
        first = next((section for section in sections if section.tables and section.name != "comparison"), Section())
        for table in first.tables:
            console.print(table.to_rich(console.width))
    for warning in (warning for section in sections for warning in section.warnings):
        console.print(Text(f"Warning: {warning}", style="bold"))


def _table(comparison: Comparison, interval: str) -> Table:
    """Returns the comparison, the strongest attacks first if not all fit; its title describes the figures."""
    rows = [row for row in comparison.rows if row.entries]

    def left(column: AttackColumn) -> tuple[bool, bool, float]:
        entries = [row.entries[column.key] for row in rows if column.key in row.entries]
        return column.key[0] != CLEAN, column.minimal, statistics.fmean(entry.accuracy for entry in entries)

    turned = len(comparison.rows) < len(comparison.columns)
    columns = comparison.columns if turned else tuple(sorted(comparison.columns, key=left))
    counts = sorted({entry.count for row in rows for entry in row.entries.values()})
    images = f"n = {counts[0]:,}" + (f" to {counts[-1]:,}" if len(counts) > 1 else "")
    table = dataclasses.replace(comparison, columns=columns).table
    sizes = "median norm where an attack seeks the smallest; " if any(row.sizes for row in rows) else ""
    return dataclasses.replace(table, title=f"Accuracy in percent{interval}; {sizes}{images}")
