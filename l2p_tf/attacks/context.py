"""What attacks are handed and what they hand back."""

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
"""Draws on which adversarial images of a randomized model are judged, at least."""


class CheckpointStore(Protocol):
    """Keeps arrays by name, so that an attack that was stopped goes on where it was."""

    def load(self, key: str) -> dict[str, np.ndarray] | None:
        """What was saved under the key; None where nothing was."""

    def save(self, key: str, arrays: dict[str, np.ndarray]) -> None:
        """Keeps arrays in place of what was saved under the key before."""


@dataclasses.dataclass(frozen=True)
class AttackOutput:
    """What an attack found, per example. Every array has one entry per image.

    Attributes:
      adversarial: float32 (count, height, width, channels) in [0, 1].
      prediction: int32, the class on fresh draws of the noise (the most frequent one).
      success: float32, share of the scoring draws on which the attack's criterion is reached: any class but the label,
        or a targeted attack's target; 0 or 1 without noise.
      wrong: float32, share of the scoring draws on which the image is misclassified; `success`, unless targeted.
      target: int32, the class that a targeted attack pulls toward; the label where any other class will do.
      probability: float32, the softmax probability of the label, the mean over the scoring draws.
      l0: float32, numbers changed.
      l1: float32, sum of the changes, each without its sign.
      l2: float32, Euclidean norm of the perturbation.
      linf: float32, largest change.
      gradients: int32, backward passes used.
      forwards: int32, forward passes used, those of the gradients included and scoring left out.
      confidence: float32, the softmax probability of the likeliest class, the mean over the scoring draws; None where
        images were searched for.
      brier: float32, the squared distance of the softmax probabilities to 1 for the label and 0 for all others,
        from 0 to 2; None likewise.
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
    """One batch under attack, as an attack's `begin` and `step` see it within a graph.

    Attributes:
      model: the classifier, to be called with `training=False`.
      images: float32 (batch, height, width, channels) in [0, 1].
      criterion: the classes to leave, or to arrive at.
      seed: two integers; of all the attack's own randomness.
      numbers: the options named in `TRACED_OPTIONS`, as float32 scalars.
      deterministic: one pass of the model proves what it answers. False while its noise is on, and in training, which
        wants the greatest loss and no early end.
      most: the largest batch there will be.
      start: int32 scalar, the number of this start.
      elsewhere: for each image another one that is answered as the attack wants, itself where there is none; as
        `images`, and only for an attack that `BEGINS_ELSEWHERE`, as it begins.
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
        """How many images there are: an int32 scalar."""
        return tf.shape(self.images)[0]

    def full(self, value: float | int | bool, dtype: tf.DType = tf.float32) -> tf.Tensor:
        """One value for every example: (batch,)."""
        return tf.fill(tf.shape(self.images)[:1], tf.cast(value, dtype))

    def fold(self, *numbers: int | tf.Tensor) -> tf.Tensor:
        """A seed of its own for each combination of numbers, such as step and purpose."""
        seed = self.seed
        for number in numbers:
            seed = tf.random.fold_in(seed, number, alg=tf.random.Algorithm.PHILOX)
        return seed

    def loss_and_gradient(
        self, x: tf.Tensor, loss: str, draws: int, cap: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """`loss_gradient` at `x`, its `finite_part`; without noise all draws are the same, and one will do."""
        gradient, *others = loss_gradient(self.model, x, self.criterion, self.draws(draws), loss, cap, self.most)
        return finite_part(gradient), *others

    def loss(self, x: tf.Tensor, loss: str, draws: int) -> tuple[tf.Tensor, tf.Tensor]:
        """`mean_loss` at `x`."""
        return mean_loss(self.model, x, self.criterion, self.draws(draws), loss, self.most)

    def confirmed(self, x: tf.Tensor, reached: tf.Tensor) -> tf.Tensor:
        """Of examples that reached the criterion at `x`, those that do on all but one of `SELECTION_DRAWS` fresh draws.

        Attacks of smallest norm ask at every step, so that lucky draws do not pass for a small perturbation that
        succeeds. More than a majority is asked for because the smallest of many candidates is also the luckiest.
        """
        if self.deterministic:
            return reached

        def again() -> tf.Tensor:
            share = self.loss(x, "margin", SELECTION_DRAWS)[1]
            return reached & (share > (SELECTION_DRAWS - 1.5) / SELECTION_DRAWS)

        return tf.cond(tf.reduce_any(reached), again, lambda: tf.identity(reached))

    def draws(self, wanted: int) -> int:
        """How many draws there are to average over."""
        return 1 if self.deterministic else wanted


def choose(mask: tf.Tensor, these: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Per example, `these` where the mask (batch,) holds, otherwise `others`; both (batch, ...)."""
    # Unlike `tf.where` this one takes whole rows, instead of spreading the mask over them.
    return tf.raw_ops.Select(condition=mask, x=these, y=others)
