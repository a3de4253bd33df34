"""Networks that hold others: what they compute with, in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras


def operations_of(model: keras.Model) -> Iterator[Any]:
    """Layers and other operations of a model in the order of computation, those of networks in it included.

    Those of a subclassed model, which does not tell, come in the order in which it made them.
    """
    if not is_network(model):
        yield from model._flatten_layers(include_self=False)
        return
    for operation in as_functional(model).operations:
        if is_network(operation):
            yield from operations_of(operation)
        elif not isinstance(operation, keras.layers.InputLayer):
            yield operation


def is_network(operation: Any) -> bool:
    """Whether it is a functional or Sequential model."""
    return isinstance(operation, keras.Model) and bool(getattr(operation, "inputs", None))


def as_functional(model: keras.Model) -> keras.Model:
    """A functional model of the same layers, where it is a Sequential; else itself."""
    return keras.Model(model.inputs, model.outputs) if isinstance(model, keras.Sequential) else model
