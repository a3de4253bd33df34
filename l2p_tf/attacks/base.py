"""The contract of all attacks: what goes in, what comes out, and everything that is not an attack's own loop."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from l2p_tf import inference
from l2p_tf.attacks.projection import sizes
from l2p_tf.layers.noise import is_randomized, reseed, restore_seeds
from l2p_tf.registry import Options, Registry, spec_of
from l2p_tf.types import Norm

SELECTION_DRAWS = 8
"""Draws on which the best of several starts is chosen on a randomised model, at least."""


@dataclasses.dataclass(frozen=True)
class AttackOutput:
    """What an attack found, per example. Every array has one entry per image.

    Attributes:
      adversarial: float32 (count, height, width, channels) in [0, 1].
      prediction: int32, the class on a fresh draw of the noise.
      success: float32, share of the scoring draws on which the image is misclassified; 0 or 1 without noise.
      l0: float32, numbers changed.
      l2: float32, Euclidean norm of the perturbation.
      linf: float32, largest change.
      gradients: int32, backward passes used.
      forwards: int32, forward passes used, those of the gradients included and scoring left out.
    """

    adversarial: np.ndarray
    prediction: np.ndarray
    success: np.ndarray
    l0: np.ndarray
    l2: np.ndarray
    linf: np.ndarray
    gradients: np.ndarray
    forwards: np.ndarray


@dataclasses.dataclass(frozen=True)
class Found:
    """What one start on one batch gives: images in [0, 1], and the passes used per image (int32)."""

    adversarial: tf.Tensor
    gradients: tf.Tensor
    forwards: tf.Tensor


@dataclasses.dataclass(frozen=True)
class Attack(Options, abc.ABC):
    """Base of all attacks: checks the input, runs the compiled loop on full batches, keeps the best start, and scores.

    A subclass writes `run`, a loop of TensorFlow operations with static shapes. Options named in `NUMBERS` reach it as
    tensors, so another epsilon needs no new trace.
    """

    NUMBERS: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def run(
        self,
        model: keras.Model,
        images: tf.Tensor,
        labels: tf.Tensor,
        seed: tf.Tensor,
        numbers: dict[str, tf.Tensor],
        stop_early: bool,
    ) -> Found:
        """One start on one batch, within a graph.

        Args:
          model: the classifier, called with `training=False`.
          images: float32 (batch, height, width, channels) in [0, 1].
          labels: int32 (batch,), the classes to leave.
          seed: two integers; of all the attack's own randomness.
          numbers: the options named in `NUMBERS`, as float32 scalars.
          stop_early: an image seen misclassified may be left as it is, and the loop end when all are. False while the
            model's noise is on, where a single look proves nothing, and in training, which wants the greatest loss.
        """

    def numbers(self) -> dict[str, float]:
        """The values of `NUMBERS`, resolved."""
        return {name: float(getattr(self, name)) for name in self.NUMBERS}

    @property
    def starts(self) -> int:
        """How many starts there are to choose from."""
        return int(getattr(self, "restarts", 1))

    @property
    def label(self) -> str:
        """The attack in a few words, for tables."""
        return spec_of(self)

    def facts(self) -> dict[str, Any]:
        """Norm, epsilon, steps, restarts and draws, for records."""
        norm = getattr(self, "norm", None)
        return {
            "norm": str(norm) if isinstance(norm, Norm) else norm,
            "epsilon": getattr(self, "epsilon", None),
            "steps": int(getattr(self, "steps", 1)),
            "restarts": self.starts,
            "draws": int(getattr(self, "draws", 1)),
        }

    def perturb(self, model: keras.Model, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Adversarial images within a graph: one start, every step taken, the model's noise drawn as it goes.

        For training steps; no gradient flows through it.
        """
        numbers = {name: tf.constant(value, tf.float32) for name, value in self.numbers().items()}
        return tf.stop_gradient(self.run(model, images, labels, seed, numbers, stop_early=False).adversarial)

    def __call__(
        self,
        model: keras.Model,
        images: Any,
        labels: Any,
        seed: int = 0,
        *,
        batch_size: int = 128,
        score_draws: int = 1,
        jit_compile: bool | None = None,
        progress: Callable[[int], Any] | None = None,
    ) -> AttackOutput:
        """Attacks images and scores what was found.

        On a randomised model the best start is chosen on draws that are not those it is scored on.

        Args:
          model: the classifier; its noise is seeded from `seed`, and its generators' states are restored.
          images: uint8, or floats in [0, 1], (count, height, width, channels).
          labels: integers (count,).
          seed: of the attack.
          batch_size: images a compiled run.
          score_draws: fresh draws to score a randomised model on.
          jit_compile: compile with XLA; None decides by device.
          progress: called with the number of images done, after each batch of the last start.

        Raises:
          UserError: images or labels do not fit the model, or lie outside their range.
        """
        images = inference.checked_images(model, images)
        labels = inference.checked_labels(model, labels, len(images))
        run = _Run(self, model, images, labels, seed, batch_size, jit_compile)
        return run.randomized_output(score_draws, progress) if is_randomized(model) else run.output(progress)


