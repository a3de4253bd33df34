"""What the checks for gradient masking said of one model: the record of a checks stage."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Literal

from l2p_tf.artifacts import write_json
from l2p_tf.evaluation.masking import Finding
from l2p_tf.schema import Count, Positive, Size, read_json

CHECKED = "checks.json"


@dataclasses.dataclass(frozen=True)
class Inspection:
    """All checks on one model.

    Attributes:
      model: name of the run.
      dataset: name of the data set.
      split: `validation` or `test`.
      norm: of the attacks.
      epsilon: radius of the attacks that are compared, in pixels of [0, 1].
      randomized: whether the model's noise was on.
      draws: draws of the noise each gradient was averaged over; 1 for none.
      prediction_draws: draws of the noise that one answer of the classifier averaged.
      seed: of images, attacks and draws.
      count: number of images that were tried.
      correct: how many of them were classified correctly; the checks judge these.
      seconds: time it took.
      findings: one for each of `CHECKS`, in their order.
    """

    model: str
    dataset: str
    split: str
    norm: Literal["linf", "l2"]
    epsilon: Size
    randomized: bool
    draws: Positive
    prediction_draws: Positive
    seed: int
    count: Count
    correct: Count
    seconds: Size
    findings: tuple[Finding, ...]

    def __post_init__(self) -> None:
        if self.correct > self.count:
            raise ValueError(f"`correct` should be from 0 to {self.count}. Received: {self.correct}")
        if len({finding.check for finding in self.findings}) < len(self.findings):
            raise ValueError("a check is there twice")


def write_inspection(folder: pathlib.Path, found: Inspection) -> None:
    """Writes `checks.json` into `folder`."""
    write_json(folder / CHECKED, dataclasses.asdict(found))


def read_inspection(folder: pathlib.Path) -> Inspection:
    """Reads `checks.json` of `folder`; UserError where it is not one."""
    return read_json(folder / CHECKED, Inspection, "hold the results of a checks stage")
