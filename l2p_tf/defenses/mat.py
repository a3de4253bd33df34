"""Mixed adversarial training over two norms (Araujo et al. 2020; Tramer and Boneh 2019; the 2021 study, 2.3)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import keras
import tensorflow as tf

from l2p_tf.attacks.context import AttackContext, State, choose
from l2p_tf.attacks.iterative import IterativeAttack
from l2p_tf.attacks.pgd import PGD
from l2p_tf.attacks.projection import project, random_in_ball, steepest
from l2p_tf.attacks.randomness import uniform
from l2p_tf.defenses.base import DEFENSES, AdversarialDefense
from l2p_tf.layers import sampling
from l2p_tf.options import option
from l2p_tf.training.base import RobustTrainer, TrainingAttack
from l2p_tf.training.losses import Batch, cross_entropy
from l2p_tf.types import Norm, UserError


@DEFENSES.register("mat")
@dataclasses.dataclass(frozen=True)
class MixedTraining(AdversarialDefense):
    """Mixed adversarial training: PGD in l_inf and in l_2, one of them at random, the worse, or both.

    `rand` takes either norm with probability one half, per example or per batch, at the cost of a single attack; `max`
    takes the one with the larger loss, per example; `both` trains on both, averaged.
    """

    strategy: str = option("rand", "which of the two attacks a step trains on", choices=("rand", "max", "both"))
    per: str = option("example", "what draws its norm (rand): each example, or the batch", choices=("example", "batch"))
    epsilon: float = option(8 / 255, "radius of the l_inf ball, in pixels of [0, 1]", low=0)
    step_size: float = option(0.01, "step in l_inf", low=0)
    l2_epsilon: float = option(0.5, "radius of the l_2 ball, in pixels of [0, 1]", low=0)
    l2_step_size: float = option(0.125, "step in l_2", low=0)
    steps: int = option(10, "steps of either attack", low=1)
    random_start: bool = option(True, "start at a random point of the ball")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strategy == "both" and self.one_batch:
            raise UserError("mat: `one_batch` should be False with strategy=both, which has two attacked batches.")

    @property
    def attack(self) -> TrainingAttack:
        """The attack of the strategy."""
        if self.strategy == "rand":
            keys = ("epsilon", "step_size", "l2_epsilon", "l2_step_size", "steps", "random_start", "per")
            return EitherNorm(**{key: getattr(self, key) for key in keys})
        square = PGD(epsilon=self.epsilon, step_size=self.step_size, steps=self.steps, random_start=self.random_start)
        two = square, square.replace(epsilon=self.l2_epsilon, step_size=self.l2_step_size, norm=Norm.L2)
        return WorseOf(two) if self.strategy == "max" else BothOf(two)

    def make_trainer(self, classifier: keras.Model, seed: int, examples: int) -> RobustTrainer:
        """Returns the common trainer, or one that takes two adversarial images per label."""
        del examples
        kind = TwofoldTrainer if self.strategy == "both" else RobustTrainer
        return kind(classifier, self.attack, seed=seed, **self.mixture())


@dataclasses.dataclass(frozen=True)
class EitherNorm(IterativeAttack):
    """PGD in which each example, or the whole batch, draws its norm with equal probability. For training steps only.

    One gradient serves both norms, so it hardly costs more than PGD in one norm.
    """

    epsilon: float = option(8 / 255, "radius of the l_inf ball", low=0)
    step_size: float = option(0.01, "step in l_inf", low=0)
    l2_epsilon: float = option(0.5, "radius of the l_2 ball", low=0)
    l2_step_size: float = option(0.125, "step in l_2", low=0)
    steps: int = option(10, "gradient steps", low=1)
    random_start: bool = option(True, "start at a random point of the ball")
    per: str = option("example", "what draws its norm", choices=("example", "batch"))

    TRACED_OPTIONS: ClassVar[tuple[str, ...]] = ("epsilon", "step_size", "l2_epsilon", "l2_step_size")

    def cost(self, draws: int, classes: int) -> tuple[int, int]:
        """One gradient."""
        del classes
        return draws, draws

    def begin(self, context: AttackContext) -> State:
        """Draws the norm, and starts at a random point of its ball or at the image."""
        # A single draw for the batch is the same on all replicas.
        thrown = sampling.uniform([1], context.fold(1)) if self.per == "batch" else None
        coins = uniform([context.batch], context.fold(1)) if thrown is None else thrown
        round_ball = tf.broadcast_to(coins < 0.5, [context.batch])
        start = context.images
        if self.random_start:
            offsets = [random_in_ball(start, context.numbers[n], norm, context.fold(0)) for norm, n, _ in self._norms]
            start = tf.clip_by_value(start + choose(round_ball, offsets[1], offsets[0]), 0.0, 1.0)
        return {"adversarial": start, "round_ball": round_ball}

    def step(self, context: AttackContext, i: tf.Tensor, state: State) -> State:
        """Takes one step in both norms and keeps the example's own."""
        del i
        x = state["adversarial"]
        gradient = context.loss_and_gradient(x, "ce", 1)[0]
        moved = []
        for norm, epsilon, size in self._norms:
            away = x + context.numbers[size] * steepest(gradient, norm)
            moved.append(project(away, context.images, context.numbers[epsilon], norm))
        return {**state, "adversarial": choose(state["round_ball"], moved[1], moved[0])}

    @property
    def _norms(self) -> tuple[tuple[Norm, str, str], ...]:
        return (Norm.LINF, "epsilon", "step_size"), (Norm.L2, "l2_epsilon", "l2_step_size")


@dataclasses.dataclass(frozen=True)
class BothOf:
    """Two attacks on the same batch: the images of the first, then those of the second, (2 * batch, ...)."""

    attacks: tuple[PGD, PGD]

    def perturb(self, model: keras.Model, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns adversarial images; arguments as in `IterativeAttack.perturb`."""
        return tf.concat([attack.perturb(model, images, labels, seed) for attack in self.attacks], 0)


@dataclasses.dataclass(frozen=True)
class WorseOf:
    """The attack of two with the larger cross-entropy, per example."""

    attacks: tuple[PGD, PGD]

    def perturb(self, model: keras.Model, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns adversarial images; arguments as in `IterativeAttack.perturb`."""
        first, second = (attack.perturb(model, images, labels, seed) for attack in self.attacks)
        losses = [cross_entropy(labels, model(x, training=False)) for x in (first, second)]
        return tf.stop_gradient(choose(losses[1] > losses[0], second, first))


class TwofoldTrainer(RobustTrainer):
    """Trains on two adversarial images per label, averaged."""

    def answers(self, batch: Batch, training: bool = True) -> dict[str, list[tf.Tensor]]:
        """Returns logits; each half passes by itself, with its own batch statistics."""
        if batch.adversarial is None:
            return super().answers(batch, training)
        first, second = tf.split(batch.adversarial, 2)
        logits = super().answers(batch._replace(adversarial=first), training)
        logits["adversarial"].append(self.classifier(second, training=training))
        return logits
