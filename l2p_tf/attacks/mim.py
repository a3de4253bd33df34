"""The momentum iterative method (Dong et al. 2018)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import tensorflow as tf

from l2p_tf.attacks.base import ATTACKS
from l2p_tf.attacks.context import AttackContext, State
from l2p_tf.attacks.pgd import Iterative
from l2p_tf.options import option


@ATTACKS.register("mim")
@dataclasses.dataclass(frozen=True)
class MIM(Iterative):
    """Momentum iterative method: steps along a running sum of normalized gradients (Dong et al. 2018)."""

    decay: float = option(1.0, "mu: what is left of the former momentum at each step", low=0)

    TRACED_OPTIONS: ClassVar[tuple[str, ...]] = (*Iterative.TRACED_OPTIONS, "decay")
    NAME: ClassVar[str] = "MIM"

    def numbers(self) -> dict[str, float]:
        """Epsilon, step size and decay."""
        return {**super().numbers(), "decay": self.decay}

    def begin(self, context: AttackContext) -> State:
        """Starts at the image with zero momentum."""
        return {**super().begin(context), "momentum": tf.zeros_like(context.images)}

    def step(self, context: AttackContext, i: tf.Tensor, state: State) -> State:
        """Adds the gradient over its mean absolute value to the momentum (Equation 6), and steps along it."""
        del i
        gradient, _, reached = context.loss_and_gradient(state["adversarial"], self.loss, self.draws)
        # Divide by the largest entry first: the mean of tiny numbers would underflow.
        scaled = tf.math.divide_no_nan(gradient, tf.reduce_max(tf.abs(gradient), [1, 2, 3], keepdims=True))
        scaled = tf.math.divide_no_nan(scaled, tf.reduce_mean(tf.abs(scaled), [1, 2, 3], keepdims=True))
        momentum = context.numbers["decay"] * state["momentum"] + scaled
        new = self.moved(context, state, self.direction(momentum, state["adversarial"]), reached)
        return {**new, "momentum": momentum}
