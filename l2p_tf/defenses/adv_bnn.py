"""Adversarial training of a Bayesian network (Adv-BNN; Liu, Li, Wu and Hsieh, ICLR 2019)."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from l2p_tf.defenses.base import DEFENSES, PGDDefense
from l2p_tf.layers.bayesian import BayesianConv, BayesianDense, BayesianNorm, BayesianWeights
from l2p_tf.layers.factory import LayerFactory
from l2p_tf.layers.noise import noise_layers
from l2p_tf.options import option
from l2p_tf.training.base import RobustTrainer


@DEFENSES.register("adv_bnn")
@dataclasses.dataclass(frozen=True)
class AdvBNN(PGDDefense):
    """Adv-BNN: a Gaussian for every weight, trained on the evidence lower bound under attack.

    The published training uses Adam at 0.01: pass `--optimizer=adam --learning_rate=0.01`.
    """

    step_size: float = option(0.007, "step of the training attack", low=0)
    steps: int = option(10, "steps of the training attack", low=1)
    random_start: bool = option(False, "start the training attack at a random point of the ball")
    prior_std: float = option(0.08, "standard deviation of every weight's prior, whose mean is 0", above=0)
    initial_std: float = option(0.08, "standard deviation of every weight's posterior at the start", above=0)
    kl_weight: float = option(0.02, "weight of KL / number of training images in the loss", low=0)
    kl_epochs: int = option(0, "epochs over which the KL's weight rises from 0, linearly; 0 for none", low=0)
    prediction_draws: int = option(50, "draws of the weights that one answer averages", low=1)

    @property
    def own_layers(self) -> tuple[type[keras.layers.Layer], ...]:
        """Bayesian layers."""
        return (BayesianWeights,)

    def factory(self, seed: int) -> LayerFactory:
        """Returns the factory of layers with Gaussian weights."""
        return _Factory(self, seed)

    def make_trainer(self, classifier: keras.Model, seed: int, examples: int) -> RobustTrainer:
        """Returns the trainer that adds the KL to the loss."""
        return AdvBNNTrainer(classifier, self, seed, examples)


class _Factory(LayerFactory):
    def __init__(self, options: AdvBNN, seed: int) -> None:
        super().__init__(seed)
        self.options = options

    def _how(self, name: str) -> dict[str, Any]:
        o = self.options
        return {"prior_std": o.prior_std, "initial_std": o.initial_std, "seed": self.next_seed(), "name": name}

    def conv(
        self, x: keras.KerasTensor, filters: int, kernel_size: int, name: str, **options: Any
    ) -> keras.KerasTensor:
        return BayesianConv(filters=filters, kernel_size=kernel_size, **options, **self._how(name))(x)

    def norm(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        return BayesianNorm(**self._how(name))(x)

    def dense(self, x: keras.KerasTensor, units: int, name: str) -> keras.KerasTensor:
        return BayesianDense(units=units, **self._how(name))(x)


class AdvBNNTrainer(RobustTrainer):
    """Minimizes the cross-entropy under attack + weight / N * KL(posterior || prior), the KL summed over all layers.

    Each pass draws the weights once; the attack has draws of its own. In the history, `loss` is the cross-entropy and
    `kl` the divergence, in nats.
    """

    def __init__(self, classifier: keras.Model, options: AdvBNN, seed: int, examples: int) -> None:
        super().__init__(classifier, options.attack, seed=seed, **options.mixture())
        self.settings, self.examples = options, examples
        self.kl_scale = self.add_weight(name="kl_scale", shape=(), initializer="zeros", trainable=False)
        self.add_means("kl")

    def begin_epoch(self, epoch: int) -> dict[str, float]:
        """Sets the weight of the KL."""
        facts = super().begin_epoch(epoch)
        o = self.settings
        share = min(1.0, (epoch + 1) / o.kl_epochs) if o.kl_epochs else 1.0
        self.kl_scale.assign(share * o.kl_weight / self.examples)
        return {**facts, "kl_weight": share * o.kl_weight}

    def kl(self) -> tf.Tensor:
        """Divergence of all layers' posteriors from their priors, in nats: a scalar."""
        layers = [layer for layer in noise_layers(self.classifier) if isinstance(layer, BayesianWeights)]
        return tf.reduce_sum(tf.stack([layer.kl() for layer in layers]))

    def penalty(self) -> tf.Tensor:
        """Returns the KL term of the loss."""
        kl = self.kl()
        self.means["kl"].update_state(kl)
        return self.kl_scale.value * kl
