"""Attacks on classifiers, one a file, all on the contract of `base.Attack`."""

from l2p_tf.attacks.base import ATTACKS, Attack
from l2p_tf.attacks.context import AttackOutput

__all__ = ["ATTACKS", "Attack", "AttackOutput"]
