"""The per-example arrays beside the records of an attack stage."""

from __future__ import annotations

import pathlib
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
    arrays = read_those_there(evaluation, record, *names)
    missing = [name for name in names if name not in arrays]
    if missing:
        raise UserError(f"{_expected(evaluation, record)}: `{missing[0]}` is not there")
    return arrays


def read_those_there(evaluation: Evaluation, record: Record, *names: str) -> dict[str, np.ndarray]:
    """Reads those of some arrays of a record that its file holds; not every version wrote all of them.

    Args:
      evaluation: where the record comes from; it has an artifact.
      record: the record.
      names: of the arrays.

    Returns:
      The arrays there are by name, each of shape (count,).

    Raises:
      UserError: the file is not there, or not one of arrays.
    """
    expected = _expected(evaluation, record)
    try:
        with np.load(_path(evaluation, record), allow_pickle=False) as file:
            arrays = {name: file[name] for name in names if name in file.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{expected}: {error}") from error
    for name, array in arrays.items():
        if array.shape != (record.count,):
            raise UserError(f"{expected}, {record.count} each: `{name}` has shape {array.shape}")
    return arrays


def _path(evaluation: Evaluation, record: Record) -> pathlib.Path:
    if evaluation.artifact is None:
        raise ValueError("`evaluation` should have an artifact: bare records have no arrays.")
    inside = pathlib.PurePosixPath(record.arrays)
    if inside.is_absolute() or ".." in inside.parts:
        raise UserError(f"Results of {evaluation.artifact.path} should name files in it. Received: {record.arrays!r}")
    return evaluation.artifact.path / record.arrays


def _expected(evaluation: Evaluation, record: Record) -> str:
    return f"{str(_path(evaluation, record))!r} should hold the per-example arrays of an attack stage"
