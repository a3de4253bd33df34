"""Training curves, read from `history.csv`."""

from __future__ import annotations

import csv
import dataclasses
import pathlib
from collections.abc import Mapping

import numpy as np

from l2p_tf.types import UserError

HISTORY = "history.csv"


@dataclasses.dataclass(frozen=True)
class History:
    """Columns of a training's CSV by name, one value per epoch; NaN if a field was empty or not finite."""

    columns: Mapping[str, np.ndarray]

    @property
    def epochs(self) -> np.ndarray:
        """Epoch numbers."""
        return self.columns["epoch"]

    def curve(self, name: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns epochs and values of a column, or None if it has no values."""
        values = self.columns.get(name)
        if values is None or np.isnan(values).all():
            return None
        known = ~np.isnan(values)
        return self.epochs[known], values[known]

    @property
    def noise_start(self) -> float | None:
        """First epoch with noise, or None."""
        active = self.columns.get("noise_active")
        on = np.flatnonzero(active == 1) if active is not None else ()
        return float(self.epochs[on[0]]) if len(on) else None

    def layers(self, parameter: str) -> list[str]:
        """Returns the names of layers with values of a noise parameter, such as `theta`, in order."""
        start, end = f"{parameter}/", "/mean"
        names = [c[len(start) : -len(end)] for c in self.columns if c.startswith(start) and c.endswith(end)]
        return [name for name in names if self.curve(start + name + end) is not None]

    def noise(self, parameter: str, layer: str, statistic: str) -> np.ndarray:
        """Returns `min`, `mean` or `max` of a layer's parameter per epoch; NaN if not recorded."""
        missing = np.full(len(self.epochs), np.nan)
        return self.columns.get(f"{parameter}/{layer}/{statistic}", missing)

    def noise_means(self, parameter: str) -> np.ndarray | None:
        """Mean over layers of the absolute mean of a parameter, per epoch; NaN if not recorded, None without layers.

        The sign is ignored because PNI's alpha may be negative, which does not affect the strength of the noise.
        """
        layers = self.layers(parameter)
        means = [self.noise(parameter, layer, "mean") for layer in layers]
        return np.abs(means).mean(axis=0) if means else None


def read_history(file: pathlib.Path) -> History | None:
    """Reads a training's CSV.

    Args:
      file: the CSV; its first row names the columns, including `epoch`.

    Returns:
      The history; None if the file is missing or has no epochs.

    Raises:
      UserError: the file is not such a table.
    """
    if not file.is_file():
        return None
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
            names = list(reader.fieldnames or ())
        if not rows:
            return None
        if "epoch" not in names:
            raise ValueError("no column `epoch`")
        if any(None in row or None in row.values() or not row["epoch"] for row in rows):
            raise ValueError("a row with too many or too few fields")
        columns = {name: np.array([float(row[name] or "nan") for row in rows]) for name in names}
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(f"{str(file)!r} should be the CSV of a training, one row an epoch: {error}") from error
    for values in columns.values():
        values[~np.isfinite(values)] = np.nan
    return History(columns)
