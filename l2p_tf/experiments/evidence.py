"""Access to the results of an experiment by its names of runs and attacks."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from l2p_tf.evaluation.records import CLEAN
from l2p_tf.reporting.examples import perturbations
from l2p_tf.reporting.load import Run
from l2p_tf.reporting.results import Results


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Results of an experiment.

    Attributes:
      results: results of the report.
      keys: fingerprints of the trainings, by the experiment's run names.
      attacks: the actual attacks for each spec in the experiment.
    """

    results: Results
    keys: Mapping[str, str]
    attacks: Mapping[str, Sequence[str]]

    @functools.cached_property
    def runs(self) -> dict[str, Run]:
        """The available runs, by name."""
        by_key = self.results.by_key
        return {name: by_key[key] for name, key in self.keys.items() if key in by_key}

    def row(self, name: str, attack: str, checkpoint: str = "", source: str = "") -> Any:
        """Returns the row of `Results.summaries` for an attack on a run, on the most images; None if not measured.

        Args:
          name: name of the run.
          attack: spec of the attack as it was run; `clean` for none.
          checkpoint: `best` or `last`; empty for any, preferring the best weights.
          source: name of the run that the images were made on; empty for the run itself.
        """
        run, made_on = self.runs.get(name), self.keys.get(source, "")
        rows = [
            row
            for row in self.results.summaries.itertuples(index=False)
            if row.measured.run is run and (row.attack, row.backend) == (attack, "l2p_tf")
            if checkpoint in ("", row.weights) and _made_on(row) == made_on
        ]
        return max(rows, key=lambda row: (row.count, row.weights == "best"), default=None)

    def norms(self, name: str, attack: str) -> np.ndarray:
        """Returns norms of the successful perturbations of the first repeat, (k,) float64; empty if not measured."""
        row = self.row(name, attack)
        if row is None:
            return np.empty(0)
        first = dataclasses.replace(row.measured.summary, records=row.measured.summary.records[:1])
        return perturbations(dataclasses.replace(row.measured, summary=first)).norms

    def point(self, name: str, attack: str) -> tuple[float, float] | None:
        """Returns clean accuracy and mean norm of the successful perturbations; None if either was not measured."""
        clean, attacked = self.row(name, CLEAN), self.row(name, attack)
        mean = perturbations(attacked.measured).mean if attacked else None
        return None if clean is None or mean is None else (clean.accuracy, mean)


def _made_on(row: Any) -> str:
    """Returns the fingerprint of the run that a row's images were made on; empty for the attacked run itself."""
    source = row.measured.first.source
    return "" if source is None else row.measured.evaluation.key_of(source)
