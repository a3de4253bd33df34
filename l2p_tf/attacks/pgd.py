"""Projected gradient descent (Madry et al. 2018)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from l2p_tf.attacks.ascent import Ascent
from l2p_tf.attacks.base import ATTACKS
from l2p_tf.options import option


@dataclasses.dataclass(frozen=True)
class Iterative(Ascent):
    """Base of the attacks of several steps: number of steps and step size."""

    steps: int = option(20, "gradient steps", low=1)
    step_size: float | None = option(None, "length of a step; None takes 2.5 epsilon / steps", low=0)

    TRACED_OPTIONS: ClassVar[tuple[str, ...]] = ("epsilon", "step_size")
    HOST_OPTIONS: ClassVar[tuple[str, ...]] = (*Ascent.HOST_OPTIONS, "steps")

    def numbers(self) -> dict[str, float]:
        """Epsilon and the resolved step size."""
        step = 2.5 * self.epsilon / self.steps if self.step_size is None else self.step_size
        return {"epsilon": self.epsilon, "step_size": step}


@ATTACKS.register("pgd")
@dataclasses.dataclass(frozen=True)
class PGD(Iterative):
    """Projected gradient descent: steps of the gradient's sign, projected to the ball (Madry et al. 2018)."""

    restarts: int = option(1, "random starts to choose the best of", low=1)
    random_start: bool = option(True, "start at a random point of the ball instead of the image")

    NAME: ClassVar[str] = "PGD"
