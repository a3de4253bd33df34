"""The basic iterative method (Kurakin et al. 2017)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from l2p_tf.attacks.base import ATTACKS
from l2p_tf.attacks.pgd import Iterative


@ATTACKS.register("bim")
@dataclasses.dataclass(frozen=True)
class BIM(Iterative):
    """Basic iterative method: steps along the gradient's sign, starting at the image (Kurakin et al. 2017)."""

    NAME: ClassVar[str] = "BIM"
