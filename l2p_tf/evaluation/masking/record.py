"""What the checks for gradient masking said of one model: the record of a checks stage."""

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
"""What a check is called in records."""
Verdict = Literal["pass", "fail", "not measured", "does not apply"]
PASS: Verdict = "pass"
FAIL: Verdict = "fail"
UNMEASURED: Verdict = "not measured"
NOT_NEEDED: Verdict = "does not apply"


@dataclasses.dataclass(frozen=True)
class Share:
    """How many of some images something holds for.

    Attributes:
      label: what.
      hits: for how many.
      count: of how many; may be 0.
    """

    label: str
    hits: Count
    count: Count

    def __post_init__(self) -> None:
        if self.hits > self.count:
            raise ValueError(f"`hits` should be from 0 to {self.count}. Received: {self.hits}")

    @property
    def value(self) -> float:
        """The share; 0 of nothing."""
        return self.hits / self.count if self.count else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95% interval (Wilson's); everything, where there are no images."""
        return wilson_interval(self.value, self.count) if self.count else (0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one check came to.

    Attributes:
      check: its name.
      verdict: `PASS`, `FAIL`, `UNMEASURED` or `NOT_NEEDED`.
      shares: the figures it was decided by.
      p: how likely figures as bad as these are at the edge of what the check allows; None where nothing was decided.
      reason: why nothing was decided; empty where it was.
    """

    check: Name
    verdict: Verdict
    shares: tuple[Share, ...] = ()
    p: schema.Share | None = None
    reason: str = ""


def unmeasured(check: Name, reason: str = "") -> Finding:
    """The finding of a check that was not made."""
    return Finding(check, UNMEASURED, reason=reason)


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
