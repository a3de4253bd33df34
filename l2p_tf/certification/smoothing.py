"""Randomized smoothing (Cohen, Rosenfeld, Kolter 2019: Certified Adversarial Robustness via Randomized Smoothing)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
import numpy as np
from scipy import stats

from l2p_tf import inference
from l2p_tf.certification.base import ABSTAINED, CERTIFICATES, PREDICTION, Certificate, Certified
from l2p_tf.certification.bounds import clopper_pearson
from l2p_tf.certification.counting import Counts, count_draws
from l2p_tf.certification.wiring import stem
from l2p_tf.layers.activation_noise import FixedNoise
from l2p_tf.layers.noise import has_other_noise, noise_layers, without_noise
from l2p_tf.options import option
from l2p_tf.types import UserError


@CERTIFICATES.register("smoothing")
@dataclasses.dataclass(frozen=True)
class Smoothing(Certificate):
    """Randomized smoothing: majority vote under normal noise on the pixels (Cohen et al. 2019).

    The paper uses 100,000 draws, ten times our default: the number of draws limits radii to 3.20 sigma with 10,000 and
    3.81 sigma with 100,000. The model's own noise is switched off, so that the smoothed classifier is a function.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        fewest = math.floor(math.log(self.alpha) / math.log(0.5)) + 1
        if self.draws < fewest:
            raise UserError(
                f"smoothing: `draws` should be at least {fewest}: with fewer nothing can be certified at an alpha of "
                f"{self.alpha:g}. Received: {self.draws}"
            )

    sigma: float | None = option(
        None, "noise on the pixels, of [0, 1]; None takes the model's own input noise", above=0
    )

    @property
    def label(self) -> str:
        """Label such as `smoothing 0.25`."""
        return "smoothing" if self.sigma is None else f"smoothing {self.sigma:g}"

    def check(self, model: keras.Model) -> None:
        """Raises UserError if `sigma` is missing without input noise, or the model's noise cannot be turned off."""
        self.noise(model)
        if has_other_noise(model):
            raise UserError(
                "smoothing needs a model without noise, or with noise that can be switched off: this one has noise of "
                "another kind, of which all images of a batch may share a draw, so that votes are not independent."
            )

    def noise(self, model: keras.Model) -> float:
        """`sigma`, or the standard deviation of the model's own input noise."""
        if self.sigma is not None:
            return self.sigma
        first: Any = next(iter(stem(model)), None)
        fits = isinstance(first, FixedNoise) and first.std > 0 and first.distribution == "normal"
        if not fits or any(layer.is_on for layer in noise_layers(model) if layer is not first):
            raise UserError(
                "`sigma` of smoothing should be given, such as smoothing(sigma=0.25), for a model that has other noise "
                "than normal noise of a fixed size on its input, or none. Received: None"
            )
        return float(first.std)

    def count(self, model: keras.Model, images: np.ndarray, draws: int, seed: int, purpose: int, **how: Any) -> Counts:
        """Adds normal noise to the pixels, with the model's own noise off."""
        with without_noise(model):
            return count_draws(model, images, draws, seed, purpose, sigma=self.noise(model), **how)

    def judge(self, model: keras.Model, top: np.ndarray, counts: Counts) -> Certified:
        """Completes the paper's CERTIFY: sigma times the normal quantile of the lower bound, if that exceeds 1/2."""
        votes = counts.votes[np.arange(len(top)), top]
        lower, _ = clopper_pearson(votes, counts.draws, self.alpha)
        return Certified.of(top, self.noise(model) * stats.norm.ppf(lower), lower, 1.0 - lower)

    def radii(self, model: keras.Model) -> np.ndarray:
        """Returns the radius that each number of votes for a class gives it: float32 (draws + 1,), 0 for none."""
        votes = np.arange(self.draws + 1)
        counts = Counts(np.stack([votes, self.draws - votes], -1), np.zeros((self.draws + 1, 2)), self.draws)
        return self.judge(model, np.zeros(self.draws + 1, np.int64), counts).radius

    def predict(
        self,
        model: keras.Model,
        images: Any,
        seed: int = 0,
        *,
        draws: int | None = None,
        alpha: float | None = None,
        batch_size: int = 256,
        jit_compile: bool | None = None,
    ) -> np.ndarray:
        """Returns the smoothed classifier's class, without a radius, from few draws: the paper's PREDICT.

        Args:
          model: the classifier, restored afterward.
          images: uint8, or floats in [0, 1], (count, height, width, channels).
          seed: seed of the draws, which differ from those of `certify`.
          draws: draws of the noise; None takes the certificate's.
          alpha: error probability per image; None takes the certificate's.
          batch_size: rows per pass; each is one draw of one image.
          jit_compile: compile with XLA; None decides by device.

        Returns:
          int32 (count,); -1 if the first class does not beat the second in a two-sided binomial test.

        Raises:
          UserError: as in `certify`, or `draws` or `alpha` is out of range.
        """
        asked = self.replace(draws=self.draws if draws is None else draws, alpha=self.alpha if alpha is None else alpha)
        model, images = inference.prepared(model, images)
        asked.check(model)
        counts = asked.count(
            model, images, asked.draws, seed, PREDICTION, batch_size=batch_size, jit_compile=jit_compile
        )
        second, first = np.sort(counts.votes, -1)[:, -2:].T
        doubts = [stats.binomtest(int(a), int(a + b)).pvalue for a, b in zip(first, second, strict=True)]
        return np.where(np.array(doubts) <= asked.alpha, counts.votes.argmax(-1), ABSTAINED).astype(np.int32)
