"""The end of a classifier that was made of a model from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

TINY = float(np.finfo(np.float32).tiny)
"""What a probability is at least, before its logarithm is taken."""


@keras.saving.register_keras_serializable(package="l2p_tf")
class Logits(keras.layers.Layer):
    """What a model answers, as float32 logits of the classes of the data.

    Args:
      probabilities: it answers probabilities, whose logarithm are logits.
      order: for each class of the data the number of the model's output; empty where they are the same.
      randomized: the model answers the same images differently, by other noise than that of this package's layers.
    """

    def __init__(
        self, probabilities: bool = False, order: Sequence[int] = (), randomized: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.probabilities, self.order, self.randomized = probabilities, [int(n) for n in order], randomized

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """(batch, outputs) to (batch, classes)."""
        outputs = tf.cast(inputs, tf.float32)
        outputs = tf.gather(outputs, self.order, axis=-1) if self.order else outputs
        return tf.math.log(tf.maximum(outputs, TINY)) if self.probabilities else outputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(batch, classes)."""
        return (*input_shape[:-1], len(self.order) or input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        own = {"probabilities": self.probabilities, "order": self.order, "randomized": self.randomized}
        return {**super().get_config(), **own}
