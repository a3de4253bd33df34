"""Results of a run: one attack over all its repeats, and all attacks on one split of a data set."""

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
    """Clean accuracies at which methods are compared.

    Attributes:
      wanted: the accuracies, as shares; empty for that of the standard training on the same data.
      tolerance: maximum difference of a run from it, as a share.

    Raises:
      UserError: a value is not a share.
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
    """One attack on one run, or the run on clean images, over all repeats.

    Attributes:
      run: the run.
      evaluation: its stage.
      summary: the records.
      clean: clean results of the same stage on the same images; None if not measured.
    """

    run: Run
    evaluation: Evaluation
    summary: Summary
    clean: Summary | None

    @property
    def first(self) -> Record:
        """The first record, for fields that all repeats share."""
        return self.summary.first

    @property
    def has_arrays(self) -> bool:
        """Whether there are results per image."""
        outputs = self.evaluation.artifact.manifest["outputs"] if self.evaluation.artifact else {}
        return all(record.arrays in outputs for record in self.summary.records)


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluated:
    """A run with certain weights on one split of a data set, and its results.

    Attributes:
      run: the run.
      rows: rows of `Results.attacks`, at least one.
    """

    run: Run
    rows: tuple[Any, ...]

    @property
    def name(self) -> str:
        """The run's name, with the weights if they are not the best ones."""
        return str(self.rows[0].name)

    @property
    def where(self) -> str:
        """Data set and split, as text."""
        return str(self.rows[0].where)

    @property
    def title(self) -> str:
        """Data set and split, and the weights if they are not the best ones, as text."""
        return str(self.rows[0].title)

    @property
    def place(self) -> tuple[str, str, str]:
        """Weights, data set and split, which comparable runs share."""
        return self.rows[0].weights, self.rows[0].dataset, self.rows[0].split

    @property
    def clean(self) -> Any:
        """The row of clean images; None if not measured."""
        return next((row for row in self.rows if row.kind == "clean"), None)

    @property
    def bounded(self) -> list[Any]:
        """The rows of attacks with a fixed budget."""
        return [row for row in self.rows if row.kind == "bounded"]


def by_place(evaluated: Iterable[Evaluated]) -> list[list[Evaluated]]:
    """Groups comparable runs: same weights, data set and split."""
    places: dict[tuple[str, str, str], list[Evaluated]] = {}
    for model in evaluated:
        places.setdefault(model.place, []).append(model)
    return list(places.values())


def strongest(entries: Iterable[T], same: Callable[[T], Hashable], evidence: Callable[[T], Any]) -> list[T]:
    """Keeps the entry with the most evidence among equivalent ones (the first of ties), in order of appearance."""
    kept: dict[Hashable, T] = {}
    for entry in entries:
        if same(entry) not in kept or evidence(entry) > evidence(kept[same(entry)]):
            kept[same(entry)] = entry
    return list(kept.values())
