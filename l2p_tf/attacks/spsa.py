"""Simultaneous perturbation stochastic approximation (Uesato et al. 2018)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import tensorflow as tf

from l2p_tf.attacks.base import ATTACKS
from l2p_tf.attacks.context import AttackContext, State, choose
from l2p_tf.attacks.criterion import LOSSES, TARGETS
from l2p_tf.attacks.iterative import IterativeAttack
from l2p_tf.attacks.projection import project
from l2p_tf.attacks.randomness import signs
from l2p_tf.attacks.sampling import losses_of, together
from l2p_tf.loops import repeat
from l2p_tf.options import option
from l2p_tf.types import Norm

_BETA_1, _BETA_2, _ADAM_EPSILON = 0.9, 0.999, 1e-8


@ATTACKS.register("spsa")
@dataclasses.dataclass(frozen=True)
class SPSA(IterativeAttack):
    """SPSA: Adam on gradients estimated from random directions; needs no gradient (Uesato et al. 2018)."""

    epsilon: float = option(8 / 255, "radius of the ball, in pixels of [0, 1]", low=0)
    norm: Norm = option(Norm.LINF, "norm of the ball: linf, l2 or l1")
    steps: int = option(100, "steps of Adam", low=1)
    samples: int = option(128, "random directions a step; each costs two forward passes", low=1)
    delta: float = option(0.01, "length of the finite difference, in each pixel", above=0)
    learning_rate: float = option(0.01, "of Adam", above=0)
    loss: str = option("margin", "loss to ascend", choices=LOSSES)
    target: str = option("none", "class to arrive at; none: any class but the label", choices=TARGETS)
    draws: int = option(1, "draws of the model's noise each loss is averaged over", low=1)

    TRACED_OPTIONS: ClassVar[tuple[str, ...]] = ("epsilon", "delta", "learning_rate")
    HOST_OPTIONS: ClassVar[tuple[str, ...]] = (*IterativeAttack.HOST_OPTIONS, "steps")
    STATIC_BATCH: ClassVar[bool] = True

    @property
    def label(self) -> str:
        """Label such as `SPSA-100`."""
        return self.described(f"SPSA-{self.steps}")

    def cost(self, draws: int, classes: int) -> tuple[int, int]:
        """Two passes per direction, and one at the image itself."""
        del classes
        return 0, (2 * self.samples + 1) * draws

    def begin(self, context: AttackContext) -> State:
        """Starts at the image."""
        none = tf.zeros_like(context.images)
        return {"adversarial": context.images, "m": none, "v": none}

    def step(self, context: AttackContext, i: tf.Tensor, state: State) -> State:
        """Estimates the gradient by two-sided differences along every direction, takes an Adam step, and projects."""
        x, numbers = state["adversarial"], context.numbers
        _, reached = context.loss(x, self.loss, self.draws)
        shape = context.images.shape[1:]
        many = together(context, 2 * self.samples)
        # Directions are drawn again in each round instead of stored.
        many = many if many % 2 == 0 else 1

        def directions(k: tf.Tensor, count: int) -> tf.Tensor:
            return signs([context.batch, count, *shape], context.fold(i, k))

        def pair(k: tf.Tensor, gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            count = max(1, many // 2)
            along = directions(k, count)
            both = tf.concat([x[:, None] + numbers["delta"] * along, x[:, None] - numbers["delta"] * along], axis=1)
            losses, _ = losses_of(
                context, lambda first, n: tf.gather(both, first + tf.range(n), axis=1), 2 * count, self.loss, self.draws
            )
            slope = (losses[:, :count] - losses[:, count:]) / (2.0 * numbers["delta"])
            return k + 1, gradient + tf.reduce_sum(slope[:, :, None, None, None] * along, 1)

        rounds = self.samples // max(1, many // 2)
        _, gradient = repeat(pair, (tf.constant(0), tf.zeros_like(x)), rounds)
        gradient /= self.samples
        time = tf.cast(i + 1, tf.float32)
        m = _BETA_1 * state["m"] + (1.0 - _BETA_1) * gradient
        v = _BETA_2 * state["v"] + (1.0 - _BETA_2) * tf.square(gradient)
        step = m / (1.0 - _BETA_1**time) / (tf.sqrt(v / (1.0 - _BETA_2**time)) + _ADAM_EPSILON)
        moved = project(x + numbers["learning_rate"] * step, context.images, numbers["epsilon"], self.norm)
        done = reached > 0.0 if context.deterministic else context.full(False, tf.bool)
        return {"adversarial": choose(done, x, moved), "m": m, "v": v, "done": done}
