"""The per-example arrays beside the records of an attack stage."""

from __future__ import annotations

import zipfile

import numpy as np

from l2p_tf.evaluation.records import Record
from l2p_tf.reporting.runs import Evaluation
from l2p_tf.types import UserError


def read_arrays(evaluation: Evaluation, record: Record, *names: str) -> dict[str, np.ndarray]:
    """Reads arrays of one record.

    Args:
      evaluation: where the record comes from; it has an artifact.
      record: the record.
      names: of the arrays.

    Returns:
      The arrays by name, each of shape (count,).

    Raises:
      UserError: the file is not there, or does not hold them.
    """
    if evaluation.artifact is None:
        raise ValueError("`evaluation` should have an artifact: bare records have no arrays.")
    path = evaluation.artifact.path / record.arrays
    expected = f"{str(path)!r} should hold the per-example arrays of an attack stage"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in names}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{expected}: {error}") from error
    for name, array in arrays.items():
        if array.shape != (record.count,):
            raise UserError(f"{expected}, {record.count} each: `{name}` has shape {array.shape}")
    return arrays
