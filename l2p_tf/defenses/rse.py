"""Random self-ensemble (RSE; Liu, Cheng, Zhang and Hsieh, ECCV 2018)."""

from __future__ import annotations

import dataclasses

import keras

from l2p_tf.defenses.base import DEFENSES, Defense
from l2p_tf.layers.activation_noise import FixedNoise
from l2p_tf.layers.factory import LayerFactory
from l2p_tf.options import option
from l2p_tf.training.base import RobustTrainer


@DEFENSES.register("rse")
@dataclasses.dataclass(frozen=True)
class RSE(Defense):
    """RSE: Gaussian noise before every convolution, in training and at prediction; predictions average several draws.

    The published training uses SGD at 0.01 with weight decay 5e-4, on clean images.
    """

    first_std: float = option(0.2, "standard deviation before the first convolution, of the normalized image", low=0)
    inner_std: float = option(0.1, "standard deviation before the others", low=0)
    noise_sharing: str = option("example", "noise drawn per example, or one map a batch", choices=("example", "batch"))
    prediction_draws: int = option(10, "draws of the noise that one answer averages", low=1)

    @property
    def own_layers(self) -> tuple[type[keras.layers.Layer], ...]:
        """Noise layers."""
        return (FixedNoise,)

    def factory(self, seed: int) -> LayerFactory:
        """Returns plain layers with noise before every convolution."""
        return _Factory(self, seed)

    def make_trainer(self, classifier: keras.Model, seed: int, examples: int) -> RobustTrainer:
        """Returns the common trainer without an attack."""
        del examples
        return RobustTrainer(classifier, seed=seed)


class _Factory(LayerFactory):
    def __init__(self, options: RSE, seed: int) -> None:
        super().__init__(seed)
        self.options, self.first = options, True

    def normalized(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Marks the start of a network."""
        self.first = True
        return x

    def before_conv(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """Adds noise."""
        std = self.options.first_std if self.first else self.options.inner_std
        self.first = False
        return FixedNoise(std, sharing=self.options.noise_sharing, seed=self.next_seed(), name=f"{name}_noise")(x)
