"""What an evaluation says: one record per (model, data, attack, repeat), and summaries over the repeats.

Tables, plots and comparisons are functions of these records and of the per-example arrays beside them.
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
"""No classifier has more: what says so is damaged."""
_NUMBER, _SHARE, _SIZE = Column("iu", 0, 2**31 - 1), Column("f", 0, 1), Column("f", 0)
COLUMNS = {
    "index": Column("iu", 0), "label": Column("iu", 0, MOST_CLASSES - 1),
    "prediction": Column("iu", -1, MOST_CLASSES - 1),
    "correct": Column("b"), "probability": Column("f", 0, 1, unknown=True), "success": _SHARE, "success_8bit": _SHARE,
    "l0": _SIZE, "l1": _SIZE, "l2": _SIZE, "linf": _SIZE,
    "gradients": _NUMBER, "forwards": _NUMBER, "confidence": _SHARE, "brier": Column("f", 0, 2),
}  # fmt: skip
"""What the per-example arrays hold."""


@dataclasses.dataclass(frozen=True)
class Record:
    """One attack on one model over one data split, once.

    Attributes:
      model: name of the run whose model was attacked.
      dataset: name of the data set.
      split: `validation` or `test`.
      attack: canonical spec of the attack, or `clean` for none.
      label: the attack in a few words, such as `PGD-20`.
      norm: `linf`, `l2`, `l1` or `l0`; None for `clean`, and for attacks that no ball bounds, such as patches.
      epsilon: radius of the ball in pixels of [0, 1]; None for `clean`, for such attacks, and for those of smallest
        norm.
      steps: gradient steps; 0 for `clean`.
      restarts: starts the attack may choose from.
      draws: draws of the noise each gradient is averaged over (EOT); 1 for none.
      prediction_draws: draws of the noise that one answer of the classifier averages (the mean of their softmax).
      backend: whose implementation: `l2p_tf`, `cleverhans`, `foolbox` or `art`.
      source: name of the run whose model the examples were made on (several joined by `+`); None where that is the
        attacked model itself.
      repeat: number of this repeat, from 0.
      seed: seed of the evaluation; that of the repeat derives from it and the repeat's number.
      randomized: whether the model's noise was on.
      count: number of examples.
      correct: how many of them were classified correctly (on fresh draws).
      reached: on how many the attack's goal was reached: those not correct, unless the attack is targeted.
      invalid: on how many the classifier's answer was not finite (NaN); none of them is correct.
      gradients: backward passes used per example, on average.
      forwards: forward passes used per example, on average.
      seconds: time it took.
      arrays: file with the per-example arrays, relative to the results: `correct` bool, `prediction` int32 (-1 for an
        answer that was not finite), `label` int32, `index` int64 (position in the split), `probability` (of the label),
        `success`, `l0`, `l1`, `l2`, `linf` float32, and where it was tried `success_8bit` float32, `gradients`,
        `forwards` int32, each of shape (count,); of clean and corrupted images also `confidence` (the probability of
        the likeliest class) and `brier` (the squared distance of all probabilities to those of the label) float32.
      reached_8bit: on how many images the goal is still reached when the adversarial image is stored in 8 bits, within
        the attack's ball; None where that was not tried.
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
        """The first repeat, for what all have in common."""
        return self.records[0]


def images_of(record: Record) -> str:
    """Where the adversarial images of a record are, where they are kept: a file relative to the results."""
    return f"images/{pathlib.PurePosixPath(record.arrays).stem}.npy"


@functools.cache
def wilson_interval(accuracy: float, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share of `count` examples.

    For the mean over repeats of a randomized model it is on the safe side: averaging only narrows the truth.

    Args:
      accuracy: the share, in [0, 1].
      count: number of examples, at least 1.
      confidence: of the interval.
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
    """Writes `results.json` into `folder`."""
    write_json(folder / RESULTS, {"records": [dataclasses.asdict(record) for record in records]})


def read_records(folder: pathlib.Path) -> list[Record]:
    """Reads `results.json` of `folder`; UserError where it is not one."""
    return read_json(folder / RESULTS, _Results, "hold the results of an attack stage").records
