"""Base of compiled attacks: how a batch begins, one step of the loop, and chunks of steps on full batches."""

from __future__ import annotations

import abc
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from l2p_tf import inference
from l2p_tf.attacks.base import AttackRunner, MinimizationAttack, SingleAttack
from l2p_tf.attacks.context import SELECTION_DRAWS, AttackContext, State, choose
from l2p_tf.attacks.criterion import Criterion
from l2p_tf.layers.noise import restore_seeds
from l2p_tf.loops import repeat
from l2p_tf.radii import check_radii
from l2p_tf.types import UserError

_CLASSES = 10
"""Number of classes assumed where only an estimate is needed."""

_WORTH_PACKING = 0.75
_SAVE_SECONDS = 10.0
_WORTH_SAVING_SECONDS = 2.0


@dataclasses.dataclass(frozen=True)
class IterativeAttack(SingleAttack):
    """Base of the compiled attacks: how a batch begins, and one step of the loop, for any batch size.

    The base class does the rest: it checks inputs, compiles the loop and runs it on full batches, removes fooled images
    and repacks the others, keeps the best of several starts, and scores adversarial images on fresh draws.

    Class attributes:
      TRACED_OPTIONS: options passed to the loop as tensors, so that a new value needs no retracing.
      HOST_OPTIONS: options the compiled loop does not use.
      CHUNK: approximate number of steps between removals of fooled images.
      STATIC_BATCH: needs the batch size in advance (`AttackContext.most`), at the cost of a trace for each size.
      BEGINS_ELSEWHERE: may start at another image than its own (`AttackContext.elsewhere`).
    """

    TRACED_OPTIONS: ClassVar[tuple[str, ...]] = ()
    HOST_OPTIONS: ClassVar[tuple[str, ...]] = ("restarts", "target", "target_classes")
    CHUNK: ClassVar[int] = 10
    STATIC_BATCH: ClassVar[bool] = False
    BEGINS_ELSEWHERE: ClassVar[bool] = False

    @property
    def iterations(self) -> int:
        """Number of steps."""
        return int(getattr(self, "steps", 1))

    @property
    def chunk(self) -> int:
        """Number of steps between removals of fooled images; chunks have similar lengths."""
        return math.ceil(self.iterations / max(1, round(self.iterations / self.CHUNK)))

    @property
    def is_single_step(self) -> bool:
        """Whether there is at most one iteration of a fixed-epsilon attack."""
        return self.iterations <= 1 and not isinstance(self, MinimizationAttack)

    @abc.abstractmethod
    def begin(self, context: AttackContext) -> State:
        """Returns the state before the first step, without calling the model: tensors (batch, ...) by name.

        `adversarial` holds the current adversarial images; the optional `done`, bool (batch,), marks the examples that
        need no more steps.
        """

    @abc.abstractmethod
    def step(self, context: AttackContext, i: tf.Tensor, state: State) -> State:
        """Returns the state after step `i`, from 0; omitted entries stay as they are. Done examples do not change.

        The passes used so far, `gradients` and `forwards`, follow from `cost` unless the returned state has them.
        """

    @abc.abstractmethod
    def cost(self, draws: int, classes: int) -> tuple[int, int]:
        """Returns backward and forward passes per image and step, for that many draws and classes."""

    @property
    def work(self) -> float:
        """Cost of all steps."""
        return float(self.iterations * sum(self.cost(int(getattr(self, "draws", 1)), _CLASSES)) or 1)

    def numbers(self) -> dict[str, float]:
        """Resolved values of `TRACED_OPTIONS`."""
        return {name: float(getattr(self, name)) for name in self.TRACED_OPTIONS}

    @property
    def graph_key(self) -> tuple[Any, ...]:
        """Key of everything the compiled loop depends on."""
        left_out = {*self.TRACED_OPTIONS, *self.HOST_OPTIONS}
        fields = (f.name for f in dataclasses.fields(self) if f.name not in left_out)
        return type(self), self.targeted, self.has_target, tuple((name, getattr(self, name)) for name in fields)

    def attempt(self, runner: AttackRunner, number: int, start: int, rows: np.ndarray) -> np.ndarray:
        """Runs the compiled loop batch by batch."""
        return _Start(self, runner, number, start, rows).run()

    def opened(self, context: AttackContext) -> State:
        """Returns the complete state before the first step."""
        none = context.full(0, tf.int32)
        return {"done": context.full(False, tf.bool), **self.begin(context), "gradients": none, "forwards": none}

    def advance(self, context: AttackContext, state: State, first: int | tf.Tensor, last: int | tf.Tensor) -> State:
        """Takes the steps from `first` to before `last`, within a graph; stops when every example is done.

        The state holds, besides the attack's own entries, `done` and the passes used so far: `gradients` and
        `forwards`.
        """
        classes = int(context.model.output_shape[-1])
        gradients, forwards = self.cost(context.draws(int(getattr(self, "draws", 1))), classes)
        if isinstance(self, MinimizationAttack) and not context.deterministic:
            forwards += SELECTION_DRAWS  # Passes of `confirmed`, an upper bound.
        ends = context.deterministic or isinstance(self, MinimizationAttack)

        def step(i: tf.Tensor, former: State) -> tuple[tf.Tensor, State]:
            # Selected, not multiplied: oneDNN complains about integer products.
            passes = {"gradients": former["gradients"] + tf.where(former["done"], 0, gradients)}
            passes |= {"forwards": former["forwards"] + tf.where(former["done"], 0, forwards)}
            own = {key: value for key, value in former.items() if key not in passes}
            new = {**own, **passes, **self.step(context, i, own)}
            if ends:
                new = {key: choose(former["done"], former[key], new[key]) for key in former}
            return i + 1, new

        def going(i: tf.Tensor, former: State) -> tf.Tensor:
            del i
            return ~tf.reduce_all(former["done"])

        start = tf.convert_to_tensor(first)
        return repeat(step, (start, state), last - first, going if ends else None)[1]

    def perturb(self, model: keras.Model, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns adversarial images within a graph: one start with all its steps, the model's noise drawn on the way.

        For training steps; no gradient flows through it.

        Raises:
          UserError: the attack targets classes, which are unknown within a training step.
        """
        if self.has_target:
            raise UserError(f"A training attack should be untargeted. Received: {self.spec}")
        check_radii(self, images.shape[1:])
        numbers = {name: tf.constant(value, tf.float32) for name, value in self.numbers().items()}
        first = tf.constant(0)
        criterion = self.criterion(model, images, labels)
        context = AttackContext(
            model, images, criterion, seed, numbers, deterministic=False, most=images.shape[0], start=first
        )
        return tf.stop_gradient(self.advance(context, self.opened(context), 0, self.iterations)["adversarial"])

    def criterion(self, model: keras.Model, images: tf.Tensor, labels: tf.Tensor) -> Criterion:
        """Criterion of the attack in a training step: to leave the labels."""
        del model, images
        return Criterion(labels)


class _Start:
    """One start of a compiled attack on the images `rows` of a runner.

    All batches take a chunk of steps; then finished examples leave, and the rest are packed into fewer batches.
    """

    def __init__(
        self, attack: IterativeAttack, runner: AttackRunner, number: int, start: int, rows: np.ndarray
    ) -> None:
        self.attack, self.runner, self.rows = attack, runner, rows
        self.number, self.start = number, start
        self.replicas = inference.replicas(runner.model)
        self.key = f"{number:02d}-{start:03d}"

    def run(self) -> np.ndarray:
        """Returns adversarial images in the order of the rows."""
        attack, runner, rows = self.attack, self.runner, self.rows
        saved = None if runner.store is None else runner.store.load(self.key)
        if saved is not None and not np.array_equal(saved["rows"], rows):
            saved = None  # Unseeded noise made different images adversarial.
        if saved is None:
            state = self._begin()
            packed, i, reached = np.arange(len(rows)), 0, 0
        else:
            state = {name.removeprefix("state_"): v for name, v in saved.items() if name.startswith("state_")}
            packed, (i, reached) = saved["packed"], (int(n) for n in saved["position"])
        begun = time.monotonic()
        while i < attack.iterations and len(packed):
            last = min(i + attack.chunk, attack.iterations)
            for batch, (index, real) in enumerate(self._batches(len(packed))):
                if batch < reached:
                    continue
                self._chunk(state, packed[index], real, batch, i, last)
                if time.monotonic() - begun > _SAVE_SECONDS:
                    self._save(state, packed, i, batch + 1)
                    begun = time.monotonic()
            i, reached = last, 0
            live = packed[~state["done"][packed]]
            if len(live) <= _WORTH_PACKING * len(packed):
                packed = live
            share = 1.0 - len(live) / len(runner.images) * (1.0 - i / attack.iterations)
            leave = runner.deterministic and not isinstance(attack, MinimizationAttack)
            runner.tell(len(live) if leave else int((~runner.is_adversarial).sum()), share * attack.work)
        if saved is None and time.monotonic() - begun > _WORTH_SAVING_SECONDS:
            answer = {name: state[name] for name in ("adversarial", "gradients", "forwards")}
            self._save(answer, packed[:0], attack.iterations, 0)
        runner.gradients[rows] += state["gradients"]
        runner.forwards[rows] += state["forwards"]
        return state["adversarial"]

    def _batches(self, count: int) -> Iterator[tuple[np.ndarray, int]]:
        return inference.batches(count, self.runner.batch_size, self.replicas)

    def _save(self, state: dict[str, np.ndarray], packed: np.ndarray, i: int, batch: int) -> None:
        if self.runner.store is not None:
            arrays = {f"state_{name}": value for name, value in state.items()}
            place = {"rows": self.rows, "packed": packed, "position": np.array([i, batch])}
            self.runner.store.save(self.key, {**place, **arrays})

    def _begin(self) -> dict[str, np.ndarray]:
        run = self._compiled("begin", self.runner.batch_size)
        elsewhere = self.runner.elsewhere(self.rows) if self.attack.BEGINS_ELSEWHERE else None
        parts = []
        for batch, (index, real) in enumerate(self._batches(len(self.rows))):
            sharded = self._sharded(index)
            if elsewhere is not None:
                sharded["elsewhere"] = tf.constant(self.runner.images[elsewhere[index]])
            state = run(sharded, self._shared(-1, batch))
            parts.append({name: value[:real].numpy() for name, value in state.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _chunk(
        self, state: dict[str, np.ndarray], index: np.ndarray, real: int, batch: int, first: int, last: int
    ) -> None:
        """Runs steps `first` to before `last` on the examples `index` of the rows, in place."""
        run = self._compiled("advance", len(index))
        sharded = {**self._sharded(index), "state": {n: tf.constant(v[index]) for n, v in state.items()}}
        shared = {**self._shared(first, batch), "first": tf.constant(first), "last": tf.constant(last)}
        for name, value in run(sharded, shared).items():
            state[name][index[:real]] = value.numpy()[:real]

    def _compiled(self, kind: str, size: int) -> Callable[..., dict[str, tf.Tensor]]:
        runner = self.runner
        most = (size if self.attack.STATIC_BATCH else runner.batch_size) // self.replicas
        return _compiled(kind, self.attack, runner.model, runner.deterministic, most, runner.jit_compile)

    def _sharded(self, index: np.ndarray) -> dict[str, tf.Tensor]:
        runner = self.runner
        arrays = {"images": runner.images, "labels": runner.labels, "targets": runner.targets}
        return {name: tf.constant(array[self.rows[index]]) for name, array in arrays.items()}

    def _shared(self, first: int, batch: int) -> dict[str, tf.Tensor]:
        numbers = tf.constant(list(self.attack.numbers().values()), tf.float32)
        where = (self.number, self.start, first, batch)
        seed = tf.constant(inference.seed_pair(self.runner.seed, *(n + 1 for n in where)))
        return {"seed": seed, "numbers": numbers, "start": tf.constant(self.start)}


def _compiled(
    kind: str, attack: IterativeAttack, model: keras.Model, deterministic: bool, most: int, jit_compile: bool | None
) -> Callable[..., dict[str, tf.Tensor]]:
    """Compiles `begin` or `advance` of an attack on a model. Holds no images, because it outlives the runner."""

    def context_of(sharded: Any, shared: Any) -> AttackContext:
        numbers = {name: shared["numbers"][k] for k, name in enumerate(attack.numbers())}
        criterion = Criterion(sharded["labels"], sharded["targets"] if attack.has_target else None, attack.targeted)
        return AttackContext(
            model, sharded["images"], criterion, shared["seed"], numbers, deterministic, most, shared["start"],
            sharded.get("elsewhere"),
        )  # fmt: skip

    def begin(sharded: Any, shared: Any) -> Any:
        return attack.opened(context_of(sharded, shared))

    def advance(sharded: Any, shared: Any) -> Any:
        context = context_of(sharded, shared)
        former = inference.seed_noise(model, context.seed)
        state = attack.advance(context, sharded["state"], shared["first"], shared["last"])
        restore_seeds(model, former)
        return state

    body = begin if kind == "begin" else advance
    return inference.compiled(model, (kind, attack.graph_key, deterministic, most), body, jit_compile)
