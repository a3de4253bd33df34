"""Inputs and outputs of attacks."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import keras
import numpy as np
import tensorflow as tf

from l2p_tf.attacks.criterion import Criterion
from l2p_tf.attacks.gradient import finite_part, loss_gradient, mean_loss

State = dict[str, tf.Tensor]

SELECTION_DRAWS = 8
"""Minimum number of draws on which adversarial images of a randomized model are judged."""


class CheckpointStore(Protocol):
    """Stores arrays by name, so that an interrupted attack can resume."""

    def load(self, key: str) -> dict[str, np.ndarray] | None:
        """Returns what was saved under the key, or None."""

    def save(self, key: str, arrays: dict[str, np.ndarray]) -> None:
        """Saves arrays, replacing those saved under the key before."""


@dataclasses.dataclass(frozen=True)
class AttackOutput:
    """Result of an attack. Every array has one entry per image.

    Attributes:
      adversarial: float32 (count, height, width, channels) in [0, 1].
      prediction: int32, the most frequent class over fresh draws of the noise.
      success: float32, share of the scoring draws on which the attack's criterion is met: any class but the label, or
      the target of a targeted attack; 0 or 1 without noise.
      wrong: float32, share of the scoring draws on which the image is misclassified; equals `success` unless targeted.
      target: int32, the class a targeted attack pulls toward; the label if any other class will do.
      probability: float32, the softmax probability of the label, averaged over the scoring draws.
      l0: float32, number of changed entries.
      l1: float32, sum of absolute changes.
      l2: float32, Euclidean norm of the perturbation.
      linf: float32, largest absolute change.
      gradients: int32, backward passes used.
      forwards: int32, forward passes used, including those of gradients but not of scoring.
      confidence: float32, the softmax probability of the likeliest class, averaged over the scoring draws; None for
      images found by a search.
      brier: float32, squared distance of the softmax probabilities to the one-hot label, from 0 to 2; None for images
      found by a search.
    """

    adversarial: np.ndarray
    prediction: np.ndarray
    success: np.ndarray
    wrong: np.ndarray
    target: np.ndarray
    probability: np.ndarray
    l0: np.ndarray
    l1: np.ndarray
    l2: np.ndarray
    linf: np.ndarray
    gradients: np.ndarray
    forwards: np.ndarray
    confidence: np.ndarray | None = None
    brier: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class AttackContext:
    """One batch under attack, as `begin` and `step` of an attack see it within a graph.

    Attributes:
      model: the classifier, called with `training=False`.
      images: float32 (batch, height, width, channels) in [0, 1].
      criterion: the classes to leave or to reach.
      seed: two integers that seed all randomness of the attack.
      numbers: the options named in `TRACED_OPTIONS`, as float32 scalars.
      deterministic: whether a single pass determines the prediction. False while the model's noise is on, and in
      training, which wants the greatest loss without early stopping.
      most: the largest batch there will be.
      start: int32 scalar, the number of this start.
      elsewhere: for each image another one that is predicted as the attack wants, or itself if there is none; shaped as
      `images`, and given only to `begin` of attacks that set `BEGINS_ELSEWHERE`.
    """

    model: keras.Model
    images: tf.Tensor
    criterion: Criterion
    seed: tf.Tensor
    numbers: dict[str, tf.Tensor]
    deterministic: bool
    most: int
    start: tf.Tensor
    elsewhere: tf.Tensor | None = None

    @property
    def batch(self) -> tf.Tensor:
        """Batch size: an int32 scalar."""
        return tf.shape(self.images)[0]

    def full(self, value: float | int | bool, dtype: tf.DType = tf.float32) -> tf.Tensor:
        """Returns one value for every example: (batch,)."""
        return tf.fill(tf.shape(self.images)[:1], tf.cast(value, dtype))

    def fold(self, *numbers: int | tf.Tensor) -> tf.Tensor:
        """Derives a separate seed for each combination of numbers, such as step and purpose."""
        seed = self.seed
        for number in numbers:
            seed = tf.random.fold_in(seed, number, alg=tf.random.Algorithm.PHILOX)
        return seed

    def loss_and_gradient(
        self, x: tf.Tensor, loss: str, draws: int, cap: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """`loss_gradient` at `x`, with its `finite_part`; takes one draw if the model is deterministic."""
        gradient, *others = loss_gradient(self.model, x, self.criterion, self.draws(draws), loss, cap, self.most)
        return finite_part(gradient), *others

    def loss(self, x: tf.Tensor, loss: str, draws: int) -> tuple[tf.Tensor, tf.Tensor]:
        """`mean_loss` at `x`."""
        return mean_loss(self.model, x, self.criterion, self.draws(draws), loss, self.most)

    def confirmed(self, x: tf.Tensor, reached: tf.Tensor) -> tf.Tensor:
        """Confirms examples that met the criterion at `x` on all but one of `SELECTION_DRAWS` fresh draws.

        Attacks that minimize the norm ask at every step, so that a lucky draw does not pass for a small successful
        perturbation. A majority would not do, because the smallest of many candidates is also the luckiest.
        """
        if self.deterministic:
            return reached

        def again() -> tf.Tensor:
            share = self.loss(x, "margin", SELECTION_DRAWS)[1]
            return reached & (share > (SELECTION_DRAWS - 1.5) / SELECTION_DRAWS)

        return tf.cond(tf.reduce_any(reached), again, lambda: tf.identity(reached))

    def draws(self, wanted: int) -> int:
        """Number of draws to average over."""
        return 1 if self.deterministic else wanted


def choose(mask: tf.Tensor, these: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Returns `these` where the mask (batch,) holds, otherwise `others`, per example; both (batch, ...)."""
    # Unlike `tf.where`, this selects whole rows without broadcasting the mask.
    return tf.raw_ops.Select(condition=mask, x=these, y=others)
