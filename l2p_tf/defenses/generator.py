"""Adversarial training with a perturbation generator network, as a minimax game of classifier and generator."""

from __future__ import annotations

import dataclasses

import keras
import tensorflow as tf

from l2p_tf.attacks.tanh_space import GRADIENTS, MARGIN, gradient_image, pushed
from l2p_tf.defenses.base import DEFENSES, AdversarialDefense
from l2p_tf.models.perturbation_generator import build_generator
from l2p_tf.options import option
from l2p_tf.training.base import ADVERSARIAL, RobustTrainer
from l2p_tf.training.losses import Batch, batch_mean, cross_entropy, watch
from l2p_tf.training.phases import Phase, generators_of
from l2p_tf.types import UserError


@DEFENSES.register("generator")
@dataclasses.dataclass(frozen=True)
class GeneratorTraining(AdversarialDefense):
    """Perturbation generator network: learns perturbations that raise the loss, against a classifier trained on them.

    `alternating` trains each player on its own tape, the generator first; `joint` trains both from one pass of the
    classifier. The published training uses Adam at 5e-4: pass `--optimizer=adam --learning_rate=5e-4 --ema=0.998`.
    """

    c_l: float = option(50.0, "c_L: weight of the perturbation's squared l_2 norm in the generator's loss", low=0)
    penalty: str = option(
        "pixels", "norm of what: the change of the pixels, or the raw output", choices=("pixels", "raw")
    )
    gradient: str = option("unit", "scale of the gradient the generator is shown", choices=GRADIENTS)
    margin: float = option(
        MARGIN,
        "share by which pixels are drawn from 0 and 1 before atanh; a larger one lets those move",
        above=0,
        high=0.5,
    )
    update: str = option(
        "alternating", "a tape for each player; or one pass for both", choices=("alternating", "joint")
    )
    generator_steps: int = option(1, "generator steps on each batch (alternating)", low=1)
    generator_width: float = option(1.0, "multiplies the generator's channels", above=0)
    generator_rate: float = option(
        5e-4, "learning rate of the generator's Adam at the start; it falls when the classifier's does", above=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.adversarial_weight:
            raise UserError("generator: `adversarial_weight` should be above 0: the classifier plays against it.")
        if self.attack_label != "true":
            raise UserError(f"generator: `attack_label` should be true. Received: {self.attack_label!r}")
        if self.update == "joint" and (self.generator_steps > 1 or self.one_batch):
            raise UserError("generator: `generator_steps` and `one_batch` need update=alternating.")

    def make_trainer(self, classifier: keras.Model, seed: int, examples: int) -> RobustTrainer:
        """Returns the trainer of both networks."""
        del examples
        return GeneratorTrainer(classifier, self, seed)


class GeneratorTrainer(RobustTrainer):
    """Plays Equation 4's minimax game: the generator ascends Loss(x', y) - c_L * |perturbation|^2.

    `alternating` updates the generator first, against the classifier with batch norm in inference mode; then the
    classifier trains on the updated generator's images. `joint` takes both gradients at the old weights from one pass,
    with batch norm in training mode. In the history, `generator_objective` is what the generator ascends and
    `perturbation_l2` the mean norm of its perturbations.
    """

    def __init__(self, classifier: keras.Model, options: GeneratorTraining, seed: int = 0) -> None:
        super().__init__(classifier, seed=seed, **options.mixture())
        self.settings = options
        self.classes = int(classifier.output_shape[-1])
        self.generator = build_generator(classifier.input_shape[1:], self.classes, options.generator_width)
        self.generator_optimizer = keras.optimizers.Adam(options.generator_rate, epsilon=1e-8, name="generator_adam")
        self.add_means("generator_objective", "perturbation_l2")

    @property
    def attacks(self) -> bool:
        """True: the generator attacks."""
        return True

    @property
    def auxiliary_models(self) -> dict[str, keras.Model]:
        """The generator."""
        return {"generator": self.generator}

    @property
    def optimizers(self) -> list[keras.optimizers.Optimizer]:
        """The optimizers of the classifier and of the generator."""
        return [self.optimizer, self.generator_optimizer]

    def set_rate(self, rate: float, share: float = 1.0) -> None:
        """Sets the rates: the generator's own, with the same drops as the classifier's."""
        super().set_rate(rate)
        self.generator_optimizer.learning_rate.assign(share * self.settings.generator_rate)

    def build_optimizers(self) -> None:
        """Creates the slots of both optimizers."""
        super().build_optimizers()
        self.generator_optimizer.build(self.generator.trainable_variables)

    @property
    def noise_generators(self) -> list[keras.Variable]:
        """Seed generators of both networks."""
        return [*super().noise_generators, *generators_of(self.generator)]

    def update(self, batch: Batch, phase: Phase) -> None:
        """Takes one step of both networks; before the adversarial phase, of the classifier only."""
        if ADVERSARIAL not in phase:
            self.update_classifier(batch)
            return
        gradient = self.gradient_of(batch)
        if self.settings.update == "joint":
            self._step_jointly(batch, gradient)
            return
        for _ in range(self.settings.generator_steps):
            self.generator_step(batch, gradient)
        self.update_classifier(batch._replace(adversarial=tf.stop_gradient(self.made(batch, gradient)[0])))

    def perturbed(self, batch: Batch) -> tf.Tensor:
        """Returns the current generator's adversarial images."""
        return tf.stop_gradient(self.made(batch, self.gradient_of(batch))[0])

    def gradient_of(self, batch: Batch) -> tf.Tensor:
        """Returns the classifier's gradient, the generator's input."""
        return gradient_image(self.classifier, batch.images, batch.labels, self.settings.gradient)

    def made(self, batch: Batch, gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the generator's adversarial images and the mean squared norm of the penalized quantity."""
        push = self.generator([gradient, batch.images, tf.one_hot(batch.labels, self.classes)], training=True)
        adversarial = pushed(batch.images, push, self.settings.margin)
        penalized = adversarial - batch.images if self.settings.penalty == "pixels" else push
        return adversarial, tf.reduce_mean(tf.reduce_sum(tf.square(penalized), [1, 2, 3]))

    def generator_step(self, batch: Batch, gradient: tf.Tensor) -> None:
        """Takes one ascent step of the generator; the classifier does not change."""

        def loss() -> tf.Tensor:
            adversarial, size = self.made(batch, gradient)
            objective = self._objective(batch, self.classifier(adversarial, training=False), size)
            self._record_game(objective, batch.images, adversarial)
            return -objective

        self.descend(loss, (self.generator_optimizer, self.generator.trainable_variables))

    def _objective(self, batch: Batch, logits: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        return batch_mean(cross_entropy(batch.labels, logits), batch.sample_weight) - self.settings.c_l * size

    def _step_jointly(self, batch: Batch, gradient: tf.Tensor) -> None:
        of_generator, w = self.generator.trainable_variables, self.classifier_weights
        with tf.GradientTape(watch_accessed_variables=False) as making:
            watched_generator = watch(making, of_generator)
            adversarial, size = self.made(batch, gradient)
        with tf.GradientTape(watch_accessed_variables=False) as judging:
            watched_w = watch(judging, w)
            judging.watch(adversarial)
            logits = self.answers(batch._replace(adversarial=adversarial))
            loss = self.compute_loss(batch.images, batch.labels, logits, batch.sample_weight)
            total = self.scaled(loss + self.penalty())
        *w_gradients, slope = judging.gradient(total, [*watched_w, adversarial])
        # The loss contains the weighted adversarial loss; the penalty does not depend on the adversarial images.
        up = -slope / self.adversarial_weight
        ascent = making.gradient(
            [adversarial, size], watched_generator, [up, self.scaled(tf.constant(self.settings.c_l))]
        )
        self.apply([*ascent, *w_gradients], (self.generator_optimizer, of_generator), (self.optimizer, w))
        self.record(loss, batch, logits)
        self._record_game(self._objective(batch, logits["adversarial"][0], size), batch.images, adversarial)

    def _record_game(self, objective: tf.Tensor, images: tf.Tensor, adversarial: tf.Tensor) -> None:
        self.means["generator_objective"].update_state(objective, tf.shape(images)[0])
        lengths = tf.sqrt(tf.reduce_sum(tf.square(adversarial - images), [1, 2, 3]))
        self.means["perturbation_l2"].update_state(lengths)
