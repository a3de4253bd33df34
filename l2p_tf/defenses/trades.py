"""TRADES (Zhang, Yu, Jiao, Xing, El Ghaoui and Jordan, ICML 2019): trades accuracy for robustness by a divergence."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from l2p_tf.attacks.context import AttackContext, State
from l2p_tf.attacks.criterion import Criterion, divergence
from l2p_tf.attacks.pgd import PGD
from l2p_tf.attacks.randomness import standard_normal
from l2p_tf.defenses.base import DEFENSES, PGDDefense
from l2p_tf.options import option
from l2p_tf.training.base import RobustTrainer
from l2p_tf.training.losses import batch_mean, cross_entropy
from l2p_tf.types import UserError


@DEFENSES.register("trades")
@dataclasses.dataclass(frozen=True)
class Trades(PGDDefense):
    """TRADES: clean cross-entropy plus beta times the divergence between predictions on clean and attacked images.

    The training attack ascends the same divergence, starting at the image plus slight noise. `beta`, the paper's 1 /
    lambda, is `adversarial_weight`. Defaults are the paper's for CIFAR-10.
    """

    epsilon: float = option(0.031, "radius of the ball the training attack searches, in pixels of [0, 1]", low=0)
    step_size: float = option(0.007, "step of the training attack", low=0)
    steps: int = option(10, "steps of the training attack", low=1)
    clean_weight: float = option(1.0, "weight of the clean loss", above=0)
    adversarial_weight: float = option(6.0, "beta = 1 / lambda: weight of the divergence", above=0)
    start_std: float = option(0.001, "standard deviation of the Gaussian noise the attack starts with", low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, usual in (("random_start", True), ("attack_label", "true"), ("one_batch", False)):
            if getattr(self, name) != usual:
                raise UserError(
                    f"trades: `{name}` should be {usual}: its attack knows no label and has a start of its own. "
                    f"Received: {getattr(self, name)!r}"
                )

    @property
    def attack(self) -> Divergence:
        """PGD on the divergence."""
        keys = ("epsilon", "step_size", "steps", "norm", "start_std")
        return Divergence(**{key: getattr(self, key) for key in keys})

    def make_trainer(self, classifier: keras.Model, seed: int, examples: int) -> RobustTrainer:
        """Returns the trainer with the divergence in its loss."""
        del examples
        return TradesTrainer(classifier, self.attack, seed=seed, **self.mixture())


@dataclasses.dataclass(frozen=True)
class Divergence(PGD):
    """PGD on the divergence from the prediction on the clean image. For training steps only."""

    loss: str = option("divergence", "loss to ascend", choices=("divergence",))
    start_std: float = option(0.001, "standard deviation of the noise at the start", low=0)

    def begin(self, context: AttackContext) -> State:
        """Starts at the image plus slight Gaussian noise: at the image itself the gradient is zero."""
        shape = [context.batch, *context.images.shape[1:]]
        start = context.images + self.start_std * standard_normal(shape, context.fold(0))
        return {"adversarial": tf.clip_by_value(start, 0.0, 1.0)}

    def criterion(self, model: keras.Model, images: tf.Tensor, labels: tf.Tensor) -> Criterion:
        """Criterion: to leave the prediction on the clean image."""
        return Criterion(labels, reference=tf.stop_gradient(model(images, training=False)))


class TradesTrainer(RobustTrainer):
    """Minimizes cross-entropy(f(x), y) + beta * KL(f(x) || f(x')) (Equation 5); gradients flow to both predictions."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_means("divergence")

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> tf.Tensor:
        """Returns the loss of the two halves; each passes by itself, with its own batch statistics."""
        if "adversarial" not in y_pred:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        clean = batch_mean(cross_entropy(y, y_pred["clean"][0]), sample_weight)
        return self.clean_weight * clean + self.adversarial_weight * self._apart(y_pred, sample_weight)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Also updates the divergence."""
        if "adversarial" in y_pred:
            self.means["divergence"].update_state(self._apart(y_pred, sample_weight), tf.shape(y)[0])
        return super().compute_metrics(x, y, y_pred, sample_weight)

    @staticmethod
    def _apart(y_pred: dict[str, list[tf.Tensor]], sample_weight: tf.Tensor | None) -> tf.Tensor:
        return batch_mean(divergence(y_pred["clean"][0], y_pred["adversarial"][0]), sample_weight)
