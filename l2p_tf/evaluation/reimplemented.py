"""Base of our attacks in other implementations, named, recorded and scored as ours."""

from __future__ import annotations

import dataclasses
from typing import Any

from l2p_tf.attacks.base import SingleAttack
from l2p_tf.types import UserError


@dataclasses.dataclass(frozen=True)
class Reimplemented(SingleAttack):
    """Base of the attacks that `--backend` runs in another implementation. Restarts, targets and scoring are ours.

    Attributes:
      attack: the attack; its options keep their meaning.
    """

    attack: Any

    @property
    def spec(self) -> str:
        """The attack's spec."""
        return str(self.attack.spec)

    @property
    def label(self) -> str:
        """The attack's label."""
        return str(self.attack.label)

    @property
    def target(self) -> str:
        """The attack's target."""
        return str(getattr(self.attack, "target", "none"))

    @property
    def restarts(self) -> int:
        """The attack's restarts."""
        return int(getattr(self.attack, "restarts", 1))

    @property
    def work(self) -> float:
        """The attack's work."""
        return float(self.attack.work)

    def refused(self, why: str) -> UserError:
        """The error of an attack that the library cannot run."""
        return UserError(f"`--backend={self.BACKEND}` cannot run {self.attack.spec!r}: {why}.")

    def check_draws(self) -> None:
        """Raises UserError if the attack averages gradients over draws."""
        if getattr(self.attack, "draws", 1) > 1:
            raise self.refused("it cannot average gradients over draws (EOT)")

    def facts(self) -> dict[str, Any]:
        """The attack's facts."""
        return dict(self.attack.facts())

    def options(self) -> dict[str, Any]:
        """The attack's options."""
        return dict(self.attack.options())
