"""The trainer shared by all defenses: a Keras model around a classifier, whose step is compiled once."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from l2p_tf.classifier import computes_in_float16
from l2p_tf.inference import resolve_jit, to_unit
from l2p_tf.layers.noise import noise_layers, noise_parameters, set_noise
from l2p_tf.training.inputs import Accepted
from l2p_tf.training.loss_scale import LossScale
from l2p_tf.training.losses import Batch, Mean, batch_mean, cross_entropy, watch
from l2p_tf.training.optimizers import check_optimizer, sum_nothing
from l2p_tf.training.phases import NoisePhase, Phase, PhasedModel, generators_of, traced_for
from l2p_tf.training.replicas import part
from l2p_tf.types import UserError


class TrainingAttack(Protocol):
    """Makes the adversarial images of a training step, like an `IterativeAttack`."""

    def perturb(self, model: keras.Model, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns adversarial images without gradient, within a graph; arguments as in `IterativeAttack.perturb`."""


Group = tuple[keras.optimizers.Optimizer, Sequence[keras.Variable]]
"""An optimizer and the variables that it updates."""

ADVERSARIAL = "adversarial"
"""The phase in which batches are attacked."""


class RobustTrainer(PhasedModel):
    """Trains `classifier` on alpha * clean loss + beta * adversarial loss (supplement of Learn2Perturb, Equation 3).

    Use it like any Keras model: `compile(optimizer)`, then `fit`, `evaluate`, `train_on_batch` and so on, with uint8
    images or floats in [0, 1], integer labels, and optional sample or class weights. Evaluation attacks as training
    does. Under a `tf.distribute` strategy, create classifier, trainer and optimizer in its scope: replicas then share
    each batch, and the result equals training on one device except for rounding, noise and batch norm statistics, which
    are per replica.

    Whatever changes over epochs is a variable set by `begin_epoch`, or a phase; a step is compiled for each phase. A
    defense subclasses this and overrides `update` (its step), `answers` and `compute_loss` (its use of the two halves
    of a batch), `penalty`, `begin_epoch` or `phase`.

    Weights follow Keras: a loss is the sum of weight times loss over the number of images, an accuracy the weighted
    mean.

    Args:
      classifier: the network; its noise, if any, is on from `noise_epoch`.
      attack: makes the adversarial half of a batch within the step; None trains on clean images only.
      clean_weight: alpha.
      adversarial_weight: beta; no attack runs if it is 0.
      adversarial_epoch: first epoch that trains on adversarial images; earlier ones train on clean images only.
      clean_probability: probability with which a batch is not attacked and trained on by its clean loss.
      noise_epoch: first epoch with noise.
      attack_label: `true` attacks the true label, `predicted` the label predicted for the clean image.
      one_batch: run clean and adversarial images as one batch, which changes the statistics of batch norm.
      seed: seed of the attack's random starts.

    Raises:
      UserError: the classifier was created under another distribution strategy.
    """

    def __init__(
        self,
        classifier: keras.Model,
        attack: TrainingAttack | None = None,
        *,
        clean_weight: float = 1.0,
        adversarial_weight: float = 0.0,
        adversarial_epoch: int = 0,
        clean_probability: float = 0.0,
        noise_epoch: int = 0,
        attack_label: str = "true",
        one_batch: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(name="trainer")
        if classifier._distribute_strategy is not self.strategy:
            raise UserError("Make classifier and trainer in the scope of the same distribution strategy, or of none.")
        self.classifier = classifier
        self.attack = attack if adversarial_weight else None
        self.clean_weight, self.adversarial_weight = clean_weight, adversarial_weight
        self.adversarial_epoch, self.noise_epoch = adversarial_epoch, noise_epoch
        self.attack_label, self.one_batch, self.clean_probability = attack_label, one_batch, clean_probability
        self.seed, self.attack_seed = seed, keras.random.SeedGenerator(seed)
        self.adversarial_on = False
        self.noise_phase = NoisePhase(classifier)
        self.means: dict[str, Mean] = {}
        self.add_means("loss")
        for kind in ("clean", "adversarial") if self.attacks else ("clean",):
            self.add_means(f"{kind}_loss", f"{kind}_accuracy")
        self.decay = 0.0
        self.averages: list[keras.Variable] = []
        self.loss_scale: LossScale | None = None
        self.built = True

    def add_means(self, *names: str) -> None:
        """Adds running means, which appear in logs and history."""
        self.means = {**self.means, **{name: Mean(name=name) for name in names}}

    @property
    def accepted(self) -> Accepted:
        """Accepted images and labels."""
        return Accepted(tuple(self.classifier.input_shape[1:]), int(self.classifier.output_shape[-1]))

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Running means of losses and accuracies over the epoch."""
        return list(self.means.values())

    @property
    def noise_parameters(self) -> list[keras.Variable]:
        """Trainable parameters of the noise, exempt from weight decay."""
        return noise_parameters(self.classifier)

    @property
    def classifier_weights(self) -> list[keras.Variable]:
        """Variables that `optimizer` trains: those of the classifier, unless a defense trains its noise separately."""
        return list(self.classifier.trainable_variables)

    @property
    def optimizers(self) -> list[keras.optimizers.Optimizer]:
        """Optimizers that follow the learning rate schedule and whose slots belong to the state."""
        return [self.optimizer]

    @property
    def attacks(self) -> bool:
        """Whether there is an adversarial phase."""
        return self.attack is not None

    def set_rate(self, rate: float, share: float = 1.0) -> None:
        """Sets the learning rate of every optimizer.

        Args:
          rate: learning rate of the epoch.
          share: that rate divided by the initial one, for optimizers with a rate of their own.
        """
        del share
        for optimizer in self.optimizers:
            optimizer.learning_rate.assign(rate)

    def compile(
        self, optimizer: Any = "rmsprop", loss: Any = None, *, jit_compile: bool | str = "auto", **more: Any
    ) -> None:
        """Sets the optimizer of the classifier's weights; loss and metrics are those of the defense.

        Args:
          optimizer: a Keras optimizer, or its name.
          loss: None.
          jit_compile: compile steps with XLA; `auto` does so if there is a GPU.
          **more: further arguments of Keras's `compile`, except losses and metrics.

        Raises:
          UserError: a loss or a metric is given, several steps per execution if each draws whether it attacks, or XLA
          under a distribution strategy.
        """
        for name, value in {"loss": loss, **more}.items():
            if value is not None and name in ("loss", "loss_weights", "metrics", "weighted_metrics"):
                raise UserError(f"`{name}` should be None: the defense has its own. Received: {value!r}")
        if self.clean_probability and more.get("steps_per_execution", 1) != 1:
            raise UserError("`steps_per_execution` should be 1: each batch draws whether it is attacked.")
        if self.strategy is not None and jit_compile is True:
            raise UserError("`jit_compile` should be False or auto under a distribution strategy. Received: True")
        jit = self.strategy is None and resolve_jit(None if jit_compile == "auto" else bool(jit_compile))
        # In float16 all optimizers share one scale, whereas Keras would use one for each.
        super().compile(optimizer=optimizer, jit_compile=jit, auto_scale_loss=False, **more)
        check_optimizer(self.optimizer, self.classifier_weights)
        with self.strategy.scope() if self.strategy else contextlib.nullcontext():
            self.build_optimizers()
            if self.strategy is None:
                sum_nothing(self.optimizers)
            networks = (self.classifier, *self.auxiliary_models.values())
            if self.loss_scale is None and any(map(computes_in_float16, networks)):
                self.loss_scale = LossScale(self.add_weight)
        self.begin_epoch(0)

    def build_optimizers(self) -> None:
        """Creates the optimizers' slots, so that a state can be restored before the first step; called by `compile`."""
        self.optimizer.exclude_from_weight_decay(var_list=self.noise_parameters)
        self.optimizer.build(self.classifier_weights)

    def begin_epoch(self, epoch: int) -> dict[str, float]:
        """Sets whatever depends on the epoch; returns values for the history.

        `compile` calls it for the first epoch, and `fit` when an epoch begins.
        """
        self.adversarial_on = self.attacks and epoch >= self.adversarial_epoch
        noisy = epoch >= self.noise_epoch
        set_noise(self.classifier, noisy)
        facts = {"noise_active": float(noisy)} if noise_layers(self.classifier) else {}
        return facts if self.loss_scale is None else {**facts, "loss_scale": self.loss_scale.checked()}

    def is_mature(self, epoch: int) -> bool:
        """Whether the complete method is active in this epoch: its noise is on and its adversarial phase has begun."""
        noisy = not noise_layers(self.classifier) or epoch >= self.noise_epoch
        return noisy and (not self.attacks or epoch >= self.adversarial_epoch)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the classifier's logits."""
        return self.classifier(to_unit(inputs), training=training)

    def keep_averages(self, decay: float) -> None:
        """Keeps exponential moving averages of the weights: average += (1 - decay) * (weight - average).

        Covers trained weights and the moving averages of batch norm. Call it once, before the first step.

        Args:
          decay: in (0, 1), per step; the averages start at the weights.
        """
        self.decay = decay
        for variable in self._followed():
            average = self.add_weight(name=f"average_{len(self.averages)}", shape=variable.shape, trainable=False)
            average.assign(variable)
            self.averages.append(average)

    @contextlib.contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Gives the classifier its averaged weights, if kept: those that are evaluated and saved."""
        own = [(v, keras.ops.convert_to_numpy(v)) for v in self._followed()] if self.averages else []
        try:
            for (variable, _), average in zip(own, self.averages, strict=True):
                variable.assign(average)
            yield
        finally:
            for variable, value in own:
                variable.assign(value)

    @property
    def auxiliary_models(self) -> dict[str, keras.Model]:
        """Networks trained along with the classifier, by name; they are saved with it."""
        return {}

    def phase(self, training: bool = True) -> Phase:
        """Returns the phase: `adversarial` if the batch is attacked (random in training), and `noise` or `no noise`."""
        attacked = self.adversarial_on
        if attacked and training and self.clean_probability:
            # Seeded by the step number, so that resumed training draws the same.
            with tf.init_scope():
                step = int(keras.ops.convert_to_numpy(self.optimizer.iterations))
            random = np.random.Generator(np.random.Philox(key=[self.seed, step]))
            attacked = bool(random.random() >= self.clean_probability)
        return self.noise_phase.now() | (frozenset([ADVERSARIAL]) if attacked else frozenset())

    def take_step(self, data: tuple[tf.Tensor, ...], phase: Phase, training: bool) -> None:
        """Attacks the batch if the phase does, then updates; without `training` only updates the running means."""
        batch = Batch.of(data)
        with traced_for(phase):
            if not training:
                batch = batch._replace(adversarial=self.perturbed(batch)) if ADVERSARIAL in phase else batch
                self.batch_loss(batch, training=False)
                return
            self.update(batch, phase)
        for average, variable in zip(self.averages, self._followed() if self.averages else (), strict=True):
            average.assign_add((1.0 - self.decay) * (tf.convert_to_tensor(variable) - tf.convert_to_tensor(average)))

    def logs(self, training: bool) -> dict[str, tf.Tensor]:
        """Returns the running means; in training, without those that no batch updates."""
        clean = not training or not self.attacks or self.clean_weight or self.adversarial_epoch
        clean = clean or self.clean_probability
        means = self.get_metrics_result()
        return {name: mean for name, mean in means.items() if clean or not name.startswith("clean_")}

    @property
    def noise_generators(self) -> list[keras.Variable]:
        """Seed generators of the classifier."""
        return generators_of(self.classifier)

    def update(self, batch: Batch, phase: Phase) -> None:
        """Takes one step on a batch, attacked first if the phase does so."""
        self.update_classifier(batch._replace(adversarial=self.perturbed(batch)) if ADVERSARIAL in phase else batch)

    def perturbed(self, batch: Batch) -> tf.Tensor:
        """Returns adversarial images of the batch."""
        assert self.attack is not None
        labels = batch.labels
        if self.attack_label == "predicted":
            labels = tf.argmax(self.classifier(batch.images, training=False), -1, tf.int32)
        return self.attack.perturb(self.classifier, batch.images, labels, self.attack_seed.next())

    def _followed(self) -> list[keras.Variable]:
        """Variables covered by the moving averages: all floating-point weights of the classifier."""
        return [v for v in self.classifier.weights if v.dtype in ("float32", "bfloat16")]

    def update_classifier(self, batch: Batch) -> None:
        """Takes one step of the classifier's weights down the loss of a batch, on its own tape."""
        self.descend(lambda: self.batch_loss(batch) + self.penalty(), (self.optimizer, self.classifier_weights))

    def descend(self, loss: Callable[[], tf.Tensor | tuple[tf.Tensor, ...]], *groups: Group) -> None:
        """Takes one step down a loss, or a sum of terms, for groups of variables, each with its optimizer.

        A tape sums all gradients of a variable at once; with more than two, such as those of a clean and an adversarial
        pass and of a regularizer, TensorFlow's memory optimization takes as long as everything else before the first
        step. Therefore the gradients of each term are taken separately.
        """
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            watched = watch(tape, [variable for _, variables in groups for variable in variables])
            losses = loss()
            terms = [self.scaled(term) for term in (losses if isinstance(losses, tuple) else (losses,))]
        gradients, *others = (tape.gradient(term, watched) for term in terms)
        for more in others:
            gradients = [a if b is None else b if a is None else a + b for a, b in zip(gradients, more, strict=True)]
        self.apply(gradients, *groups)

    def scaled(self, loss: tf.Tensor) -> tf.Tensor:
        """Scales a loss for its gradient: this replica's share and, in float16, times the loss scale."""
        return part(loss) if self.loss_scale is None else self.loss_scale.scaled(part(loss))

    def apply(self, gradients: Sequence[tf.Tensor | None], *groups: Group) -> None:
        """Applies gradients of losses from `scaled` to groups of variables, in the same order."""

        def move(gradients: Sequence[tf.Tensor | None]) -> None:
            left = iter(gradients)
            for optimizer, variables in groups:
                optimizer.apply(list(itertools.islice(left, len(variables))), variables)

        if self.loss_scale is None:
            move(gradients)
        else:
            changed = [v for optimizer, variables in groups for v in (*variables, *optimizer.variables)]
            self.loss_scale.apply(gradients, move, changed)

    def penalty(self) -> tf.Tensor | float:
        """Returns the loss term that does not depend on the batch: by default the regularizers of the weights."""
        return sum(v.regularizer(v) for v in self.classifier.trainable_variables if v.regularizer is not None)

    def batch_loss(self, batch: Batch, record: bool = True, training: bool = True) -> tf.Tensor:
        """Returns the loss of a batch: a scalar.

        Args:
          batch: the batch.
          record: add losses and accuracies to the running means.
          training: use batch statistics in batch norm, and skip passes that the loss does not need.
        """
        logits = self.answers(batch, training)
        loss = self.compute_loss(batch.images, batch.labels, logits, batch.sample_weight, training)
        if record:
            self.record(loss, batch, logits)
        return loss

    def record(self, loss: tf.Tensor, batch: Batch, logits: dict[str, list[tf.Tensor]]) -> None:
        """Adds the loss and the logits of a batch to the running means."""
        self.means["loss"].update_state(loss, tf.shape(batch.labels)[0])
        self.compute_metrics(batch.images, batch.labels, logits, batch.sample_weight)

    def answers(self, batch: Batch, training: bool = True) -> dict[str, list[tf.Tensor]]:
        """Returns the logits of the passes a batch needs: `clean`, and `adversarial` if it is attacked."""
        images, adversarial = batch.images, batch.adversarial
        if adversarial is not None and self.one_batch and self.clean_weight:
            clean, attacked = tf.split(self.classifier(tf.concat([images, adversarial], 0), training=training), 2)
            return {"clean": [clean], "adversarial": [attacked]}
        logits = {}
        if adversarial is None or self.clean_weight or not training:
            logits["clean"] = [self.classifier(images, training=training)]
        if adversarial is not None:
            logits["adversarial"] = [self.classifier(adversarial, training=training)]
        return logits

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> tf.Tensor:
        """Returns alpha * clean + beta * adversarial cross-entropy, batch means; for unattacked batches the clean one.

        Args:
          x: the images.
          y: int32 labels (batch,).
          y_pred: the logits, as returned by `answers`.
          sample_weight: float32 (batch,); None for equal weights.
          training: whether the loss is used for training.
        """
        del x, training
        weights = {"clean": self.clean_weight, "adversarial": self.adversarial_weight}
        if "adversarial" not in y_pred:
            weights = {"clean": 1.0}
        return tf.add_n([
            weight / len(y_pred[kind]) * batch_mean(cross_entropy(y, logits), sample_weight)
            for kind, weight in weights.items()
            if weight
            for logits in y_pred[kind]
        ])  # fmt: skip

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Adds losses and accuracies to the running means; arguments as in `compute_loss`."""
        del x
        for kind, passes in y_pred.items():
            for logits in passes:
                loss = batch_mean(cross_entropy(y, logits), sample_weight)
                self.means[f"{kind}_loss"].update_state(loss, tf.shape(y)[0])
                hits = tf.cast(tf.argmax(logits, -1, tf.int32) == y, tf.float32)
                self.means[f"{kind}_accuracy"].update_state(hits, sample_weight)
        return self.get_metrics_result()
