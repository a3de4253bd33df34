"""Our attacks, with the same names and options, in implementations of other libraries for cross-checks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import keras
import numpy as np

from l2p_tf.attacks.art import Art
from l2p_tf.attacks.base import Attack, AttackRunner
from l2p_tf.attacks.bim import BIM
from l2p_tf.attacks.carlini_wagner import CarliniWagner
from l2p_tf.attacks.corruption import Corruption
from l2p_tf.attacks.deepfool import DeepFool
from l2p_tf.attacks.fgsm import FGSM
from l2p_tf.attacks.foolbox import Foolbox
from l2p_tf.attacks.pgd import PGD
from l2p_tf.attacks.square import Square
from l2p_tf.attacks.wrapped import WrappedAttack
from l2p_tf.evaluation.cleverhans import CleverHans
from l2p_tf.evaluation.reimplemented import Reimplemented
from l2p_tf.types import Norm, UserError


@dataclasses.dataclass(frozen=True)
class FoolboxBackend(Reimplemented):
    """FGSM, BIM, PGD, DeepFool or C&W as implemented by Foolbox.

    Raises:
      UserError: Foolbox does not support it; the message says why.
    """

    BACKEND: ClassVar[str] = "foolbox"

    def __post_init__(self) -> None:
        _ = self.wrapped

    @property
    def wrapped(self) -> WrappedAttack:
        """The attack by the name of the library's class."""
        name, keywords = self._named()
        kind: type[WrappedAttack] = Foolbox if self.BACKEND == "foolbox" else Art
        options = tuple(keywords.items())
        return kind(attack=name, epsilon=self.attack.epsilon, target=self.target, keywords=options)

    def _named(self) -> tuple[str, dict[str, Any]]:
        attack = _translatable(self.attack, self.BACKEND)
        norm = {Norm.LINF: "Linf", Norm.L2: "L2"}.get(getattr(attack, "norm", Norm.L2))
        if norm is None:
            raise _refused(attack, self.BACKEND, "its steps in l1 are others")
        if isinstance(attack, FGSM):
            if attack.targeted:
                raise _refused(attack, self.BACKEND, "its FGSM heads for no class")
            return f"{norm}FastGradientAttack", {"random_start": attack.random_start}
        if isinstance(attack, BIM | PGD):
            steps = {"abs_stepsize": attack.numbers()["step_size"], "steps": attack.steps}
            start = {"random_start": isinstance(attack, PGD) and attack.random_start}
            return f"{norm}ProjectedGradientDescentAttack", {**steps, **start}
        if isinstance(attack, DeepFool):
            keys = ("steps", "overshoot", "candidates")
            return f"{norm}DeepFoolAttack", {key: getattr(attack, key) for key in keys}
        if isinstance(attack, CarliniWagner):
            own = {"stepsize": attack.learning_rate, "confidence": attack.kappa}
            same = ("steps", "binary_search_steps", "initial_const", "abort_early")
            return "L2CarliniWagnerAttack", {**own, **{key: getattr(attack, key) for key in same}}
        raise _refused(attack, self.BACKEND, "it has no such attack, or one that goes about it in another way")

    def check(self, model: keras.Model) -> None:
        """Raises UserError if the attack cannot run on the model."""
        self.wrapped.check(model)

    def attempt(self, runner: AttackRunner, number: int, start: int, rows: np.ndarray) -> np.ndarray:
        """Runs one start with the library."""
        return self.wrapped.attempt(runner, number, start, rows)


@dataclasses.dataclass(frozen=True)
class ArtBackend(FoolboxBackend):
    """FGSM, BIM, PGD, DeepFool in l2, C&W or Square as implemented by ART.

    Raises:
      UserError: ART does not support it; the message says why.
    """

    BACKEND: ClassVar[str] = "art"

    @property
    def wrapped(self) -> WrappedAttack:
        """The attack by the name of the library's class, in its norm."""
        attack = super().wrapped
        chosen = "norm" in attack.parameters
        return attack.replace(norm=str(self.attack.norm)) if chosen else attack

    def _named(self) -> tuple[str, dict[str, Any]]:
        attack = _translatable(self.attack, self.BACKEND)
        norm = getattr(attack, "norm", Norm.L2)
        if norm is Norm.L1:
            raise _refused(attack, self.BACKEND, "its steps in l1 are others")
        if isinstance(attack, FGSM):
            return "FastGradientMethod", {"num_random_init": int(attack.random_start)}
        if isinstance(attack, BIM | PGD):
            steps = {"eps_step": attack.numbers()["step_size"], "max_iter": attack.steps}
            random = isinstance(attack, PGD) and attack.random_start
            return "ProjectedGradientDescent", {**steps, "num_random_init": int(random)}
        if isinstance(attack, DeepFool) and norm is Norm.L2:
            return "DeepFool", {
                "max_iter": attack.steps, "epsilon_": attack.overshoot, "nb_grads": attack.candidates,
            }  # fmt: skip
        if isinstance(attack, CarliniWagner):
            keys = ("binary_search_steps", "learning_rate", "initial_const")
            own = {"max_iter": attack.steps, "confidence": attack.kappa}
            return "CarliniL2Method", {**own, **{key: getattr(attack, key) for key in keys}}
        if isinstance(attack, Square):
            return "SquareAttack", {"max_iter": attack.queries, "p_init": attack.p}
        raise _refused(attack, self.BACKEND, "it has no such attack, or one that goes about it in another way")


_KINDS: dict[str, Callable[[Any], Attack]] = {"cleverhans": CleverHans, "foolbox": FoolboxBackend, "art": ArtBackend}


def backend(name: str, attacks: tuple[Attack, ...]) -> tuple[Attack, ...]:
    """Returns the attacks as run by a backend, one of `options.BACKENDS`; raises UserError if it does not support one.

    Corruptions are left out, because there is only one implementation of them.
    """
    if name == "l2p_tf":
        return attacks
    return tuple(_KINDS[name](attack) for attack in attacks if not isinstance(attack, Corruption))


def _translatable(attack: Any, name: str) -> Any:
    if getattr(attack, "draws", 1) > 1:
        raise _refused(attack, name, "it cannot average gradients over draws (EOT)")
    usual = "margin" if isinstance(attack, Square) else "ce"
    if getattr(attack, "loss", usual) != usual:
        raise _refused(attack, name, f"it is run with its own loss here, not `loss={attack.loss}`")
    return attack


def _refused(attack: Attack, name: str, why: str) -> UserError:
    return UserError(f"`--backend={name}` cannot run {attack.spec!r}: {why}.")
