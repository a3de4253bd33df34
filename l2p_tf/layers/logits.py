"""Output layer of a classifier made from an external model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

TINY = float(np.finfo(np.float32).tiny)
"""Lower limit of probabilities before the logarithm."""


@keras.saving.register_keras_serializable(package="l2p_tf")
class Logits(keras.layers.Layer):
    """Converts a model's output to float32 logits of the classes of the data.

    Args:
      probabilities: the model outputs probabilities, whose logarithms are taken as logits.
      order: for each class of the data, the index of the model's output; empty if they are the same.
      randomized: the model is randomized by noise other than that of this package's layers.
    """

    def __init__(
        self, probabilities: bool = False, order: Sequence[int] = (), randomized: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.probabilities, self.order, self.randomized = probabilities, [int(n) for n in order], randomized

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Maps (batch, outputs) to (batch, classes)."""
        outputs = tf.cast(inputs, tf.float32)
        outputs = tf.gather(outputs, self.order, axis=-1) if self.order else outputs
        return tf.math.log(tf.maximum(outputs, TINY)) if self.probabilities else outputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns (batch, classes)."""
        return (*input_shape[:-1], len(self.order) or input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        own = {"probabilities": self.probabilities, "order": self.order, "randomized": self.randomized}
        return {**super().get_config(), **own}
