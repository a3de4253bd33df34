"""Adversarial attacks on classifiers. Each file defines one attack on top of `base.Attack`."""

from l2p_tf.attacks.base import ATTACKS, Attack
from l2p_tf.attacks.context import AttackOutput

__all__ = ["ATTACKS", "Attack", "AttackOutput"]


def __getattr__(name: str) -> type[Attack]:
    """Returns the class of a registered attack by its class name, such as `PGD`."""
    return ATTACKS.class_called(name)


def __dir__() -> list[str]:
    return [*__all__, *ATTACKS.class_names()]
