"""Loops within compiled functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def repeat(
    body: Callable[..., Any], state: Any, steps: int | tf.Tensor, going: Callable[..., Any] | None = None
) -> Any:
    """Applies `state = body(*state)` up to `steps` times, within a graph or eagerly.

    Iterations run one at a time. Independent iterations would otherwise overlap, and oneDNN's kernels crash when one
    operation runs twice concurrently.

    Args:
      body: maps the parts of the state to a tuple of the same structure.
      state: tuple of tensors, or of nested structures of them.
      steps: a number, or a tensor.
      going: maps the parts of the state to whether to continue; None always continues.

    Returns:
      The last state.
    """

    def counted(i: tf.Tensor, parts: Any) -> tuple[tf.Tensor, Any]:
        return i + 1, body(*parts)

    def condition(i: tf.Tensor, parts: Any) -> tf.Tensor:
        return (i < steps) & going(*parts) if going else i < steps

    limit = steps if isinstance(steps, int) else None
    _, last = tf.while_loop(
        condition, counted, (tf.constant(0), tuple(state)), parallel_iterations=1, maximum_iterations=limit
    )
    return last
