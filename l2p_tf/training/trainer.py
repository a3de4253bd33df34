"""The trainer that all defences share: a Keras model around a classifier, whose step is compiled once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from l2p_tf.attacks.randomness import uniform
from l2p_tf.inference import to_unit
from l2p_tf.layers.noise import noise_layers, noise_parameters, set_noise
from l2p_tf.types import UserError


class TrainingAttack(Protocol):
    """What makes the adversarial images of a training step: any `Loop`, or another thing that can do this."""

    def perturb(self, model: keras.Model, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Adversarial images within a graph, through which no gradient flows; arguments as of `Loop.perturb`."""


class RobustTrainer(keras.Model):
    """Trains `classifier` on alpha * clean loss + beta * adversarial loss (supplement of Learn2Perturb, Equation 3).

    Use it like any Keras model: `compile(optimizer)`, then `fit(batches)`, batches being (images, labels) with uint8
    images, or floats in [0, 1]. What changes over epochs lives in variables that `begin_epoch` sets, so one trace
    serves the whole run. A defence subclasses it and overrides `update` (its step), `attacked_loss` (what it makes of the
    two halves of a batch), `penalty` or `begin_epoch`.

    Args:
      classifier: the network; its noise, if any, is on from `noise_epoch` on.
      attack: makes the adversarial half of a batch, within the step; None trains on clean images alone.
      clean_weight: alpha.
      adversarial_weight: beta; with 0 no attack is run.
      adversarial_epoch: the first epoch that trains on adversarial images; clean images alone until then.
      natural_share: probability with which a batch is trained on as it is, by its clean loss alone.
      noise_epoch: the first epoch with noise.
      attack_label: `true` attacks the true label, `predicted` the label the classifier gives the clean image.
      one_batch: run clean and adversarial images as one batch, which changes what batch norm sees.
      seed: of the attack's random starts.

    Raises:
      UserError: it is made under a distribution strategy of several replicas.
    """

    def __init__(
        self,
        classifier: keras.Model,
        attack: TrainingAttack | None = None,
        *,
        clean_weight: float = 1.0,
        adversarial_weight: float = 0.0,
        adversarial_epoch: int = 0,
        natural_share: float = 0.0,
        noise_epoch: int = 0,
        attack_label: str = "true",
        one_batch: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(name="trainer")
        if self.distribute_strategy.num_replicas_in_sync > 1:
            # Losses, noise and the conditions in the steps are those of one device.
            raise UserError(
                "Training runs on one device: build the trainer outside the distribution strategy. "
                f"Received: {self.distribute_strategy.num_replicas_in_sync} replicas"
            )
        self.classifier = classifier
        self.attack = attack if adversarial_weight else None
        self.clean_weight, self.adversarial_weight = clean_weight, adversarial_weight
        self.adversarial_epoch, self.noise_epoch = adversarial_epoch, noise_epoch
        self.attack_label, self.one_batch, self.natural_share = attack_label, one_batch, natural_share
        self.attack_seed = keras.random.SeedGenerator(seed)
        self.adversarial_on = self.add_weight(
            name="adversarial_on", shape=(), dtype="bool", initializer="zeros", trainable=False
        )
        names = ["loss", "clean_loss", "adversarial_loss", "clean_accuracy", "adversarial_accuracy"]
        self.means = {name: keras.metrics.Mean(name=name) for name in names}
        self.decay = 0.0
        self.averages: list[keras.Variable] = []
        self.built = True

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The running means of losses and accuracies over the epoch."""
        return list(self.means.values())

    @property
    def noise_parameters(self) -> list[keras.Variable]:
        """The trainable parameters of the noise; weight decay never touches them."""
        return noise_parameters(self.classifier)

    @property
    def weights_w(self) -> list[keras.Variable]:
        """What `optimizer` trains: all of the classifier, unless a defence trains its noise apart."""
        return list(self.classifier.trainable_variables)

    @property
    def optimizers(self) -> list[keras.optimizers.Optimizer]:
        """Every optimizer whose rate follows the schedule and whose slots belong to the state."""
        return [self.optimizer]

    @property
    def attacks(self) -> bool:
        """Whether there is an adversarial part at all."""
        return self.attack is not None

    def set_rate(self, rate: float, share: float = 1.0) -> None:
        """Sets the learning rate of every optimizer.

        Args:
          rate: of the epoch.
          share: that rate as a share of the one at the start, for optimizers with a rate of their own.
        """
        del share
        for optimizer in self.optimizers:
            optimizer.learning_rate.assign(rate)

    def build_optimizers(self) -> None:
        """Creates the optimizers' slots, so that a state can be restored before the first step."""
        self.optimizer.exclude_from_weight_decay(var_list=self.noise_parameters)
        self.optimizer.build(self.weights_w)

    def begin_epoch(self, epoch: int) -> dict[str, float]:
        """Sets the variables that depend on the epoch; returns what the history should show of them."""
        self.adversarial_on.assign(self.attacks and epoch >= self.adversarial_epoch)
        noisy = epoch >= self.noise_epoch
        set_noise(self.classifier, noisy)
        return {"noise_active": float(noisy)} if noise_layers(self.classifier) else {}

    def is_mature(self, epoch: int) -> bool:
        """Whether the model of this epoch is what the method is about: its noise on, its adversarial part begun."""
        noisy = not noise_layers(self.classifier) or epoch >= self.noise_epoch
        return noisy and (not self.attacks or epoch >= self.adversarial_epoch)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The classifier's logits."""
        return self.classifier(inputs, training=training)

    def keep_averages(self, decay: float) -> None:
        """Follows the classifier's weights by an exponential moving average: average += (1 - decay) * (weight - average).

        Trained weights and the moving averages of batch norm are followed. Call it once, before the first step.

        Args:
          decay: in (0, 1), of each step; the average starts at the weights.
        """
        self.decay = decay
        for variable in self._followed():
            average = self.add_weight(name=f"average_{len(self.averages)}", shape=variable.shape, trainable=False)
            average.assign(variable)
            self.averages.append(average)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it the classifier has its averaged weights, where they are kept: those that are judged and saved."""
        own = [(v, keras.ops.convert_to_numpy(v)) for v in self._followed()] if self.averages else []
        try:
            for (variable, _), average in zip(own, self.averages, strict=True):
                variable.assign(average)
            yield
        finally:
            for variable, value in own:
                variable.assign(value)

    @property
    def companions(self) -> dict[str, keras.Model]:
        """Networks trained beside the classifier, by name; they are saved with it."""
        return {}

    def train_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Attacks the batch once, then updates; returns the running means."""
        images, labels = data
        images = to_unit(images)
        labels = tf.cast(labels, tf.int32)

        def attacked() -> tf.Tensor:
            self.attacked_step(images, labels)
            return tf.constant(0)

        def natural() -> tf.Tensor:
            self.update(images, None, labels)
            return tf.constant(0)

        self._when_attacked(attacked, natural)
        for average, variable in zip(self.averages, self._followed() if self.averages else (), strict=True):
            average.assign_add((1.0 - self.decay) * (tf.convert_to_tensor(variable) - tf.convert_to_tensor(average)))
        return self.get_metrics_result()

    def attacked_step(self, images: tf.Tensor, labels: tf.Tensor) -> None:
        """One step on a batch that is attacked."""
        self.update(images, self.perturbed(images, labels), labels)

    def perturbed(self, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """The batch under attack."""
        assert self.attack is not None
        if self.attack_label == "predicted":
            labels = tf.argmax(self.classifier(images, training=False), -1, tf.int32)
        return self.attack.perturb(self.classifier, images, labels, self.attack_seed.next())

    def _when_attacked(self, yes: Callable[[], Any], no: Callable[[], Any]) -> None:
        """`yes()` for a batch that is attacked, else `no()`; no condition where all batches of a training are alike."""
        if not self.attacks:
            no()
            return
        conditions = [self.adversarial_on.value] if self.adversarial_epoch else []
        if self.natural_share:
            conditions.append(uniform([], self.attack_seed.next()) >= self.natural_share)
        if conditions:
            tf.cond(tf.reduce_all(tf.stack(conditions)), yes, no)
        else:
            yes()

    def _followed(self) -> list[keras.Variable]:
        """What an average of the weights follows: all numbers of the classifier that training moves."""
        return [v for v in self.classifier.weights if v.dtype in ("float32", "bfloat16")]

    def update(self, images: tf.Tensor, adversarial: tf.Tensor | None, labels: tf.Tensor) -> None:
        """One step of W on one batch; arguments as of `mixed_loss`."""
        self.update_w(images, adversarial, labels)

    def update_w(self, images: tf.Tensor, adversarial: tf.Tensor | None, labels: tf.Tensor) -> None:
        """W goes down the loss, on its own tape."""
        variables = self.weights_w
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            watched = watch(tape, variables)
            loss = self.mixed_loss(images, adversarial, labels)
            extra = self.penalty()
            loss = loss if extra is None else loss + extra
        self.optimizer.apply(tape.gradient(loss, watched), variables)

    def penalty(self) -> tf.Tensor | None:
        """What a defence adds to the loss that does not depend on the batch: a scalar; None for nothing."""
        return None

    def mixed_loss(
        self, images: tf.Tensor, adversarial: tf.Tensor | None, labels: tf.Tensor, record: bool = True
    ) -> tf.Tensor:
        """The loss of a batch, batch norm in training mode: a scalar.

        Args:
          images: float32 clean images.
          adversarial: the same under attack; None for a batch that is not attacked, whose clean loss alone counts.
          labels: int32.
          record: add losses and accuracies to the running means.
        """
        if adversarial is None:
            loss = self.passed_loss(images, labels, "clean", record)
        else:
            loss = self.attacked_loss(images, adversarial, labels, record)
        if record:
            self.means["loss"].update_state(loss)
        return loss

    def attacked_loss(
        self, images: tf.Tensor, adversarial: tf.Tensor, labels: tf.Tensor, record: bool = True
    ) -> tf.Tensor:
        """Weighs alpha * clean + beta * adversarial cross-entropy, each the mean over the batch."""
        if not self.clean_weight:
            return self.adversarial_weight * self.passed_loss(adversarial, labels, "adversarial", record)
        if self.one_batch:
            logits = self.classifier(tf.concat([images, adversarial], 0), training=True)
            clean, attacked = tf.split(logits, 2)
            return self.clean_weight * self.cross_entropy(
                clean, labels, "clean", record
            ) + self.adversarial_weight * self.cross_entropy(attacked, labels, "adversarial", record)
        return self.clean_weight * self.passed_loss(
            images, labels, "clean", record
        ) + self.adversarial_weight * self.passed_loss(adversarial, labels, "adversarial", record)

    def passed_loss(self, images: tf.Tensor, labels: tf.Tensor, kind: str, record: bool) -> tf.Tensor:
        """`cross_entropy` of the classifier's answer to some images, batch norm in training mode."""
        return self.cross_entropy(self.classifier(images, training=True), labels, kind, record)

    def cross_entropy(self, logits: tf.Tensor, labels: tf.Tensor, kind: str, record: bool) -> tf.Tensor:
        """Mean cross-entropy of a batch, which it records, with the accuracy, as those of `clean` or `adversarial`."""
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        if record:
            self.means[f"{kind}_loss"].update_state(loss)
            hits = tf.cast(tf.argmax(logits, -1, tf.int32) == labels, tf.float32)
            self.means[f"{kind}_accuracy"].update_state(hits)
        return loss


def watch(tape: tf.GradientTape, variables: Sequence[keras.Variable]) -> list[tf.Variable]:
    """Makes the tape watch these variables; returns them as TensorFlow's."""
    values = [variable.value for variable in variables]
    for value in values:
        tape.watch(value)
    return values


def noise_statistics(classifier: keras.Model) -> dict[str, float]:
    """`<parameter>/<layer>/min`, `mean` and `max` of every trainable parameter of the noise, such as `theta`."""
    statistics: dict[str, float] = {}
    for layer in noise_layers(classifier):
        for variable in layer.noise_parameters:
            values = keras.ops.convert_to_numpy(variable)
            for name, reduce in (("min", np.min), ("mean", np.mean), ("max", np.max)):
                statistics[f"{variable.name}/{layer.name}/{name}"] = float(reduce(values))
    return statistics
