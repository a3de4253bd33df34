"""The papers' printed tables, and the comparison of measurements with their numbers.

`published.json` holds the tables as grids laid out like the printed ones, so that they can be proofread: a line for
each printed line. The names on a grid's sides, `down` and `across`, give the row, column and metric of a number.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import math
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import msgspec

from l2p_tf.evaluation.records import CLEAN, Record
from l2p_tf.registry import parse_number, parse_spec
from l2p_tf.reporting.format import number
from l2p_tf.schema import read_json
from l2p_tf.types import UserError

FILE = pathlib.Path(__file__).with_name("published.json")
PERCENT = "percent"
# Attack options that a record has as fields, with defaults resolved; the others are only in its spec.
_FACTS = ("norm", "epsilon", "steps", "restarts", "draws")
_USUAL = {"restarts": 1, "draws": 1}

Place = tuple[str, str, str]
"""Row, column and metric of a cell."""


class Metric(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A quantity in a table, and how it was measured.

    Attributes:
      label: display name, such as `PGD-7`.
      unit: `percent` (an accuracy), `l2` (a norm, in pixels of [0, 1]) or `seconds`.
      scale: factor for printed numbers: 100 if accuracies are printed as shares.
      spec: the attack with the paper's options, as in `--attacks`; `clean` for none; empty if the number does not
      belong to a single attack.
      also: other specs of the same attack.
      source: what the examples were made on, as the paper calls it; empty for the attacked network.
      ours: a clause on our choices for the attack where the paper gives none; empty for none.
    """

    label: str
    unit: Literal["percent", "l2", "seconds"]
    scale: int = 1
    spec: str = ""
    also: tuple[str, ...] = ()
    source: str = ""
    ours: str = ""

    @property
    def compared(self) -> bool:
        """Whether it can be compared with a record of an attack on the network itself."""
        return self.unit == PERCENT and bool(self.spec) and not self.source

    def fits(self, record: Record) -> bool:
        """Whether `record` was measured in the same way: same attack, strength and kind of examples."""
        if self.source or record.source is not None:
            return False
        if CLEAN in (self.spec, record.attack):
            return self.spec == record.attack
        try:
            name, given = parse_spec(record.attack, "attack")
        except UserError:
            return False
        wanted = parse_spec(self.spec)[1]
        for key in _FACTS:
            expected = wanted.get(key, _USUAL.get(key))
            # If the paper's attack lacks an option, the record must not set it.
            if (key in given) if expected is None else not _equal(getattr(record, key), expected):
                return False
        known = [parse_spec(spec) for spec in (self.spec, *self.also)]
        return any(name == other and _alike(given, options) for other, options in known)


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Information about a row.

    Attributes:
      parameters: printed number of trainable parameters; None if not printed.
      network: its network, if the row is not named after it.
      source: origin of its numbers.
    """

    parameters: int | None = None
    network: str = ""
    source: str = ""


@dataclasses.dataclass(frozen=True)
class PrintedNumber:
    """One printed number.

    Attributes:
      table: id of the table, such as `l2p_table1`.
      row: its row, such as `ResNet-V1(20)`.
      column: its column, such as `Learn2Perturb`.
      metric: key of its metric.
      value: the number, in the metric's unit.
      spread: the number printed after the plus-minus sign, in the same unit; None if there is none.
      reason: a clause on why the number is suspect; empty if it is not.
    """

    table: str
    row: str
    column: str
    metric: str
    value: float
    spread: float | None = None
    reason: str = ""

    @property
    def reference(self) -> str:
        """Its reference: `table/row/column/metric`."""
        return f"{self.table}/{self.row}/{self.column}/{self.metric}"

    @property
    def text(self) -> str:
        """Number and spread, with a dagger if suspect."""
        spread = "" if self.spread is None else f" ± {number(self.spread)}"
        return f"{number(self.value)}{spread}{' †' * bool(self.reason)}"


@dataclasses.dataclass(frozen=True)
class PrintedTable:
    """One table of a paper, or the numbers of a section.

    A row is a network and a column a training method, where the paper distinguishes the two.

    Attributes:
      name: its id, such as `l2p_table2`.
      cited: its citation: `Learn2Perturb, Table 2`.
      dataset: data set of the measurements.
      split: its split.
      rows: names of its rows.
      columns: names of its columns.
      metrics: its quantities by key.
      cells: its numbers by row, column and metric, without empty cells.
      facts: information about some of the rows.
      notes: caveats about the whole table, one clause each.
    """

    name: str
    cited: str
    dataset: str
    split: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    metrics: Mapping[str, Metric]
    cells: Mapping[Place, PrintedNumber]
    facts: Mapping[str, Row]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Target:
    """One row and column of a printed table, to be reproduced by one trained model."""

    table: PrintedTable
    row: str
    column: str

    @property
    def reference(self) -> str:
        """Its name, `table/row/column`."""
        return f"{self.table.name}/{self.row}/{self.column}"

    @property
    def title(self) -> str:
        """Display name: `Learn2Perturb, Table 1, ResNet-V1(20), Vanilla`."""
        return f"{self.table.cited}, {self.row}, {self.column}"

    @property
    def facts(self) -> Row:
        """Information about the row."""
        return self.table.facts.get(self.row, Row())

    @property
    def cells(self) -> dict[str, PrintedNumber]:
        """Its accuracies by metric, if comparable with a record."""
        places = {key: (self.row, self.column, key) for key, metric in self.table.metrics.items() if metric.compared}
        return {key: self.table.cells[place] for key, place in places.items() if place in self.table.cells}

    @property
    def notes(self) -> list[str]:
        """Caveats about the numbers, one clause each."""
        network, source = self.facts.network, self.facts.source
        return [*self.table.notes, *([f"its network is {network}"] if network else []), *([source] if source else [])]

    def cell_for(self, record: Record) -> PrintedNumber | None:
        """Returns the printed number comparable with `record`: same data, attack and strength."""
        if record.split != self.table.split or not same_dataset(record.dataset, self.table.dataset):
            return None
        return next((cell for key, cell in self.cells.items() if self.table.metrics[key].fits(record)), None)


class _Grid(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Numbers as printed: parts of a metric's name may be on both sides, and `metric` combines them."""

    down: dict[str, list[str]]
    across: dict[str, list[str]]
    values: list[list[float | tuple[float, float] | None]]
    metric: str = "{metric}"

    def cells(self) -> Iterator[tuple[Place, float | tuple[float, float] | None]]:
        """Yields the printed value at each place."""
        down, across = ([dict(zip(side, names, strict=True)) for names in itertools.product(*side.values())]
                        for side in (self.down, self.across))  # fmt: skip
        for high, line in zip(down, self.values, strict=True):
            for wide, printed in zip(across, line, strict=True):
                names = high | wide
                yield (names["row"], names["column"], self.metric.format(**names)), printed


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    paper: str
    number: str
    title: str
    dataset: str
    split: str
    grids: list[_Grid]
    rows: dict[str, Row] = {}
    notes: tuple[str, ...] = ()


