"""Base class of defenses: options, a factory of layers, and a trainer."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

import keras

from l2p_tf.attacks.pgd import PGD
from l2p_tf.classifier import as_classifier
from l2p_tf.layers.factory import LayerFactory
from l2p_tf.options import Options, option
from l2p_tf.radii import check_radii
from l2p_tf.registry import Registry, spec_of
from l2p_tf.training.base import RobustTrainer, TrainingAttack
from l2p_tf.types import Norm, UserError


@dataclasses.dataclass(frozen=True)
class Defense(Options, abc.ABC):
    """A way to make a classifier robust. Registered defenses are named by specs such as `pgd(epsilon=8/255)`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_radii(self)

    def factory(self, seed: int) -> LayerFactory:
        """Returns the factory that builds the architecture's layers; plain layers by default.

        Args:
          seed: seed of all noise.
        """
        return LayerFactory(seed)

    @property
    def own_layers(self) -> tuple[type[keras.layers.Layer], ...]:
        """Layer types that its factory makes and its training needs: at least one of each per classifier."""
        return ()

    def trainer(self, classifier: keras.Model, seed: int, examples: int) -> RobustTrainer:
        """Returns the uncompiled trainer of a classifier built with this defense's factory.

        Args:
          classifier: the network; if the defense has no `own_layers`, any functional or Sequential model from images in
          [0, 1] to logits. A final softmax is removed, with a note; the weights are shared.
          seed: seed of the trainer's own randomness.
          examples: number of training images.

        Raises:
          UserError: the classifier lacks the defense's own layers, or cannot be trained.
        """
        classifier = as_classifier(classifier)
        if not getattr(classifier, "outputs", None):
            raise UserError(
                f"The classifier {classifier.name!r} should be a functional or Sequential model, which tells shapes "
                "and classes: make one by keras.Model(images, model(images)), with images = keras.Input(image_shape)."
            )
        layers = list(classifier._flatten_layers(include_self=False))
        missing = [kind.__name__ for kind in self.own_layers if not any(isinstance(layer, kind) for layer in layers)]
        if missing:
            raise UserError(
                f"The classifier {classifier.name!r} has no layer of {' and '.join(missing)}, which this defense "
                f"needs. Build one that has: MODELS.parse('resnet_v1').build(image_shape, classes, "
                f"DEFENSES.parse({spec_of(self)!r}).factory(seed))"
            )
        return self.make_trainer(classifier, seed, examples)

    @abc.abstractmethod
    def make_trainer(self, classifier: keras.Model, seed: int, examples: int) -> RobustTrainer:
        """Returns the trainer; `trainer` has checked the arguments."""

    @property
    def trains_on_attacks(self) -> bool:
        """Whether the best model of a training is chosen by robust rather than clean accuracy."""
        return False

    @property
    def draws_per_answer(self) -> int:
        """Number of noise draws whose softmax each prediction averages."""
        return int(getattr(self, "prediction_draws", None) or 1)


@dataclasses.dataclass(frozen=True)
class AdversarialDefense(Defense):
    """Base of the defenses that attack every batch: weights and schedule of the clean and the adversarial loss."""

    attack_label: str = option("true", "label the training attack leaves", choices=("true", "predicted"))
    clean_weight: float = option(0.0, "alpha: weight of the clean loss", low=0)
    adversarial_weight: float = option(1.0, "beta: weight of the adversarial loss; 0 attacks nothing", low=0)
    adversarial_epoch: int = option(0, "first epoch trained on adversarial images", low=0)
    clean_probability: float = option(0.0, "probability with which a batch is trained on clean instead", low=0, high=1)
    one_batch: bool = option(False, "clean and adversarial images in one batch: faster, but batch norm sees both")

    @property
    def attack(self) -> TrainingAttack | None:
        """The training attack; None if the trainer makes adversarial images itself."""
        return None

    @property
    def trains_on_attacks(self) -> bool:
        """True, unless the adversarial loss has no weight."""
        return self.adversarial_weight > 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.clean_weight and not self.adversarial_weight:
            raise UserError(f"{type(self).__name__}: `clean_weight` or `adversarial_weight` should be above 0.")
        if self.clean_probability == 1:
            raise UserError(f"{type(self).__name__}: `clean_probability` should be below 1; `none` attacks nothing.")

    def make_trainer(self, classifier: keras.Model, seed: int, examples: int) -> RobustTrainer:
        """Returns the common trainer with this defense's attack and weights."""
        del examples
        return RobustTrainer(classifier, self.attack, seed=seed, **self.mixture())

    def mixture(self) -> dict[str, Any]:
        """Returns the trainer's arguments set by these options."""
        names = [f.name for f in dataclasses.fields(AdversarialDefense)]
        return {name: getattr(self, name) for name in names}


@dataclasses.dataclass(frozen=True)
class PGDDefense(AdversarialDefense):
    """Base of the defenses that attack every batch with PGD: options of the attack."""

    epsilon: float = option(8 / 255, "radius of the ball the training attack searches, in pixels of [0, 1]", low=0)
    step_size: float | None = option(0.01, "step of the training attack; None takes 2.5 epsilon / steps", low=0)
    steps: int = option(7, "steps of the training attack", low=1)
    norm: Norm = option(Norm.LINF, "norm of the ball: linf, l2 or l1")
    random_start: bool = option(True, "start the training attack at a random point of the ball")

    @property
    def attack(self) -> PGD:
        """PGD with these options."""
        keys = ("epsilon", "step_size", "steps", "norm", "random_start")
        return PGD(**{key: getattr(self, key) for key in keys})


@dataclasses.dataclass(frozen=True)
class DerivedDefense(Defense):
    """Base of the defenses derived from the classifier of another run, without training."""

    run: str = option("", "name of the trained run to take the classifier of; in quotes where it has a `-`")
    prediction_draws: int | None = option(
        None, "draws of the noise that one answer averages; None for as many as the run's own answers do", low=1
    )

    @abc.abstractmethod
    def derive(self, classifier: keras.Model, seed: int) -> keras.Model:
        """Returns the defended classifier made from a trained one."""

    def make_trainer(self, classifier: keras.Model, seed: int, examples: int) -> RobustTrainer:
        """Raises UserError, because there is nothing to train."""
        raise UserError(f"{type(self).__name__} is made from a trained run, not trained: `run` should name one.")


DEFENSES: Registry[Defense] = Registry("defense", "l2p_tf.defenses")
