"""Learn2Perturb (Jeddi et al., CVPR 2020): learned noise on feature maps, training W and theta alternately."""

from __future__ import annotations

import dataclasses

import keras
import tensorflow as tf

from l2p_tf.defenses.base import DEFENSES, PGDDefense
from l2p_tf.layers.batch_norm import frozen_statistics
from l2p_tf.layers.factory import POINTS, InjectingFactory, LayerFactory
from l2p_tf.layers.noise import GRANULARITIES
from l2p_tf.layers.perturbation_injection import PerturbationInjection
from l2p_tf.layers.sampling import SAMPLERS
from l2p_tf.options import option
from l2p_tf.training.base import ADVERSARIAL, Group, RobustTrainer
from l2p_tf.training.losses import Batch
from l2p_tf.training.optimizers import MomentumSGD
from l2p_tf.training.phases import Phase
from l2p_tf.training.schedules import harmonic_tau
from l2p_tf.types import UserError

THETA = "theta"
"""The phase that trains theta."""


@DEFENSES.register("learn2perturb")
@dataclasses.dataclass(frozen=True)
class Learn2Perturb(PGDDefense):
    """Learn2Perturb: trainable noise after every block, with alternating back-propagation of W and theta."""

    clean_weight: float = option(0.5, "alpha: weight of the clean loss", low=0)
    adversarial_weight: float = option(0.5, "beta: weight of the adversarial loss", above=0)
    gamma: float = option(1e-4, "weight of the regularizer g(theta) = -sum sqrt(theta) / tau", low=0)
    warmup_epochs: int = option(20, "epochs before noise and theta phase begin", low=0)
    theta_initial: float = option(0.25, "theta at the start", above=0)
    theta_minimum: float = option(0.01, "theta is projected to at least this", above=0)
    update: str = option("sequential", "W tape, then theta tape; or one tape for both", choices=("sequential", "joint"))
    weight_iterations: int = option(1, "W steps on each batch (sequential)", low=1)
    theta_iterations: int = option(1, "theta steps on each batch (sequential)", low=1)
    regularizer_only: bool = option(False, "Learn2Perturb-R: theta moves by the regularizer alone")
    noise_sharing: str = option("example", "noise drawn per example, or one map a batch", choices=("example", "batch"))
    distribution: str = option("normal", "of the noise", choices=tuple(SAMPLERS))
    granularity: str = option("element", "what shares one theta", choices=GRANULARITIES)
    points: tuple[str, ...] = option(("blocks",), "where noise is added", choices=POINTS)
    theta_momentum: float = option(0.9, "Nesterov momentum of theta's own SGD", low=0, high=0.999)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.theta_minimum > self.theta_initial:
            raise UserError(
                f"learn2perturb: `theta_minimum` should be at most `theta_initial` ({self.theta_initial}). "
                f"Received: {self.theta_minimum}"
            )
        if self.update == "joint" and (self.weight_iterations > 1 or self.theta_iterations > 1):
            raise UserError("learn2perturb: `weight_iterations` and `theta_iterations` need update=sequential.")

    @property
    def own_layers(self) -> tuple[type[keras.layers.Layer], ...]:
        """Noise layers."""
        return (PerturbationInjection,)

    def factory(self, seed: int) -> LayerFactory:
        """Returns plain layers with a perturbation-injection module at the output of the stem and of every block."""

        def module(name: str, seed: int) -> keras.layers.Layer:
            return PerturbationInjection(
                initial=self.theta_initial,
                minimum=self.theta_minimum,
                distribution=self.distribution,
                sharing=self.noise_sharing,
                granularity=self.granularity,
                seed=seed,
                name=name,
            )

        return InjectingFactory(seed, self.points, module)

    def make_trainer(self, classifier: keras.Model, seed: int, examples: int) -> RobustTrainer:
        """Returns the trainer with both phases."""
        del examples
        return Learn2PerturbTrainer(classifier, self, seed)


