"""The fast adaptive boundary attack (Croce and Hein 2020, "Minimally distorted adversarial examples")."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import keras
import tensorflow as tf

from l2p_tf.attacks.base import ATTACKS, MinimizationAttack
from l2p_tf.attacks.boundary import nearest, rivals, to_hyperplane
from l2p_tf.attacks.context import AttackContext, State, choose
from l2p_tf.attacks.iterative import IterativeAttack
from l2p_tf.attacks.projection import length, random_in_ball
from l2p_tf.options import option
from l2p_tf.types import Norm, UserError


@ATTACKS.register("fab")
@dataclasses.dataclass(frozen=True)
class FAB(IterativeAttack, MinimizationAttack):
    """FAB: projects onto linearized boundaries, drawn to the image, for the smallest norm (Croce and Hein 2020)."""

    epsilon: float | None = option(None, "count only successes of at most this norm; None counts all", low=0)
    norm: Norm = option(Norm.LINF, "norm to keep small: linf, l2 or l1")
    steps: int = option(100, "steps of each start", low=1)
    restarts: int = option(1, "starts, all but the first at random; more than one need epsilon", low=1)
    target_classes: int = option(
        0, "likeliest wrong classes to head for, one a start; 0 weighs all in each step", low=0
    )
    alpha_max: float = option(0.1, "most weight of the pull toward the image", low=0, high=1)
    eta: float = option(1.05, "how far to step, in distances to the boundary", above=0)
    beta: float = option(0.9, "what is left of a perturbation that succeeds, before the search goes on", low=0, high=1)
    draws: int = option(1, "draws of the model's noise each gradient is averaged over (EOT)", low=1)

    TRACED_OPTIONS: ClassVar[tuple[str, ...]] = ("epsilon", "alpha_max", "eta", "beta")
    HOST_OPTIONS: ClassVar[tuple[str, ...]] = (*IterativeAttack.HOST_OPTIONS, "steps")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.restarts > 1 and self.epsilon is None:
            raise UserError("FAB: `restarts` start at random within `epsilon`, which should be given. Received: None")

    @property
    def label(self) -> str:
        """Label such as `FAB`, `FAB-T l2` or `FAB-T EOT-10`."""
        return self.described("FAB-T" if self.target_classes else "FAB")

    def numbers(self) -> dict[str, float]:
        """Epsilon (0, unused, if there is none) and the weights."""
        numbers = {name: float(getattr(self, name)) for name in ("alpha_max", "eta", "beta")}
        return {"epsilon": self.epsilon or 0.0, **numbers}

    def check(self, model: keras.Model) -> None:
        """Works on every model."""

    def cost(self, draws: int, classes: int) -> tuple[int, int]:
        """One gradient for every class compared, and a forward pass at the new point."""
        others = 1 if self.has_target else classes - 1
        return others * draws, (1 if draws == 1 else 1 + draws + others * draws) + draws

    def begin(self, context: AttackContext) -> State:
        """Starts at the image; later starts are random points of the ball of half the radius."""
        direction = random_in_ball(context.images, 1.0, self.norm, context.fold(0))
        direction = direction / tf.maximum(length(direction, self.norm), 1e-12)
        toward = tf.cast(context.start >= tf.maximum(1, self.target_classes), tf.float32)
        start = tf.clip_by_value(context.images + 0.5 * context.numbers["epsilon"] * toward * direction, 0.0, 1.0)
        return {"adversarial": context.images, "x": start, "size": context.full(float("inf"))}

    def step(self, context: AttackContext, i: tf.Tensor, state: State) -> State:
        """Moves between the projections of the current point and of the image onto the boundary (Algorithm 1)."""
        x, image, numbers = state["x"], context.images, context.numbers
        difference, gradient, _, _ = nearest(context, x, lambda z: self._compared(context, z), self.norm, self.draws)
        at_image = difference + tf.reduce_sum(gradient * (image - x), [1, 2, 3])
        step_from_x = to_hyperplane(x, gradient, difference, self.norm)
        step_from_image = to_hyperplane(image, gradient, at_image, self.norm)
        near, far = (tf.maximum(length(d, self.norm), 1e-8) for d in (step_from_x, step_from_image))
        alpha = tf.clip_by_value(near / (near + far), 0.0, numbers["alpha_max"])
        x = (x + numbers["eta"] * step_from_x) * (1.0 - alpha) + (image + numbers["eta"] * step_from_image) * alpha
        x = tf.clip_by_value(x, 0.0, 1.0)
        _, share = context.loss(x, "margin", self.draws)
        size = length(x - image, self.norm)[:, 0, 0, 0]
        reached = context.confirmed(x, share > 0.5)
        smaller = reached & (size < state["size"])
        new = {"adversarial": choose(smaller, x, state["adversarial"]), "size": tf.where(smaller, size, state["size"])}
        return {**new, "x": choose(reached, image + numbers["beta"] * (x - image), x)}

    def _compared(self, context: AttackContext, logits: tf.Tensor) -> tf.Tensor:
        if context.criterion.targets is not None:
            return context.criterion.targets[:, None]
        return rivals(logits, context.criterion.labels, int(logits.shape[-1]) - 1)
