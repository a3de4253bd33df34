"""The fast gradient (sign) method (Goodfellow et al. 2015; Equation 1 of Learn2Perturb)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import keras
import tensorflow as tf

from l2p_tf.attacks.base import ATTACKS, Attack, Found
from l2p_tf.attacks.pgd import climb
from l2p_tf.registry import option
from l2p_tf.types import Norm


@ATTACKS.register("fgsm")
@dataclasses.dataclass(frozen=True)
class FGSM(Attack):
    """Fast gradient method: one step of length epsilon along the gradient's sign, or its direction in l2."""

    epsilon: float = option(8 / 255, "length of the step, in pixels of [0, 1]", low=0)
    norm: Norm = option(Norm.LINF, "norm of the step: linf or l2")
    draws: int = option(1, "draws of the model's noise the gradient is averaged over (EOT)", low=1)

    NUMBERS: ClassVar[tuple[str, ...]] = ("epsilon",)

    @property
    def label(self) -> str:
        """Such as `FGSM` or `FGM l2 EOT-10`."""
        name = "FGSM" if self.norm is Norm.LINF else f"FGM {self.norm}"
        return f"{name} EOT-{self.draws}" if self.draws > 1 else name

    def run(
        self, model: keras.Model, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor,
        numbers: dict[str, tf.Tensor], stop_early: bool,
    ) -> Found:  # fmt: skip
        """The one step there is, taken from the image for every example."""
        del seed
        draws = 1 if stop_early else self.draws  # Without noise all draws are the same.
        epsilon = numbers["epsilon"]
        return climb(model, images, labels, images, epsilon, epsilon, 1, self.norm, draws, stop_early=False)
