"""A section of a report, and the registry of all: each is a function from results to tables, plots and figures.

A section knows nothing of HTML, Markdown, LaTeX or the console; what writes those knows nothing of sections but this.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Sequence

import pandas as pd

from l2p_tf.reporting.format import escape_markdown
from l2p_tf.reporting.plot import Plot
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.table import Table, to_csv

_FOLDER = "l2p_tf.reporting.sections"


@dataclasses.dataclass(frozen=True)
class Section:
    """Tables and plots of one kind.

    Attributes:
      tables: the tables.
      figures: what its CSV holds, a row for each figure; shares, their intervals and differences in percent.
      note: what the figures of all the tables are; empty where the captions say it.
      plots: the plots, below the tables.
      warnings: what makes a figure less than it seems, a sentence each; the page has them in its summary.
      remarks: what must be known with the figures, a sentence each; below the tables.
      opened: of many tables the one that the page shows at once, the others folded; None for no folding.
      name: of its anchor and its files; from the registry.
      title: its heading; from the registry.
    """

    tables: tuple[Table, ...] = ()
    figures: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)
    note: str = ""
    plots: tuple[Plot, ...] = ()
    warnings: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    opened: int | None = None
    name: str = ""
    title: str = ""

    @property
    def visible(self) -> bool:
        """Whether there is more to it than warnings."""
        return bool(self.tables or self.plots or self.note)

    @property
    def files(self) -> tuple[tuple[str, str], ...]:
        """Names and contents of its files: the figures as CSV, the tables as LaTeX."""
        if not self.tables:
            return ()
        latex = "\n".join(table.to_latex() for table in self.tables)
        return (f"{self.name}.csv", to_csv(self.figures)), (f"{self.name}.tex", latex)

    def to_markdown(self) -> str:
        """Heading, note, tables and remarks as GitHub Markdown."""
        note = [escape_markdown(self.note)] if self.note else []
        tables = [table.to_markdown() for table in self.tables]
        return "\n\n".join([f"## {escape_markdown(self.title)}", *note, *tables, *map(escape_markdown, self.remarks)])


Make = Callable[[Results], Section | None]
"""Makes a section of some results; None where they have nothing for it."""


@dataclasses.dataclass(frozen=True)
class _Registered:
    name: str
    title: str
    order: int
    make: Make


_registered: dict[str, _Registered] = {}


def section(name: str, title: str, order: int) -> Callable[[Make], Make]:
    """Registers a function that makes a section.

    Args:
      name: of its anchor on the page and of its files; letters only, different from all others.
      title: its heading.
      order: its place among the sections, the smallest first; that of the comparison is 10.
    """

    def register(make: Make) -> Make:
        _registered[name] = _Registered(name, title, order, make)
        return make

    return register


def sections_of(
    results: Results, further: Sequence[Make] = (), advance: Callable[[], None] = lambda: None
) -> list[Section]:
    """All sections that some results have something for, in order.

    Args:
      results: what is reported.
      further: what makes sections that come first; each says its name and its title.
      advance: called after each registered section that was tried.

    Raises:
      UserError: arrays that a section needs cannot be read.
    """
    made = [part for make in further if (part := make(results))]
    for entry in registered():
        if part := entry.make(results):
            made.append(dataclasses.replace(part, name=entry.name, title=entry.title))
        advance()
    return made


def registered() -> list[_Registered]:
    """All registered sections in order; the first call imports those of this package."""
    for module in pkgutil.iter_modules(importlib.import_module(_FOLDER).__path__):
        importlib.import_module(f"{_FOLDER}.{module.name}")
    return sorted(_registered.values(), key=lambda entry: entry.order)
