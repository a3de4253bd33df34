"""Projected gradient descent (Madry et al. 2018)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import keras
import tensorflow as tf

from l2p_tf.attacks.base import ATTACKS, Attack, Found
from l2p_tf.attacks.gradient import loss_gradient
from l2p_tf.attacks.projection import project, random_in_ball, steepest
from l2p_tf.loops import repeat
from l2p_tf.registry import option
from l2p_tf.types import Norm


def climb(
    model: keras.Model, images: tf.Tensor, labels: tf.Tensor, start: tf.Tensor, epsilon: tf.Tensor,
    step_size: tf.Tensor, steps: int, norm: Norm, draws: int, stop_early: bool,
) -> Found:  # fmt: skip
    """Ascends the loss from `start` in steps of `step_size`, inside the ball of `epsilon` and inside [0, 1].

    With `stop_early` an example that is misclassified stays as it is, and the loop ends when all are.
    """
    batch = images.shape[0]

    def step(x: tf.Tensor, done: tf.Tensor, used: tf.Tensor) -> tuple[tf.Tensor, ...]:
        gradient, _, wrong = loss_gradient(model, x, labels, draws)
        used += tf.where(done, 0, 1)
        moved = images + project(x + step_size * steepest(gradient, norm) - images, epsilon, norm)
        moved = tf.clip_by_value(moved, 0.0, 1.0)
        if not stop_early:
            return moved, done, used
        done = done | (wrong > 0.0)
        return tf.where(done[:, None, None, None], x, moved), done, used

    def going(x: tf.Tensor, done: tf.Tensor, used: tf.Tensor) -> tf.Tensor:
        del x, used
        return ~tf.reduce_all(done)

    state = (start, tf.zeros([batch], tf.bool), tf.zeros([batch], tf.int32))
    x, _, used = repeat(step, state, steps, going if stop_early else None)
    return Found(x, used * draws, used * draws)


@ATTACKS.register("pgd")
@dataclasses.dataclass(frozen=True)
class PGD(Attack):
    """Projected gradient descent: steps of the gradient's sign (or direction), projected to the ball (Madry 2018)."""

    epsilon: float = option(8 / 255, "radius of the ball, in pixels of [0, 1]", low=0)
    step_size: float | None = option(None, "length of a step; None takes 2.5 epsilon / steps", low=0)
    steps: int = option(20, "gradient steps", low=1)
    norm: Norm = option(Norm.LINF, "norm of the ball: linf or l2")
    restarts: int = option(1, "random starts to choose the best of", low=1)
    random_start: bool = option(True, "start at a random point of the ball instead of the image")
    draws: int = option(1, "draws of the model's noise each gradient is averaged over (EOT)", low=1)

    NUMBERS: ClassVar[tuple[str, ...]] = ("epsilon", "step_size")

    def numbers(self) -> dict[str, float]:
        """Epsilon and the resolved step size."""
        step = 2.5 * self.epsilon / self.steps if self.step_size is None else self.step_size
        return {"epsilon": self.epsilon, "step_size": step}

    @property
    def label(self) -> str:
        """Such as `PGD-20`, `PGD-20 x2 l2` or `PGD-20 EOT-10`."""
        parts = [f"PGD-{self.steps}"]
        parts += [f"x{self.restarts}"] if self.restarts > 1 else []
        parts += [str(self.norm)] if self.norm is not Norm.LINF else []
        return " ".join(parts + ([f"EOT-{self.draws}"] if self.draws > 1 else []))

    def run(
        self, model: keras.Model, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor,
        numbers: dict[str, tf.Tensor], stop_early: bool,
    ) -> Found:  # fmt: skip
        """One start."""
        draws = 1 if stop_early else self.draws  # Without noise all draws are the same.
        start = images
        if self.random_start:
            offset = random_in_ball(tuple(images.shape), numbers["epsilon"], self.norm, seed)
            start = tf.clip_by_value(images + offset, 0.0, 1.0)
        return climb(
            model, images, labels, start, numbers["epsilon"], numbers["step_size"], self.steps, self.norm, draws,
            stop_early,
        )  # fmt: skip
