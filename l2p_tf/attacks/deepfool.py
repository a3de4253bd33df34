"""DeepFool (Moosavi-Dezfooli et al. 2016)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import tensorflow as tf

from l2p_tf.attacks.base import ATTACKS, MinimizationAttack
from l2p_tf.attacks.boundary import dual, nearest, rivals
from l2p_tf.attacks.context import AttackContext, State, choose
from l2p_tf.attacks.iterative import IterativeAttack
from l2p_tf.options import option
from l2p_tf.types import Norm


@ATTACKS.register("deepfool")
@dataclasses.dataclass(frozen=True)
class DeepFool(IterativeAttack, MinimizationAttack):
    """DeepFool: steps onto the nearest linearized boundary until it is crossed (Moosavi-Dezfooli et al. 2016)."""

    steps: int = option(50, "steps at most", low=1)
    overshoot: float = option(0.02, "how much farther than to the boundary to go, as a share", low=0)
    candidates: int = option(10, "classes compared: the label and the likeliest others on the clean image", low=2)
    norm: Norm = option(Norm.L2, "norm to keep small", choices=("linf", "l2"))
    epsilon: float | None = option(None, "count only successes of at most this norm; None counts all", low=0)
    draws: int = option(1, "draws of the model's noise each gradient is averaged over (EOT)", low=1)

    TRACED_OPTIONS: ClassVar[tuple[str, ...]] = ("overshoot",)
    HOST_OPTIONS: ClassVar[tuple[str, ...]] = (*IterativeAttack.HOST_OPTIONS, "steps", "epsilon")
    CHUNK: ClassVar[int] = 2

    @property
    def label(self) -> str:
        """Label such as `DeepFool` or `DeepFool linf EOT-10`."""
        return self.described("DeepFool", default=Norm.L2)

    def cost(self, draws: int, classes: int) -> tuple[int, int]:
        """One gradient for every other class."""
        others = min(self.candidates, classes) - 1
        return others * draws, 1 if draws == 1 else 1 + draws + others * draws

    def begin(self, context: AttackContext) -> State:
        """Starts at the image."""
        classes = tf.zeros([context.batch, self._others(context)], tf.int32)
        return {"adversarial": context.images, "total": tf.zeros_like(context.images), "classes": classes}

    def step(self, context: AttackContext, i: tf.Tensor, state: State) -> State:
        """Adds the step to the nearest boundary (Algorithm 2); examples whose class has changed are done."""
        x, n = state["adversarial"], self._others(context)

        def picked(logits: tf.Tensor) -> tf.Tensor:
            # Candidates are chosen on the clean image and then kept.
            return tf.where(i == 0, rivals(logits, context.criterion.labels, n), state["classes"])

        difference, gradient, share, classes = nearest(context, x, picked, self.norm, self.draws)
        done = context.confirmed(x, share > 0.5)
        # Overshoot slightly, because rounding could otherwise miss the boundary.
        distance = tf.abs(difference) / (dual(gradient, self.norm) + 1e-8) + 1e-4
        if self.norm is Norm.LINF:
            direction = tf.sign(gradient)
        else:
            direction = gradient / (dual(gradient, self.norm)[:, None, None, None] + 1e-8)
        total = state["total"] + distance[:, None, None, None] * direction
        moved = tf.clip_by_value(context.images + (1.0 + context.numbers["overshoot"]) * total, 0.0, 1.0)
        return {"adversarial": choose(done, x, moved), "total": total, "classes": classes, "done": done}

    def _others(self, context: AttackContext) -> int:
        return min(self.candidates, int(context.model.output_shape[-1])) - 1
