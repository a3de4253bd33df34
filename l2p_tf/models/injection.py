"""Noise inside networks that were made elsewhere: at the points where those of this package ask for it."""

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
"""So many names an error lists."""


@dataclasses.dataclass(frozen=True)
class Points:
    """Where a network asks a factory.

    Attributes:
      convolutions: every convolution.
      normalized: what a convolution gives after its batch norm: that batch norm, or where there is none itself.
      outputs: what ends a block.
    """

    convolutions: frozenset[int]
    normalized: frozenset[int]
    outputs: frozenset[int]


def injected(model: keras.Model, factory: LayerFactory, noise_after: Sequence[str] = ()) -> keras.Model:
    """A network with the noise of a defense in it. It shares the layers, and so the weights, of the one it is made of.

    Args:
      model: a functional or Sequential classifier, which may hold others.
      factory: the defense's.
      noise_after: patterns, as `*_add`, of the names of layers whose outputs end a block. None takes the first
        convolution and all sums of two tensors, or where there are no such sums every convolution, or where there are
        none every dense layer but the last.

    Raises:
      UserError: a pattern fits no layer.
    """
    points = points_of(model, noise_after)
    twins: dict[int, keras.Model] = {}
    used: collections.Counter[str] = collections.Counter()

    def own(point: str, name: str) -> str:
        """The name the first time, then with a number: noise layers of one model need names of their own."""
        used[point + name] += 1
        return name if used[point + name] == 1 else f"{name}_{used[point + name]}"

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        if is_network(operation):
            if id(operation) not in twins:
                twins[id(operation)] = cloned(operation, call)
            return twins[id(operation)](*args, **kwargs)
        key, name = id(operation), operation.name
        if key in points.convolutions:
            args = (factory.before_conv(args[0], own("before", name)), *args[1:])
        answer = operation(*args, **kwargs)
        if key in points.normalized:
            answer = factory.after_conv(answer, own("after", name))
        return factory.output(answer, own("output", f"{name}_output")) if key in points.outputs else answer

    return cloned(model, call)


def points_of(model: keras.Model, noise_after: Sequence[str] = ()) -> Points:
    """Where a network asks a factory; arguments and errors as of `injected`."""
    operations = list(operations_of(model))
    convolutions = [one for one in operations if isinstance(one, _CONVOLUTIONS)]
    normalized = [_norm_of(one) or one for one in convolutions]
    for pattern in noise_after:
        if not any(fnmatch.fnmatchcase(one.name, pattern) for one in operations):
            names = names_of(operations)
            raise UserError(f"`noise_after` should fit the name of a layer, of {names}. Received: {pattern!r}")
    sums = [one for one in operations if type(one).__name__ == "Add" and len(one._inbound_nodes[0].input_tensors) > 1]
    if noise_after:
        outputs = [one for one in operations if any(fnmatch.fnmatchcase(one.name, each) for each in noise_after)]
    elif sums:
        outputs = [*normalized[:1], *sums]
    else:
        dense = [one for one in operations if isinstance(one, keras.layers.Dense)]
        outputs = normalized or dense[:-1]
    return Points(*(frozenset(map(id, some)) for some in (convolutions, normalized, outputs)))


def names_of(operations: Sequence[Any]) -> str:
    """The names of some layers, for an error."""
    return ", ".join(one.name for one in operations[:_NAMED]) + (" ..." if len(operations) > _NAMED else "")


def _norm_of(convolution: keras.layers.Layer) -> keras.layers.Layer | None:
    """The batch norm that alone reads what a convolution gives; None where there is none."""
    readers = list({id(node.operation): node.operation for node in convolution._outbound_nodes}.values())
    return readers[0] if len(readers) == 1 and isinstance(readers[0], _NORMS) else None


def cloned(model: keras.Model, call: Callable[..., Any]) -> keras.Model:
    """A network of the same layers, each of which `call` calls."""
    return keras.models.clone_model(as_functional(model), clone_function=lambda layer: layer, call_function=call)
