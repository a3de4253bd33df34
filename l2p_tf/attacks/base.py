"""Base class of attacks, and the runner that applies them to the images that are not fooled yet and keeps the best."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import keras
import numpy as np

from l2p_tf import inference
from l2p_tf.arrays import arrays_of
from l2p_tf.artifacts import Artifact
from l2p_tf.attacks.context import SELECTION_DRAWS, AttackOutput, CheckpointStore
from l2p_tf.attacks.criterion import pick_targets
from l2p_tf.attacks.projection import norms
from l2p_tf.layers.noise import is_randomized
from l2p_tf.options import Options
from l2p_tf.radii import check_radii
from l2p_tf.registry import Registry, spec_of
from l2p_tf.types import Norm, UserError

_WRONG, _NEAR = 1e-2, 1e-4
"""Weights in the score of a candidate, next to the success rate: of misclassification, and of its probability."""


@dataclasses.dataclass(frozen=True)
class Attack(Options, abc.ABC):
    """Base of all attacks: name, targets, and how an attack runs on images.

    Class attributes:
      BACKEND: the library that implements the attack.
    """

    BACKEND: ClassVar[str] = "l2p_tf"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_radii(self)

    @abc.abstractmethod
    def members(self) -> tuple[SingleAttack, ...]:
        """Returns the attacks to run in turn, each on the images the earlier ones did not fool; usually only one."""

    def fitting(self, model: keras.Model) -> tuple[SingleAttack, ...]:
        """Returns the members as they run on the model; raises UserError if one cannot."""
        members = self.members()
        for member in members:
            member.check(model)
        return members

    @property
    def targeted(self) -> bool:
        """Whether only the target class counts as success."""
        return getattr(self, "target", "none") != "none"

    @property
    def spec(self) -> str:
        """The attack's name and options, as a registry parses them."""
        return spec_of(self)

    @property
    def label(self) -> str:
        """Short description for tables."""
        return self.spec

    def described(self, name: str, default: Norm = Norm.LINF) -> str:
        """Appends the options that differ from the defaults to the name: restarts, norm, loss and so on."""
        restarts, norm, loss = (getattr(self, key, None) for key in ("restarts", "norm", "loss"))
        kappa, epsilon, draws = (getattr(self, key, None) for key in ("kappa", "epsilon", "draws"))
        parts = [name, f"x{restarts}" if restarts and restarts > 1 else ""]
        parts += [str(norm) if norm is not None and norm is not default else "", f"kappa {kappa:g}" if kappa else ""]
        parts += [str(loss) if loss not in (None, _default(self, "loss")) else ""]
        parts += [f"to {getattr(self, 'target', '')}" if self.targeted else ""]
        parts += [f"within {epsilon:.4g}" if isinstance(self, MinimizationAttack) and epsilon is not None else ""]
        parts += [f"EOT-{draws}" if draws and draws > 1 else ""]
        return " ".join(part for part in parts if part)

    def inputs(self) -> dict[str, Artifact]:
        """Trained artifacts the attack needs besides the classifier, by role; they become part of the lineage."""
        return {}

    def facts(self) -> dict[str, Any]:
        """Norm, epsilon, steps, restarts and draws, for records."""
        norm = getattr(self, "norm", None)
        return {
            "norm": str(norm) if isinstance(norm, Norm) else norm,
            "epsilon": getattr(self, "epsilon", None),
            "steps": int(getattr(self, "steps", 1)),
            "restarts": int(getattr(self, "restarts", 1)) * max(1, int(getattr(self, "target_classes", 0))),
            "draws": int(getattr(self, "draws", 1) or 1),
        }

    def __call__(
        self,
        model: keras.Model,
        images: Any,
        labels: Any = None,
        seed: int = 0,
        *,
        batch_size: int = 128,
        score_draws: int = 1,
        prediction_draws: int = 1,
        jit_compile: bool | None = None,
        progress: Callable[[float, int], Any] | None = None,
        store: CheckpointStore | None = None,
    ) -> AttackOutput:
        """Attacks images and evaluates the adversarial examples.

        On a randomized model, the draws that choose the best start are independent of those that score it. A model
        created under a distribution strategy is attacked on all its replicas.

        Args:
          model: the classifier; its noise is seeded from `seed`, and the states of its generators are restored.
          images: uint8, or floats in [0, 1], (count, height, width, channels); or a `tf.data.Dataset` of such images
          and their labels, batched or not.
          labels: integers (count,); None with a data set.
          seed: seed of the attack.
          batch_size: images per compiled call.
          score_draws: number of predictions to score a randomized model on, each with fresh noise.
          prediction_draws: draws of the noise averaged by each prediction, both to compare adversarial images and to
          score them.
          jit_compile: compile with XLA; None decides by device.
          progress: called from time to time with the share of the work that is done, in [0, 1], and the number of
          images that are not fooled yet.
          store: a `CheckpointStore` that keeps intermediate results, so that repeating the same call resumes it.

        Raises:
          UserError: images or labels do not fit the model or are out of range, or the model does not suit the attack.
        """
        images, labels = arrays_of(images, labels)
        runner = AttackRunner(
            self, model, images, labels, seed, batch_size, jit_compile, progress, store, prediction_draws
        )
        runner.run()
        return runner.scored(score_draws)


