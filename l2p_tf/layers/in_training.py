"""Keeps layers called with training=True in training mode, which Keras overrules when a model predicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

_FUNCTIONAL = type(keras.Model(*[keras.Input((1,))] * 2))


@keras.saving.register_keras_serializable(package="l2p_tf")
class InTraining(keras.layers.Wrapper):
    """Wraps a layer, such as Dropout, so that it always behaves as in training.

    Args:
      layer: the wrapped layer.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the wrapped layer's output in training mode."""
        return self.layer(inputs, training=True)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the wrapped layer's output shape."""
        return self.layer.compute_output_shape(input_shape)


def keep_noise(model: keras.Model) -> tuple[keras.Model, list[str]]:
    """Keeps random layers that were called with training=True in training mode.

    Args:
      model: functional, with one input; nested models are included.

    Returns:
      A model of the same layers (the same model if nothing changes), and the names of the layers kept in training mode.
    """
    kept: list[str] = []
    if not _has_calls_in_training(model):
        return model, kept

    def operation_of(operation: Any) -> Callable[..., Any]:
        if isinstance(operation, keras.Model) and is_graph(operation):
            inner, names = keep_noise(operation)
            kept.extend(names)
            return inner

        def call(*values: Any, **options: Any) -> Any:
            if options.get("training") is True and list(getattr(operation, "_seed_generators", [])):
                kept.append(operation.name)
                return InTraining(operation, name=f"{operation.name}_in_training")(*values)
            return operation(*values, **options)

        return call

    images = keras.Input(model.inputs[0].shape[1:], dtype=model.inputs[0].dtype)
    outputs = model._run_through_graph([images], operation_of)
    return (keras.Model(images, outputs, name=model.name), kept) if kept else (model, kept)


def _has_calls_in_training(model: Any) -> bool:
    nodes = [node for nodes in model._nodes_by_depth.values() for node in nodes if not node.is_input]
    return any(
        node.arguments.kwargs.get("training") is True
        or (
            (isinstance(node.operation, keras.Model) and is_graph(node.operation))
            and _has_calls_in_training(node.operation)
        )
        for node in nodes
    )


def is_graph(model: Any) -> bool:
    """Whether it is a functional model of one input without overridden `call`."""
    return hasattr(model, "_run_through_graph") and len(model.inputs) == 1 and type(model).call is _FUNCTIONAL.call
