"""An experiment as it is planned: its runs, how each is attacked, and the folders they go to."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from l2p_tf.evaluation.options import EvaluationOptions
    from l2p_tf.experiments.definition import Experiment
    from l2p_tf.experiments.scales import Scale
    from l2p_tf.fitting.options import TrainOptions
    from stages.settings import Settings


@dataclasses.dataclass(frozen=True)
class Planned:
    """One run of an experiment.

    Attributes:
      options: its training.
      evaluation: how it is attacked.
      settings: the flags that it follows from.
      checkpoints: the models that are attacked: best, last or both.
      places: rows and columns of the printed table where it stands.
    """

    options: TrainOptions
    evaluation: EvaluationOptions
    settings: Settings
    checkpoints: tuple[str, ...]
    places: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """An experiment at some scale, before anything is done.

    Attributes:
      experiment: what is reproduced.
      scale: at what scale.
      run_dir: where everything goes.
      runs: its runs, by name.
    """

    experiment: Experiment
    scale: Scale
    run_dir: pathlib.Path
    runs: dict[str, Planned]

    @property
    def first(self) -> Planned:
        """Any of them, for what all have in common."""
        return next(iter(self.runs.values()))

    def train_folder(self, name: str) -> pathlib.Path:
        """Where the training of a run goes."""
        return self.run_dir / name / "train"

    def attack_folder(self, name: str, checkpoint: str) -> pathlib.Path:
        """Where the attacks on a run go: those of its flag file are shared by experiments, others are their own."""
        kind = f"attack_{self.experiment.name}" if self.experiment.attacks else "attack"
        return self.run_dir / name / ("_".join([kind, checkpoint]) if checkpoint != "best" else kind)

    def attack_folders(self) -> dict[tuple[str, str], pathlib.Path]:
        """Those of all runs, by run and model."""
        return {
            (name, checkpoint): self.attack_folder(name, checkpoint)
            for name, one in self.runs.items()
            for checkpoint in one.checkpoints
        }

    def transfer_folders(self) -> list[pathlib.Path]:
        """Where the transferred images of each group go."""
        count = len(self.experiment.transfer)
        return [self.run_dir / "transfer" / f"{self.experiment.name}_{i}" for i in range(count)]
