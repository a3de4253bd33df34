"""What the checks for gradient masking said of one model: the record of a checks stage."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

from l2p_tf.artifacts import write_json
from l2p_tf.evaluation.masking import CHECKS, VERDICTS, Finding, Share
from l2p_tf.types import UserError

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
    norm: str
    epsilon: float
    randomized: bool
    draws: int
    prediction_draws: int
    seed: int
    count: int
    correct: int
    seconds: float
    findings: tuple[Finding, ...]


def write_inspection(folder: pathlib.Path, found: Inspection) -> None:
    """Writes `checks.json` into `folder`."""
    write_json(folder / CHECKED, dataclasses.asdict(found))


def read_inspection(folder: pathlib.Path) -> Inspection:
    """Reads `checks.json` of `folder`; UserError where it is not one."""
    file = folder / CHECKED
    try:
        fields = json.loads(file.read_text("utf-8"))
        return Inspection(**{**fields, "findings": tuple(map(_finding, fields["findings"]))})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{str(file)!r} should hold the results of a checks stage: {error}") from error


def _finding(fields: dict[str, Any]) -> Finding:
    found = Finding(**{**fields, "shares": tuple(Share(**share) for share in fields["shares"])})
    if found.check not in CHECKS or found.verdict not in VERDICTS:
        raise ValueError(f"no such check or verdict: {found.check!r}, {found.verdict!r}")
    return found
