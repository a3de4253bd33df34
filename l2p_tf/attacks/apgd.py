"""Auto-PGD (Croce and Hein 2020, "Reliable evaluation of adversarial robustness"); for l1 see `sparse_ascent`."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import numpy as np
import tensorflow as tf

from l2p_tf.attacks import sparse_ascent
from l2p_tf.attacks.ascent import SPARSITY, Ascent
from l2p_tf.attacks.base import ATTACKS
from l2p_tf.attacks.context import AttackContext, State, choose
from l2p_tf.attacks.iterative import IterativeAttack
from l2p_tf.attacks.projection import length, project, random_in_ball, steepest
from l2p_tf.attacks.sparse_ascent import rounds
from l2p_tf.options import option
from l2p_tf.types import Norm, UserError

_RHO = 0.75
_MOMENTUM = 0.75


@ATTACKS.register("apgd")
@dataclasses.dataclass(frozen=True)
class APGD(Ascent):
    """Auto-PGD: momentum, and a step size that halves when progress stops (Croce and Hein 2020, in l1 2021)."""

    steps: int = option(100, "gradient steps", low=1)
    restarts: int = option(1, "random starts to choose the best of", low=1)
    target_classes: int = option(0, "likeliest wrong classes to head for, one a start, any wrong class counts", low=0)
    sparsity: float = option(0.2, f"{SPARSITY} at first; then it adapts", above=0, high=1)
    larger_radii: bool = option(False, "in l1, spend 60% of the steps in balls of 3 and 2 epsilon, for a better start")

    HOST_OPTIONS: ClassVar[tuple[str, ...]] = IterativeAttack.HOST_OPTIONS
    NAME: ClassVar[str] = "APGD"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target_classes and self.targeted:
            raise UserError(f"APGD: `target` should be none with `target_classes`. Received: {self.target!r}")
        if self.larger_radii and self.norm is not Norm.L1:
            raise UserError(f"APGD: `larger_radii` should be False but with norm=l1. Received: norm={self.norm}")

    @property
    def random_start(self) -> bool:
        """True: Auto-PGD always starts at a random point."""
        return True

    @property
    def label(self) -> str:
        """Label such as `APGD-100` or `APGD-T-100 dlr`."""
        return super().label.replace("APGD", "APGD-T") if self.target_classes else super().label

    @property
    def iterations(self) -> int:
        """Number of gradients: one at the start (in l1, at the start in each ball) and one after every step."""
        return len(rounds(self.steps, self.larger_radii)) if self.norm is Norm.L1 else self.steps + 1

    def begin(self, context: AttackContext) -> State:
        """Starts at a random point of the sphere of radius epsilon around the image."""
        if self.norm is Norm.L1:
            return sparse_ascent.begin(context, self.larger_radii)
        direction = random_in_ball(context.images, 1.0, self.norm, context.fold(0))
        direction = direction / tf.maximum(length(direction, self.norm), 1e-12)
        x = tf.clip_by_value(context.images + context.numbers["epsilon"] * direction, 0.0, 1.0)
        none = tf.zeros_like(x)
        least = context.full(float("-inf"))
        # `adversarial` is the best point so far, `pace` the step size in units of epsilon.
        state = {"adversarial": x, "x": x, "former": x, "gradient": none, "best_gradient": none, "loss": least}
        state |= {"best": least, "last_best": least, "pace": context.full(2.0), "rises": context.full(0.0)}
        return {**state, "reduced": context.full(True, tf.bool)}

    def step(self, context: AttackContext, i: tf.Tensor, state: State) -> State:
        """Takes a step (Equations 1 and 2; none in round 0) and the loss; checkpoints may halve the step size."""
        if self.norm is Norm.L1:
            plan = rounds(self.steps, self.larger_radii)
            return sparse_ascent.step(context, i, state, plan, self.sparsity, self.loss, self.draws)
        first = i == 0
        x = tf.where(first, state["x"], self._moved(context, i, state))
        gradient, loss, reached = context.loss_and_gradient(x, self.loss, self.draws)
        rises = state["rises"] + tf.where((loss > state["loss"]) & ~first, 1.0, 0.0)
        better = loss > state["best"]
        done = reached > 0.0 if context.deterministic else context.full(False, tf.bool)
        best = tf.where(better, loss, state["best"])
        # Once an image is adversarial it is not changed any more, whatever the loss of later points.
        adversarial = choose(better | done, x, state["adversarial"])
        best_gradient = choose(better, gradient, state["best_gradient"])
        last_best = tf.where(first, best, state["last_best"])
        # At a checkpoint, halve if the loss rose too rarely, or did not improve and the step size was not halved
        # before.
        windows = tf.constant(checkpoints(self.steps), tf.float32)
        window = tf.gather(windows, i)
        due = window > 0.0
        stuck = ~state["reduced"] & (last_best >= best)
        halve = due & ((rises <= _RHO * window) | stuck)
        return {
            "adversarial": adversarial,
            "x": choose(halve, adversarial, x),
            "former": state["x"],
            "gradient": choose(halve, best_gradient, gradient),
            "best_gradient": best_gradient,
            "loss": loss,
            "best": best,
            "last_best": tf.where(due, best, last_best),
            "pace": tf.where(halve, state["pace"] / 2.0, state["pace"]),
            "rises": tf.where(due, 0.0, rises),
            "reduced": tf.where(due, halve, state["reduced"]),
            "done": done,
        }

    def _moved(self, context: AttackContext, i: tf.Tensor, state: State) -> tf.Tensor:
        epsilon, x = context.numbers["epsilon"], state["x"]

        def into(point: tf.Tensor) -> tf.Tensor:
            return project(point, context.images, epsilon, self.norm)

        pace = tf.reshape(state["pace"], [-1, 1, 1, 1])
        plain = into(x + epsilon * pace * steepest(state["gradient"], self.norm))
        weight = tf.where(i == 1, 1.0, _MOMENTUM)
        return into(x + weight * (plain - x) + (1.0 - weight) * (x - state["former"]))


def checkpoints(steps: int) -> np.ndarray:
    """Per round from 0 to `steps`, the number of steps in the window that ends there, or 0 if none does.

    Checkpoint j is at step p_j * steps, rounded up: p starts with 0 and 0.22, and each increment is the previous one
    less 0.03, but at least 0.06 (Section 3.2).
    """
    windows = np.zeros(steps + 1, np.float32)
    p, growth, last = 0.22, 0.22, 0
    while (at := math.ceil(round(p * steps, 6))) <= steps:
        # With few steps, several checkpoints can fall on the same step.
        windows[at], last = max(windows[at], at - last), at
        growth = max(growth - 0.03, 0.06)
        p += growth
    return windows
