"""Tables and their Markdown, LaTeX, CSV and console formats; `templates/parts.html` renders them as HTML."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import rich.table
from rich.text import Text

from l2p_tf.evaluation.records import wilson_interval
from l2p_tf.reporting import latex
from l2p_tf.reporting.format import DASH, escape_markdown, interval, percent

_NUMBER = re.compile(r"[+-]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?")
# Consoles wrap names to this width; borders take one character per table and three per column.
_NAME, _EDGE, _BETWEEN = 16, 1, 3


@dataclasses.dataclass(frozen=True)
class Column:
    """Head of a column: its name, a line below it, and whether the column holds figures."""

    label: str
    detail: str = ""
    figures: bool = True


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, further lines below it, highlighting and tone.

    `tint` in [0, 1] shades it on the page. `tone` is `good`, `bad`, `unknown` or empty; the color repeats what the text
    says. `value` is the sort key of its column; None for the number that the text starts with.
    """

    text: str
    below: tuple[str, ...] = ()
    marked: bool = False
    tone: str = ""
    value: float | None = None
    tint: float | None = None

    @property
    def lines(self) -> tuple[str, ...]:
        """All its lines."""
        return self.text, *self.below

    @property
    def number(self) -> float | None:
        """Sort key in a column of figures; None, which comes last, if there is no number."""
        if self.value is not None:
            return self.value
        match = _NUMBER.match(self.text.replace("\N{MINUS SIGN}", "-"))
        return float(match[0].replace(",", "")) if match else None


ATTACK = (
    "dataset", "split", "attack", "norm", "epsilon", "steps", "restarts", "draws", "prediction_draws", "backend",
    "repeats", "count",
)  # fmt: skip
"""CSV columns that identify an attack and its number of images."""

NOTHING = Cell(DASH)
"""Shown if nothing was measured."""


def accuracy(row: Any, *below: str, marked: bool = False) -> Cell:
    """Formats an accuracy over repeats: mean and spread in percent; below, 95% interval, images and further lines.

    Args:
      row: a row of `Results.summaries`.
      below: further lines.
      marked: whether to highlight it.
    """
    spread = f" ± {percent(row.spread, row.count)}" if row.repeats > 1 else ""
    images = f"n = {row.count:,}" + (f", {row.repeats} repeats" if row.repeats > 1 else "")
    lines = interval(row.low, row.high, row.count), images, *below
    return Cell(percent(row.accuracy, row.count) + spread, lines, marked, value=100 * row.accuracy)


