"""What changes with the epoch."""

from __future__ import annotations

from collections.abc import Sequence

from l2p_tf.types import UserError


def learning_rate(epoch: int, initial: float, drops: Sequence[int], factor: float = 0.1) -> float:
    """The rate of an epoch: `initial`, multiplied by `factor` at each epoch of `drops`.

    Args:
      epoch: number of the epoch, from 0.
      initial: the rate at the start.
      drops: epochs at which the rate falls, in rising order.
      factor: what it is multiplied by.
    """
    return float(initial * factor ** sum(epoch >= drop for drop in drops))


def check_drops(drops: Sequence[int], epochs: int) -> None:
    """UserError unless the epochs in `drops` rise and lie within the training."""
    if list(drops) != sorted(set(drops)) or any(not 0 < drop < epochs for drop in drops):
        raise UserError(f"`drops` should rise and lie between 1 and {epochs - 1}. Received: {list(drops)}")


def harmonic_tau(epoch: int, start: int) -> float:
    """tau(t) = sum over i = s..t of 1 / (i - s + 1): 1, 1.5, 1.833, ... (supplement, Equation 1, corrected).

    Printed is 1 / (i - s - 1), which starts at -1 and then divides by zero; the harmonic series is meant.

    Args:
      epoch: t, the epoch.
      start: s, the first epoch with noise; at most t.
    """
    return sum(1.0 / (i - start + 1) for i in range(start, epoch + 1))
