"""The plan of an experiment: its runs, their attacks, and the folders."""

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
      settings: the flags it is derived from.
      places: its rows and columns in the printed table.
    """

    options: TrainOptions
    evaluation: EvaluationOptions
    settings: Settings
    places: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """An experiment at some scale, before it is run.

    Attributes:
      experiment: what is reproduced.
      scale: its scale.
      runs: its runs, by name.
    """

    experiment: Experiment
    scale: Scale
    runs: dict[str, Planned]

    @property
    def first(self) -> Planned:
        """Any run, for settings that all share."""
        return next(iter(self.runs.values()))

    @property
    def run_dir(self) -> pathlib.Path:
        """The output folder."""
        return self.first.settings.folder

    def train_folder(self, name: str) -> pathlib.Path:
        """Returns the folder of a run's training."""
        return self.run_dir / name / "train"

    def attack_folder(self, name: str, checkpoint: str) -> pathlib.Path:
        """Returns the folder of attacks on a run; experiments share it unless they have their own attacks."""
        kind = f"attack_{self.experiment.name}" if self.experiment.attacks else "attack"
        return self.run_dir / name / ("_".join([kind, checkpoint]) if checkpoint != "best" else kind)

    def attack_folders(self) -> dict[tuple[str, str], pathlib.Path]:
        """Returns the attack folders of all runs, by run and model."""
        return {
            (name, checkpoint): self.attack_folder(name, checkpoint)
            for name, one in self.runs.items()
            for checkpoint in one.settings.checkpoints
        }

    def transfer_folders(self) -> list[pathlib.Path]:
        """Returns the folder of transferred images for each group."""
        count = len(self.experiment.transfer)
        return [self.run_dir / "transfer" / f"{self.experiment.name}_{i}" for i in range(count)]
