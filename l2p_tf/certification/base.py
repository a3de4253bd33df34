"""Base class of certificates: inputs, outputs, and the methods of a subclass."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from l2p_tf import inference
from l2p_tf.certification.counting import Counts
from l2p_tf.options import Options, option
from l2p_tf.registry import Registry, spec_of

ABSTAINED = -1
SELECTION, ESTIMATION, PREDICTION = range(3)
"""Purposes of draws; draws for different purposes are independent."""


@dataclasses.dataclass(frozen=True)
class Certified:
    """Certification results per image.

    With the certificate's confidence, separately for each image, the smoothed classifier predicts `prediction` on every
    image closer than `radius`.

    Attributes:
      prediction: int32 (count,), the smoothed classifier's class; -1 if the certificate abstains.
      radius: float32 (count,), l_2 radius in pixels of [0, 1]; 0 if the certificate abstains.
      lower: float32 (count,), lower confidence bound of the selected class's probability, or expected softmax.
      upper: float32 (count,), upper confidence bound of the runner-up's.
    """

    prediction: np.ndarray
    radius: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    @classmethod
    def of(cls, top: np.ndarray, radius: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> Certified:
        """Converts selected classes and float64 bounds, rounded conservatively; abstains unless radius > 0."""
        certified = radius > 0
        return cls(
            prediction=np.where(certified, top, ABSTAINED).astype(np.int32),
            radius=_rounded_down(np.where(certified, radius, 0.0)),
            lower=_rounded_down(lower),
            upper=-_rounded_down(-upper),
        )


@dataclasses.dataclass(frozen=True)
class Certificate(Options, abc.ABC):
    """Base of all certificates: some draws of the noise select a class, others estimate its probability."""

    selection_draws: int = option(100, "draws that select the class", low=1)
    draws: int = option(10_000, "draws that bound its probability", low=1)
    alpha: float = option(0.001, "how often a certificate may be wrong", above=0, high=0.5)

    @abc.abstractmethod
    def check(self, model: keras.Model) -> None:
        """Raises UserError if the certificate does not fit the model, with advice."""

    @abc.abstractmethod
    def noise(self, model: keras.Model) -> float:
        """Returns the standard deviation of the certificate's noise, where it is added, for models that fit."""

    @abc.abstractmethod
    def count(self, model: keras.Model, images: np.ndarray, draws: int, seed: int, purpose: int, **how: Any) -> Counts:
        """Counts predictions under the certificate's noise; arguments as in `counting.count_draws`."""

    @abc.abstractmethod
    def judge(self, model: keras.Model, top: np.ndarray, counts: Counts) -> Certified:
        """Computes bounds and radii of the classes `top`, integers (count,), from draws that did not select them."""

    def scores(self, counts: Counts) -> np.ndarray:
        """Returns the scores (count, classes) whose maximum selects the class."""
        return counts.votes

    @property
    def spec(self) -> str:
        """The certificate's name and options, as a registry parses them."""
        return spec_of(self)

    @property
    def label(self) -> str:
        """Short name for tables."""
        return self.spec

    @property
    def confidence(self) -> float:
        """Confidence of each image's radius: 1 - alpha."""
        return 1.0 - self.alpha

    def facts(self, model: keras.Model) -> dict[str, Any]:
        """The noise's standard deviation `sigma`, `draws` and `confidence`, for records."""
        return {"sigma": self.noise(model), "draws": self.draws, "confidence": self.confidence}

    def certify(
        self,
        model: keras.Model,
        images: Any,
        seed: int = 0,
        *,
        batch_size: int = 256,
        jit_compile: bool | None = None,
        progress: Callable[[float], Any] | None = None,
    ) -> Certified:
        """Certifies the smoothed classifier on images.

        Args:
          model: the classifier; the switch of its noise and its generators' states are restored.
          images: uint8, or floats in [0, 1], (count, height, width, channels).
          seed: seed of all draws.
          batch_size: rows per pass; each is one draw of one image.
          jit_compile: compile with XLA; None decides by device.
          progress: called from time to time with the share of the work that is done, in [0, 1].

        Raises:
          UserError: the certificate or the images do not fit the model.
        """
        model, images = inference.prepared(model, images)
        self.check(model)
        todo, done = len(images) * (self.selection_draws + self.draws), 0

        def advance(draws: int) -> None:
            nonlocal done
            done += draws
            if progress:
                progress(done / todo)

        how: dict[str, Any] = {"batch_size": batch_size, "jit_compile": jit_compile, "progress": advance}
        with _whole_float32():
            selected = self.count(model, images, self.selection_draws, seed, SELECTION, **how)
            estimated = self.count(model, images, self.draws, seed, ESTIMATION, **how)
        return self.judge(model, self.scores(selected).argmax(-1), estimated)


@contextlib.contextmanager
def _whole_float32() -> Iterator[None]:
    """Disables TF32 on GPUs, because the sensitivity bounds do not cover its rounding."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def _rounded_down(values: np.ndarray) -> np.ndarray:
    near = values.astype(np.float32)
    return np.where(near > values, np.nextafter(near, np.float32(-np.inf)), near)


CERTIFICATES: Registry[Certificate] = Registry("certificate", "l2p_tf.certification")
