"""Training for randomized smoothing (Cohen, Rosenfeld and Kolter, ICML 2019)."""

from __future__ import annotations

import dataclasses

import keras

from l2p_tf.defenses.base import DEFENSES, PGDDefense
from l2p_tf.layers.activation_noise import FixedNoise
from l2p_tf.layers.factory import LayerFactory
from l2p_tf.options import option


@DEFENSES.register("smoothing")
@dataclasses.dataclass(frozen=True)
class Smoothing(PGDDefense):
    """Randomized smoothing: Gaussian noise on the pixels, in training and at prediction.

    Trained on clean images with noise, as in the paper; with `adversarial_weight` above 0, also under attack (the 2021
    study's noise in training). `--certify=smoothing` computes certified radii.
    """

    clean_weight: float = option(1.0, "alpha: weight of the clean loss", low=0)
    adversarial_weight: float = option(0.0, "beta: weight of the adversarial loss; 0 attacks nothing", low=0)
    sigma: float = option(0.25, "standard deviation of the noise, in pixels of [0, 1]", above=0)
    prediction_draws: int = option(10, "draws of the noise that one answer averages", low=1)

    @property
    def own_layers(self) -> tuple[type[keras.layers.Layer], ...]:
        """Noise layers."""
        return (FixedNoise,)

    def factory(self, seed: int) -> LayerFactory:
        """Returns plain layers with noise on the pixels."""
        return _Factory(self, seed)


class _Factory(LayerFactory):
    def __init__(self, options: Smoothing, seed: int) -> None:
        super().__init__(seed)
        self.options = options

    def pixels(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Adds noise."""
        return FixedNoise(self.options.sigma, seed=self.next_seed(), name="pixel_noise")(x)
