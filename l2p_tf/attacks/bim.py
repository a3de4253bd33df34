"""The basic iterative method (Kurakin et al. 2017)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from l2p_tf.attacks.base import ATTACKS
from l2p_tf.attacks.pgd import Iterative


@ATTACKS.register("bim")
@dataclasses.dataclass(frozen=True)
class BIM(Iterative):
    """Basic iterative method: steps of the gradient's sign from the image itself (Kurakin et al. 2017)."""

    NAME: ClassVar[str] = "BIM"
