"""Results of evaluations: one record per (model, data, attack, repeat), and summaries over repeats.

Tables, plots and comparisons are functions of these records and of the per-example arrays next to them.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import statistics
from collections.abc import Iterable
from typing import Any, Literal

from scipy import stats

from l2p_tf.artifacts import write_json
from l2p_tf.schema import Column, Count, Positive, Size, check_inside, read_json

RESULTS = "results.json"
GALLERY = "gallery.npz"
CLEAN = "clean"
CORRUPTION = "corruption"
MOST_CLASSES = 10_000
"""Upper limit for validation; files with more classes are damaged."""
_NUMBER, _SHARE, _SIZE = Column("iu", 0, 2**31 - 1), Column("f", 0, 1), Column("f", 0)
COLUMNS = {
    "index": Column("iu", 0), "label": Column("iu", 0, MOST_CLASSES - 1),
    "prediction": Column("iu", -1, MOST_CLASSES - 1),
    "correct": Column("b"), "probability": Column("f", 0, 1, unknown=True), "success": _SHARE, "success_8bit": _SHARE,
    "l0": _SIZE, "l1": _SIZE, "l2": _SIZE, "linf": _SIZE,
    "gradients": _NUMBER, "forwards": _NUMBER, "confidence": _SHARE, "brier": Column("f", 0, 2),
}  # fmt: skip
"""Columns of the per-example arrays."""


@dataclasses.dataclass(frozen=True)
class Record:
    """One repeat of one attack on one model over one data split.

    Attributes:
      model: name of the run whose model was attacked.
      dataset: name of the data set.
      split: `validation` or `test`.
      attack: canonical spec of the attack, or `clean` for none.
      label: short name of the attack, such as `PGD-20`.
      norm: `linf`, `l2`, `l1` or `l0`; None for `clean`, and for attacks without a ball, such as patches.
      epsilon: radius of the ball in pixels of [0, 1]; None for `clean`, for attacks without a ball, and for those that
      minimize the norm.
      steps: gradient steps; 0 for `clean`.
      restarts: number of starts the attack chooses from.
      draws: draws of the noise each gradient is averaged over (EOT); 1 for none.
      prediction_draws: draws of the noise whose softmax each prediction averages.
      backend: implementation: `l2p_tf`, `cleverhans`, `foolbox` or `art`.
      source: name of the run whose model the examples were made on (several joined by `+`); None if it is the attacked
      model itself.
      repeat: number of this repeat, from 0.
      seed: seed of the evaluation, from which that of the repeat is derived.
      randomized: whether the model's noise was on.
      count: number of examples.
      correct: number of examples classified correctly (on fresh draws).
      reached: number of examples that met the attack's criterion: those not correct, unless the attack is targeted.
      invalid: number of examples with non-finite output (NaN); none of them is correct.
      gradients: mean number of backward passes per example.
      forwards: mean number of forward passes per example.
      seconds: duration.
      arrays: file of the per-example arrays, relative to the results: `correct` bool, `prediction` int32 (-1 for
      non-finite output), `label` int32, `index` int64 (position in the split), `probability` (of the label), `success`,
      `l0`, `l1`, `l2`, `linf` float32, and if evaluated `success_8bit` float32, `gradients`, `forwards` int32, each of
      shape (count,); for clean and corrupted images also `confidence` (probability of the likeliest class) and `brier`
      (squared distance of all probabilities to the one-hot label) float32.
      reached_8bit: number of images that still meet the criterion when stored in 8 bits, within the attack's ball; None
      if not evaluated.
    """

    model: str
    dataset: str
    split: str
    attack: str
    label: str
    norm: Literal["linf", "l2", "l1", "l0"] | None
    epsilon: Size | None
    steps: Count
    restarts: Count
    draws: Positive
    prediction_draws: Positive
    backend: str
    source: str | None
    repeat: Count
    seed: int
    randomized: bool
    count: Positive
    correct: Count
    reached: Count
    invalid: Count
    gradients: Size
    forwards: Size
    seconds: Size
    arrays: str
    reached_8bit: Count | None = None

    def __post_init__(self) -> None:
        check_inside(self.arrays)
        if not max(self.correct + self.invalid, self.reached) <= self.count or (self.reached_8bit or 0) > self.reached:
            raise ValueError(
                f"`correct` with `invalid`, and `reached`, should be at most `count`, {self.count}, and `reached_8bit` "
                "at most `reached`"
            )

    @property
    def accuracy(self) -> float:
        """Share of the examples classified correctly."""
        return self.correct / self.count

    @property
    def corruption(self) -> bool:
        """Whether its images were corrupted, not attacked."""
        return self.attack.partition("(")[0] == CORRUPTION


@dataclasses.dataclass(frozen=True)
class Summary:
    """All repeats of one attack on one model.

    Attributes:
      records: the repeats, in order.
      accuracy: mean over the repeats.
      spread: sample standard deviation over the repeats; None for a single one.
      low: lower end of the 95% interval.
      high: upper end of the 95% interval.
    """

    records: tuple[Record, ...]
    accuracy: float
    spread: float | None
    low: float
    high: float

    @property
    def first(self) -> Record:
        """The first repeat, for fields that all repeats share."""
        return self.records[0]


def images_of(record: Record) -> str:
    """Path of a record's adversarial images, if kept, relative to the results."""
    return f"images/{pathlib.PurePosixPath(record.arrays).stem}.npy"


@functools.cache
def wilson_interval(accuracy: float, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share of `count` examples.

    It is conservative for the mean over repeats of a randomized model, because averaging only narrows the interval.

    Args:
      accuracy: the share, in [0, 1].
      count: number of examples, at least 1.
      confidence: confidence level.
    """
    interval = stats.binomtest(round(accuracy * count), count).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def summarize(records: Iterable[Record]) -> list[Summary]:
    """Groups records by model, data and attack (in order of appearance) and summarizes the repeats of each group."""
    keys = ("model", "dataset", "split", "attack", "backend", "source")
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        groups.setdefault(tuple(getattr(record, key) for key in keys), []).append(record)
    summaries = []
    for group in groups.values():
        accuracies = [record.accuracy for record in group]
        mean = statistics.fmean(accuracies)
        low, high = wilson_interval(mean, group[0].count)
        spread = statistics.stdev(accuracies) if len(group) > 1 else None
        summaries.append(Summary(tuple(group), mean, spread, low, high))
    return summaries


@dataclasses.dataclass(frozen=True)
class _Results:
    records: list[Record]


def write_records(folder: pathlib.Path, records: Iterable[Record]) -> None:
    """Writes `results.json` to `folder`."""
    write_json(folder / RESULTS, {"records": [dataclasses.asdict(record) for record in records]})


def read_records(folder: pathlib.Path) -> list[Record]:
    """Reads `results.json` of `folder`; raises UserError if it is invalid."""
    return read_json(folder / RESULTS, _Results, "hold the results of an attack stage").records
