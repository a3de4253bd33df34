"""Mean-field Gaussian layers (Adv-BNN; Liu et al., ICLR 2019): every weight has its own normal distribution."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from l2p_tf.layers.batch_norm import BatchNorm
from l2p_tf.layers.conv_norm import ConvNorm
from l2p_tf.layers.sampling import distributions
from l2p_tf.layers.weight_noise import DrawnDense, RandomWeights
from l2p_tf.types import UserError


class BayesianWeights(RandomWeights):
    """Mixin: each weight w has the posterior N(w, exp(log_std)^2) and the prior N(0, prior_std^2).

    The variables under a weight's own name are the posterior means, which the layer uses while its noise is off.

    Args:
      prior_std: standard deviation of the prior, above 0.
      initial_std: initial standard deviation of the posterior, above 0.
      seed: seed of the draws; None picks one at random.
    """

    RANDOM = ("kernel", "bias", "gamma", "beta")

    def __init__(self, *, prior_std: float = 0.08, initial_std: float = 0.08, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name, value in (("prior_std", prior_std), ("initial_std", initial_std)):
            if not value > 0:
                raise UserError(f"`{name}` should be above 0. Received: {value}")
        self.prior_std, self.initial_std = float(prior_std), float(initial_std)

    def build_deviation(self, name: str, shape: tuple[int, ...]) -> None:
        """Creates the logarithm of the posterior's standard deviation."""
        start = keras.initializers.Constant(float(np.log(self.initial_std)))
        kept = {"dtype": "float32", "autocast": False}
        setattr(self, _log_std(name), self.add_weight(name=_log_std(name), shape=shape, initializer=start, **kept))

    def deviation(self, name: str, mean: tf.Tensor) -> tf.Tensor:
        """Returns the posterior's standard deviation."""
        del mean
        return tf.exp(tf.convert_to_tensor(getattr(self, _log_std(name))))

    @property
    def noise_parameters(self) -> list[keras.Variable]:
        """Logarithms of the posterior's standard deviations."""
        return [getattr(self, _log_std(name)) for name in self.random_names]

    def kl(self) -> tf.Tensor:
        """Kullback-Leibler divergence of the posterior from the prior, in closed form, summed over all weights."""
        tfd = distributions()
        prior = tfd.Normal(0.0, self.prior_std)
        parts = []
        for name in self.random_names:
            mean = tf.cast(getattr(self, name).value, tf.float32)
            posterior = tfd.Normal(mean, tf.exp(getattr(self, _log_std(name)).value))
            parts.append(tf.reduce_sum(tfd.kl_divergence(posterior, prior)))
        return tf.reduce_sum(tf.stack(parts))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "prior_std": self.prior_std, "initial_std": self.initial_std}


@keras.saving.register_keras_serializable(package="l2p_tf")
class BayesianConv(BayesianWeights, ConvNorm):
    """`ConvNorm` with a Gaussian kernel, and Gaussian scale and shift, or bias, if it has them."""


@keras.saving.register_keras_serializable(package="l2p_tf")
class BayesianNorm(BayesianWeights, BatchNorm):
    """Batch norm with Gaussian scale and shift."""


@keras.saving.register_keras_serializable(package="l2p_tf")
class BayesianDense(BayesianWeights, DrawnDense):
    """A dense layer with Gaussian kernel and bias."""


def _log_std(name: str) -> str:
    return f"{name}_log_std"
