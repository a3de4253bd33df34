"""Loss scaling for float16, where small gradients would underflow (Micikevicius et al., ICLR 2018)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from l2p_tf.types import UserError

INITIAL_SCALE = 2.0**15
LEAST_SCALE = 2.0**-15
GROWTH_STEPS = 2000
"""Consecutive steps with finite gradients after which the scale doubles."""


class LossScale:
    """A dynamic loss scale, by which losses are multiplied and gradients divided.

    A step with a gradient that is not finite is undone and halves the scale; `GROWTH_STEPS` finite steps double it.
    This matches Keras's LossScaleOptimizer, but covers all optimizers of a trainer, keeps replicas in sync, and needs
    no condition, in which no optimizer can be applied under a distribution strategy.

    Args:
      add_weight: method of the layer whose state includes the scale.
    """

    def __init__(self, add_weight: Callable[..., keras.Variable]) -> None:
        start = keras.initializers.Constant(INITIAL_SCALE)
        self.scale = add_weight(name="loss_scale", shape=(), initializer=start, dtype="float32", trainable=False)
        self.good_steps = add_weight(name="good_steps", shape=(), initializer="zeros", dtype="int64", trainable=False)

    def checked(self) -> float:
        """Returns the current scale.

        Raises:
          UserError: it is so small that it cannot be why gradients are not finite.
        """
        scale = float(keras.ops.convert_to_numpy(self.scale))
        if scale < LEAST_SCALE:
            raise UserError("Gradients are not finite in float16, whatever the loss is scaled by: use mixed_bfloat16.")
        return scale

    def scaled(self, loss: tf.Tensor) -> tf.Tensor:
        """Returns the scaled loss, for taking gradients."""
        return loss * self.scale.value

    def apply(
        self,
        gradients: Sequence[tf.Tensor | None],
        move: Callable[[Sequence[tf.Tensor | None]], None],
        changed: Sequence[keras.Variable],
    ) -> None:
        """Passes unscaled gradients to `move`; undoes the step if one is not finite.

        Args:
          gradients: gradients of the scaled loss; None for variables it does not depend on.
          move: applies optimizers.
          changed: all variables that `move` changes.
        """
        finite = self._are_finite([gradient for gradient in gradients if gradient is not None])
        before = [tf.identity(variable.value) for variable in changed]
        scale = self.scale.value
        move([None if gradient is None else tf.cast(gradient, tf.float32) / scale for gradient in gradients])
        for variable, former in zip(changed, before, strict=True):
            variable.assign(tf.where(finite, variable.value, former))
        steps = self.good_steps.value + 1
        grows = steps >= GROWTH_STEPS
        self.scale.assign(scale * tf.where(finite, tf.where(grows, 2.0, 1.0), 0.5))
        self.good_steps.assign(tf.where(finite & ~grows, steps, tf.zeros_like(steps)))

    @staticmethod
    def _are_finite(gradients: list[Any]) -> tf.Tensor:
        """Whether all gradients are finite, on all replicas: a bool scalar."""
        wrong = [tf.cast(tf.reduce_any(~tf.math.is_finite(gradient)), tf.float32) for gradient in gradients]
        count = tf.reduce_sum(tf.stack(wrong))  # `add_n` is avoided: see `RobustTrainer.descend`.
        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            count = context.all_reduce("sum", count)
        return count == 0.0
