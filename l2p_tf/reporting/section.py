"""A section of a report: tables and plots of one kind, with the figures as CSV."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from l2p_tf.reporting.table import Table, to_csv
from l2p_tf.reporting.text import escape_markdown


@dataclasses.dataclass(frozen=True)
class Section:
    """Tables of one kind.

    Attributes:
      name: of its anchor; letters only.
      title: its heading.
      tables: the tables.
      lines: their figures, one line of the CSV each, all with the same keys.
      note: what the figures of all the tables are; empty where the captions say it.
      leading: whether it comes before the comparison.
      opened: of many tables the one that the page shows at once, the others folded; None for no folding.
      remarks: what must be known with the figures, a sentence each.
      stem: of its files; empty for its name.
    """

    name: str
    title: str
    tables: tuple[Table, ...]
    lines: tuple[Mapping[str, object], ...]
    note: str = ""
    leading: bool = False
    opened: int | None = None
    remarks: tuple[str, ...] = ()
    stem: str = ""

    @property
    def file(self) -> str:
        """Name of its CSV."""
        return f"{self.stem or self.name}.csv"

    @property
    def latex_file(self) -> str:
        """Name of its LaTeX."""
        return f"{self.stem or self.name}.tex"

    def to_markdown(self) -> str:
        """Heading, tables and remarks as GitHub Markdown."""
        texts = [escape_markdown(text) for text in (self.note, *self.remarks)]
        tables = [table.to_markdown() for table in self.tables]
        return "\n\n".join(
            [f"## {escape_markdown(self.title)}", *([texts[0]] if self.note else []), *tables, *texts[1:]]
        )

    def to_latex(self) -> str:
        """Its tables in LaTeX, one after the other."""
        return "\n".join(table.to_latex() for table in self.tables)

    def to_csv(self) -> str:
        """One line per figure; accuracies, intervals, spreads and differences in percent."""
        return to_csv(list(self.lines[0]) if self.lines else [], self.lines)
