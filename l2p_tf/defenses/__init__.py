"""Training methods. Each file defines one defense: its layers, loss and training step."""

from l2p_tf.defenses.base import DEFENSES, AdversarialDefense, Defense, DerivedDefense

__all__ = ["DEFENSES", "AdversarialDefense", "Defense", "DerivedDefense"]


def __getattr__(name: str) -> type[Defense]:
    """Returns the class of a registered defense by its class name, such as `PGD`."""
    return DEFENSES.class_called(name)


def __dir__() -> list[str]:
    return [*__all__, *DEFENSES.class_names()]