class Learn2PerturbTrainer(RobustTrainer):
    """Alternating back-propagation (section 3.2, Algorithm 1).

    The W phase keeps theta fixed, and the theta phase W; both use the same adversarial batch. `sequential` takes
    theta's gradient at the new W, on its own tape; `joint` takes both gradients at the old W and theta from one tape,
    as Algorithm 1 is written. theta has its own SGD without weight decay, at the learning rate of W.
    """

    def __init__(self, classifier: keras.Model, options: Learn2Perturb, seed: int = 0) -> None:
        super().__init__(classifier, options.attack, noise_epoch=options.warmup_epochs, seed=seed, **options.mixture())
        self.settings = options
        self.theta_optimizer = MomentumSGD(momentum=options.theta_momentum, name="theta_sgd")
        # gamma / tau of the epoch; 0 during warm-up.
        self.regularizer_weight = self.add_weight(
            name="regularizer_weight", shape=(), initializer="zeros", trainable=False
        )
        self.theta_on = False

    @property
    def classifier_weights(self) -> list[keras.Variable]:
        """W: all trainable variables except theta."""
        theta = {id(v) for v in self.noise_parameters}
        return [v for v in self.classifier.trainable_variables if id(v) not in theta]

    @property
    def optimizers(self) -> list[keras.optimizers.Optimizer]:
        """The optimizers of W and of theta."""
        return [self.optimizer, self.theta_optimizer]

    def build_optimizers(self) -> None:
        """Creates the slots of both optimizers."""
        super().build_optimizers()
        self.theta_optimizer.build(self.noise_parameters)

    def begin_epoch(self, epoch: int) -> dict[str, float]:
        """Sets the noise, the theta phase and tau of the epoch."""
        facts = super().begin_epoch(epoch)
        noisy = epoch >= self.noise_epoch
        tau = harmonic_tau(epoch, self.noise_epoch) if noisy else 0.0
        self.theta_on = noisy
        self.regularizer_weight.assign(self.settings.gamma / tau if noisy else 0.0)
        return {**facts, "tau": tau}

    def phase(self, training: bool = True) -> Phase:
        """Adds `theta` once its phase has begun."""
        return super().phase(training) | (frozenset([THETA]) if self.theta_on else frozenset())

    def update(self, batch: Batch, phase: Phase) -> None:
        """Runs both phases on one batch."""
        batch = batch._replace(adversarial=self.perturbed(batch)) if ADVERSARIAL in phase else batch
        if self.settings.update == "joint" and not self.settings.regularizer_only:
            self._update_jointly(batch, THETA in phase)
            return
        for _ in range(self.settings.weight_iterations):
            self.update_classifier(batch)
        if THETA in phase:
            self._theta_phase(batch)

    def regularizer(self) -> tf.Tensor:
        """Returns gamma * g(theta) = -gamma / tau * sum of sqrt(theta) over all elements (Equation 8)."""
        roots = [tf.reduce_sum(tf.sqrt(tf.cast(tf.convert_to_tensor(v), tf.float32))) for v in self.noise_parameters]
        # `add_n` is avoided: see `descend`.
        return -self.regularizer_weight.value * tf.reduce_sum(tf.stack(roots))

    def _update_jointly(self, batch: Batch, theta_too: bool) -> None:
        if not theta_too:
            self.update_classifier(batch)
            return
        self.descend(
            lambda: (self.batch_loss(batch) + self.penalty(), self.regularizer()),
            (self.optimizer, self.classifier_weights),
            self._theta_group(),
        )

    def _theta_phase(self, batch: Batch) -> None:
        """Updates theta with W fixed, including the moving averages of batch norm."""

        def loss() -> tuple[tf.Tensor, ...]:
            regularizer = self.regularizer()
            return (
                (regularizer,)
                if self.settings.regularizer_only
                else (self.batch_loss(batch, record=False), regularizer)
            )

        for _ in range(self.settings.theta_iterations):
            with frozen_statistics(self.classifier):
                self.descend(loss, self._theta_group())

    def _theta_group(self) -> Group:
        # theta follows the rate of W's optimizer, whether set by a schedule or by a Keras callback.
        self.theta_optimizer.learning_rate.assign(self.optimizer.learning_rate)
        return self.theta_optimizer, self.noise_parameters
