"""Ways to train a classifier, one a file: each gives the layers, the loss and the training step it needs."""

from l2p_tf.defenses.base import DEFENSES, AdversarialDefense, Defense, DerivedDefense

__all__ = ["DEFENSES", "AdversarialDefense", "Defense", "DerivedDefense"]


def __getattr__(name: str) -> type[Defense]:
    """The class of a registered one, such as `PGD`."""
    return DEFENSES.class_called(name)


def __dir__() -> list[str]:
    return [*__all__, *DEFENSES.class_names()]
