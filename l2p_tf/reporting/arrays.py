"""The per-example arrays beside the records of an attack stage."""

from __future__ import annotations

import numpy as np

from l2p_tf.evaluation.records import COLUMNS, Record
from l2p_tf.reporting.runs import Evaluation
from l2p_tf.schema import read_arrays as read_file


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
    return _read(evaluation, record, names, optional=False)


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
    return _read(evaluation, record, names, optional=True)


def _read(evaluation: Evaluation, record: Record, names: tuple[str, ...], optional: bool) -> dict[str, np.ndarray]:
    if evaluation.artifact is None:
        raise ValueError("`evaluation` should have an artifact: bare records have no arrays.")
    file = evaluation.artifact.path / record.arrays
    columns = {name: COLUMNS[name] for name in names}
    expected = "hold the per-example arrays of an attack stage"
    return read_file(file, columns, expected, record.count, optional)
