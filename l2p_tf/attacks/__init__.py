"""Attacks on classifiers, one a file, all on the contract of `base.Attack`."""

from l2p_tf.attacks.base import ATTACKS, Attack
from l2p_tf.attacks.context import AttackOutput

__all__ = ["ATTACKS", "Attack", "AttackOutput"]


def __getattr__(name: str) -> type[Attack]:
    """The class of a registered one, such as `PGD`."""
    return ATTACKS.class_called(name)


def __dir__() -> list[str]:
    return [*__all__, *ATTACKS.class_names()]
