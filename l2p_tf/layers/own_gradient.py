"""Operations whose gradient is not TensorFlow's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def with_gradient(kind: str, gradient: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a function of tensors such that its operations of one kind are differentiated by `gradient`.

    `tf.custom_gradient` registers a new gradient for each trace and never drops it, and with it the traced graph: a
    process that trains many networks grows. Here the gradient is registered once, so it takes what it needs from the
    operation and encloses nothing.

    Args:
      kind: type of the operation, such as `LeakyRelu`.
      gradient: takes the operation and the gradients of its outputs; returns one gradient for each input.
    """
    name = f"l2p_tf.{gradient.__module__}.{gradient.__qualname__}"
    tf.RegisterGradient(name)(gradient)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        def traced(*inputs: Any) -> Any:
            with tf.compat.v1.get_default_graph().gradient_override_map({kind: name}):
                return function(*inputs)

        return tf.function(traced, autograph=False, reduce_retracing=True)

    return decorate
