"""Operations of nested networks, in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras


def operations_of(model: keras.Model) -> Iterator[Any]:
    """Yields layers and other operations in the order of computation, including those of nested networks.

    Those of a subclassed model, whose order is unknown, come in the order of creation.
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
    """Converts a Sequential model to a functional one of the same layers; returns other models unchanged."""
    return keras.Model(model.inputs, model.outputs) if isinstance(model, keras.Sequential) else model
