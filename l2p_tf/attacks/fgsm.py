"""The fast gradient (sign) method (Goodfellow et al. 2015; Equation 1 of Learn2Perturb)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from l2p_tf.attacks.ascent import Ascent
from l2p_tf.attacks.base import ATTACKS
from l2p_tf.options import option
from l2p_tf.types import Norm


@ATTACKS.register("fgsm")
@dataclasses.dataclass(frozen=True)
class FGSM(Ascent):
    """Fast gradient (sign) method: one step of length epsilon (Goodfellow et al. 2015)."""

    restarts: int = option(1, "random starts to choose the best of", low=1)
    random_start: bool = option(False, "start at a random point of the ball instead of the image")

    NAME: ClassVar[str] = "FGSM"
    ENDS_EARLY: ClassVar[bool] = False

    @property
    def label(self) -> str:
        """Label such as `FGSM` or `FGM l2 EOT-10`."""
        return super().label if self.norm is Norm.LINF else super().label.replace("FGSM", "FGM")
