"""Runs an attack over many images: compiled chunks on full batches, survivors packed together, the best kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from l2p_tf import inference
from l2p_tf.attacks.case import SELECTION_DRAWS, AttackOutput, Case
from l2p_tf.attacks.goal import Goal
from l2p_tf.attacks.projection import sizes
from l2p_tf.layers.noise import is_randomized, restore_seeds
from l2p_tf.radii import check_radii
from l2p_tf.types import Norm

if TYPE_CHECKING:
    from l2p_tf.attacks.base import Attack, Loop, Member

_WORTH_PACKING = 0.75
_WRONG, _NEAR = 1e-2, 1e-4
"""What counts beside the share of draws that reach the goal: that the image is misclassified, and how likely it is."""

_SAVE_SECONDS = 10.0
_WORTH_SAVING_SECONDS = 2.0


class Journal(Protocol):
    """Keeps arrays by name, so that an attack that was stopped goes on where it was."""

    def load(self, key: str) -> dict[str, np.ndarray] | None:
        """What was saved under the key; None where nothing was."""

    def save(self, key: str, arrays: dict[str, np.ndarray]) -> None:
        """Keeps arrays in place of what was saved under the key before."""


class Search:
    """One call of an attack: its data, and what has been found so far.

    The first candidate is the image as it is, which lies in every ball: under no attack is a classifier right more often
    than without one. An example has fallen once the goal was reached on every draw it was looked at; in a cascade, and
    where the budget is fixed, it then leaves. What is kept of an example is what reached the goal on the largest share
    of draws, and among equals made it likeliest; an attack of smallest norm keeps the smallest that succeeds.
    """

    def __init__(
        self, attack: Attack, model: keras.Model, images: Any, labels: Any, seed: int, batch_size: int,
        jit_compile: bool | None, progress: Callable[[float, int], Any] | None, journal: Journal | None,
        averaged: int,
    ) -> None:  # fmt: skip
        self.attack, self.seed = attack, seed
        self.model, self.images = inference.prepared(model, images)
        self.labels = inference.checked_labels(self.model, labels, len(self.images))
        self.batch_size, self.jit_compile, self.progress, self.journal = batch_size, jit_compile, progress, journal
        self.certain, self.averaged = not is_randomized(self.model), averaged
        self.classes = int(self.model.output_shape[-1])
        self.members = attack.fitting(self.model)
        for member in self.members:
            check_radii(member, self.images.shape[1:])  # Of a model for images of any size, only now known.
        count = len(self.images)
        self.targets = self.labels.copy()
        self.best, self.score = self.images.copy(), np.zeros(count)
        self.norm, self.fallen = np.full(count, np.inf), np.zeros(count, bool)
        self.votes = np.zeros((count, self.classes), np.float32)
        self.likely = np.zeros(count, np.float32)
        self.gradients, self.forwards = np.zeros((2, count), np.int32)
        weights = [member.work for member in self.members]
        self._todo = float(sum(w * m.starts(self.classes) for w, m in zip(weights, self.members, strict=True)))
        self._done = 0.0

    def run(self) -> None:
        """Every start of every member."""
        # An attack of smallest norm with no limit to it goes on with what has fallen.
        stay = self.attack.MINIMAL and getattr(self.attack, "epsilon", None) is None
        others = self._look_at_clean()
        last = (len(self.members) - 1, self.members[-1].starts(self.classes) - 1)
        for number, member in enumerate(self.members):
            for start in range(member.starts(self.classes)):
                rows = np.flatnonzero(self.norm > 0 if stay else ~self.fallen)
                if member.is_single_step and number == start == 0:
                    rows = np.arange(len(self.images))
                if len(rows):
                    if member.aims:
                        self.targets[rows] = self._aim(member, start, others)[rows]
                    found = member.attempt(self, number, start, rows)
                    if last == (0, 0) and not self.certain and not member.MINIMAL:
                        # Nothing to compare but images that may be misclassified as they are: the draws of scoring decide.
                        sound = self.score[rows] <= 0.0
                        self.best[rows[sound]] = found[sound]
                        rows, found = rows[~sound], found[~sound]
                    if len(rows):
                        self._compare(member, rows, found, start)
                self._done += member.work
                self._tell(int((~self.fallen).sum()))

    def _look_at_clean(self) -> np.ndarray:
        """Makes the images as they are the first candidates; returns the other classes, the likeliest first."""
        looks = 1 if self.certain else -(-SELECTION_DRAWS // self.averaged)
        likely, self.votes = self._poll(self.images, looks, 0, 3)
        self.forwards += looks * (1 if self.certain else self.averaged)
        every, ranked = np.arange(len(self.images)), likely.copy()
        right = int((self.votes[every, self.labels] > 0.5).sum())
        inference.warn_at_chance(right, len(every), self.classes)
        ranked[every, self.labels] = -1.0
        others = np.argsort(-ranked, axis=-1, kind="stable")[:, :-1]
        if self.attack.strict:
            self.targets = self._aim(self.members[0], 0, others)
        share, wrong = self._shares(every, self.votes)
        self.likely = likely[every, self.labels]
        # What an attack finds is taken where it is as good: less than nothing for the likelihood.
        self.score = share + _WRONG * wrong - _NEAR
        if self.certain:
            self.fallen = share >= 1.0
            self.norm[self.fallen] = 0.0
        return others

    def _shares(self, rows: np.ndarray, votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of the answers to what was found for some images, the share that reach the goal, and that are wrong."""
        every = np.arange(len(rows))
        wrong = 1.0 - votes[every, self.labels[rows]]
        return votes[every, self.targets[rows]] if self.attack.strict else wrong, wrong

    def scored(self, draws: int) -> AttackOutput:
        """What was found, on so many fresh answers."""
        # Without noise what was seen when it was kept is what would be seen again.
        if not self.certain:
            likely, self.votes = self._poll(self.best, draws, 0, 2)
            self.likely = likely[np.arange(len(likely)), self.labels]
        rows, votes = np.arange(len(self.images)), self.votes
        wrong = 1.0 - votes[rows, self.labels]
        success = votes[rows, self.targets] if self.attack.strict else wrong
        return AttackOutput(
            adversarial=self.best,
            prediction=inference.decided(votes),
            success=success.astype(np.float32),
            wrong=wrong.astype(np.float32),
            probability=self.likely,
            gradients=self.gradients,
            forwards=self.forwards,
            **sizes(self.best - self.images),
        )

    def attempt(self, attack: Loop, number: int, start: int, rows: np.ndarray) -> np.ndarray:
        """One start of a compiled attack on the images `rows`: adversarial images, in the order of the rows.

        All batches take a chunk of steps, then those who are done leave, and the rest fill fewer batches.
        """
        key = f"{number:02d}-{start:03d}"
        saved = None if self.journal is None else self.journal.load(key)
        if saved is not None and not np.array_equal(saved["rows"], rows):
            saved = None  # Noise that cannot be seeded made others fall.
        if saved is None:
            state = self._begin(attack, number, start, rows)
            packed, i, reached = np.arange(len(rows)), 0, 0
        else:
            state = {name.removeprefix("state_"): v for name, v in saved.items() if name.startswith("state_")}
            packed, (i, reached) = saved["packed"], (int(n) for n in saved["position"])
        begun = time.monotonic()
        while i < attack.iterations and len(packed):
            last = min(i + attack.chunk, attack.iterations)
            for batch, (index, real) in enumerate(inference.batches(len(packed), self.batch_size, self._replicas)):
                if batch < reached:
                    continue
                self._chunk(attack, (number, start, i, batch), rows, state, packed[index], real, i, last)
                if time.monotonic() - begun > _SAVE_SECONDS:
                    self._save(key, rows, state, packed, i, batch + 1)
                    begun = time.monotonic()
            i, reached = last, 0
            live = packed[~state["done"][packed]]
            if len(live) <= _WORTH_PACKING * len(packed):
                packed = live
            share = 1.0 - len(live) / len(self.images) * (1.0 - i / attack.iterations)
            falls = self.certain and not attack.MINIMAL
            self._tell(len(live) if falls else int((~self.fallen).sum()), share * attack.work)
        if saved is None and time.monotonic() - begun > _WORTH_SAVING_SECONDS:
            answer = {name: state[name] for name in ("adversarial", "gradients", "forwards")}
            self._save(key, rows, answer, packed[:0], attack.iterations, 0)
        self.gradients[rows] += state["gradients"]
        self.forwards[rows] += state["forwards"]
        return state["adversarial"]

    def _save(
        self, key: str, rows: np.ndarray, state: dict[str, np.ndarray], packed: np.ndarray, i: int, batch: int
    ) -> None:
        if self.journal is not None:
            arrays = {f"state_{name}": value for name, value in state.items()}
            self.journal.save(key, {"rows": rows, "packed": packed, "position": np.array([i, batch]), **arrays})

    def _begin(self, attack: Loop, number: int, start: int, rows: np.ndarray) -> dict[str, np.ndarray]:
        run = self._program("begin", attack, self.batch_size)
        parts = []
        for batch, (index, real) in enumerate(inference.batches(len(rows), self.batch_size, self._replicas)):
            found = run(self._sharded(rows[index]), self._shared(attack, number, start, -1, batch))
            parts.append({name: value[:real].numpy() for name, value in found.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _chunk(
        self, attack: Loop, where: tuple[int, ...], rows: np.ndarray, state: dict[str, np.ndarray],
        index: np.ndarray, real: int, first: int, last: int,
    ) -> None:  # fmt: skip
        """Steps `first` to before `last` of the examples `index` of `rows`, in place."""
        run = self._program("advance", attack, len(index))
        sharded = {**self._sharded(rows[index]), "state": {n: tf.constant(v[index]) for n, v in state.items()}}
        shared = {**self._shared(attack, *where), "first": tf.constant(first), "last": tf.constant(last)}
        for name, value in run(sharded, shared).items():
            state[name][index[:real]] = value.numpy()[:real]

    def _program(self, kind: str, attack: Loop, size: int) -> Callable[..., dict[str, tf.Tensor]]:
        most = (size if attack.SHAPED else self.batch_size) // self._replicas
        return _program(kind, attack, self.model, self.certain, most, self.jit_compile)

    def _sharded(self, rows: np.ndarray) -> dict[str, tf.Tensor]:
        arrays = {"images": self.images, "labels": self.labels, "targets": self.targets}
        return {name: tf.constant(array[rows]) for name, array in arrays.items()}

    def _shared(self, attack: Loop, *where: int) -> dict[str, tf.Tensor]:
        numbers = tf.constant(list(attack.numbers().values()), tf.float32)
        seed = tf.constant(inference.seed_pair(self.seed, *(n + 1 for n in where)))
        return {"seed": seed, "numbers": numbers, "start": tf.constant(where[1])}

    @property
    def _replicas(self) -> int:
        return inference.replicas(self.model)

    def _aim(self, member: Member, start: int, others: np.ndarray) -> np.ndarray:
        """Targets, by what the model answers on the images as they are."""
        return member.aim(start, others, self.labels, int(inference.seed_pair(self.seed, 0, 4)[0]))

    def _compare(self, member: Member, rows: np.ndarray, found: np.ndarray, start: int) -> None:
        """Keeps what one start found where it is better than what there is, by draws of its own."""
        wanted = max(SELECTION_DRAWS, int(getattr(member, "draws", 1)))
        looks = 1 if self.certain else -(-wanted // self.averaged)
        likely, votes = self._poll(found, looks, start, 1)
        if not self.certain:
            self.forwards[rows] += looks * self.averaged
        share, wrong = self._shares(rows, votes)
        every, labels, targets = np.arange(len(rows)), self.labels[rows], self.targets[rows]
        near = likely[every, targets] if self.attack.strict else 1.0 - likely[every, labels]
        score = share + _WRONG * wrong + _NEAR * near
        if member.MINIMAL:
            size = sizes(found - self.images[rows])["linf" if getattr(member, "norm", Norm.L2) is Norm.LINF else "l2"]
            epsilon = getattr(member, "epsilon", None)
            within = size <= (np.inf if epsilon is None else epsilon * (1 + 1e-6))
            reached, none = within & (share > 0.5), np.isinf(self.norm[rows])
            better = reached & (size < self.norm[rows]) & (~self.fallen[rows] | ~none)
            self.norm[rows[better]] = size[better]
            # Until one succeeds on most draws, that which does on the most is better than the image as it is.
            better |= within & none & ~reached & ~self.fallen[rows] & (share > 0.0) & (score > self.score[rows])
        else:
            reached = np.ones(len(rows), bool)
            better = score > self.score[rows]
        taken = rows[better]
        self.best[taken], self.score[taken], self.votes[taken] = found[better], score[better], votes[better]
        self.likely[taken] = likely[every, labels][better]
        self.fallen[rows] |= reached & (share >= 1.0)

    def _poll(self, images: np.ndarray, draws: int, number: int, purpose: int) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities and votes of some answers, on draws that serve one purpose alone."""
        seed = int(inference.seed_pair(self.seed, number, purpose)[0])
        how: dict[str, Any] = {"batch_size": self.batch_size, "jit_compile": self.jit_compile}
        return inference.poll(self.model, images, seed, draws=draws, averaged=self.averaged, **how)

    def _tell(self, standing: int, extra: float = 0.0) -> None:
        if self.progress is not None:
            self.progress(min(1.0, (self._done + extra) / self._todo), standing)


def _program(
    kind: str, attack: Loop, model: keras.Model, certain: bool, most: int, jit_compile: bool | None
) -> Callable[..., dict[str, tf.Tensor]]:
    """The compiled `begin` or `advance` of an attack on a model. It knows no images: it outlives the search."""

    def case_of(sharded: Any, shared: Any) -> Case:
        numbers = {name: shared["numbers"][k] for k, name in enumerate(attack.numbers())}
        goal = Goal(sharded["labels"], sharded["targets"] if attack.aims else None, attack.strict)
        return Case(model, sharded["images"], goal, shared["seed"], numbers, certain, most, shared["start"])

    def begin(sharded: Any, shared: Any) -> Any:
        return attack.opened(case_of(sharded, shared))

    def advance(sharded: Any, shared: Any) -> Any:
        case = case_of(sharded, shared)
        former = inference.seed_noise(model, case.seed)
        found = attack.advance(case, sharded["state"], shared["first"], shared["last"])
        restore_seeds(model, former)
        return found

    body = begin if kind == "begin" else advance
    return inference.program(model, (kind, attack.graph_key, certain, most), body, jit_compile)
