"""Statistics of two classifiers on the same images: who is better, by how much, and how sure that is."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import fft, stats

Floats = npt.NDArray[np.float64]

_Z = float(stats.norm.ppf(0.975))


def mcnemar(first: npt.ArrayLike, second: npt.ArrayLike) -> Floats:
    """McNemar's exact test, two-sided, of two classifiers being right alone equally often.

    Args:
      first: numbers of images that only the first classifier got right, any shape.
      second: numbers of images that only the second one got right, the same shape.

    Returns:
      p-values, the same shape; 1 where the two differ on no image.
    """
    a, b = np.asarray(first), np.asarray(second)
    return np.minimum(1.0, 2 * stats.binom.cdf(np.minimum(a, b), a + b, 0.5))


def sign_flip(differences: npt.ArrayLike) -> float:
    """Exact sign-flip permutation test of paired differences, two-sided.

    Were neither classifier better, each image's difference would be as likely with the other sign. Of all ways to set
    the signs this is the share in which the sum is as far from 0 as the one observed, or farther. They are not tried
    one by one: the distribution of the sum follows from its characteristic function, so the result is no estimate and
    needs no seed. Where all differences are -1, 0 or 1 it is McNemar's exact test.

    Args:
      differences: one whole number an image, (images,).
    """
    whole = np.asarray(differences, np.int64)
    # A difference of 0 is the same under either sign.
    values = np.abs(whole[whole != 0])
    if not values.size:
        return 1.0
    sizes, times = np.unique(values // np.gcd.reduce(values), return_counts=True)
    total = int((sizes * times).sum())
    # What the positive differences sum to; by how much it is off half the total decides.
    positive = int(whole[whole > 0].sum()) // int(np.gcd.reduce(values))
    few = min(positive, total - positive)
    if len(sizes) == 1:
        return float(mcnemar(few, total - few))
    length = fft.next_fast_len(total + 1, real=True)
    turns = np.exp(-2j * np.pi * np.arange(length // 2 + 1) / length)
    spectrum = np.ones(len(turns), np.complex128)
    for size, count in zip(sizes.tolist(), times.tolist(), strict=True):
        spectrum *= ((1 + turns**size) / 2) ** count
    chances = fft.irfft(spectrum, length)
    # The transform rounds to about 1e-16 of the whole; no p-value is below that of all signs alike.
    return min(1.0, max(2 * float(chances[: few + 1].sum()), math.ldexp(2.0, -int(times.sum()))))


def difference_interval(first: npt.ArrayLike, second: npt.ArrayLike, covariance: npt.ArrayLike, count: int) -> Floats:
    """95% interval of the difference of two accuracies on the same images.

    Newcombe's method 10 (Statistics in Medicine 17, 1998, p. 2635): Wilson's intervals of the two, squared and added,
    less what the two have in common. It keeps a width where the two never differ. Accuracies that are means over
    repeats have intervals like those of a single evaluation, on the safe side, as elsewhere in a report.

    Args:
      first: accuracies as shares, any shape.
      second: those they are compared with, the same shape.
      covariance: of the two answers to an image, over the images, the same shape.
      count: number of images.

    Returns:
      Lower and upper ends of first minus second, (2, *shape).
    """
    p, q = np.asarray(first, np.float64), np.asarray(second, np.float64)
    (p_low, p_high), (q_low, q_high) = _wilson(p, count), _wilson(q, count)
    scale = np.sqrt(p * (1 - p) * q * (1 - q))
    # A positive correlation is corrected for continuity: half an image, of as many as are squared.
    shared = np.asarray(covariance, np.float64)
    shared = np.where(shared > 0, np.maximum(shared - 1 / (2 * count), 0.0), shared)
    correlation = np.divide(shared, scale, out=np.zeros_like(scale), where=scale > 0)

    def reach(a: Floats, b: Floats) -> Floats:
        return np.sqrt(np.maximum(a**2 - 2 * correlation * a * b + b**2, 0.0))

    return np.stack([p - q - reach(p - p_low, q_high - q), p - q + reach(p_high - p, q - q_low)])


def holm(p: npt.ArrayLike) -> Floats:
    """p-values corrected for their number (Holm 1979): the chance of one wrong claim among all stays below theirs."""
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
    """Answers sorted into bins of equal width by how sure they are.

    Args:
      confidence: in [0, 1], (k,).
      correct: 1 for a right answer, 0 for a wrong one, (k,).
      bins: how many; a confidence between two belongs to the lower one.

    Returns:
      For each bin the number of answers, their mean confidence, and the share that is right; 0 for an empty one.
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
