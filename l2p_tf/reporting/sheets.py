"""Tables of text beside the comparison: on the page, as Markdown and LaTeX, on the console, and their figures as CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Mapping, Sequence

import rich.table
from rich.text import Text

from l2p_tf.reporting import latex
from l2p_tf.reporting.text import DASH, escape_markdown

_NUMBER = re.compile(r"[+-]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?")


@dataclasses.dataclass(frozen=True)
class Head:
    """Head of a column: its name, a line below it, and whether the column holds figures."""

    label: str
    detail: str = ""
    figures: bool = True


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of a table: its text, further lines below it, whether it stands out, and how good its news are.

    `tone` is `good`, `bad`, `unknown` or empty; it colors what the text says in words too. `value` is what a column is
    sorted by; None for the number that the text begins with.
    """

    text: str
    below: tuple[str, ...] = ()
    marked: bool = False
    tone: str = ""
    value: float | None = None

    @property
    def lines(self) -> tuple[str, ...]:
        """All lines of it."""
        return self.text, *self.below

    @property
    def number(self) -> float | None:
        """What a column of figures is sorted by; None for no number, which comes last."""
        if self.value is not None:
            return self.value
        found = _NUMBER.match(self.text.replace("\N{MINUS SIGN}", "-"))
        return float(found[0].replace(",", "")) if found else None


NOTHING = Field(DASH)

# As many columns of figures as a console of 80 characters has room for.
_CONSOLE = 5


@dataclasses.dataclass(frozen=True)
class Sheet:
    """One table. The first field of each row is its head.

    Attributes:
      title: what it is about; empty where it is the only one of its section.
      caption: what its figures are.
      heads: its columns.
      rows: its fields, one a column.
    """

    title: str
    caption: str
    heads: tuple[Head, ...]
    rows: tuple[tuple[Field, ...], ...]

    @property
    def wordy(self) -> bool:
        """Whether its columns are text, which a narrow page sets below each other."""
        return len(self.heads) > 1 and not any(head.figures for head in self.heads)

    def without(self, column: int) -> Sheet:
        """The table without one of its columns."""
        rows = tuple((*row[:column], *row[column + 1 :]) for row in self.rows)
        return dataclasses.replace(self, heads=(*self.heads[:column], *self.heads[column + 1 :]), rows=rows)

    def to_markdown(self) -> str:
        """Title, caption and table as GitHub Markdown; all text is escaped."""
        heads = [_joined([head.label, head.detail] if head.detail else [head.label]) for head in self.heads]
        lines = [_line(heads), _line(["---:" if head.figures else "---" for head in self.heads])]
        lines += [_line([_joined(field.lines) for field in row]) for row in self.rows]
        title = [f"### {escape_markdown(self.title)}"] if self.title else []
        return "\n\n".join([*title, escape_markdown(self.caption), "\n".join(lines)])

    def to_latex(self) -> str:
        """The table in LaTeX; title and caption are its caption, and all text is escaped."""
        heads: list[Sequence[str]] = [(h.label, h.detail) if h.detail else (h.label,) for h in self.heads]
        caption = f"{self.title}. {self.caption}" if self.title else self.caption
        rows: list[Sequence[Sequence[str]]] = [heads, *([field.lines for field in row] for row in self.rows)]
        return latex.table(caption, [head.figures for head in self.heads], rows)

    def to_rich(self, title: str, note: str = "") -> rich.table.Table:
        """The table for a console, with the section's title before its own and perhaps a note after its caption.

        A wide and low one is turned on its side, as lines are short there.
        """
        if len(self.rows) < len(self.heads) - 1 > _CONSOLE:
            return self._turned().to_rich(title, note)
        title = f"{title}: {self.title}" if self.title else title
        caption = Text(f"{self.caption} {note}" if note else self.caption)
        shown = rich.table.Table(title=Text(title), title_justify="left", caption=caption, caption_justify="left")
        for head in self.heads:
            label = Text(f"{head.label}\n{head.detail}" if head.detail else head.label)
            shown.add_column(label, justify="right" if head.figures else "left", overflow="fold")
        for row in self.rows:
            shown.add_row(*(Text("\n".join(field.lines)) for field in row))
        return shown

    def _turned(self) -> Sheet:
        """Rows for columns."""
        heads = [Head(row[0].text, "\n".join(row[0].below)) for row in self.rows]
        rows = [
            (Field(head.label, (head.detail,) if head.detail else ()), *(row[i] for row in self.rows))
            for i, head in enumerate(self.heads[1:], 1)
        ]
        first = dataclasses.replace(self.heads[0], figures=False)
        return dataclasses.replace(self, heads=(first, *heads), rows=tuple(rows))


@dataclasses.dataclass(frozen=True)
class Section:
    """Tables of one kind.

    Attributes:
      name: of its CSV and its anchor; letters only.
      title: its heading.
      sheets: the tables.
      lines: their figures, one line of the CSV each, all with the same keys.
      note: what the figures of all the tables are; empty where the captions say it.
      console: whether it is of use on a console, where lines are short.
      leading: whether it comes before the comparison.
      brief: lines that a console shows instead of the tables; empty for the tables.
      opened: of many tables the one that the page shows at once, the others folded; None for no folding.
    """

    name: str
    title: str
    sheets: tuple[Sheet, ...]
    lines: tuple[Mapping[str, object], ...]
    note: str = ""
    console: bool = True
    leading: bool = False
    brief: tuple[str, ...] = ()
    opened: int | None = None

    @property
    def file(self) -> str:
        """Name of its CSV."""
        return f"{self.name}.csv"

    @property
    def latex_file(self) -> str:
        """Name of its LaTeX."""
        return f"{self.name}.tex"

    def to_markdown(self) -> str:
        """Heading and tables as GitHub Markdown."""
        head = [f"## {escape_markdown(self.title)}", *([escape_markdown(self.note)] if self.note else [])]
        return "\n\n".join([*head, *(sheet.to_markdown() for sheet in self.sheets)])

    def to_latex(self) -> str:
        """Its tables in LaTeX, one after the other."""
        return "\n".join(sheet.to_latex() for sheet in self.sheets)

    def to_csv(self) -> str:
        """One line per figure; accuracies, intervals, spreads and differences in percent."""
        return to_csv(list(self.lines[0]) if self.lines else [], self.lines)

    def to_rich(self) -> list[rich.table.Table]:
        """The tables for a console, the last of them with the note."""
        return [sheet.to_rich(self.title, self.note * (sheet is self.sheets[-1])) for sheet in self.sheets]


def to_csv(names: Sequence[str], lines: Sequence[Mapping[str, object]]) -> str:
    """Lines as CSV below the names of their fields."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    # A spreadsheet would take a name that begins like a formula for one.
    writer.writerows({key: _harmless(value) for key, value in line.items()} for line in lines)
    return stream.getvalue()


def _harmless(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def in_percent(share: float | None) -> float | str:
    """A share for a CSV: in percent with four decimals; empty for None."""
    return "" if share is None else round(100 * share, 4)


def rounded(value: float | None) -> float | str:
    """A figure for a CSV, to six digits; empty for None."""
    return "" if value is None else float(f"{value:.6g}")


def _joined(lines: Sequence[str]) -> str:
    return "<br>".join(map(escape_markdown, lines))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
