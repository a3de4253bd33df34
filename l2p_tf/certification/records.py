"""What a certification says: one record per model and certificate, and per-example arrays beside it."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import zipfile
from collections.abc import Iterable
from typing import Any

import numpy as np

from l2p_tf.artifacts import write_json
from l2p_tf.types import UserError

RESULTS = "certificates.json"
ARRAYS = ("index", "label", "prediction", "radius", "lower", "upper")


@dataclasses.dataclass(frozen=True)
class CertificateRecord:
    """One certificate of one model over one data split.

    Attributes:
      model: name of the run whose model was certified.
      dataset: name of the data set.
      split: `validation` or `test`.
      certificate: canonical spec of the certificate.
      label: the certificate in a few words, such as `smoothing 0.25`.
      sigma: standard deviation of the noise it rests on, where that is added: to the pixels of [0, 1], or to features.
      draws: draws of the noise that bounded the classes' probabilities, per example.
      confidence: of each example's radius by itself, such as 0.999.
      seed: of examples and draws.
      count: number of examples.
      correct: how many of them were predicted correctly, without abstention, whatever the radius.
      abstained: for how many the certificate abstained.
      seconds: time it took.
      arrays: file with the per-example arrays, relative to the results: `index` int64 (position in the split), `label`,
        `prediction` int32 (-1: abstained), `radius` (l_2, in pixels of [0, 1]), `lower`, `upper` float32, each (count,).
    """

    model: str
    dataset: str
    split: str
    certificate: str
    label: str
    sigma: float
    draws: int
    confidence: float
    seed: int
    count: int
    correct: int
    abstained: int
    seconds: float
    arrays: str


def certified_accuracy(label: Any, prediction: Any, radius: Any, at: float) -> float:
    """Share of all examples that are predicted correctly with a certified radius of `at` or more.

    Args:
      label: integers (count,).
      prediction: integers (count,); -1 where the certificate abstained.
      radius: (count,), in pixels of [0, 1].
      at: the radius, likewise.
    """
    return float(np.mean((np.asarray(prediction) == np.asarray(label)) & (np.asarray(radius) >= at)))


def write_certificates(folder: pathlib.Path, records: Iterable[CertificateRecord]) -> None:
    """Writes `certificates.json` into `folder`."""
    write_json(folder / RESULTS, {"certificates": [dataclasses.asdict(record) for record in records]})


def read_certificates(folder: pathlib.Path) -> list[CertificateRecord]:
    """Reads `certificates.json` of `folder`; UserError where it is not one."""
    file = folder / RESULTS
    try:
        return [CertificateRecord(**fields) for fields in json.loads(file.read_text("utf-8"))["certificates"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{str(file)!r} should hold the results of a certify stage: {error}") from error


def read_certified(folder: pathlib.Path, record: CertificateRecord) -> dict[str, np.ndarray]:
    """The per-example arrays of a record in `folder`, by name; UserError where they are not there."""
    path = folder / record.arrays
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ARRAYS}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{str(path)!r} should hold the per-example arrays of a certify stage: {error}") from error
    if any(array.shape != (record.count,) for array in arrays.values()):
        raise UserError(f"{str(path)!r} should hold arrays of {record.count} examples each.")
    return arrays
