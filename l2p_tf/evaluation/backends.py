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
from l2p_tf.types import Norm


@dataclasses.dataclass(frozen=True)
class FoolboxBackend(Reimplemented):
    """FGSM, BIM, PGD, DeepFool or C&W as implemented by Foolbox.

    Raises:
      UserError: Foolbox does not support it; the message says why.
    """

    BACKEND: ClassVar[str] = "foolbox"
    KIND: ClassVar[type[WrappedAttack]] = Foolbox

    def __post_init__(self) -> None:
        _ = self.wrapped

    @property
    def wrapped(self) -> WrappedAttack:
        """The attack by the name of the library's class, in its norm."""
        self.check_draws()
        usual = "margin" if isinstance(self.attack, Square) else "ce"
        if getattr(self.attack, "loss", usual) != usual:
            raise self.refused(f"it is run with its own loss here, not `loss={self.attack.loss}`")
        norm = getattr(self.attack, "norm", Norm.L2)
        if norm is Norm.L1:
            raise self.refused("its steps in l1 are others")
        named = self._named(self.attack, norm)
        if named is None:
            raise self.refused("it has no such attack, or one that goes about it in another way")
        options = tuple(named[1].items())
        wrapped = self.KIND(attack=named[0], epsilon=self.attack.epsilon, target=self.target, keywords=options)
        return wrapped.replace(norm=str(norm)) if "norm" in wrapped.parameters else wrapped

    def _named(self, attack: Any, norm: Norm) -> tuple[str, dict[str, Any]] | None:
        """The library's class and the options that make it the attack; None if it has none."""
        prefix = {Norm.LINF: "Linf", Norm.L2: "L2"}.get(norm)
        if isinstance(attack, FGSM):
            if attack.targeted:
                raise self.refused("its FGSM heads for no class")
            return f"{prefix}FastGradientAttack", {"random_start": attack.random_start}
        if isinstance(attack, BIM | PGD):
            steps = {"abs_stepsize": attack.numbers()["step_size"], "steps": attack.steps}
            return f"{prefix}ProjectedGradientDescentAttack", {**steps, "random_start": _starts_at_random(attack)}
        if isinstance(attack, DeepFool):
            return f"{prefix}DeepFoolAttack", _of(attack, "steps", "overshoot", "candidates")
        if isinstance(attack, CarliniWagner):
            own = {"stepsize": attack.learning_rate, "confidence": attack.kappa}
            same = _of(attack, "steps", "binary_search_steps", "initial_const", "abort_early")
            return "L2CarliniWagnerAttack", own | same
        return None

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
    KIND: ClassVar[type[WrappedAttack]] = Art

    def _named(self, attack: Any, norm: Norm) -> tuple[str, dict[str, Any]] | None:
        if isinstance(attack, FGSM):
            return "FastGradientMethod", {"num_random_init": int(attack.random_start)}
        if isinstance(attack, BIM | PGD):
            steps = {"eps_step": attack.numbers()["step_size"], "max_iter": attack.steps}
            return "ProjectedGradientDescent", {**steps, "num_random_init": int(_starts_at_random(attack))}
        if isinstance(attack, DeepFool) and norm is Norm.L2:
            own = {"epsilon_": attack.overshoot, "nb_grads": attack.candidates}
            return "DeepFool", {"max_iter": attack.steps, **own}
        if isinstance(attack, CarliniWagner):
            own = {"max_iter": attack.steps, "confidence": attack.kappa}
            return "CarliniL2Method", own | _of(attack, "binary_search_steps", "learning_rate", "initial_const")
        if isinstance(attack, Square):
            return "SquareAttack", {"max_iter": attack.queries, "p_init": attack.p}
        return None


_KINDS: dict[str, Callable[[Any], Attack]] = {"cleverhans": CleverHans, "foolbox": FoolboxBackend, "art": ArtBackend}


def backend(name: str, attacks: tuple[Attack, ...]) -> tuple[Attack, ...]:
    """Returns the attacks as run by a backend, one of `options.BACKENDS`; raises UserError if it does not support one.

    Corruptions are left out, because there is only one implementation of them.
    """
    if name == "l2p_tf":
        return attacks
    return tuple(_KINDS[name](attack) for attack in attacks if not isinstance(attack, Corruption))


def _starts_at_random(attack: BIM | PGD) -> bool:
    return isinstance(attack, PGD) and attack.random_start


def _of(attack: Any, *options: str) -> dict[str, Any]:
    return {option: getattr(attack, option) for option in options}
