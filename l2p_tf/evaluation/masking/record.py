"""Results of the gradient masking checks on one model: the record of a checks stage."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Literal

from l2p_tf import schema
from l2p_tf.artifacts import write_json
from l2p_tf.evaluation.records import wilson_interval
from l2p_tf.schema import Count, Positive, Size, read_json

CHECKED = "checks.json"
Name = Literal[
    "one_step", "black_box", "transfer", "unbounded", "random_search", "budget", "eot", "loss", "gradients"
]  # fmt: skip
"""Names of the checks in records."""
Verdict = Literal["pass", "fail", "not measured", "does not apply"]
PASS: Verdict = "pass"
FAIL: Verdict = "fail"
UNMEASURED: Verdict = "not measured"
NOT_NEEDED: Verdict = "does not apply"


@dataclasses.dataclass(frozen=True)
class Share:
    """Share of images for which something holds.

    Attributes:
      label: what holds.
      hits: number of images for which it holds.
      count: number of images; may be 0.
    """

    label: str
    hits: Count
    count: Count

    def __post_init__(self) -> None:
        if self.hits > self.count:
            raise ValueError(f"`hits` should be from 0 to {self.count}. Received: {self.hits}")

    @property
    def value(self) -> float:
        """The share; 0 if there are no images."""
        return self.hits / self.count if self.count else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """95% Wilson interval; [0, 1] if there are no images."""
        return wilson_interval(self.value, self.count) if self.count else (0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
      check: its name.
      verdict: `PASS`, `FAIL`, `UNMEASURED` or `NOT_NEEDED`.
      shares: the figures it is based on.
      p: p-value at the boundary of what the check allows; None if nothing was decided.
      reason: why nothing was decided; otherwise empty.
    """

    check: Name
    verdict: Verdict
    shares: tuple[Share, ...] = ()
    p: schema.Share | None = None
    reason: str = ""


def unmeasured(check: Name, reason: str = "") -> Finding:
    """Returns the finding of a check that was not run."""
    return Finding(check, UNMEASURED, reason=reason)


@dataclasses.dataclass(frozen=True)
class Inspection:
    """All checks on one model.

    Attributes:
      model: name of the run.
      dataset: name of the data set.
      split: `validation` or `test`.
      norm: norm of the attacks.
      epsilon: radius of the compared attacks, in pixels of [0, 1].
      randomized: whether the model's noise was on.
      draws: draws of the noise each gradient was averaged over; 1 for none.
      prediction_draws: draws of the noise averaged by each prediction of the classifier.
      seed: seed of images, attacks and draws.
      count: number of images.
      correct: number of images classified correctly; the checks use these.
      seconds: duration.
      findings: one per check, in the order of `CHECKS`.
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


def write_inspection(folder: pathlib.Path, inspection: Inspection) -> None:
    """Writes `checks.json` to `folder`."""
    write_json(folder / CHECKED, dataclasses.asdict(inspection))


def read_inspection(folder: pathlib.Path) -> Inspection:
    """Reads `checks.json` of `folder`; raises UserError if it is invalid."""
    return read_json(folder / CHECKED, Inspection, "hold the results of a checks stage")