class _Run:
    """One call of an attack: its data, and what has been found so far."""

    def __init__(
        self, attack: Attack, model: keras.Model, images: np.ndarray, labels: np.ndarray, seed: int, batch_size: int,
        jit_compile: bool | None,
    ) -> None:  # fmt: skip
        self.attack, self.model, self.images, self.labels, self.seed = attack, model, images, labels, seed
        self.batch_size, self.jit_compile = batch_size, jit_compile
        self.best = images.copy()
        self.gradients, self.forwards = np.zeros((2, len(images)), np.int32)

    def output(self, progress: Callable[[int], Any] | None) -> AttackOutput:
        """Without noise: a start is tried on what the earlier ones left standing."""
        prediction = np.zeros(len(self.images), np.int32)
        standing = np.arange(len(self.images))
        for start in range(self.attack.starts):
            last = start == self.attack.starts - 1
            adversarial, classes = self._start(start, standing, stop_early=True, progress=progress if last else None)
            fallen = classes != self.labels[standing]
            # The first start counts for all, so that those who stand to the end are shown under attack too.
            taken = fallen | (start == 0)
            self.best[standing[taken]], prediction[standing[taken]] = adversarial[taken], classes[taken]
            standing = standing[~fallen]
            if progress is not None and not last:
                progress(int(fallen.sum()))
            if not len(standing):
                break
        return self._scored(prediction, (prediction != self.labels).astype(np.float32))

    def randomized_output(self, draws: int, progress: Callable[[int], Any] | None) -> AttackOutput:
        """With noise: every start is tried on every image, the best by loss on draws of its own, scored on others."""
        everything = np.arange(len(self.images))
        best_loss = np.full(len(self.images), -np.inf)
        for start in range(self.attack.starts):
            last = start == self.attack.starts - 1
            adversarial, _ = self._start(start, everything, stop_early=False, progress=progress if last else None)
            if self.attack.starts == 1:
                self.best = adversarial
                break
            looks = max(SELECTION_DRAWS, int(self.attack.facts()["draws"]))
            self.forwards += looks
            chances = self._predict(adversarial, looks, start, 1)[everything, self.labels]
            loss = -np.log(np.maximum(chances, 1e-30))
            better = loss > best_loss
            self.best[better], best_loss[better] = adversarial[better], loss[better]
        success = np.zeros(len(self.images), np.float32)
        for draw in range(draws):
            prediction = self._predict(self.best, 1, draw, 2).argmax(-1).astype(np.int32)
            success += (prediction != self.labels) / np.float32(draws)
        return self._scored(prediction, success)

    def _start(
        self, start: int, rows: np.ndarray, stop_early: bool, progress: Callable[[int], Any] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """One start on the images `rows`, in full batches: adversarial images and the classes seen at the end."""
        attack, model = self.attack, self.model
        names, values = tuple(attack.numbers()), tf.constant(list(attack.numbers().values()), tf.float32)

        def body(x: tf.Tensor, y: tf.Tensor, pair: tf.Tensor, packed: tf.Tensor) -> tuple[tf.Tensor, ...]:
            former = reseed(model, pair)
            numbers = {name: packed[i] for i, name in enumerate(names)}
            found = attack.run(model, x, y, pair, numbers, stop_early)
            adversarial = tf.ensure_shape(found.adversarial, x.shape)
            # With noise the scoring draws come later; without it this look is the score.
            classes = tf.argmax(model(adversarial, training=False), -1, tf.int32) if stop_early else y
            restore_seeds(model, former)
            return adversarial, classes, found.gradients, found.forwards

        fields = (f.name for f in dataclasses.fields(attack) if f.name not in attack.NUMBERS)
        key = (type(attack), tuple((name, getattr(attack, name)) for name in fields), stop_early)
        run = inference.program(model, key, body, self.jit_compile)
        adversarial = np.empty((len(rows), *self.images.shape[1:]), np.float32)
        classes = np.empty(len(rows), np.int32)
        for number, (index, real) in enumerate(inference.batches(len(rows), self.batch_size)):
            pair = tf.constant(inference.seed_pair(self.seed, start, number))
            x, y = tf.constant(self.images[rows[index]]), tf.constant(self.labels[rows[index]])
            found, seen, gradients, forwards = (tensor.numpy()[:real] for tensor in run(x, y, pair, values))
            adversarial[index[:real]], classes[index[:real]] = found, seen
            self.gradients[rows[index[:real]]] += gradients
            self.forwards[rows[index[:real]]] += forwards
            if progress is not None:
                progress(real)
        return adversarial, classes

    def _predict(self, images: np.ndarray, draws: int, number: int, purpose: int) -> np.ndarray:
        """Probabilities on draws that serve one purpose alone."""
        seed = int(inference.seed_pair(self.seed, number, purpose)[0])
        return inference.predict(
            self.model, images, seed, draws=draws, batch_size=self.batch_size, jit_compile=self.jit_compile
        )

    def _scored(self, prediction: np.ndarray, success: np.ndarray) -> AttackOutput:
        return AttackOutput(
            adversarial=self.best,
            prediction=prediction,
            success=success,
            gradients=self.gradients,
            forwards=self.forwards,
            **sizes(self.best - self.images),
        )


ATTACKS: Registry[Attack] = Registry("attack", "l2p_tf.attacks")
