"""Folds batch norm of Keras's own layers into the preceding layer when a model predicts with `training=False`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

_BEFORE = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
_MODELS = (keras.Sequential, type(keras.Model(*[keras.Input((1,))] * 2)))
"""Plain Sequential and functional models; subclasses may override anything."""


def predict_folded(model: keras.Model, inputs: tf.Tensor) -> Any:
    """Computes `model(inputs, training=False)`, up to rounding, in less time.

    At prediction batch norm is a fixed affine map. If it follows a float32 `Conv2D`, `DepthwiseConv2D` or `Dense` layer
    whose output nothing else reads, it is merged into kernel and bias: one operation instead of three passes over the
    feature map, forward and backward. Weights are read when the operation runs. Applies to functional and Sequential
    models, also nested; other models are called as they are.

    Args:
      model: a model with weights.
      inputs: float32 (batch, ...).
    """
    graph = _graph(model)
    if graph is None or not tf.is_tensor(inputs):
        return model(inputs, training=False)
    pairs = _foldable(graph)
    norms = set(pairs.values())

    def prediction_of(operation: Any) -> Callable[..., Any]:
        if operation in pairs:
            return lambda x: _folded(operation, pairs[operation], x)
        if operation in norms:
            return lambda x, **options: x
        if type(operation) in _MODELS:
            return lambda x, **options: predict_folded(operation, x)
        if isinstance(operation, keras.layers.Layer):
            return lambda *values, **options: operation(*values, **{**options, "training": False})
        return operation

    return graph._run_through_graph([inputs], prediction_of)


def _graph(model: keras.Model) -> Any:
    """Returns the underlying functional model; None unless it maps one float32 tensor to another."""
    graph = getattr(model, "_functional", None) if type(model) is keras.Sequential else model
    if type(graph) is not _MODELS[1]:
        return None
    ends = (graph.input, graph.output)
    return graph if all(keras.utils.is_keras_tensor(end) and end.dtype == "float32" for end in ends) else None


def _foldable(graph: Any) -> dict[keras.layers.Layer, keras.layers.BatchNormalization]:
    """Returns the layers whose output is read only by a batch norm, and that batch norm."""
    nodes = [node for nodes in graph._nodes_by_depth.values() for node in nodes if not node.is_input]
    times = Counter(node.operation for node in nodes)
    readers = Counter(id(x) for x in (*graph.outputs, *(x for node in nodes for x in node.input_tensors)))
    pairs = {}
    for node in nodes:
        norm = node.operation
        if type(norm) is not keras.layers.BatchNormalization or times[norm] > 1 or norm.compute_dtype != "float32":
            continue
        (x,) = node.input_tensors
        layer = x._keras_history.operation
        if times[layer] == readers[id(x)] == 1 and _takes(layer) and norm.axis in (-1, len(x.shape) - 1):
            pairs[layer] = norm
    return pairs


def _takes(layer: Any) -> bool:
    """Whether the layer is affine, channels-last and computes in float32."""
    if type(layer) not in _BEFORE or layer.activation not in (None, keras.activations.linear):
        return False
    if type(layer) is keras.layers.Dense and len(layer.input.shape) != 2:
        return False
    last = getattr(layer, "data_format", "channels_last") == "channels_last"
    return last and layer.compute_dtype == "float32" and getattr(layer, "quantization_mode", None) is None


def _folded(layer: Any, norm: keras.layers.BatchNormalization, x: tf.Tensor) -> tf.Tensor:
    scale = tf.math.rsqrt(tf.convert_to_tensor(norm.moving_variance) + norm.epsilon)
    if norm.scale:
        scale *= tf.convert_to_tensor(norm.gamma)
    mean = tf.convert_to_tensor(norm.moving_mean)
    shift = ((layer.bias - mean) if layer.use_bias else -mean) * scale
    if norm.center:
        shift += tf.convert_to_tensor(norm.beta)
    kernel = tf.convert_to_tensor(layer.kernel)
    if type(layer) is keras.layers.DepthwiseConv2D:
        kernel *= tf.reshape(scale, kernel.shape[2:])
        how = (layer.strides, layer.padding, layer.data_format, layer.dilation_rate)
        outputs = keras.ops.depthwise_conv(x, kernel, *how)
    elif type(layer) is keras.layers.Dense:
        outputs = tf.matmul(x, kernel * scale)
    else:
        outputs = layer.convolution_op(x, kernel * scale)
    return tf.nn.bias_add(outputs, shift)
