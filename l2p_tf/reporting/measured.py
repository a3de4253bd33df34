"""What was measured on a run: one attack in all its repeats, and all attacks on one split of a data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar

from l2p_tf.evaluation.records import Record, Summary
from l2p_tf.reporting.load import Evaluation, Run
from l2p_tf.types import UserError

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Match:
    """At which clean accuracies methods are to be compared.

    Attributes:
      wanted: the accuracies, as shares; none for that of the natural training on the same data.
      tolerance: how far from it a run may be, as a share.

    Raises:
      UserError: one of them is no share.
    """

    wanted: tuple[float, ...] = ()
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        for value in self.wanted:
            if not 0 < value <= 1:
                raise UserError(
                    f"`match` should be clean accuracies as shares, above 0 and at most 1. Received: {value!r}"
                )
        if not 0 <= self.tolerance < 1:
            raise UserError(
                f"`match_tolerance` should be a share, at least 0 and below 1. Received: {self.tolerance!r}"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """One attack on one run, or the run on clean images, in all repeats.

    Attributes:
      run: the run.
      evaluation: the stage that it comes from.
      summary: the records.
      clean: the run on the same images when clean, by the same stage; None where that was not measured.
    """

    run: Run
    evaluation: Evaluation
    summary: Summary
    clean: Summary | None

    @property
    def first(self) -> Record:
        """The first record, for what all repeats have in common."""
        return self.summary.first

    @property
    def has_arrays(self) -> bool:
        """Whether there are results per image."""
        outputs = self.evaluation.artifact.manifest["outputs"] if self.evaluation.artifact else {}
        return all(record.arrays in outputs for record in self.summary.records)


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluated:
    """A run at some weights on one split of a data set, with what was measured there.

    Attributes:
      run: the run.
      rows: of `Results.attacks`, at least one.
    """

    run: Run
    rows: tuple[Any, ...]

    @property
    def name(self) -> str:
        """The run's name, with the weights where they are not the best ones."""
        return str(self.rows[0].name)

    @property
    def where(self) -> str:
        """Data set and split, in words."""
        return str(self.rows[0].where)

    @property
    def title(self) -> str:
        """Data set and split, and the weights where they are not the best ones, in words."""
        return str(self.rows[0].title)

    @property
    def place(self) -> tuple[str, str, str]:
        """Weights, data set and split: what runs have in common that may be set side by side."""
        return self.rows[0].weights, self.rows[0].dataset, self.rows[0].split

    @property
    def clean(self) -> Any:
        """The row of clean images; None where those were not measured."""
        return next((row for row in self.rows if row.kind == "clean"), None)

    @property
    def bounded(self) -> list[Any]:
        """The rows of attacks that keep to a given size."""
        return [row for row in self.rows if row.kind == "bounded"]


def by_place(evaluated: Iterable[Evaluated]) -> list[list[Evaluated]]:
    """Those that may be compared: of the same weights, data set and split."""
    places: dict[tuple[str, str, str], list[Evaluated]] = {}
    for one in evaluated:
        places.setdefault(one.place, []).append(one)
    return list(places.values())


def strongest(entries: Iterable[T], same: Callable[[T], Hashable], evidence: Callable[[T], Any]) -> list[T]:
    """Of entries that are the same the one with the most evidence, the first of equals, in order of appearance."""
    kept: dict[Hashable, T] = {}
    for entry in entries:
        if same(entry) not in kept or evidence(entry) > evidence(kept[same(entry)]):
            kept[same(entry)] = entry
    return list(kept.values())
