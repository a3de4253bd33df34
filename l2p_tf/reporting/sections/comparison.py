"""The comparison of runs: a row for each model, a column for each attack."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from l2p_tf.evaluation.records import CLEAN
from l2p_tf.reporting import notes
from l2p_tf.reporting.examples import Perturbations, is_measurable, perturbations
from l2p_tf.reporting.format import DASH, attack_names, interval, minimal, norm_name, percent, plain
from l2p_tf.reporting.load import Run
from l2p_tf.reporting.measured import Evaluated
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import Section, section
from l2p_tf.reporting.table import (
    ATTACK,
    NOTHING,
    Cell,
    Column,
    Table,
    accuracy,
    accuracy_of,
    columns_of,
    figures,
    in_percent,
)  # fmt: skip

Key = tuple[str, str]
"""An attack's spec and whose it is."""

_CAPTION = (
    "Accuracy in percent, \N{PLUS-MINUS SIGN} its standard deviation over repeats where a model was judged more than "
    "once; below it the 95% interval (Wilson\N{RIGHT SINGLE QUOTATION MARK}s, for the number of images n)."
)
_SMALLEST = (
    " An attack that looks for the smallest perturbation leaves next to nothing by construction: its column has the "
    "median norm of the perturbations that succeeded instead; the larger, the more robust."
)


