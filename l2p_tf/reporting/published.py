"""The papers' printed numbers, and which of them a measurement may be put beside."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from l2p_tf.evaluation.records import CLEAN, Record
from l2p_tf.registry import parse_number, parse_spec
from l2p_tf.types import UserError

FILE = pathlib.Path(__file__).with_name("published.json")
# Options of an attack's spec that a setting speaks about. A spec with any other one is not the paper's attack.
_KNOWN_OPTIONS = frozenset({"norm", "epsilon", "steps", "step_size", "restarts", "draws"})


@dataclasses.dataclass(frozen=True)
class Cell:
    """One printed number.

    Attributes:
      paper: key of the paper.
      table: id of the table, such as `l2p_table1`.
      row: its row, such as `ResNet-V1(20)`.
      column: its column: the defense as the paper calls it.
      metric: what was measured: `clean` or the key of an attack's setting.
      value: accuracy in percent.
      spread: what the paper prints after its plus-minus sign; None where it prints none.
      suspect: whether the number cannot be taken at its word.
      reason: key of the reason why; None where it is not suspect.
    """

    paper: str
    table: str
    row: str
    column: str
    metric: str
    value: float
    spread: float | None
    suspect: bool
    reason: str | None


@dataclasses.dataclass(frozen=True)
class Target:
    """One row and column of a published table: what one trained model is to reproduce.

    Attributes:
      reference: its name, `table/row/column`.
      title: the same for people: `Learn2Perturb, Table 1, ResNet-V1(20), Vanilla`.
      dataset: data set the numbers were measured on.
      split: its split.
      parameters: trainable parameters the paper prints; None where it prints none.
      cells: its numbers by metric.
      settings: the attack behind each metric.
      reasons: sentences for the keys in `Cell.reason`.
    """

    reference: str
    title: str
    dataset: str
    split: str
    parameters: int | None
    cells: Mapping[str, Cell]
    settings: Mapping[str, Mapping[str, Any]]
    reasons: Mapping[str, str]

    def cell_for(self, record: Record) -> Cell | None:
        """The printed number that `record` may be compared with: same data, same attack, same strength."""
        if record.split != self.split or not _same_dataset(record.dataset, self.dataset):
            return None
        found = (cell for metric, cell in self.cells.items() if _matches(self.settings[metric], record))
        return next(found, None)

    def missing(self, shown: set[str]) -> list[str]:
        """The settings, in words, of the metrics that are not in `shown`."""
        return [_describe(self.settings[metric]) for metric in self.cells if metric not in shown]


@dataclasses.dataclass(frozen=True)
class Published:
    """Everything in `published.json`."""

    papers: Mapping[str, Mapping[str, Any]]
    tables: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Mapping[str, Any]]
    reasons: Mapping[str, str]
    cells: tuple[Cell, ...]

    def target(self, reference: str) -> Target:
        """The target called `table/row/column`.

        Raises:
          UserError: there is none; the message lists what is there.
        """
        parts = reference.replace("×", "x").split("/")  # noqa: RUF001 - the papers print the sign
        if len(parts) != 3:
            raise UserError(
                "`published` should be of the form table/row/column, such as "
                f"l2p_table1/ResNet-V1(20)/Vanilla. Received: {reference!r}"
            )
        table, row, column = parts
        _one_of("table", table, self.tables, reference)
        rows = dict.fromkeys(cell.row for cell in self.cells if cell.table == table)
        _one_of(f"row of {table}", row, rows, reference)
        _one_of(f"column of {table}", column, self.tables[table]["columns"], reference)
        cells = {c.metric: c for c in self.cells if (c.table, c.row, c.column) == (table, row, column)}
        facts = self.tables[table]
        title = f"{self.papers[facts['paper']]['title']}, {facts['number']}, {row}, {column}"
        parameters = facts["parameters"].get(row)
        return Target(
            "/".join(parts), title, facts["dataset"], facts["split"], parameters, cells, self.settings, self.reasons
        )


@functools.cache
def load() -> Published:
    """The numbers that come with the package."""
    return parse(json.loads(FILE.read_text("utf-8")))


def parse(data: Mapping[str, Any]) -> Published:
    """Checks the contents of a `published.json`.

    Raises:
      ValueError: a cell names something that is not declared, is out of range, or is there twice; a table has gaps.
    """
    cells = tuple(Cell(**fields) for fields in data["cells"])
    tables, settings = data["tables"], data["settings"]
    seen = set()
    for cell in cells:
        where = f"{cell.table}/{cell.row}/{cell.column}/{cell.metric}"
        if cell.paper not in data["papers"] or cell.table not in tables or cell.metric not in settings:
            raise ValueError(f"{where}: paper, table and metric should be declared.")
        if cell.column not in tables[cell.table]["columns"] or cell.row not in tables[cell.table]["parameters"]:
            raise ValueError(f"{where}: row and column should be declared.")
        if not 0 <= cell.value <= 100 or (cell.spread is not None and not 0 <= cell.spread <= 100):
            raise ValueError(f"{where}: `value` and `spread` should be in percent. Received: {cell.value!r}")
        if cell.suspect != (cell.reason is not None) or (cell.reason and cell.reason not in data["reasons"]):
            raise ValueError(f"{where}: `reason` should be declared for suspect cells only. Received: {cell.reason!r}")
        if where in seen:
            raise ValueError(f"{where}: is there twice.")
        seen.add(where)
    for name, table in tables.items():
        mine = [cell for cell in cells if cell.table == name]
        metrics = {cell.metric for cell in mine}
        if len(mine) != len(table["parameters"]) * len(table["columns"]) * len(metrics):
            raise ValueError(f"{name}: every row should have every column. Received: {len(mine)} cells")
    return Published(data["papers"], tables, settings, data["reasons"], cells)


def _one_of(what: str, name: str, known: Any, reference: str) -> None:
    if name not in known:
        raise UserError(f"`published` should name a {what}: {', '.join(known)}. Received: {name!r} (in {reference!r})")


def _same_dataset(name: str, wanted: str) -> bool:
    """Whether `CIFAR-10 (JPEG)` or `cifar10` is `cifar10`: what stands in brackets does not count."""
    plain = re.sub(r"\(.*?\)", "", name.lower())
    return re.sub(r"[^a-z0-9]", "", plain) == wanted


def _matches(setting: Mapping[str, Any], record: Record) -> bool:
    if setting["attack"] == CLEAN or record.attack == CLEAN:
        return setting["attack"] == record.attack
    try:
        name, given = parse_spec(record.attack, "attack")
    except UserError:
        return False
    if name != setting["attack"] or not set(given) <= _KNOWN_OPTIONS:
        return False
    for key in ("norm", "steps", "restarts", "draws"):
        if key in setting and getattr(record, key) != setting[key]:
            return False
    if record.epsilon is None or not _close(record.epsilon, setting["epsilon"]):
        return False
    return "step_size" not in setting or _close(given.get("step_size"), setting["step_size"])


def _describe(setting: Mapping[str, Any]) -> str:
    options = [f"{key}={setting[key]}" for key in ("norm", "epsilon", "steps", "step_size") if key in setting]
    return f"{setting['attack']}({', '.join(options)})" if options else str(setting["attack"])


def _close(value: Any, wanted: str) -> bool:
    return isinstance(value, int | float) and math.isclose(value, parse_number(wanted), rel_tol=1e-3)