class _Suspect(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: str
    cells: list[str]


class Papers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Contents of `published.json`: titles of papers, their metrics and tables, and suspect numbers."""

    papers: dict[str, str]
    metrics: dict[str, dict[str, Metric]]
    tables: dict[str, _Table]
    suspect: list[_Suspect]


@functools.cache
def load() -> dict[str, PrintedTable]:
    """Returns the printed tables by id."""
    return tables_of(read_json(FILE, Papers, "hold the papers' tables"))


def tables_of(file: Papers) -> dict[str, PrintedTable]:
    """Returns the printed tables by id, from the contents of the file."""
    reasons: dict[str, list[str]] = collections.defaultdict(list)
    for entry in file.suspect:
        for reference in entry.cells:
            reasons[reference].append(entry.reason)
    tables = {}
    for name, table in file.tables.items():
        metrics, cells = file.metrics[table.paper], dict[Place, PrintedNumber]()
        places = dict(itertools.chain.from_iterable(grid.cells() for grid in table.grids))
        for place, printed in places.items():
            if printed is not None:
                value, spread = printed if isinstance(printed, tuple) else (printed, None)
                # Shares times 100 would have spurious digits: 0.0612 becomes 6.12, not 6.119999999999999.
                scale, reason = metrics[place[2]].scale, "; ".join(reasons["/".join((name, *place))])
                pair = round(value * scale, 6), spread and round(spread * scale, 6)
                cells[place] = PrintedNumber(name, *place, *pair, reason)
        rows, columns, keys = (tuple(dict.fromkeys(names)) for names in zip(*places, strict=True))
        tables[name] = PrintedTable(
            name, f"{file.papers[table.paper]}, {table.number}", table.dataset, table.split, rows, columns,
            {key: metrics[key] for key in keys}, cells, table.rows, table.notes,
        )  # fmt: skip
    return tables


def references() -> list[str]:
    """Returns the accepted values of `target`: every `table/row/column` with comparable accuracies."""
    targets = [Target(t, row, column) for t in load().values() for row in t.rows for column in t.columns]
    return [target.reference for target in targets if target.cells]


def target(reference: str) -> Target:
    """Returns the target called `table/row/column`.

    Raises:
      UserError: there is none; the message lists the known ones.
    """
    parts = reference.replace("×", "x").split("/")  # noqa: RUF001 - the papers print the sign
    if len(parts) != 3:
        raise UserError(
            "`published` should be of the form table/row/column, such as "
            f"l2p_table1/ResNet-V1(20)/Vanilla. Received: {reference!r}"
        )
    name, row, column = parts
    _check_known("table", name, dict.fromkeys(known.split("/")[0] for known in references()), reference)
    table = load()[name]
    _check_known(f"row of {name}", row, table.rows, reference)
    _check_known(f"column of {name}", column, table.columns, reference)
    return Target(table, row, column)


def _check_known(role: str, name: str, known: Iterable[str], reference: str) -> None:
    if name not in known:
        raise UserError(f"`published` should name a {role}: {', '.join(known)}. Received: {name!r} (in {reference!r})")


def same_dataset(name: str, wanted: str) -> bool:
    """Whether `CIFAR-10 (JPEG)` or `cifar10` is `cifar10`; parentheses are ignored."""
    plain = re.sub(r"\(.*?\)", "", name.lower())
    return re.sub(r"[^a-z0-9]", "", plain) == wanted


def _alike(given: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether two attacks have the same options, except those that a record has fields for."""
    given, wanted = ({k: v for k, v in options.items() if k not in _FACTS} for options in (given, wanted))
    return given.keys() == wanted.keys() and all(_equal(given[key], wanted[key]) for key in wanted)


def _equal(value: Any, wanted: Any) -> bool:
    """Whether two options are equal; numbers may differ by rounding, as 8/255 is also written 0.0314."""
    if isinstance(wanted, bool) or not isinstance(wanted, int | float):
        return bool(value == wanted)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isclose(value, parse_number(str(wanted)), rel_tol=1e-3)