@dataclasses.dataclass(frozen=True)
class AttackColumn:
    """One attack, or none (`clean`).

    Attributes:
      key: spec and backend.
      label: the attack in a few words, different from every other column's.
      allowed: what it was allowed.
      minimal: whether it looks for the smallest perturbation, whatever its size.
    """

    key: Key
    label: str
    allowed: str
    minimal: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """One model on one split of one data set.

    Attributes:
      run: where it comes from.
      name: name of the run, with what sets this row apart from the run's others.
      weights: `best` or `last`.
      dataset: title of the data set; empty where the run was not attacked.
      split: its split; empty likewise.
      entries: rows of `Results.attacks` by column.
      sizes: the perturbations of attacks of smallest norm, where they are at hand.
    """

    run: Run
    name: str
    weights: str = "best"
    dataset: str = ""
    split: str = ""
    entries: Mapping[Key, Any] = dataclasses.field(default_factory=dict)
    sizes: Mapping[Key, Perturbations] = dataclasses.field(default_factory=dict)

    @property
    def defense(self) -> str:
        """The defense as the training was told; empty where the training was not given."""
        return plain(self.run.option("defense")) if self.run.train else ""

    @property
    def model(self) -> str:
        """The architecture as the training was told; empty where the training was not given."""
        return plain(self.run.option("model")) if self.run.train else ""

    @property
    def data(self) -> str:
        """Data set and split; empty where the run was not attacked."""
        return f"{self.dataset}, {self.split}" if self.dataset else ""

    @property
    def bounded(self) -> list[Any]:
        """The entries of attacks that keep to a given size; what the others leave is near 0 by construction."""
        return [entry for entry in self.entries.values() if entry.kind == "bounded"]

    def cell(self, key: Key, common: list[str]) -> Cell:
        """The accuracy under an attack, or the median norm of the smallest perturbations; without common lines."""
        if key not in self.entries:
            return NOTHING
        entry, sizes = self.entries[key], self.sizes.get(key)
        cell = accuracy(entry)
        if sizes:
            rate = DASH if sizes.rate is None else f"{percent(sizes.rate, sizes.tried)}%"
            text = DASH if sizes.median is None else f"{sizes.median:#.3g}"
            below = (f"median {norm_name(entry.norm)}", f"success {rate}", *cell.below[1:])
            cell = Cell(text, below, value=sizes.median)
        return dataclasses.replace(cell, below=tuple(line for line in cell.below if line not in common))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What was measured, by model and attack.

    Attributes:
      columns: clean first, then the attacks in the order they were met.
      rows: the models, in the order of the runs; one that was not attacked has no entries.
    """

    columns: tuple[AttackColumn, ...]
    rows: tuple[Row, ...]

    @property
    def table(self) -> Table:
        """A row for each model, a column for each attack; what all rows have in common is said in the caption."""
        judged = [row for row in self.rows if row.entries]
        images = {accuracy(entry).below[1] for row in judged for entry in row.entries.values()}
        facts = ({row.data for row in judged}, {row.model for row in judged}, images)
        common = [next(iter(values)) for values in facts if len(values) == 1]
        caption = _CAPTION + _SMALLEST * any(row.sizes for row in judged)
        caption += f" All rows: {'; '.join(filter(None, common))}." if any(common) else ""
        columns = (Column("Run", figures=False), *(Column(column.label, column.allowed) for column in self.columns))
        rows = []
        for row in self.rows:
            below = [text for text in (row.defense, row.model, row.data) if text and text not in common]
            rows.append((Cell(row.name, tuple(below)), *(row.cell(column.key, common) for column in self.columns)))
        return Table("", caption, columns, tuple(rows))


@section("comparison", "Comparison", order=10)
def comparison(results: Results) -> Section:
    """A row for each model, a column for each attack, and what must be known with the figures."""
    found = results.once(compare)
    remarks = [*notes.replaced(results), *notes.untrained(results), *notes.averaged(results), *notes.targeted(results)]
    warnings = (*notes.invalid(found.rows), *notes.without_eot(found.rows))
    if not found.rows:
        return Section(note=" ".join(remarks), warnings=warnings)
    rows = [
        {
            "run": row.name, "defense": row.defense, "model": row.model, **columns_of(entry, *ATTACK),
            "dataset": row.dataset, **accuracy_of(entry),
            "spread": in_percent(entry.spread) if entry.repeats > 1 else None,
        }
        for row in found.rows
        for column in found.columns
        if (entry := row.entries.get(column.key))
    ]  # fmt: skip
    return Section((found.table,), figures(rows), warnings=warnings, remarks=tuple(remarks))


def compare(results: Results) -> Comparison:
    """Sets runs side by side.

    Raises:
      UserError: arrays of an attack of smallest norm cannot be read.
    """
    rows: list[Row] = []
    for run in results.all_runs:
        evaluated = [one for one in results.evaluated if one.run is run]
        several = len({one.place[1:] for one in evaluated}) > 1
        # Of a run that was not given and only met transferred examples there is nothing to compare.
        rows += [_row(one, several) for one in evaluated] or ([Row(run, run.name)] if run.train else [])
    entries: dict[Key, Any] = {}
    for key, entry in (pair for row in rows for pair in row.entries.items()):
        entries.setdefault(key, entry)
    keys = sorted(entries, key=lambda key: key[0] != CLEAN)
    firsts = [entries[key].measured.first for key in keys]
    columns = [
        AttackColumn(key, label, entries[key].allowed, minimal(first))
        for key, label, first in zip(keys, attack_names(firsts), firsts, strict=True)
    ]
    return Comparison(tuple(columns), tuple(rows))


def _row(one: Evaluated, several: bool) -> Row:
    weights, dataset, split = one.place
    dataset, split = one.run.title_of(dataset), plain(split)
    parts = ([plain(weights)] if weights != "best" else []) + ([dataset, split] if several else [])
    name = f"{one.run.name} ({', '.join(parts)})" if parts else one.run.name
    entries = {(row.attack, row.backend): row for row in one.rows}
    sizes = {key: perturbations(row.measured) for key, row in entries.items() if is_measurable(row.measured)}
    return Row(one.run, name, weights, dataset, split, entries, sizes)


def shares(entry: Any) -> tuple[str, str]:
    """An accuracy and its 95% interval in percent, as text."""
    return percent(entry.accuracy, entry.count), interval(entry.low, entry.high, entry.count)
