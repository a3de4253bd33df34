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
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,), "int": (int,), "bool": (bool,), "float": (float, int), "float | None": (float, int, type(None)),
}  # fmt: skip
"""What JSON may hold of a field, by its annotation; of all others tuples are made."""


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
        found = Inspection(**{**fields, "findings": tuple(map(_finding, fields["findings"]))})
        _check_types(found)
        if not 0 <= found.correct <= found.count:
            raise ValueError(f"`correct` should be from 0 to {found.count}. Received: {found.correct}")
        if [finding.check for finding in found.findings] != [*dict.fromkeys(f.check for f in found.findings)]:
            raise ValueError("a check is there twice")
        return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{str(file)!r} should hold the results of a checks stage: {error}") from error


def _share(fields: dict[str, Any]) -> Share:
    share = Share(**fields)
    _check_types(share)
    if not 0 <= share.hits <= share.count:
        raise ValueError(f"`hits` should be from 0 to {share.count}. Received: {share.hits}")
    return share


def _check_types(record: Inspection | Finding | Share) -> None:
    """ValueError where a field is not of its type."""
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        # The very types: to Python a bool is a number.
        if type(value) not in _TYPES.get(str(field.type), (tuple,)):
            raise ValueError(f"`{field.name}` should be of type {field.type}. Received: {value!r}")


def _finding(fields: dict[str, Any]) -> Finding:
    found = Finding(**{**fields, "shares": tuple(map(_share, fields["shares"]))})
    _check_types(found)
    if found.p is not None and not 0 <= found.p <= 1:
        raise ValueError(f"`p` should be from 0 to 1. Received: {found.p}")
    if found.check not in CHECKS or found.verdict not in VERDICTS:
        raise ValueError(f"no such check or verdict: {found.check!r}, {found.verdict!r}")
    return found
