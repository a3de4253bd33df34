"""Tables of text beside the comparison: on the page, as Markdown, on the console, and their figures as CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence

import rich.table
from rich.text import Text

from l2p_tf.reporting.text import DASH, escape_markdown


@dataclasses.dataclass(frozen=True)
class Head:
    """Head of a column: its name, a line below it, and whether the column holds figures."""

    label: str
    detail: str = ""
    figures: bool = True


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of a table: its text, further lines below it, whether it stands out, and how good its news are.

    `tone` is `good`, `bad`, `unknown` or empty; it colors what the text says in words too.
    """

    text: str
    below: tuple[str, ...] = ()
    marked: bool = False
    tone: str = ""

    @property
    def lines(self) -> tuple[str, ...]:
        """All lines of it."""
        return self.text, *self.below


NOTHING = Field(DASH)


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

    def to_markdown(self) -> str:
        """Title, caption and table as GitHub Markdown; all text is escaped."""
        heads = [_joined([head.label, head.detail] if head.detail else [head.label]) for head in self.heads]
        lines = [_line(heads), _line(["---:" if head.figures else "---" for head in self.heads])]
        lines += [_line([_joined(field.lines) for field in row]) for row in self.rows]
        title = [f"### {escape_markdown(self.title)}"] if self.title else []
        return "\n\n".join([*title, escape_markdown(self.caption), "\n".join(lines)])

    def to_rich(self, title: str, note: str = "") -> rich.table.Table:
        """The table for a console, with the section's title before its own and perhaps a note after its caption."""
        title = f"{title}: {self.title}" if self.title else title
        caption = Text(f"{self.caption} {note}" if note else self.caption)
        shown = rich.table.Table(title=Text(title), title_justify="left", caption=caption, caption_justify="left")
        for head in self.heads:
            label = Text(f"{head.label}\n{head.detail}" if head.detail else head.label)
            shown.add_column(label, justify="right" if head.figures else "left", overflow="fold")
        for row in self.rows:
            shown.add_row(*(Text("\n".join(field.lines)) for field in row))
        return shown


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
    """

    name: str
    title: str
    sheets: tuple[Sheet, ...]
    lines: tuple[Mapping[str, object], ...]
    note: str = ""
    console: bool = True

    @property
    def file(self) -> str:
        """Name of its CSV."""
        return f"{self.name}.csv"

    def to_markdown(self) -> str:
        """Heading and tables as GitHub Markdown."""
        head = [f"## {escape_markdown(self.title)}", *([escape_markdown(self.note)] if self.note else [])]
        return "\n\n".join([*head, *(sheet.to_markdown() for sheet in self.sheets)])

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
    writer.writerows(lines)
    return stream.getvalue()


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
