"""No defense: standard training."""

from __future__ import annotations

import dataclasses

import keras

from l2p_tf.defenses.base import DEFENSES, Defense
from l2p_tf.training.base import RobustTrainer


@DEFENSES.register("none")
@dataclasses.dataclass(frozen=True)
class NoDefense(Defense):
    """Standard training on clean images, the papers' "no defense"."""

    def make_trainer(self, classifier: keras.Model, seed: int, examples: int) -> RobustTrainer:
        """Returns the common trainer without an attack."""
        del examples
        return RobustTrainer(classifier, seed=seed)
