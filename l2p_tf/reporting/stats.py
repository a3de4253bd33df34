"""Paired statistics of two classifiers on the same images: difference, interval and significance."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import fft, stats

Floats = npt.NDArray[np.float64]

_Z = float(stats.norm.ppf(0.975))


def mcnemar(first: npt.ArrayLike, second: npt.ArrayLike) -> Floats:
    """McNemar's exact test, two-sided, of whether two classifiers are correct alone equally often.

    Args:
      first: numbers of images that only the first classifier got right, any shape.
      second: numbers of images that only the second one got right, the same shape.

    Returns:
      p-values, the same shape; 1 if the two differ on no image.
    """
    a, b = np.asarray(first), np.asarray(second)
    return np.minimum(1.0, 2 * stats.binom.cdf(np.minimum(a, b), a + b, 0.5))


def sign_flip(differences: npt.ArrayLike) -> float:
    """Exact sign-flip permutation test of paired differences, two-sided.

    If neither classifier were better, each image's difference would be equally likely with the other sign. The p-value
    is the share of all sign assignments whose sum is at least as far from 0 as the observed one. The distribution of
    the sum follows from its characteristic function without enumeration, so the result is exact and needs no seed. If
    all differences are -1, 0 or 1, it is McNemar's exact test.

    Args:
      differences: one integer per image, (images,).
    """
    integers = np.asarray(differences, np.int64)
    # A difference of 0 is the same under either sign.
    values = np.abs(integers[integers != 0])
    if not values.size:
        return 1.0
    sizes, times = np.unique(values // np.gcd.reduce(values), return_counts=True)
    total = int((sizes * times).sum())
    # Sum of the positive differences; its distance from half the total decides.
    positive = int(integers[integers > 0].sum()) // int(np.gcd.reduce(values))
    few = min(positive, total - positive)
    if len(sizes) == 1:
        return float(mcnemar(few, total - few))
    length = fft.next_fast_len(total + 1, real=True)
    turns = np.exp(-2j * np.pi * np.arange(length // 2 + 1) / length)
    spectrum = np.ones(len(turns), np.complex128)
    for size, count in zip(sizes.tolist(), times.tolist(), strict=True):
        spectrum *= ((1 + turns**size) / 2) ** count
    chances = fft.irfft(spectrum, length)
    # The transform rounds to about 1e-16 of the total; no p-value is below that of all signs being equal.
    return min(1.0, max(2 * float(chances[: few + 1].sum()), math.ldexp(2.0, -int(times.sum()))))


def difference_interval(first: npt.ArrayLike, second: npt.ArrayLike, covariance: npt.ArrayLike, count: int) -> Floats:
    """95% interval of the difference of two accuracies on the same images.

    Newcombe's method 10 (Statistics in Medicine 17, 1998, p. 2635): Wilson's intervals of the two, squared and added,
    minus the correlation term. Its width stays positive if the two never differ. Means over repeats are treated like
    single evaluations, which is conservative.

    Args:
      first: accuracies as shares, any shape.
      second: the accuracies to compare with, the same shape.
      covariance: covariance of the two results over the images, the same shape.
      count: number of images.

    Returns:
      Lower and upper ends of first minus second, (2, *shape).
    """
    p, q = np.asarray(first, np.float64), np.asarray(second, np.float64)
    (p_low, p_high), (q_low, q_high) = _wilson(p, count), _wilson(q, count)
    scale = np.sqrt(p * (1 - p) * q * (1 - q))
    # Continuity correction of a positive correlation: half an image.
    shared = np.asarray(covariance, np.float64)
    shared = np.where(shared > 0, np.maximum(shared - 1 / (2 * count), 0.0), shared)
    correlation = np.divide(shared, scale, out=np.zeros_like(scale), where=scale > 0)

    def reach(a: Floats, b: Floats) -> Floats:
        return np.sqrt(np.maximum(a**2 - 2 * correlation * a * b + b**2, 0.0))

    return np.stack([p - q - reach(p - p_low, q_high - q), p - q + reach(p_high - p, q - q_low)])


def holm(p: npt.ArrayLike) -> Floats:
    """Corrects p-values for multiple tests (Holm 1979), which bounds the probability of any wrong claim."""
    values = np.asarray(p, np.float64)
    order = np.argsort(values, kind="stable")
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)))
    return corrected


def _wilson(share: Floats, count: int) -> tuple[Floats, Floats]:
    center = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = _Z * np.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2)) / (1 + _Z**2 / count)
    return center - half, center + half


def reliability(confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = 15) -> tuple[Floats, Floats, Floats]:
    """Sorts predictions into bins of equal width by confidence.

    Args:
      confidence: in [0, 1], (k,).
      correct: 1 for a correct prediction, 0 for a wrong one, (k,).
      bins: number of bins; a confidence on an edge belongs to the lower one.

    Returns:
      For each bin the number of predictions, their mean confidence, and their accuracy; 0 for an empty one.
    """
    sure, right = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    places = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins).astype(np.float64)
    sums = (np.bincount(places, weights=values, minlength=bins) for values in (sure, right))
    means, shares = (np.divide(total, counts, out=np.zeros(bins), where=counts > 0) for total in sums)
    return counts, means, shares


def calibration_error(confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017, Equation 5): the mean gap between confidence and accuracy."""
    counts, means, shares = reliability(confidence, correct, bins)
    return float(np.sum(counts * np.abs(means - shares)) / np.sum(counts))
