"""What a paper prints: tables, the quantities in them, their numbers, and the attacks that stand behind these."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from l2p_tf.evaluation.records import CLEAN, Record
from l2p_tf.registry import parse_number, parse_spec
from l2p_tf.types import UserError

PERCENT, L2, SECONDS = "percent", "l2", "seconds"
# What a record says of its attack in fields of its own, defaults resolved; only its spec tells the other options.
_FACTS = ("norm", "epsilon", "steps", "restarts", "draws")
_USUAL = {"restarts": 1, "draws": 1}

Place = tuple[str, str, str]
"""Row, column and metric of a cell."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a number was measured.

    Attributes:
      spec: the attack with the paper's options, as `--attacks` takes it; `clean` for none.
      also: other specs of the same attack.
      source: what the examples were made on, in the paper's words; empty for the network that is attacked.
      ours: what of it the paper leaves open and we chose, a clause; empty for nothing.
    """

    spec: str
    also: tuple[str, ...] = ()
    source: str = ""
    ours: str = ""

    def fits(self, record: Record) -> bool:
        """Whether `record` was measured so: same attack, same strength, on the same kind of examples."""
        if self.source or record.source is not None:
            return False
        if CLEAN in (self.spec, record.attack):
            return self.spec == record.attack
        try:
            name, given = parse_spec(record.attack, "attack")
        except UserError:
            return False
        wanted = parse_spec(self.spec)[1]
        return _same_strength(record, given, wanted) and any(
            name == known and _alike(_others(given), _others(options))
            for known, options in map(parse_spec, (self.spec, *self.also))
        )


@dataclasses.dataclass(frozen=True)
class Metric:
    """A quantity in a table.

    Attributes:
      key: its name in references, such as `pgd`.
      label: its name for people, such as `PGD-7`.
      unit: `percent` (an accuracy), `l2` (a norm, of pixels in [0, 1]) or `seconds`.
      setting: how it was measured; None where no single attack is behind it.
    """

    key: str
    label: str
    unit: str
    setting: Setting | None

    @property
    def compared(self) -> bool:
        """Whether the accuracy in a record of an attack on the network itself may be put beside it."""
        return self.unit == PERCENT and self.setting is not None and not self.setting.source


@dataclasses.dataclass(frozen=True)
class PrintedNumber:
    """One printed number.

    Attributes:
      paper: key of the paper.
      table: id of the table, such as `l2p_table1`.
      row: its row, such as `ResNet-V1(20)`.
      column: its column, such as `Learn2Perturb`.
      metric: key of what was measured.
      value: the number, in the metric's unit.
      spread: what the paper prints after its plus-minus sign, in the same unit; None where it prints none.
      reason: why the number cannot be taken at its word, a clause; None where it can.
    """

    paper: str
    table: str
    row: str
    column: str
    metric: str
    value: float
    spread: float | None = None
    reason: str | None = None

    @property
    def suspect(self) -> bool:
        """Whether the number cannot be taken at its word."""
        return self.reason is not None

    @property
    def reference(self) -> str:
        """Where it is: `table/row/column/metric`."""
        return f"{self.table}/{self.row}/{self.column}/{self.metric}"


@dataclasses.dataclass(frozen=True)
class PrintedTable:
    """One table of a paper, or the numbers of a section.

    A row is a network and a column what was done to it, where the paper tells both apart.

    Attributes:
      name: its id, such as `l2p_table2`.
      paper: key of the paper.
      cited: how it is cited: `Learn2Perturb, Table 2`.
      number: the paper's own name for it: `Table 2`.
      title: what it is about.
      dataset: data set that the numbers were measured on.
      split: its split.
      rows: names of its rows.
      columns: names of its columns.
      metrics: its quantities by key.
      cells: its numbers by row, column and metric; without those that the paper leaves empty.
      parameters: trainable parameters printed for a row.
      networks: the network of a row that is not named after it.
      sources: where the numbers of a row come from, where there is something to be said about it.
      notes: what must be known of the whole table, a clause each.
    """

    name: str
    paper: str
    cited: str
    number: str
    title: str
    dataset: str
    split: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    metrics: Mapping[str, Metric]
    cells: Mapping[Place, PrintedNumber]
    parameters: Mapping[str, int]
    networks: Mapping[str, str]
    sources: Mapping[str, str]
    notes: tuple[str, ...]

    def cell(self, row: str, column: str, metric: str) -> PrintedNumber | None:
        """The number at a place; None where the paper leaves it empty."""
        return self.cells.get((row, column, metric))

    def compared(self, row: str, column: str) -> dict[str, PrintedNumber]:
        """The accuracies of a row and column that a record may be compared with, by metric."""
        found = {key: self.cell(row, column, key) for key, metric in self.metrics.items() if metric.compared}
        return {key: cell for key, cell in found.items() if cell}


def _same_strength(record: Record, given: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    for key in _FACTS:
        expected = wanted.get(key, _USUAL.get(key))
        # What the paper's attack does not have, the record's may not have been given.
        if (key in given) if expected is None else not _equal(getattr(record, key), expected):
            return False
    return True


def _others(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key not in _FACTS}


def _alike(given: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return given.keys() == wanted.keys() and all(_equal(given[key], wanted[key]) for key in wanted)


def _equal(value: Any, wanted: Any) -> bool:
    """Whether two options are the same; numbers may differ by rounding, as 8/255 is also written 0.0314."""
    if isinstance(wanted, bool) or not isinstance(wanted, int | float):
        return bool(value == wanted)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isclose(value, parse_number(str(wanted)), rel_tol=1e-3)
