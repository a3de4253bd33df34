"""Adversarial training with the fast gradient (sign) method (Goodfellow et al. 2015)."""

from __future__ import annotations

import dataclasses

from l2p_tf.attacks.pgd import PGD
from l2p_tf.defenses.base import DEFENSES, AdversarialDefense
from l2p_tf.options import option
from l2p_tf.types import Norm


@DEFENSES.register("fgsm")
@dataclasses.dataclass(frozen=True)
class FGSMTraining(AdversarialDefense):
    """FGSM adversarial training, FGM with `norm=l2`: every batch is attacked in one step.

    Without a random start it overfits to that step (catastrophic overfitting); a random start with a step of 1.25
    epsilon delays this (Wong, Rice and Kolter 2020).
    """

    epsilon: float = option(8 / 255, "radius of the ball the training attack searches, in pixels of [0, 1]", low=0)
    step_size: float | None = option(None, "length of the one step; None takes epsilon", low=0)
    norm: Norm = option(Norm.LINF, "norm of the ball: linf, l2 or l1")
    random_start: bool = option(False, "start the training attack at a random point of the ball")

    @property
    def attack(self) -> PGD:
        """One step of PGD, which is FGSM."""
        step = self.epsilon if self.step_size is None else self.step_size
        return PGD(epsilon=self.epsilon, step_size=step, steps=1, norm=self.norm, random_start=self.random_start)
