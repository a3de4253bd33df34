"""Attack settings of the papers, by name."""

from __future__ import annotations

import dataclasses

from l2p_tf.attacks.base import ATTACKS
from l2p_tf.attacks.carlini_wagner import CarliniWagner
from l2p_tf.attacks.deepfool import DeepFool
from l2p_tf.attacks.fgsm import FGSM
from l2p_tf.attacks.mim import MIM
from l2p_tf.attacks.pgd import PGD
from l2p_tf.options import option
from l2p_tf.types import Norm


@ATTACKS.register("l2p_fgsm")
@dataclasses.dataclass(frozen=True)
class L2PFGSM(FGSM):
    """FGSM as in Learn2Perturb: l_inf, epsilon 8/255 (Section 4.2)."""


@ATTACKS.register("l2p_pgd")
@dataclasses.dataclass(frozen=True)
class L2PPGD(PGD):
    """PGD as in Learn2Perturb: l_inf, epsilon 8/255, 7 steps of 0.01 from a random start (Section 4.2)."""

    steps: int = option(7, "gradient steps", low=1)
    step_size: float | None = option(0.01, "length of a step; None takes 2.5 epsilon / steps", low=0)


@ATTACKS.register("l2p_eot")
@dataclasses.dataclass(frozen=True)
class L2PEOT(L2PPGD):
    """PGD with every gradient averaged over 80 draws, as in Learn2Perturb (Section 4.5)."""

    draws: int = option(80, "draws of the model's noise each gradient is averaged over (EOT)", low=1)


@ATTACKS.register("l2p_cw")
@dataclasses.dataclass(frozen=True)
class L2PCW(CarliniWagner):
    """C&W l2 as in Learn2Perturb: Adam at 5e-4, 1000 steps, 9 values of c; its kappas are 0, 0.1, 1, 2 and 5."""

    learning_rate: float = option(5e-4, "of Adam", above=0)


@ATTACKS.register("gen_fgm")
@dataclasses.dataclass(frozen=True)
class GenFGM(FGSM):
    """FGM as in the perturbation generator paper: l2, epsilon 0.5."""

    epsilon: float = option(0.5, "length of the step, in pixels of [0, 1]", low=0)
    norm: Norm = option(Norm.L2, "norm of the ball: linf, l2 or l1")


@ATTACKS.register("gen_mim")
@dataclasses.dataclass(frozen=True)
class GenMIM(MIM):
    """MIM as in the perturbation generator paper: l2, epsilon 0.5, 100 steps."""

    epsilon: float = option(0.5, "radius of the ball, in pixels of [0, 1]", low=0)
    norm: Norm = option(Norm.L2, "norm of the ball: linf, l2 or l1")
    steps: int = option(100, "gradient steps", low=1)


@ATTACKS.register("gen_deepfool")
@dataclasses.dataclass(frozen=True)
class GenDeepFool(DeepFool):
    """DeepFool as in the perturbation generator paper: l2, at most 100 steps."""

    steps: int = option(100, "steps at most", low=1)


@ATTACKS.register("gen_cw")
@dataclasses.dataclass(frozen=True)
class GenCW(CarliniWagner):
    """C&W l2 as in the perturbation generator paper: 100 steps of Adam for each c."""

    steps: int = option(100, "steps of Adam for each c", low=1)
