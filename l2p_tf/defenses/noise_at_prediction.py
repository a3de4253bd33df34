"""Noise at prediction: f(x + eta) for a classifier that is already trained (the 2021 study, section 3.3)."""

from __future__ import annotations

import dataclasses

import keras

from l2p_tf.defenses.base import DEFENSES, DerivedDefense
from l2p_tf.inference import seed_pair
from l2p_tf.layers.activation_noise import FixedNoise
from l2p_tf.options import option


@DEFENSES.register("noise_at_prediction")
@dataclasses.dataclass(frozen=True)
class NoiseAtPrediction(DerivedDefense):
    """Gaussian noise on the pixels of another run's classifier, at prediction only, without training.

    The study ties the noise to the attack's epsilon and takes one draw. With noise in training too, it is `smoothing`.
    """

    std: float = option(0.03, "standard deviation of the noise, in pixels of [0, 1]", low=0)
    distribution: str = option("normal", "of the noise", choices=("normal", "laplace", "logistic", "uniform"))

    def derive(self, classifier: keras.Model, seed: int) -> keras.Model:
        """Puts a noise layer in front of the classifier, whose own noise stays."""
        images = keras.Input(classifier.input_shape[1:], name="images", dtype="float32")
        noise = FixedNoise(
            self.std, distribution=self.distribution, seed=int(seed_pair(seed, 1)[0]) % 2**31, name="pixel_noise"
        )
        return keras.Model(images, classifier(noise(images)), name="classifier")
