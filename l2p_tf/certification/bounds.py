"""One-sided confidence bounds of an expectation in [0, 1] from independent draws."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats


def clopper_pearson(hits: Any, draws: int, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Exact confidence bounds of a probability (Clopper and Pearson 1934).

    Args:
      hits: number of successful draws; integers of any shape.
      draws: number of draws, at least 1.
      alpha: failure probability of each bound. Each holds with probability at least 1 - alpha, both with 1 - 2 alpha.

    Returns:
      The lower and the upper bound; float64 of the shape of `hits`.
    """
    hits = np.asarray(hits)
    # At the ends, where the beta distribution is undefined, the bounds are 0 and 1.
    lower = stats.beta.ppf(alpha, np.maximum(hits, 1), draws - hits + 1)
    upper = stats.beta.ppf(1 - alpha, hits + 1, np.maximum(draws - hits, 1))
    return np.where(hits == 0, 0.0, lower), np.where(hits == draws, 1.0, upper)


def hoeffding(sums: Any, draws: int, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Confidence bounds of the expectation of a number in [0, 1] (Hoeffding 1963, theorem 1).

    Args:
      sums: sums over the draws, of any shape.
      draws: number of draws, at least 1.
      alpha: as in `clopper_pearson`.

    Returns:
      The lower and the upper bound; float64 of the shape of `sums`.
    """
    mean, width = np.asarray(sums, np.float64) / draws, np.sqrt(np.log(1 / alpha) / (2 * draws))
    return np.maximum(mean - width, 0.0), np.minimum(mean + width, 1.0)
