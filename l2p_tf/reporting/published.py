"""The papers' printed numbers, and which of them a measurement may be put beside."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from l2p_tf.evaluation.records import Record
from l2p_tf.reporting.printed import Metric, PrintedNumber, PrintedTable, Setting
from l2p_tf.reporting.published_file import FILE_NAME, read_tables
from l2p_tf.types import UserError

__all__ = ["FILE", "Metric", "PrintedNumber", "PrintedTable", "Published", "Setting", "Target", "load", "parse"]

FILE = pathlib.Path(__file__).with_name(FILE_NAME)


@dataclasses.dataclass(frozen=True)
class Target:
    """One row and column of a published table: what one trained model is to reproduce.

    Attributes:
      reference: its name, `table/row/column`.
      title: the same for people: `Learn2Perturb, Table 1, ResNet-V1(20), Vanilla`.
      dataset: data set the numbers were measured on.
      split: its split.
      parameters: trainable parameters the paper prints; None where it prints none.
      cells: its accuracies by metric, those that a record can be compared with.
      metrics: what was measured, likewise.
      notes: what must be known of the numbers, a clause each.
    """

    reference: str
    title: str
    dataset: str
    split: str
    parameters: int | None
    cells: Mapping[str, PrintedNumber]
    metrics: Mapping[str, Metric]
    notes: tuple[str, ...]

    def cell_for(self, record: Record) -> PrintedNumber | None:
        """The printed number that `record` may be compared with: same data, same attack, same strength."""
        if record.split != self.split or not same_dataset(record.dataset, self.dataset):
            return None
        found = (key for key, setting in self._settings(self.cells) if setting.fits(record))
        return next((self.cells[key] for key in found), None)

    def missing(self, shown: set[str]) -> list[str]:
        """The attacks, as specs, of the metrics that are not in `shown`."""
        return [setting.spec for _, setting in self._settings(key for key in self.cells if key not in shown)]

    def chosen(self, shown: Iterable[str]) -> list[str]:
        """What of the attacks behind the metrics in `shown` is not the paper's but ours, a clause each."""
        return [setting.ours for _, setting in self._settings(shown) if setting.ours]

    def _settings(self, keys: Iterable[str]) -> list[tuple[str, Setting]]:
        found = ((key, self.metrics[key].setting) for key in keys)
        return [(key, setting) for key, setting in found if setting]


@dataclasses.dataclass(frozen=True)
class Published:
    """Everything in `published.json`.

    Attributes:
      papers: titles of the papers by key.
      tables: their tables by id.
    """

    papers: Mapping[str, str]
    tables: Mapping[str, PrintedTable]

    @property
    def cells(self) -> tuple[PrintedNumber, ...]:
        """Every printed number, in the order of the tables."""
        return tuple(cell for table in self.tables.values() for cell in table.cells.values())

    def references(self) -> list[str]:
        """What `target` takes: every `table/row/column` with accuracies that a record can be compared with."""
        return [
            f"{table.name}/{row}/{column}"
            for table in self.tables.values()
            for row, column in itertools.product(table.rows, table.columns)
            if table.compared(row, column)
        ]

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
        name, row, column = parts
        _one_of("table", name, dict.fromkeys(known.split("/")[0] for known in self.references()), reference)
        table = self.tables[name]
        _one_of(f"row of {name}", row, table.rows, reference)
        _one_of(f"column of {name}", column, table.columns, reference)
        cells = table.compared(row, column)
        network, source = table.networks.get(row), table.sources.get(row)
        notes = [*table.notes, *([f"its network is {network}"] if network else []), *([source] if source else [])]
        return Target(
            "/".join(parts), f"{table.cited}, {row}, {column}", table.dataset, table.split, table.parameters.get(row),
            cells, {key: table.metrics[key] for key in cells}, tuple(notes),
        )  # fmt: skip


@functools.cache
def load() -> Published:
    """The numbers that come with the package; UserError where their file is damaged."""
    try:
        data = json.loads(FILE.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{FILE_NAME} should be a file of JSON that comes with the package: {error}") from error
    return parse(data)


def parse(data: Any) -> Published:
    """The numbers in the contents of a `published.json`; UserError where they are damaged."""
    return Published(*read_tables(data))


def _one_of(what: str, name: str, known: Iterable[str], reference: str) -> None:
    if name not in known:
        raise UserError(f"`published` should name a {what}: {', '.join(known)}. Received: {name!r} (in {reference!r})")


def same_dataset(name: str, wanted: str) -> bool:
    """Whether `CIFAR-10 (JPEG)` or `cifar10` is `cifar10`: what stands in brackets does not count."""
    plain = re.sub(r"\(.*?\)", "", name.lower())
    return re.sub(r"[^a-z0-9]", "", plain) == wanted
