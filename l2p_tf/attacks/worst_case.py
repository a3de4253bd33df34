"""The worst case over a set of attacks, per example."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from typing import Any

import keras

from l2p_tf.attacks.base import ATTACKS, Attack, SingleAttack
from l2p_tf.options import option
from l2p_tf.radii import check_radii
from l2p_tf.registry import parse_spec
from l2p_tf.types import Norm, UserError


@dataclasses.dataclass(frozen=True)
class AttackSequence(Attack):
    """Base of sequences of attacks: each attack meets only the images that the earlier ones did not fool."""

    epsilon: float = option(8 / 255, "radius of the ball, in pixels of [0, 1]", low=0)
    norm: Norm = option(Norm.LINF, "norm of the ball: linf, l2 or l1")

    def fitting(self, model: keras.Model) -> tuple[SingleAttack, ...]:
        """Returns the members; one whose loss (`dlr`) needs more classes ascends the margin instead, with a warning."""
        check_radii(self, model.input_shape[1:])
        members = []
        for member in self.members():
            try:
                member.check(model)
            except UserError:
                warnings.warn(
                    f"{self.label}: {member.label} needs more classes than {model.output_shape[-1]}; it ascends the "
                    "margin instead.",
                    UserWarning,
                    stacklevel=3,
                )
                member = member.replace(loss="margin")
                member.check(model)
            members.append(member)
        return tuple(members)

    def facts(self) -> dict[str, Any]:
        """Steps, restarts and draws are those of the strongest member."""
        facts = [member.facts() for member in self.members()]
        return {**super().facts(), **{key: max(f[key] for f in facts) for key in ("steps", "restarts", "draws")}}


@ATTACKS.register("worst_case")
@dataclasses.dataclass(frozen=True)
class WorstCase(AttackSequence):
    """The worst case over several attacks of one budget, per example: worst_case(attacks=(pgd(steps=20), square))."""

    attacks: tuple[str, ...] = option(
        ("pgd", "apgd(loss=dlr)"), "specs of the attacks; epsilon and norm are given once"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.members()  # Rejects invalid specs early.

    @property
    def label(self) -> str:
        """Label such as `worst of PGD-20, Square-5000`."""
        return f"worst of {', '.join(member.label for member in self.members())}"

    def members(self) -> tuple[SingleAttack, ...]:
        """Returns the attacks, with the common budget."""
        return _members(self)


@functools.lru_cache(maxsize=256)
def _members(sequence: WorstCase) -> tuple[SingleAttack, ...]:
    """Cached, because nested sequences would otherwise resolve all lower levels several times."""
    members: list[SingleAttack] = []
    for spec in sequence.attacks:
        for name in {"epsilon", "norm"} & set(parse_spec(spec, "attack")[1]):
            raise UserError(f"worst_case: `{name}` should be given once, to worst_case itself. Received: {spec!r}")
        attack = ATTACKS.parse(spec)
        known = {f.name for f in dataclasses.fields(attack)}
        if not {"epsilon", "norm"} <= known or attack.targeted:
            raise UserError(
                "worst_case: `attacks` should be untargeted ones with an epsilon and a norm, such as pgd, apgd, fab or "
                f"square. Received: {spec!r}"
            )
        members += attack.replace(epsilon=sequence.epsilon, norm=sequence.norm).members()
    if not members:
        raise UserError("worst_case: `attacks` should name at least one attack. Received: none")
    return tuple(members)
