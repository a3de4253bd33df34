"""An attack of ours in another implementation: named, recorded and scored as ours."""

from __future__ import annotations

import dataclasses
from typing import Any

from l2p_tf.attacks.base import SingleAttack


@dataclasses.dataclass(frozen=True)
class Reimplemented(SingleAttack):
    """Base of the attacks that `--backend` runs in another implementation. Restarts, targets and scoring are ours.

    Attributes:
      attack: what to run; the same options mean the same.
    """

    attack: Any

    @property
    def spec(self) -> str:
        """That of the attack."""
        return str(self.attack.spec)

    @property
    def label(self) -> str:
        """That of the attack."""
        return str(self.attack.label)

    @property
    def target(self) -> str:
        """That of the attack."""
        return str(getattr(self.attack, "target", "none"))

    @property
    def restarts(self) -> int:
        """Those of the attack."""
        return int(getattr(self.attack, "restarts", 1))

    @property
    def work(self) -> float:
        """That of the attack."""
        return float(self.attack.work)

    def facts(self) -> dict[str, Any]:
        """Those of the attack."""
        return dict(self.attack.facts())

    def options(self) -> dict[str, Any]:
        """Those of the attack."""
        return dict(self.attack.options())
