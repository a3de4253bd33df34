"""Results of certifications: one record per model and certificate, with per-example arrays next to it."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from l2p_tf.artifacts import write_json
from l2p_tf.evaluation.records import MOST_CLASSES
from l2p_tf.schema import Column, Count, Positive, Share, Size, check_inside, read_arrays, read_json

RESULTS = "certificates.json"
COLUMNS = {
    "index": Column("iu", 0), "label": Column("iu", 0, MOST_CLASSES - 1),
    "prediction": Column("iu", -1, MOST_CLASSES - 1),
    "radius": Column("f", 0), "lower": Column("f"), "upper": Column("f"),
}  # fmt: skip
"""Columns of the per-example arrays."""


@dataclasses.dataclass(frozen=True)
class CertificateRecord:
    """One certificate of one model over one data split.

    Attributes:
      model: name of the run whose model was certified.
      dataset: name of the data set.
      split: `validation` or `test`.
      certificate: canonical spec of the certificate.
      label: short name of the certificate, such as `smoothing 0.25`.
      sigma: standard deviation of the noise at the point where it is added: to pixels of [0, 1], or to features.
      draws: draws of the noise that bounded the classes' probabilities, per example.
      confidence: confidence of each example's radius, such as 0.999.
      seed: seed of examples and draws.
      count: number of examples.
      correct: number of examples predicted correctly, without abstention, whatever the radius.
      abstained: number of examples on which the certificate abstained.
      seconds: duration.
      arrays: file of the per-example arrays, relative to the results: `index` int64 (position in the split), `label`,
      `prediction` int32 (-1: abstained), `radius` (l_2, in pixels of [0, 1]), `lower`, `upper` float32, each (count,).
    """

    model: str
    dataset: str
    split: str
    certificate: str
    label: str
    sigma: Size
    draws: Positive
    confidence: Share
    seed: int
    count: Positive
    correct: Count
    abstained: Count
    seconds: Size
    arrays: str

    def __post_init__(self) -> None:
        check_inside(self.arrays)
        if self.correct + self.abstained > self.count:
            raise ValueError(f"`correct` and `abstained` should together be at most `count`, {self.count}")


def certified_accuracy(label: Any, prediction: Any, radius: Any, at: float) -> float:
    """Share of all examples predicted correctly with a certified radius of at least `at`.

    Args:
      label: integers (count,).
      prediction: integers (count,); -1 if the certificate abstained.
      radius: (count,), in pixels of [0, 1].
      at: the radius, likewise.
    """
    return float(np.mean((np.asarray(prediction) == np.asarray(label)) & (np.asarray(radius) >= at)))


@dataclasses.dataclass(frozen=True)
class _Results:
    certificates: list[CertificateRecord]


def write_certificates(folder: pathlib.Path, records: Iterable[CertificateRecord]) -> None:
    """Writes `certificates.json` to `folder`."""
    write_json(folder / RESULTS, {"certificates": [dataclasses.asdict(record) for record in records]})


def read_certificates(folder: pathlib.Path) -> list[CertificateRecord]:
    """Reads `certificates.json` of `folder`; raises UserError if it is invalid."""
    return read_json(folder / RESULTS, _Results, "hold the results of a certify stage").certificates


def read_certified(folder: pathlib.Path, record: CertificateRecord) -> dict[str, np.ndarray]:
    """Reads the per-example arrays of a record in `folder`, by name; raises UserError if they are missing."""
    expected = "hold the per-example arrays of a certify stage"
    return read_arrays(folder / record.arrays, COLUMNS, expected, record.count)
