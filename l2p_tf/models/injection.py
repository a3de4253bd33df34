"""Inserts noise into external networks, at the same points as in networks of this package."""

from __future__ import annotations

import collections
import dataclasses
import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

import keras

from l2p_tf.layers.batch_norm import Normalizing
from l2p_tf.layers.conv_norm import ConvNorm
from l2p_tf.layers.factory import LayerFactory
from l2p_tf.layers.networks import as_functional, is_network, operations_of
from l2p_tf.types import UserError

_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D, ConvNorm)
_NORMS = (keras.layers.BatchNormalization, Normalizing)
_NAMED = 20
"""Maximum number of names listed in an error."""


@dataclasses.dataclass(frozen=True)
class Points:
    """Points of a network at which a factory is called.

    Attributes:
      convolutions: all convolutions.
      normalized: the batch norm after a convolution, or the convolution itself if there is none.
      outputs: last operations of blocks.
    """

    convolutions: frozenset[int]
    normalized: frozenset[int]
    outputs: frozenset[int]


def injected(model: keras.Model, factory: LayerFactory, noise_after: Sequence[str] = ()) -> keras.Model:
    """Inserts a defense's noise into a network. The new network shares layers, and so weights, with the original.

    Args:
      model: a functional or Sequential classifier, which may be nested.
      factory: the defense's layer factory.
      noise_after: patterns, such as `*_add`, of the names of layers that end a block. By default the first convolution
      and all sums of two tensors; without such sums every convolution, and without those every dense layer except the
      last.

    Raises:
      UserError: a pattern matches no layer.
    """
    points = points_of(model, noise_after)
    used: collections.Counter[str] = collections.Counter()

    def own(point: str, name: str) -> str:
        """Returns the name, numbered when repeated, because noise layers of a model need unique names."""
        used[point + name] += 1
        return name if used[point + name] == 1 else f"{name}_{used[point + name]}"

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        key, name = id(operation), operation.name
        if key in points.convolutions:
            args = (factory.before_conv(args[0], own("before", name)), *args[1:])
        answer = operation(*args, **kwargs)
        if key in points.normalized:
            answer = factory.after_conv(answer, own("after", name))
        return factory.output(answer, own("output", f"{name}_output")) if key in points.outputs else answer

    return rebuilt(model, call)


def points_of(model: keras.Model, noise_after: Sequence[str] = ()) -> Points:
    """Returns the points at which a factory is called; arguments and errors as in `injected`."""
    operations = list(operations_of(model))
    convolutions = [op for op in operations if isinstance(op, _CONVOLUTIONS)]
    normalized = [_norm_of(op) or op for op in convolutions]
    for pattern in noise_after:
        if not any(fnmatch.fnmatchcase(op.name, pattern) for op in operations):
            names = names_of(operations)
            raise UserError(f"`noise_after` should fit the name of a layer, of {names}. Received: {pattern!r}")
    sums = [op for op in operations if type(op).__name__ == "Add" and len(op._inbound_nodes[0].input_tensors) > 1]
    if noise_after:
        outputs = [op for op in operations if any(fnmatch.fnmatchcase(op.name, glob) for glob in noise_after)]
    elif sums:
        outputs = [*normalized[:1], *sums]
    else:
        dense = [op for op in operations if isinstance(op, keras.layers.Dense)]
        outputs = normalized or dense[:-1]
    return Points(*(frozenset(map(id, some)) for some in (convolutions, normalized, outputs)))


def names_of(operations: Sequence[Any]) -> str:
    """Names of layers, for an error message."""
    return ", ".join(operation.name for operation in operations[:_NAMED]) + (" ..." if len(operations) > _NAMED else "")


def _norm_of(convolution: keras.layers.Layer) -> keras.layers.Layer | None:
    """Returns the batch norm that is the only consumer of a convolution's output, or None."""
    readers = list({id(node.operation): node.operation for node in convolution._outbound_nodes}.values())
    return readers[0] if len(readers) == 1 and isinstance(readers[0], _NORMS) else None


def rebuilt(model: keras.Model, call: Callable[..., Any]) -> keras.Model:
    """Rebuilds a network, and those within it, from the same layers, each of which is called through `call`."""
    twins: dict[int, keras.Model] = {}

    def called(operation: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_network(operation):
            return call(operation, *args, **kwargs)
        if id(operation) not in twins:
            twins[id(operation)] = cloned(operation)
        return twins[id(operation)](*args, **kwargs)

    def cloned(network: keras.Model) -> keras.Model:
        plain = as_functional(network)
        return keras.models.clone_model(plain, clone_function=lambda layer: layer, call_function=called)

    return cloned(model)
