"""AutoAttack (Croce and Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of attacks")."""

from __future__ import annotations

import dataclasses
from typing import Any

from l2p_tf.attacks.apgd import APGD
from l2p_tf.attacks.base import ATTACKS, SingleAttack
from l2p_tf.attacks.fab import FAB
from l2p_tf.attacks.square import Square
from l2p_tf.attacks.worst_case import AttackSequence
from l2p_tf.options import option
from l2p_tf.types import Norm


@ATTACKS.register("autoattack")
@dataclasses.dataclass(frozen=True)
class AutoAttack(AttackSequence):
    """AutoAttack: APGD-CE, targeted APGD-DLR, targeted FAB and Square, in turn (Croce and Hein 2020; in l1 2021)."""

    version: str = option(
        "standard", "rand is for randomized models: APGD-CE and APGD-DLR with EOT", choices=("standard", "rand")
    )
    steps: int = option(100, "steps of APGD and FAB", low=1)
    queries: int = option(5000, "queries of Square", low=1)
    target_classes: int = option(9, "likeliest wrong classes that the targeted attacks head for, in turn", low=1)
    draws: int | None = option(None, "draws each gradient is averaged over; None takes 1, and 20 for rand", low=1)

    @property
    def label(self) -> str:
        """Label such as `AutoAttack` or `AutoAttack rand l2`."""
        parts = ["AutoAttack", *([self.version] if self.version != "standard" else [])]
        short = self.steps < 100 or self.queries < 5000 or self.target_classes < 9
        parts += ["shortened"] if short else []
        return " ".join(parts + ([str(self.norm)] if self.norm is not Norm.LINF else []))

    def facts(self) -> dict[str, Any]:
        """Reports the steps of APGD, not the queries of Square."""
        return {**super().facts(), "steps": self.steps}

    def members(self) -> tuple[SingleAttack, ...]:
        """Returns the attacks of the version."""
        apgd = APGD(epsilon=self.epsilon, norm=self.norm, steps=self.steps)
        if self.version == "rand":
            draws = 20 if self.draws is None else self.draws
            return apgd.replace(draws=draws), apgd.replace(draws=draws, loss="dlr")
        # In l1, APGD starts in larger balls, the untargeted member has five restarts and the targeted one five classes.
        l1, classes = self.norm is Norm.L1, self.target_classes
        apgd = apgd.replace(draws=self.draws or 1, larger_radii=l1)
        fab = FAB(epsilon=self.epsilon, norm=self.norm, steps=self.steps, target_classes=classes, draws=apgd.draws)
        square = Square(epsilon=self.epsilon, norm=self.norm, queries=self.queries, draws=apgd.draws)
        targeted = apgd.replace(loss="dlr", target_classes=min(classes, 5) if l1 else classes)
        return apgd.replace(restarts=5 if l1 else 1), targeted, fab, square
