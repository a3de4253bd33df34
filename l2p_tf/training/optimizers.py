"""Stochastic gradient descent as in the papers, and requirements on optimizers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from l2p_tf.types import UserError


@keras.saving.register_keras_serializable(package="l2p_tf")
class MomentumSGD(keras.optimizers.Optimizer):
    """SGD with momentum as PyTorch defines it, which the papers' results are based on.

    g = gradient + decay * w;  v = momentum * v + g;  w = w - rate * (g + momentum * v), or rate * v without Nesterov.
    Keras's own SGD keeps the rate inside v, which differs after every drop of the rate, and its `weight_decay` is
    decoupled from the momentum.

    Args:
      learning_rate: the rate.
      momentum: of v, in [0, 1).
      nesterov: take Nesterov's step.
      decay: coupled weight decay, except for variables given to `exclude_from_weight_decay`.
    """

    def __init__(
        self,
        learning_rate: float = 0.1,
        momentum: float = 0.9,
        nesterov: bool = True,
        decay: float = 0.0,
        name: str = "momentum_sgd",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum, self.nesterov, self.decay = momentum, nesterov, decay

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates one velocity per variable."""
        if not self.built:
            super().build(variables)
            self.velocities = self.add_optimizer_variables(variables, "velocity")

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        """Takes one step of one variable."""
        velocity = self.velocities[self._get_variable_index(variable)]
        gradient = tf.cast(gradient, variable.dtype)
        if self.decay and self._use_weight_decay(variable):
            gradient += self.decay * tf.convert_to_tensor(variable)
        moved = self.momentum * tf.convert_to_tensor(velocity) + gradient
        velocity.assign(moved)
        step = gradient + self.momentum * moved if self.nesterov else moved
        variable.assign_sub(tf.cast(learning_rate, variable.dtype) * step)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        keys = ("momentum", "nesterov", "decay")
        return {**super().get_config(), **{key: getattr(self, key) for key in keys}}


def check_optimizer(optimizer: keras.optimizers.Optimizer, weights: Sequence[keras.Variable]) -> None:
    """Warns if small steps of float16 weights would be lost.

    Raises:
      UserError: the optimizer has its own loss scale, in addition to the trainer's.
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer) or optimizer.loss_scale_factor:
        raise UserError(
            "`optimizer` should not scale the loss: training does so where the classifier computes in float16. "
            f"Received: {type(optimizer).__name__}, loss_scale_factor {optimizer.loss_scale_factor}"
        )
    if any(weight.dtype == "float16" for weight in weights):
        warnings.warn(
            "The classifier's weights are float16, in which small steps are lost: build it with mixed_float16.",
            UserWarning,
            stacklevel=3,
        )


def sum_nothing(optimizers: Sequence[keras.optimizers.Optimizer]) -> None:
    """Has optimizers of one device leave out the sum of gradients over replicas.

    TensorFlow's sum registers a gradient function for each graph that contains it, for the life of the process, and so
    keeps the graphs of all finished trainings in memory.
    """
    for optimizer in optimizers:
        optimizer._all_reduce_sum_gradients = list
