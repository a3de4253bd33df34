"""PixelDP (Lecuyer et al. 2019, "Certified Robustness to Adversarial Examples with Differential Privacy")."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np

from l2p_tf.certification.base import CERTIFICATES, Certificate, Certified
from l2p_tf.certification.bounds import clopper_pearson, hoeffding
from l2p_tf.certification.counting import Counts, count_draws
from l2p_tf.certification.wiring import stem
from l2p_tf.layers.activation_noise import FixedNoise
from l2p_tf.layers.bounded_conv import BoundedConv
from l2p_tf.layers.image import ChannelNormalization
from l2p_tf.layers.noise import PER_EXAMPLE, is_randomized, noise_layers
from l2p_tf.options import option
from l2p_tf.types import UserError

_BOUNDS = {"clopper_pearson": clopper_pearson, "hoeffding": hoeffding}
_DELTAS = np.geomspace(1e-8, 0.5, 1000)
"""No condition can hold for deltas beyond 1/2, and radii below the first delta are practically 0."""


@CERTIFICATES.register("pixeldp")
@dataclasses.dataclass(frozen=True)
class PixelDP(Certificate):
    """PixelDP: noise after a first layer of bounded sensitivity stabilizes the mean output (Lecuyer et al. 2019).

    The certified classifier predicts the class of the largest expected vote (`clopper_pearson`), or of the largest
    expected softmax (`hoeffding`), over draws of the model's own noise. The sensitivity of the layers before the noise
    is measured, and assumes exact arithmetic.
    """

    draws: int = option(2000, "draws that bound the classes' expectations", low=1)
    alpha: float = option(0.05, "how often a certificate may be wrong", above=0, high=0.5)
    bound: str = option("clopper_pearson", "of the expected votes, or of the expected softmax", choices=tuple(_BOUNDS))

    @property
    def label(self) -> str:
        """Label `PixelDP` or `PixelDP softmax`."""
        return "PixelDP" if self.bound == "clopper_pearson" else "PixelDP softmax"

    def check(self, model: keras.Model) -> None:
        """Raises UserError unless the only noise is on, normal, per example, directly after a bounded conv."""
        _mechanism(model)

    def noise(self, model: keras.Model) -> float:
        """Standard deviation of the model's noise."""
        return _mechanism(model)[0]

    def count(self, model: keras.Model, images: np.ndarray, draws: int, seed: int, purpose: int, **how: Any) -> Counts:
        """Counts under the model's own noise."""
        return count_draws(model, images, draws, seed, purpose, **how)

    def scores(self, counts: Counts) -> np.ndarray:
        """Returns expected votes, or expected softmax, times the number of draws."""
        return counts.votes if self.bound == "clopper_pearson" else counts.softmax

    def judge(self, model: keras.Model, top: np.ndarray, counts: Counts) -> Certified:
        """Bounds all classes simultaneously; returns the largest radius that meets the robustness condition."""
        scores = self.scores(counts)
        count, classes = scores.shape
        rows, find = np.arange(count), _BOUNDS[self.bound]
        lower = find(scores[rows, top], counts.draws, self.alpha / 2)[0]
        uppers = find(scores, counts.draws, self.alpha / 2 / (classes - 1))[1]
        uppers[rows, top] = 0.0
        # The expectations sum to 1.
        upper = np.minimum(uppers.max(-1), 1.0 - lower)
        sigma, sensitivity = _mechanism(model)
        return Certified.of(top, sigma / sensitivity * largest_radius(lower, upper), lower, upper)


def largest_radius(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Largest perturbation that the bounds withstand, in units of sigma / sensitivity; float64 (count,), 0 for none.

    The Gaussian mechanism with sigma = sqrt(2 ln(1.25 / delta)) * sensitivity * L / eps is (eps, delta)-private, for
    eps of at most 1, to changes of length L, and the prediction cannot change if lower > e^(2 eps) * upper + (1 +
    e^eps) * delta (propositions 1 and 2 of the paper). In t = e^eps the condition is quadratic, so each delta has its
    largest eps. The largest L is searched among 1000 deltas and the one at which eps reaches 1, where it often lies;
    all shorter changes are withstood.

    Args:
      lower: lower bounds of the selected class's expectation, float64 (count,).
      upper: upper bounds of the runner-up's, float64 (count,).
    """
    lower, upper = (np.asarray(bound, np.float64)[:, None] for bound in (lower, upper))
    corner = np.clip((lower - np.e**2 * upper) / (1 + np.e), _DELTAS[0], _DELTAS[-1])
    delta = np.concatenate([np.broadcast_to(_DELTAS, (len(lower), len(_DELTAS))), corner], axis=1)
    gap = np.maximum(lower - delta, 0.0)
    t = 2 * gap / (delta + np.sqrt(delta**2 + 4 * upper * gap))
    eps = np.log(np.clip(t, 1.0, np.e))
    return (eps / np.sqrt(2 * np.log(1.25 / delta))).max(-1)


def _mechanism(model: keras.Model) -> tuple[float, float]:
    """Returns the noise's standard deviation, and the l_2 sensitivity of the noise layer's input to the pixels."""
    layers = stem(model)
    first = layers[0] if layers and isinstance(layers[0], ChannelNormalization) else None
    conv, noise = [*layers[1 if first else 0 :], None, None][:2]
    flaw = ""
    if not isinstance(conv, BoundedConv) or not isinstance(noise, FixedNoise):
        flaw = "no fixed noise right behind a bounded convolution of the image"
    elif conv.normalize:
        flaw = "batch norm, which knows no bound, within the bounded convolution"
    elif len(noise_layers(model)) != 1:
        flaw = f"{len(noise_layers(model))} layers with noise"
    elif noise.distribution != "normal" or noise.sharing != PER_EXAMPLE or not noise.std > 0:
        flaw = f"{noise.distribution} noise of standard deviation {noise.std:g}, drawn per {noise.sharing}"
    elif not is_randomized(model):
        flaw = "noise that is switched off"
    elif any(layer.compute_dtype != "float32" for layer in (conv, noise)):
        # Rounding to fewer digits can raise the sensitivity far above the kernel's.
        flaw = f"a first layer that computes in {conv.compute_dtype}, not float32"
    if flaw:
        raise UserError(
            "pixeldp certifies models whose only noise is normal, drawn per example, and added right behind a bounded "
            f"convolution: train with --defense=pixeldp. Received: a model with {flaw}"
        )
    return noise.std, conv.sensitivity / (min(first.std) if first else 1.0)
