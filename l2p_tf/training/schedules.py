"""Schedules over epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from l2p_tf.types import UserError

SCHEDULES = ("drops", "cosine", "one_cycle")
_RISE = 0.4
"""Share of a training in which the rate of `one_cycle` rises (Wong et al. 2020; Rice et al. 2020)."""


def learning_rate(
    at: float, initial: float, drops: Sequence[int], factor: float = 0.1, *, schedule: str = "drops", epochs: int = 0
) -> float:
    """Returns the learning rate at a time of the training.

    Args:
      at: epochs completed, including the fraction of the current one.
      initial: the initial rate; the peak for `one_cycle`.
      drops: epochs at which the rate drops, in increasing order.
      factor: factor of each drop.
      schedule: `drops`; `cosine`, from `initial` to 0 along half a cosine wave; `one_cycle`, linear from 0 to `initial`
      in the first 40% of the training, then linear to 0.
      epochs: length of the training, for `cosine` and `one_cycle`.
    """
    if schedule == "cosine":
        return initial * 0.5 * (1.0 + math.cos(math.pi * at / epochs))
    if schedule == "one_cycle":
        top = _RISE * epochs
        return initial * (at / top if at < top else (epochs - at) / (epochs - top))
    return float(initial * factor ** sum(at >= drop for drop in drops))


def check_drops(drops: Sequence[int], epochs: int) -> None:
    """Raises UserError unless the epochs in `drops` increase and lie within the training."""
    if list(drops) != sorted(set(drops)) or any(not 0 < drop < epochs for drop in drops):
        raise UserError(f"`drops` should rise and lie between 1 and {epochs - 1}. Received: {list(drops)}")


def harmonic_tau(epoch: int, start: int) -> float:
    """tau(t) = sum over i = s..t of 1 / (i - s + 1): 1, 1.5, 1.833, ... (supplement, Equation 1, corrected).

    The paper prints 1 / (i - s - 1), which starts at -1 and then divides by zero; the harmonic series is meant.

    Args:
      epoch: t, the epoch.
      start: s, the first epoch with noise; at most t.
    """
    return sum(1.0 / (i - start + 1) for i in range(start, epoch + 1))
