"""The contract of all attacks: what goes in, what comes out, and what a subclass writes."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from l2p_tf.artifacts import Artifact
from l2p_tf.attacks.case import SELECTION_DRAWS, AttackOutput, Case, State, choose
from l2p_tf.attacks.goal import Goal, pick_targets
from l2p_tf.attacks.search import Journal, Search
from l2p_tf.loops import repeat
from l2p_tf.radii import check_radii
from l2p_tf.registry import Options, Registry, spec_of
from l2p_tf.types import Norm, UserError

_CLASSES = 10
"""As many are taken for granted where only an estimate is wanted."""


@dataclasses.dataclass(frozen=True)
class Attack(Options, abc.ABC):
    """Base of all attacks: what they are called, what they aim at, and how they are run on images.

    Class attributes:
      MINIMAL: looks for the smallest perturbation that succeeds, instead of the worst one of a given size.
      BACKEND: whose implementation it is.
    """

    MINIMAL: ClassVar[bool] = False
    BACKEND: ClassVar[str] = "l2p_tf"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_radii(self)

    @abc.abstractmethod
    def members(self) -> tuple[Member, ...]:
        """The attacks that are run in turn, each on what the earlier ones left standing; most have but one."""

    def fitting(self, model: keras.Model) -> tuple[Member, ...]:
        """The members, as they can be run on the model; UserError where one cannot."""
        members = self.members()
        for member in members:
            member.check(model)
        return members

    @property
    def strict(self) -> bool:
        """Whether the attack is targeted: only its target counts as success."""
        return getattr(self, "target", "none") != "none"

    @property
    def spec(self) -> str:
        """Its name and options, as a registry reads them."""
        return spec_of(self)

    @property
    def label(self) -> str:
        """The attack in a few words, for tables."""
        return self.spec

    def described(self, name: str, usual: Norm = Norm.LINF) -> str:
        """The name with what sets these options apart: restarts, norm unless it is the usual one, loss and so on."""
        restarts, norm, loss = (getattr(self, key, None) for key in ("restarts", "norm", "loss"))
        kappa, epsilon, draws = (getattr(self, key, None) for key in ("kappa", "epsilon", "draws"))
        parts = [name, f"x{restarts}" if restarts and restarts > 1 else ""]
        parts += [str(norm) if norm is not None and norm is not usual else "", f"kappa {kappa:g}" if kappa else ""]
        parts += [str(loss) if loss not in (None, _usual(self, "loss")) else ""]
        parts += [f"to {getattr(self, 'target', '')}" if self.strict else ""]
        parts += [f"within {epsilon:.4g}" if self.MINIMAL and epsilon is not None else ""]
        parts += [f"EOT-{draws}" if draws and draws > 1 else ""]
        return " ".join(part for part in parts if part)

    def inputs(self) -> dict[str, Artifact]:
        """What it needs besides the classifier, by role: trained artifacts, which become part of the lineage."""
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
        labels: Any,
        seed: int = 0,
        *,
        batch_size: int = 128,
        score_draws: int = 1,
        prediction_draws: int = 1,
        jit_compile: bool | None = None,
        progress: Callable[[float, int], Any] | None = None,
        journal: Journal | None = None,
    ) -> AttackOutput:
        """Attacks images and scores what was found.

        On a randomised model the best start is chosen on draws that are not those it is scored on. A model that was
        made under a distribution strategy is attacked on all its replicas.

        Args:
          model: the classifier; its noise is seeded from `seed`, and its generators' states are restored.
          images: uint8, or floats in [0, 1], (count, height, width, channels).
          labels: integers (count,).
          seed: of the attack.
          batch_size: images a compiled run.
          score_draws: answers to score a randomised model on, each with fresh noise.
          prediction_draws: draws of the noise that one answer averages, when what was found is compared and when it is
            scored.
          jit_compile: compile with XLA; None decides by device.
          progress: called now and then with the share of the work that is done, in [0, 1], and the number of images
            that still stand.
          journal: a `Journal` that keeps what is done, so that the same call made again goes on from there.

        Raises:
          UserError: images or labels do not fit the model, or lie outside their range, or the attack does not suit it.
        """
        search = Search(self, model, images, labels, seed, batch_size, jit_compile, progress, journal, prediction_draws)
        search.run()
        return search.scored(score_draws)


@dataclasses.dataclass(frozen=True)
class Member(Attack):
    """Base of the attacks that are run by themselves, be it in a cascade."""

    def members(self) -> tuple[Member, ...]:
        """Itself."""
        return (self,)

    @abc.abstractmethod
    def attempt(self, search: Search, number: int, start: int, rows: np.ndarray) -> np.ndarray:
        """One start, as member `number`, on the images `rows` of a search: adversarial images, one a row."""

    @property
    @abc.abstractmethod
    def work(self) -> float:
        """What one start costs per image, in passes through the model."""

    def check(self, model: keras.Model) -> None:
        """UserError where the attack cannot be run on the model."""
        check_radii(self, model.input_shape[1:])
        classes = int(model.output_shape[-1])
        least = 1
        if getattr(self, "loss", "") == "dlr":
            least = 4 if self.aims else 3
        if classes < least:
            raise UserError(
                f"`loss=dlr` of {self.label} needs a classifier of at least {least} classes; use `loss=margin`. "
                f"Received: {classes} classes"
            )

    @property
    def aims(self) -> bool:
        """Whether the loss pulls towards one class, which only targeted attacks insist on."""
        return self.strict or bool(getattr(self, "target_classes", 0))

    @property
    def is_single_step(self) -> bool:
        """Whether it takes at most one step of a fixed budget: for every image then, also those misclassified as they are."""
        return False

    def starts(self, classes: int) -> int:
        """How many starts there are to choose from, on a classifier of so many classes."""
        towards = min(int(getattr(self, "target_classes", 0)), classes - 1)
        return int(getattr(self, "restarts", 1)) * max(1, towards)

    def aim(self, start: int, others: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
        """The classes that start number `start` aims at; arguments as of `pick_targets`."""
        if self.strict:
            return pick_targets(str(getattr(self, "target", "")), others, labels, seed)
        towards = min(int(getattr(self, "target_classes", 0)), others.shape[1])
        return others[:, start % towards].astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Loop(Member):
    """Base of the compiled attacks: how one batch begins, and one step of the loop, for any batch size.

    Everything else is done for it: input is checked, the loop compiled and run on full batches, who has fallen leaves
    and the rest are packed together, the best of several starts is kept, and what was found is scored on fresh draws.

    Class attributes:
      NUMBERS: options that reach the loop as tensors, so that another epsilon needs no new trace.
      HOST: options the compiled loop does not know at all.
      CHUNK: about how many steps lie between two looks at who still stands.
      SHAPED: wants to know the size of its batch in advance (`Case.most`), at the price of a trace for each.
    """

    NUMBERS: ClassVar[tuple[str, ...]] = ()
    HOST: ClassVar[tuple[str, ...]] = ("restarts", "target", "target_classes")
    CHUNK: ClassVar[int] = 10
    SHAPED: ClassVar[bool] = False

    @property
    def iterations(self) -> int:
        """How often `step` is taken."""
        return int(getattr(self, "steps", 1))

    @property
    def chunk(self) -> int:
        """How many steps lie between two looks at who still stands: all chunks are about alike."""
        return math.ceil(self.iterations / max(1, round(self.iterations / self.CHUNK)))

    @property
    def is_single_step(self) -> bool:
        """So it is where there are no more iterations."""
        return self.iterations <= 1 and not self.MINIMAL

    @abc.abstractmethod
    def begin(self, case: Case) -> State:
        """The state before the first step, without a look at the model: tensors (batch, ...) by name.

        `adversarial`, in it, are the images the attack would give if it ended here; `done`, bool (batch,), which
        examples need no more steps (all False where the attack leaves it out).
        """

    @abc.abstractmethod
    def step(self, case: Case, i: tf.Tensor, state: State) -> State:
        """The state after step `i`, from 0; what it leaves out stays. Examples that were done before do not change."""

    @abc.abstractmethod
    def cost(self, draws: int, classes: int) -> tuple[int, int]:
        """Backward and forward passes per image and step, with so many real draws, on so many classes."""

    @property
    def work(self) -> float:
        """All steps."""
        return float(self.iterations * sum(self.cost(int(getattr(self, "draws", 1)), _CLASSES)) or 1)

    def numbers(self) -> dict[str, float]:
        """The values of `NUMBERS`, resolved."""
        return {name: float(getattr(self, name)) for name in self.NUMBERS}

    @property
    def graph_key(self) -> tuple[Any, ...]:
        """What the compiled loop depends on."""
        left_out = {*self.NUMBERS, *self.HOST}
        fields = (f.name for f in dataclasses.fields(self) if f.name not in left_out)
        return type(self), self.strict, self.aims, tuple((name, getattr(self, name)) for name in fields)

    def attempt(self, search: Search, number: int, start: int, rows: np.ndarray) -> np.ndarray:
        """Compiled, batch by batch."""
        return search.attempt(self, number, start, rows)

    def opened(self, case: Case) -> State:
        """The state before the first step, whole."""
        none = case.full(0, tf.int32)
        return {"done": case.full(False, tf.bool), **self.begin(case), "gradients": none, "forwards": none}

    def advance(self, case: Case, state: State, first: int | tf.Tensor, last: int | tf.Tensor) -> State:
        """Takes the steps from `first` to before `last`, within a graph; ends when every example is done.

        The state holds, besides the attack's own, `done`, and the passes used so far: `gradients` and `forwards`.
        """
        classes = int(case.model.output_shape[-1])
        gradients, forwards = self.cost(case.draws(int(getattr(self, "draws", 1))), classes)
        if self.MINIMAL and not case.certain:
            forwards += SELECTION_DRAWS  # What `confirmed` takes, where there is anything to confirm.
        ends = case.certain or self.MINIMAL

        def one(i: tf.Tensor, former: State) -> tuple[tf.Tensor, State]:
            own = {key: value for key, value in former.items() if key not in ("gradients", "forwards")}
            new = {**own, **self.step(case, i, own)}
            if ends:
                new = {key: choose(former["done"], own[key], new[key]) for key in own}
            # Chosen, not multiplied: oneDNN complains of products of integers.
            new["gradients"] = former["gradients"] + tf.where(former["done"], 0, gradients)
            new["forwards"] = former["forwards"] + tf.where(former["done"], 0, forwards)
            return i + 1, new

        def going(i: tf.Tensor, former: State) -> tf.Tensor:
            del i
            return ~tf.reduce_all(former["done"])

        start = tf.convert_to_tensor(first)
        return repeat(one, (start, state), last - first, going if ends else None)[1]

    def perturb(self, model: keras.Model, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Adversarial images within a graph: one start, every step taken, the model's noise drawn as it goes.

        For training steps; no gradient flows through it.

        Raises:
          UserError: the attack aims at classes, which is not known within a training step.
        """
        if self.aims:
            raise UserError(f"A training attack should be untargeted. Received: {self.spec}")
        check_radii(self, images.shape[1:])
        numbers = {name: tf.constant(value, tf.float32) for name, value in self.numbers().items()}
        first = tf.constant(0)
        goal = self.goal(model, images, labels)
        case = Case(model, images, goal, seed, numbers, certain=False, most=images.shape[0], start=first)
        return tf.stop_gradient(self.advance(case, self.opened(case), 0, self.iterations)["adversarial"])

    def goal(self, model: keras.Model, images: tf.Tensor, labels: tf.Tensor) -> Goal:
        """What the attack wants in a training step: to leave the labels."""
        del model, images
        return Goal(labels)


def _usual(attack: Attack, name: str) -> Any:
    """The default of an option."""
    return next((field.default for field in dataclasses.fields(attack) if field.name == name), None)


ATTACKS: Registry[Attack] = Registry("attack", "l2p_tf.attacks")
