"""Random noise of the same budget: a lower bound on the strength of any attack."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import tensorflow as tf

from l2p_tf.attacks.base import ATTACKS
from l2p_tf.attacks.context import AttackContext, State
from l2p_tf.attacks.iterative import IterativeAttack
from l2p_tf.attacks.projection import random_in_ball
from l2p_tf.options import option
from l2p_tf.types import Norm


@ATTACKS.register("noise")
@dataclasses.dataclass(frozen=True)
class Noise(IterativeAttack):
    """Random noise: a point drawn uniformly from the ball; the floor under every attack of its budget."""

    epsilon: float = option(8 / 255, "radius of the ball, in pixels of [0, 1]", low=0)
    norm: Norm = option(Norm.LINF, "norm of the ball: linf, l2 or l1")
    restarts: int = option(1, "points to choose the best of", low=1)

    TRACED_OPTIONS: ClassVar[tuple[str, ...]] = ("epsilon",)

    @property
    def label(self) -> str:
        """Label such as `noise` or `noise x10 l2`."""
        return self.described("noise")

    @property
    def iterations(self) -> int:
        """Zero: the starting point is the result."""
        return 0

    def cost(self, draws: int, classes: int) -> tuple[int, int]:
        """No passes."""
        del draws, classes
        return 0, 0

    def begin(self, context: AttackContext) -> State:
        """Draws the point."""
        offset = random_in_ball(context.images, context.numbers["epsilon"], self.norm, context.fold(0))
        return {"adversarial": tf.clip_by_value(context.images + offset, 0.0, 1.0)}

    def step(self, context: AttackContext, i: tf.Tensor, state: State) -> State:
        """Never called."""
        del context, i
        return state
