"""The results of an experiment, found by the names that it has for its runs and attacks."""

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
    """The results of an experiment.

    Attributes:
      results: those of the report.
      keys: fingerprints of the trainings, by the names that the experiment has for its runs.
      attacks: the attacks that each spec in the experiment stands for, as they were run.
    """

    results: Results
    keys: Mapping[str, str]
    attacks: Mapping[str, Sequence[str]]

    @functools.cached_property
    def runs(self) -> dict[str, Run]:
        """The runs that are there, by name."""
        by_key = self.results.by_key
        return {name: by_key[key] for name, key in self.keys.items() if key in by_key}

    def row(self, name: str, attack: str, checkpoint: str = "", source: str = "") -> Any:
        """The row of an attack on a run, of `Results.summaries`, on the most images; None where it was not measured.

        Args:
          name: of the run.
          attack: spec of the attack as it was run; `clean` for none.
          checkpoint: `best` or `last`; empty for whichever there is, the best weights first.
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
        """Norms of the perturbations that succeeded, of the first repeat, (k,) float64; empty if not measured."""
        row = self.row(name, attack)
        if row is None:
            return np.empty(0)
        first = dataclasses.replace(row.measured.summary, records=row.measured.summary.records[:1])
        return perturbations(dataclasses.replace(row.measured, summary=first)).norms

    def point(self, name: str, attack: str) -> tuple[float, float] | None:
        """Clean accuracy, and mean norm of the perturbations that succeeded; None where either was not measured."""
        clean, attacked = self.row(name, CLEAN), self.row(name, attack)
        mean = perturbations(attacked.measured).mean if attacked else None
        return None if clean is None or mean is None else (clean.accuracy, mean)


def _made_on(row: Any) -> str:
    """Fingerprint of the run that the images of a row were made on; empty for the attacked run itself."""
    source = row.measured.first.source
    return "" if source is None else row.measured.evaluation.key_of(source)
