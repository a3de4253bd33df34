"""Ways to train a classifier, one a file: each gives the layers, the loss and the training step it needs."""

from l2p_tf.defenses.base import DEFENSES, AdversarialDefense, Defense, DerivedDefense

__all__ = ["DEFENSES", "AdversarialDefense", "Defense", "DerivedDefense"]
