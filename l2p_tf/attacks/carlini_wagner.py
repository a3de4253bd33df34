"""The l2 attack of Carlini and Wagner (2017)."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import tensorflow as tf

from l2p_tf.attacks.base import ATTACKS, MinimizationAttack
from l2p_tf.attacks.constant import close_round, open_search
from l2p_tf.attacks.context import AttackContext, State, choose
from l2p_tf.attacks.criterion import TARGETS
from l2p_tf.attacks.iterative import IterativeAttack
from l2p_tf.options import option
from l2p_tf.types import Norm

_BETA_1, _BETA_2, _ADAM_EPSILON = 0.9, 0.999, 1e-8
_SHRINK = 1.0 - 1e-6


@ATTACKS.register("cw")
@dataclasses.dataclass(frozen=True)
class CarliniWagner(IterativeAttack, MinimizationAttack):
    """Carlini and Wagner l2: Adam on norm plus c times margin, in tanh space; c by binary search (2017)."""

    steps: int = option(1000, "steps of Adam for each c", low=1)
    binary_search_steps: int = option(9, "values of c to try", low=1)
    learning_rate: float = option(0.01, "of Adam", above=0)
    kappa: float = option(0.0, "confidence: by how much the wrong class's logit has to lead", low=0)
    initial_const: float = option(1e-3, "c to begin with: times 10 until it succeeds, then bisected", above=0)
    abort_early: bool = option(True, "end the steps for a c where a tenth of them brought no progress")
    target: str = option("none", "class to arrive at; none: any class but the label", choices=TARGETS)
    epsilon: float | None = option(None, "count only successes of at most this norm; None counts all", low=0)
    draws: int = option(1, "draws of the model's noise each gradient is averaged over (EOT)", low=1)

    TRACED_OPTIONS: ClassVar[tuple[str, ...]] = ("learning_rate", "kappa", "initial_const")
    HOST_OPTIONS: ClassVar[tuple[str, ...]] = (*IterativeAttack.HOST_OPTIONS, "epsilon")
    CHUNK: ClassVar[int] = 10
    norm: ClassVar[Norm] = Norm.L2

    @property
    def label(self) -> str:
        """Label such as `C&W`, `C&W kappa 5` or `C&W EOT-10`."""
        return self.described("C&W", default=Norm.L2)

    @property
    def iterations(self) -> int:
        """Maximum number of steps; each example moves on to its next c when it has finished one."""
        return self.steps * self.binary_search_steps

    def cost(self, draws: int, classes: int) -> tuple[int, int]:
        """One gradient per draw."""
        del classes
        return draws, draws

    def begin(self, context: AttackContext) -> State:
        """Starts at the image."""
        start = tf.atanh((2.0 * context.images - 1.0) * _SHRINK)
        none = tf.zeros_like(start)
        infinite = context.full(float("inf"))
        moving = {"w": start, "m": none, "v": none, "total": context.full(0.0), "last_total": infinite}
        return {**open_search(context), **moving}

    def step(self, context: AttackContext, i: tf.Tensor, state: State) -> State:
        """Takes one step of Adam on every example, each with its own c."""
        del i
        numbers, c, inner = context.numbers, state["c"], state["inner"]
        start = tf.atanh((2.0 * context.images - 1.0) * _SHRINK)
        tanh = tf.tanh(state["w"])
        x, kept = (tanh + 1.0) / 2.0, (2.0 * context.images - 1.0) * _SHRINK / 2.0 + 0.5
        slope, lead, share = context.loss_and_gradient(x, "margin", self.draws, cap=numbers["kappa"])
        away = x - kept
        objective = tf.reduce_sum(tf.square(away), [1, 2, 3]) + c * (numbers["kappa"] - lead)
        gradient = (2.0 * away - c[:, None, None, None] * slope) * (1.0 - tf.square(tanh)) / 2.0
        time = tf.cast(inner + 1, tf.float32)
        m = _BETA_1 * state["m"] + (1.0 - _BETA_1) * gradient
        v = _BETA_2 * state["v"] + (1.0 - _BETA_2) * tf.square(gradient)
        rate = numbers["learning_rate"] * tf.sqrt(1.0 - _BETA_2**time) / (1.0 - _BETA_1**time)
        slack = _ADAM_EPSILON * tf.sqrt(1.0 - _BETA_2**time)
        w = state["w"] - rate[:, None, None, None] * m / (tf.sqrt(v) + slack[:, None, None, None])
        ended = inner + 1 >= self.steps
        # Sum of the objective over each tenth of the steps except the first, in which Adam first raises it.
        tenth = math.ceil(self.steps / 10)
        total = state["total"] + tf.where(inner < tenth, 0.0, objective)
        last_total = state["last_total"]
        due = ((inner + 1) % tenth == 0) & (inner >= tenth)
        if self.abort_early:
            ended |= due & ~(total <= 0.9999 * last_total)
        searched = close_round(context, state, x, context.confirmed(x, share > 0.5), ended, self.binary_search_steps)
        none = tf.zeros_like(m)
        return {
            **searched,
            "w": choose(ended, start, w),
            "m": choose(ended, none, m),
            "v": choose(ended, none, v),
            "total": tf.where(ended | due, 0.0, total),
            "last_total": tf.where(ended, float("inf"), tf.where(due, total, last_total)),
        }