@dataclasses.dataclass(frozen=True)
class MinimizationAttack(Attack):
    """Base of the attacks that minimize the norm of the perturbation, in place of a fixed budget."""


@dataclasses.dataclass(frozen=True)
class SingleAttack(Attack):
    """Base of the attacks that run by themselves or as members of a sequence."""

    def members(self) -> tuple[SingleAttack, ...]:
        """Returns the attack itself."""
        return (self,)

    @abc.abstractmethod
    def attempt(self, runner: AttackRunner, number: int, start: int, rows: np.ndarray) -> np.ndarray:
        """Runs one start, as member `number`, on the images `rows` of a runner; returns an adversarial one for each."""

    @property
    @abc.abstractmethod
    def work(self) -> float:
        """Cost of one start per image, in passes through the model."""

    def check(self, model: keras.Model) -> None:
        """Raises UserError if the attack cannot run on the model."""
        check_radii(self, model.input_shape[1:])
        classes = int(model.output_shape[-1])
        least = 1
        if getattr(self, "loss", "") == "dlr":
            least = 4 if self.has_target else 3
        if classes < least:
            raise UserError(
                f"`loss=dlr` of {self.label} needs a classifier of at least {least} classes; use `loss=margin`. "
                f"Received: {classes} classes"
            )

    @property
    def has_target(self) -> bool:
        """Whether the loss pulls toward one class, even if any wrong class counts as success."""
        return self.targeted or bool(getattr(self, "target_classes", 0))

    @property
    def is_single_step(self) -> bool:
        """Whether it takes at most one step of a fixed budget; then it perturbs every image, misclassified or not."""
        return False

    def starts(self, classes: int) -> int:
        """Number of starts on a classifier with that many classes."""
        toward = min(int(getattr(self, "target_classes", 0)), classes - 1)
        return int(getattr(self, "restarts", 1)) * max(1, toward)

    def pick(self, start: int, others: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
        """Returns the classes that start number `start` targets; arguments as in `pick_targets`."""
        if self.targeted:
            return pick_targets(str(getattr(self, "target", "")), others, labels, seed)
        toward = min(int(getattr(self, "target_classes", 0)), others.shape[1])
        return others[:, start % toward].astype(np.int32)


class AttackRunner:
    """One call of an attack: its data and the best adversarial images so far.

    The first candidate is the clean image, which lies in every ball: accuracy under attack is never above clean
    accuracy. An example is adversarial once the criterion was met on every draw of the noise; sequences and attacks of
    fixed epsilon then skip it. Of several candidates, the one that met the criterion on the largest share of draws is
    kept, ties broken by its probability; attacks that minimize the norm keep the smallest one that succeeds.
    """

    def __init__(
        self, attack: Attack, model: keras.Model, images: Any, labels: Any, seed: int, batch_size: int,
        jit_compile: bool | None, progress: Callable[[float, int], Any] | None, store: CheckpointStore | None,
        samples_per_prediction: int,
    ) -> None:  # fmt: skip
        self.attack, self.seed = attack, seed
        self.model, self.images = inference.prepared(model, images)
        self.batch_size, self.jit_compile, self.progress, self.store = batch_size, jit_compile, progress, store
        self.deterministic, self.samples_per_prediction = not is_randomized(self.model), samples_per_prediction
        self.classes = int(self.model.output_shape[-1])
        self.labels = inference.checked_labels(labels, len(self.images), self.classes)
        self.members = attack.fitting(self.model)
        for member in self.members:
            check_radii(
                member, self.images.shape[1:]
            )  # A model for images of any size is only now checked against their shape.
        count = len(self.images)
        self.targets = self.labels.copy()
        self.best, self.score = self.images.copy(), np.zeros(count)
        self.norm, self.is_adversarial = np.full(count, np.inf), np.zeros(count, bool)
        self.votes = np.zeros((count, self.classes), np.float32)
        self.likely, self.answered = np.zeros(count, np.float32), self.labels
        self.gradients, self.forwards = np.zeros((2, count), np.int32)
        weights = [member.work for member in self.members]
        self._todo = float(sum(w * m.starts(self.classes) for w, m in zip(weights, self.members, strict=True)))
        self._done = 0.0

    def run(self) -> None:
        """Runs every start of every member."""
        # Minimizing attacks without a limit continue on images that are already adversarial.
        unlimited = isinstance(self.attack, MinimizationAttack) and getattr(self.attack, "epsilon", None) is None
        others = self._score_clean()
        last = (len(self.members) - 1, self.members[-1].starts(self.classes) - 1)
        for number, member in enumerate(self.members):
            for start in range(member.starts(self.classes)):
                rows = np.flatnonzero(self.norm > 0 if unlimited else ~self.is_adversarial)
                if member.is_single_step and number == start == 0:
                    rows = np.arange(len(self.images))
                if len(rows):
                    if member.has_target:
                        self.targets[rows] = self._pick_targets(member, start, others)[rows]
                    adversarial = member.attempt(self, number, start, rows)
                    if last == (0, 0) and not self.deterministic and not isinstance(member, MinimizationAttack):
                        # Nothing else to compare with, except on images that may be misclassified unperturbed: scoring
                        # decides.
                        unfooled = self.score[rows] <= 0.0
                        self.best[rows[unfooled]] = adversarial[unfooled]
                        rows, adversarial = rows[~unfooled], adversarial[~unfooled]
                    if len(rows):
                        self._compare(member, rows, adversarial, start)
                self._done += member.work
                self.tell(int((~self.is_adversarial).sum()))

    def _score_clean(self) -> np.ndarray:
        """Makes the clean images the first candidates; returns the wrong classes, the likeliest first."""
        answers = 1 if self.deterministic else -(-SELECTION_DRAWS // self.samples_per_prediction)
        likely, self.votes = self._answers(self.images, answers, 0, 3)
        self.answered = inference.decided(self.votes)
        self.forwards += answers * (1 if self.deterministic else self.samples_per_prediction)
        rows, ranked = np.arange(len(self.images)), likely.copy()
        right = int((self.votes[rows, self.labels] > 0.5).sum())
        inference.warn_at_chance(right, self.model, self.images, self.labels)
        ranked[rows, self.labels] = -1.0
        others = np.argsort(-ranked, axis=-1, kind="stable")[:, :-1]
        if self.attack.targeted:
            self.targets = self._pick_targets(self.members[0], 0, others)
        share, wrong = self._shares(rows, self.votes)
        self.likely = likely[rows, self.labels]
        # Adversarial images win ties, because clean ones score less than any likelihood adds.
        self.score = share + _WRONG * wrong - _NEAR
        if self.deterministic:
            self.is_adversarial = share >= 1.0
            self.norm[self.is_adversarial] = 0.0
        return others

    def elsewhere(self, rows: np.ndarray) -> np.ndarray:
        """Returns, for each row, a random image predicted as the attack wants; the row itself if there is none."""
        rng, starts = np.random.default_rng(inference.seed_pair(self.seed, 0, 5).view(np.uint32)), rows.copy()
        classes = self.targets[rows] if self.attack.targeted else self.labels[rows]
        for kind in np.unique(classes):
            answers = np.flatnonzero((self.answered == kind) == self.attack.targeted)
            if len(answers):
                starts[classes == kind] = rng.choice(answers, int((classes == kind).sum()))
        return starts

    def _shares(self, rows: np.ndarray, votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the shares of the predictions that meet the criterion, and that are wrong."""
        positions = np.arange(len(rows))
        wrong = 1.0 - votes[positions, self.labels[rows]]
        return votes[positions, self.targets[rows]] if self.attack.targeted else wrong, wrong

    def scored(self, draws: int) -> AttackOutput:
        """Returns the best adversarial images, scored on `draws` fresh predictions."""
        # Without noise, the predictions that selected the images are still valid.
        if not self.deterministic:
            likely, self.votes = self._answers(self.best, draws, 0, 2)
            self.likely = likely[np.arange(len(likely)), self.labels]
        rows, votes = np.arange(len(self.images)), self.votes
        wrong = 1.0 - votes[rows, self.labels]
        success = votes[rows, self.targets] if self.attack.targeted else wrong
        return AttackOutput(
            adversarial=self.best,
            prediction=inference.decided(votes),
            success=success.astype(np.float32),
            wrong=wrong.astype(np.float32),
            target=self.targets if self.attack.targeted else self.labels,
            probability=self.likely,
            gradients=self.gradients,
            forwards=self.forwards,
            **norms(self.best - self.images),
        )

    def _pick_targets(self, member: SingleAttack, start: int, others: np.ndarray) -> np.ndarray:
        return member.pick(start, others, self.labels, int(inference.seed_pair(self.seed, 0, 4)[0]))

    def _compare(self, member: SingleAttack, rows: np.ndarray, adversarial: np.ndarray, start: int) -> None:
        """Keeps the adversarial images of one start that beat the best so far, on draws used for nothing else."""
        wanted = max(SELECTION_DRAWS, int(getattr(member, "draws", 1)))
        answers = 1 if self.deterministic else -(-wanted // self.samples_per_prediction)
        likely, votes = self._answers(adversarial, answers, start, 1)
        if not self.deterministic:
            self.forwards[rows] += answers * self.samples_per_prediction
        share, wrong = self._shares(rows, votes)
        positions, labels, targets = np.arange(len(rows)), self.labels[rows], self.targets[rows]
        near = likely[positions, targets] if self.attack.targeted else 1.0 - likely[positions, labels]
        score = share + _WRONG * wrong + _NEAR * near
        if isinstance(member, MinimizationAttack):
            size = norms(adversarial - self.images[rows])[str(getattr(member, "norm", Norm.L2))]
            epsilon = getattr(member, "epsilon", None)
            within = size <= (np.inf if epsilon is None else epsilon * (1 + 1e-6))
            reached, none = within & (share > 0.5), np.isinf(self.norm[rows])
            better = reached & (size < self.norm[rows]) & (~self.is_adversarial[rows] | ~none)
            self.norm[rows[better]] = size[better]
            # Until a candidate succeeds on most draws, one that succeeds on some is better than the clean image.
            better |= within & none & ~reached & ~self.is_adversarial[rows] & (share > 0.0) & (score > self.score[rows])
        else:
            reached = np.ones(len(rows), bool)
            better = score > self.score[rows]
        taken = rows[better]
        self.best[taken], self.score[taken], self.votes[taken] = adversarial[better], score[better], votes[better]
        self.likely[taken] = likely[positions, labels][better]
        self.is_adversarial[rows] |= reached & (share >= 1.0)

    def _answers(self, images: np.ndarray, draws: int, number: int, purpose: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns mean probabilities and votes, from draws used for one purpose only."""
        seed = int(inference.seed_pair(self.seed, number, purpose)[0])
        how: dict[str, Any] = {"batch_size": self.batch_size, "jit_compile": self.jit_compile}
        return inference.predict_with_votes(
            self.model, images, seed, draws=draws, samples_per_prediction=self.samples_per_prediction, **how
        )

    def tell(self, robust: int, extra: float = 0.0) -> None:
        """Reports progress: the number of images not fooled yet, and the work done in the current start."""
        if self.progress is not None:
            self.progress(min(1.0, (self._done + extra) / self._todo), robust)


def _default(attack: Attack, name: str) -> Any:
    return next((field.default for field in dataclasses.fields(attack) if field.name == name), None)


ATTACKS: Registry[Attack] = Registry("attack", "l2p_tf.attacks")
