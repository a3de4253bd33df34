"""A leaky ReLU that lets TensorFlow fuse it with the convolution before it."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from l2p_tf.layers.own_gradient import with_gradient


@keras.saving.register_keras_serializable(package="l2p_tf")
class LeakyReLU(keras.layers.Layer):
    """Leaky ReLU: x where it is positive, `slope` times x elsewhere.

    Its gradient uses the output, whose sign is the input's. TensorFlow's own needs the input, which prevents fusion:
    the graph optimizer then gives up with an error in the log.

    Args:
      slope: above 0.
    """

    def __init__(self, slope: float = 0.2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.slope = float(slope)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Applies the activation; the shape does not change."""
        return _leaky_relu(inputs, self.slope)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the input shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "slope": self.slope}


def _of_output(operation: tf.Operation, up: tf.Tensor) -> tf.Tensor:
    """Multiplies the gradient by the slope where the output is negative."""
    return tf.raw_ops.LeakyReluGrad(gradients=up, features=operation.outputs[0], alpha=operation.get_attr("alpha"))


_leaky_relu = with_gradient("LeakyRelu", _of_output)(tf.nn.leaky_relu)
