"""Adversarial training with PGD (Madry et al. 2018), the papers' "Vanilla"."""

from __future__ import annotations

import dataclasses

from l2p_tf.defenses.base import DEFENSES, PGDDefense


@DEFENSES.register("pgd")
@dataclasses.dataclass(frozen=True)
class PGDTraining(PGDDefense):
    """PGD adversarial training: every batch is attacked, and only the attacked batch is trained on."""
