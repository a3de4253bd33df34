"""Options and step shared by the gradient-based attacks of fixed epsilon."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
import tensorflow as tf

from l2p_tf.attacks.context import AttackContext, State, choose
from l2p_tf.attacks.criterion import LOSSES, TARGETS
from l2p_tf.attacks.iterative import IterativeAttack
from l2p_tf.attacks.projection import project, random_in_ball, steepest
from l2p_tf.options import option
from l2p_tf.types import Norm, UserError

SPARSITY = "in l1, the share of an image's numbers, those of the largest gradient, that a step changes"


@dataclasses.dataclass(frozen=True)
class Ascent(IterativeAttack):
    """Base of the attacks that ascend a loss by its gradient, within the epsilon ball and [0, 1]."""

    epsilon: float = option(8 / 255, "radius of the ball, in pixels of [0, 1]", low=0)
    norm: Norm = option(Norm.LINF, "norm of the ball: linf, l2 or l1")
    loss: str = option("ce", "loss to ascend", choices=LOSSES)
    target: str = option("none", "class to arrive at; none: any class but the label", choices=TARGETS)
    draws: int = option(1, "draws of the model's noise each gradient is averaged over (EOT)", low=1)
    sparsity: float = option(0.01, SPARSITY, above=0, high=1)

    TRACED_OPTIONS: ClassVar[tuple[str, ...]] = ("epsilon",)
    NAME: ClassVar[str] = ""
    ENDS_EARLY: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if getattr(self, "restarts", 1) > 1 and not getattr(self, "random_start", False):
            raise UserError(
                f"{type(self).__name__}: `restarts` should be 1 without a random start, as every start would be the "
                f"same. Received: {self.restarts}"  # type: ignore[attr-defined]
            )

    @property
    def label(self) -> str:
        """Label such as `PGD-20`, `PGD-20 x2 l2 margin` or `PGD-20 EOT-10`."""
        return self.described(f"{self.NAME}-{self.steps}" if hasattr(self, "steps") else self.NAME)

    def cost(self, draws: int, classes: int) -> tuple[int, int]:
        """One gradient per draw."""
        del classes
        return draws, draws

    def begin(self, context: AttackContext) -> State:
        """Starts at the image, or at a random point of the ball around it."""
        if not getattr(self, "random_start", False):
            return {"adversarial": context.images}
        offset = random_in_ball(context.images, context.numbers["epsilon"], self.norm, context.fold(0))
        return {"adversarial": tf.clip_by_value(context.images + offset, 0.0, 1.0)}

    def step(self, context: AttackContext, i: tf.Tensor, state: State) -> State:
        """Takes one step of `step_size` in the steepest direction; examples already found adversarial do not move."""
        del i
        gradient, _, reached = context.loss_and_gradient(state["adversarial"], self.loss, self.draws)
        return self.moved(context, state, self.direction(gradient, state["adversarial"]), reached)

    def direction(self, gradient: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """Returns the unit-norm direction of a step from `x` along a gradient.

        In l1, a share `sparsity` of the entries moves, and none that is already at 0 or 1 (Tramer and Boneh 2019).
        """
        if self.norm is Norm.L1:
            at_end = tf.where(gradient > 0.0, x >= 1.0, x <= 0.0)
            gradient = tf.where(at_end, 0.0, gradient)
        moving = max(1, round(self.sparsity * int(np.prod(gradient.shape[1:]))))
        return steepest(gradient, self.norm, moving)

    def moved(self, context: AttackContext, state: State, direction: tf.Tensor, reached: tf.Tensor) -> State:
        """Returns the state after a projected step; sets `done` if a deterministic model meets the criterion."""
        x, epsilon = state["adversarial"], context.numbers["epsilon"]
        length = context.numbers.get("step_size", epsilon)
        moved = project(x + length * direction, context.images, epsilon, self.norm)
        # Single-step attacks perturb every image by definition; others stop at images that are already adversarial.
        if not context.deterministic or not self.ENDS_EARLY:
            return {**state, "adversarial": moved}
        done = reached > 0.0
        return {**state, "adversarial": choose(done, x, moved), "done": done}