def share(value: float, count: int, *below: str, marked: bool = False) -> Cell:
    """Formats a share of `count` images in percent; below it the 95% interval and further lines."""
    return Cell(percent(value, count), (interval(*wilson_interval(value, count), count), *below), marked)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table. The first cell of each row is its head.

    Attributes:
      title: its subject; empty for the only table of a section.
      caption: explains its figures.
      columns: its columns.
      rows: its cells, one per column.
    """

    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @property
    def wordy(self) -> bool:
        """Whether its columns are text, which a narrow page stacks."""
        return len(self.columns) > 1 and not any(column.figures for column in self.columns)

    def without(self, column: int) -> Table:
        """Returns the table without one of its columns."""
        rows = tuple((*row[:column], *row[column + 1 :]) for row in self.rows)
        return dataclasses.replace(self, columns=(*self.columns[:column], *self.columns[column + 1 :]), rows=rows)

    def turned(self) -> Table:
        """Transposes the table."""
        columns = [Column(row[0].text) for row in self.rows]
        rows = [
            (Cell(column.label, (column.detail,) if column.detail else ()), *(row[i] for row in self.rows))
            for i, column in enumerate(self.columns[1:], 1)
        ]
        return dataclasses.replace(self, columns=(Column("", figures=False), *columns), rows=tuple(rows))

    def to_markdown(self) -> str:
        """Formats title, caption and table as GitHub Markdown; all text is escaped."""
        heads = [_joined([column.label, column.detail] if column.detail else [column.label]) for column in self.columns]
        lines = [_line(heads), _line(["---:" if column.figures else "---" for column in self.columns])]
        lines += [_line([_joined(cell.lines) for cell in row]) for row in self.rows]
        title = [f"### {escape_markdown(self.title)}"] if self.title else []
        return "\n\n".join([*title, escape_markdown(self.caption), "\n".join(lines)])

    def to_latex(self) -> str:
        """Formats the table in LaTeX; title and caption become its caption, and all text is escaped."""
        heads: list[Sequence[str]] = [(c.label, c.detail) if c.detail else (c.label,) for c in self.columns]
        caption = f"{self.title}. {self.caption}" if self.title else self.caption
        rows: list[Sequence[Sequence[str]]] = [heads, *([cell.lines for cell in row] for row in self.rows)]
        return latex.table(caption, [column.figures for column in self.columns], rows)

    def to_rich(self, width: int, lines: int | None = None) -> rich.table.Table:
        """Formats the table for a console: transposed if that fits better, and with as many columns as fit.

        Args:
          width: characters per line; omitted columns are named below the table.
          lines: maximum number of lines per cell; None for all.
        """
        turned = self.turned()
        if len(self.rows) < len(self.columns) - 1 and turned._fitting(width, lines) == len(turned.columns):
            return turned._drawn(width, lines)
        return self._drawn(width, lines)

    def _drawn(self, width: int, lines: int | None) -> rich.table.Table:
        fitting = self._fitting(width, lines)
        hidden = ", ".join(column.label for column in self.columns[fitting:])
        table = rich.table.Table(title=Text(self.title) if self.title else None, title_justify="left")
        table.caption, table.caption_justify = Text(f"No room for: {hidden}.") if hidden else None, "left"
        for i, column in enumerate(self.columns[:fitting]):
            least = self._size(i, lines) if i else None
            table.add_column(
                Text(column.label), justify="right" if column.figures else "left", overflow="fold", min_width=least
            )
        for row in self.rows:
            table.add_row(*(Text("\n".join(cell.lines[:lines])) for cell in row[:fitting]))
        return table

    def _fitting(self, width: int, lines: int | None) -> int:
        """Number of columns that fit a console, at least two."""
        sizes = [self._size(i, lines) for i in range(len(self.columns))]
        ends = list(itertools.accumulate((size + _BETWEEN for size in sizes[1:]), initial=0))
        return max(2, bisect.bisect_right(ends, width - _EDGE - min(sizes[0], _NAME) - _BETWEEN))

    def _size(self, i: int, lines: int | None) -> int:
        """Characters a column needs: lines of figures are not wrapped, other text is wrapped between words."""
        column, texts = self.columns[i], [line for row in self.rows for line in row[i].lines[:lines]]
        words = [word[:_NAME] for text in [column.label, *([] if column.figures else texts)] for word in text.split()]
        return max(map(len, [*words, *(texts if column.figures else [])]), default=1)


def to_csv(figures: pd.DataFrame) -> str:
    """Formats figures as CSV."""
    # Spreadsheets would interpret such names as formulas.
    harmless = {name: pd.Series(map(_harmless, figures[name]), dtype=object) for name in figures}
    return pd.DataFrame(harmless).to_csv(index=False, lineterminator="\n")


def figures(rows: Sequence[Mapping[str, object]]) -> pd.DataFrame:
    """Collects figures for a CSV, one per row, with values unchanged; missing ones are empty."""
    names = dict.fromkeys(name for row in rows for name in row)
    return pd.DataFrame({name: pd.Series([row.get(name) for row in rows], dtype=object) for name in names})


def columns_of(row: Any, *names: str) -> dict[str, object]:
    """Returns columns of a frame's row for a CSV; by default those that identify an attack."""
    return {name: getattr(row, name) for name in names or ATTACK}


def accuracy_of(row: Any) -> dict[str, object]:
    """Returns accuracy and 95% interval of a frame's row, for a CSV."""
    return {name: in_percent(getattr(row, name)) for name in ("accuracy", "low", "high")}


def share_of(value: float, count: int, end: str = "") -> dict[str, object]:
    """Returns a share of `count` images and its 95% interval for a CSV; `end` is appended to the column names."""
    values = (value, *wilson_interval(value, count))
    return {f"{name}{end}": in_percent(v) for name, v in zip(("accuracy", "low", "high"), values, strict=True)}


def in_percent(value: float | None) -> float | None:
    """Converts a share to percent with four decimals, for a CSV; None for None."""
    return None if value is None else round(100 * value, 4)


def rounded(value: float | None) -> float | None:
    """Rounds a figure to six digits, for a CSV; None for None."""
    return None if value is None else float(f"{value:.6g}")


def _harmless(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def _joined(lines: Sequence[str]) -> str:
    return "<br>".join(map(escape_markdown, lines))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
