"""Attacks of Foolbox (Rauber et al. 2017, 2020)."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from types import ModuleType
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from l2p_tf import inference
from l2p_tf.attacks.base import ATTACKS, AttackRunner
from l2p_tf.attacks.wrapped import AskedModel, WrappedAttack, library

_NO_START = ("init_attack failed", "requires starting_points", "starting_points are not adversarial")


@ATTACKS.register("foolbox")
@dataclasses.dataclass(frozen=True)
class Foolbox(WrappedAttack):
    """An attack of Foolbox by the name of its class: foolbox(attack=BoundaryAttack, steps=2000, epsilon=0.1).

    An attack that needs a misclassified starting point and finds none by itself starts at the nearest of the other
    images that the classifier assigns to another class. An image is left unperturbed if there is none, or if the noise
    of a randomized classifier contradicts what such an attack has just seen.
    """

    BACKEND: ClassVar[str] = "foolbox"
    LIBRARY: ClassVar[str] = "Foolbox"
    PACKAGE: ClassVar[str] = "foolbox"
    MODULE: ClassVar[str] = "foolbox"
    HIDDEN: ClassVar[frozenset[str]] = frozenset({"init_attack", "distance", "tensorboard"})

    @classmethod
    def classes(cls, module: ModuleType) -> dict[str, type]:
        """Returns the concrete attacks of `foolbox.attacks`."""
        base = module.attacks.base.Attack
        named = vars(module.attacks).items()
        return {n: c for n, c in named if inspect.isclass(c) and issubclass(c, base) and not inspect.isabstract(c)}

    @functools.cached_property
    def norms(self) -> tuple[str, ...]:
        """Norm of the class's distance; all norms if it can be chosen."""
        module = library(self.MODULE, self.LIBRARY, self.PACKAGE)
        if issubclass(self.kind, module.attacks.base.FlexibleDistanceMinimizationAttack):
            return "l2", "linf", "l1", "l0"
        if "constraint" in self.parameters:  # HopSkipJump declares l1 whatever norm it minimizes.
            return (str(self.given.get("constraint", "l2")),)
        distance = getattr(self.kind, "distance", None)
        if isinstance(distance, property):  # The property's value depends on no option.
            distance = distance.fget(object.__new__(self.kind)) if distance.fget else None
        names = {0: "l0", 1: "l1", 2: "l2", np.inf: "linf"}
        return (names[distance.p],) if distance is not None else ()

    @property
    def is_bounded(self) -> bool:
        """Whether it is one of Foolbox's fixed-epsilon attacks."""
        module = library(self.MODULE, self.LIBRARY, self.PACKAGE)
        return issubclass(self.kind, module.attacks.base.FixedEpsilonAttack)

    def check(self, model: keras.Model) -> None:
        """Raises UserError if Foolbox rejects the values of the options."""
        super().check(model)
        with self.told():
            self._made()

    def _made(self) -> Any:
        module = library(self.MODULE, self.LIBRARY, self.PACKAGE)
        chosen = {"distance": getattr(module.distances, str(self.ball))} if "distance" in self.parameters else {}
        made = self.kind(**self.given, **chosen)
        if getattr(made, "_distance", False) is None:  # Pointwise accepts no distance but needs one.
            made._distance = getattr(module.distances, str(self.ball))
        return made

    def find(self, runner: AttackRunner, asked: AskedModel, rows: np.ndarray) -> np.ndarray:
        """Runs Foolbox's attack, first with its own starting points, then from images of other classes."""
        module = library(self.MODULE, self.LIBRARY, self.PACKAGE)
        made, model = self._made(), module.TensorFlowModel(asked, (0.0, 1.0), f"/{inference.device()}:0")
        if hasattr(made, "feed"):  # Attacks such as dataset attacks draw examples from a feed.
            made.feed(model, tf.constant(runner.images))

        def run(part: np.ndarray, starts: np.ndarray | None = None) -> np.ndarray:
            # int64, because Foolbox's own conversion calls a function that NumPy 2 removed.
            classes = tf.constant((runner.targets if self.targeted else runner.labels)[part], tf.int64)
            kind = module.criteria.TargetedMisclassification if self.targeted else module.criteria.Misclassification
            how: dict[str, Any] = {"epsilons": self.radius}
            if starts is not None:
                how["starting_points"] = tf.constant(starts)
            raw, clipped, _ = made(model, tf.constant(runner.images[part]), kind(classes), **how)
            # A minimizing attack is not helped by a projection.
            return (clipped if self.is_bounded else raw).numpy()

        try:
            return run(rows)
        except (ValueError, AssertionError) as error:
            if not _is_chance(error, runner):
                raise
        return self._from_others(runner, rows, run)

    def _from_others(self, runner: AttackRunner, rows: np.ndarray, run: Any) -> np.ndarray:
        """Starts at the nearest image of another class; if a batch is rejected, tries it in halves."""
        classes = runner.votes.argmax(-1)
        wanted = runner.targets if self.targeted else runner.labels
        starts, known = runner.images[rows].copy(), np.zeros(len(rows), bool)
        for i, row in enumerate(rows):
            others = np.flatnonzero((classes == wanted[row]) == self.targeted)
            if len(others):
                distances = np.square(runner.best[others] - runner.images[row]).sum((1, 2, 3))
                starts[i], known[i] = runner.best[others[distances.argmin()]], True
        adversarial = runner.images[rows].copy()
        waiting = [np.flatnonzero(known)] if known.any() else []
        while waiting:
            part = waiting.pop()
            try:
                adversarial[part] = run(rows[part], starts[part])
            except (ValueError, AssertionError) as error:
                if not _is_chance(error, runner):
                    raise
                waiting += [half for half in np.array_split(part, 2) if 0 < len(half) < len(part)]
        return adversarial


def _is_chance(error: Exception, runner: AttackRunner) -> bool:
    """Whether an attack failed for lack of a starting point, or because noise changed a prediction it relies on."""
    unlucky = isinstance(error, AssertionError) and not runner.deterministic
    return unlucky or any(text in str(error) for text in _NO_START)
