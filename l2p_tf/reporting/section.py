"""Sections of a report and their registry: each is a function from results to tables, plots and figures.

Sections are independent of HTML, Markdown, LaTeX and the console; the writers depend on nothing of sections but this.
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
    """A section's tables, plots and figures.

    Attributes:
      tables: the tables.
      figures: contents of its CSV, one row per figure; shares, their intervals and differences in percent.
      note: explains the figures of all tables; empty if the captions do.
      plots: the plots, below the tables.
      warnings: caveats that weaken a figure, one sentence each; the page shows them in its summary.
      remarks: further information on the figures, one sentence each; below the tables.
      opened: index of the table shown at once, with the others folded; None for no folding.
      name: name of its anchor and its files; from the registry.
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
        """Whether it has more than warnings."""
        return bool(self.tables or self.plots or self.note)

    @property
    def files(self) -> tuple[tuple[str, str], ...]:
        """Names and contents of its files: the figures as CSV, the tables as LaTeX."""
        if not self.tables:
            return ()
        latex = "\n".join(table.to_latex() for table in self.tables)
        return (f"{self.name}.csv", to_csv(self.figures)), (f"{self.name}.tex", latex)

    def to_markdown(self) -> str:
        """Returns heading, note, tables and remarks as GitHub Markdown."""
        note = [escape_markdown(self.note)] if self.note else []
        tables = [table.to_markdown() for table in self.tables]
        return "\n\n".join([f"## {escape_markdown(self.title)}", *note, *tables, *map(escape_markdown, self.remarks)])


Make = Callable[[Results], Section | None]
"""Makes a section from results; None if they hold nothing for it."""


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
      name: unique name of its anchor on the page and of its files; letters only.
      title: its heading.
      order: sort key among the sections; the comparison has 10.
    """

    def register(make: Make) -> Make:
        _registered[name] = _Registered(name, title, order, make)
        return make

    return register


def sections_of(
    results: Results, further: Sequence[Make] = (), advance: Callable[[], None] = lambda: None
) -> list[Section]:
    """Returns all sections that the results have data for, in order.

    Args:
      results: the results to report.
      further: functions that make sections, placed first; each sets its name and title.
      advance: called after each registered section.

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
    """Returns all registered sections in order; the first call imports those of this package."""
    for module in pkgutil.iter_modules(importlib.import_module(_FOLDER).__path__):
        importlib.import_module(f"{_FOLDER}.{module.name}")
    return sorted(_registered.values(), key=lambda entry: entry.order)
