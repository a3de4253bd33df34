"""Several trainings in one plot: how they compare epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from l2p_tf.reporting.lines import Curve, Plot, plot_of
from l2p_tf.reporting.runs import Run
from l2p_tf.reporting.sweeps import CURVES
from l2p_tf.reporting.text import plain

_ROBUST = "validation_robust_accuracy"
_COLUMNS = (
    (_ROBUST, "Robust accuracy on held-out images", "accuracy, %", 100.0),
    (
        "validation_rho",
        "Mean size of perturbations on held-out images",
        "mean L2 norm, \N{GREEK SMALL LETTER RHO}",
        1.0,
    ),
)
_NOISES = ("theta", "alpha")


def plots(runs: Sequence[Run]) -> list[Plot]:
    """The curves that at least two and not too many trainings have, one plot for each kind of curve."""
    drawn = []
    for i, (column, title, label, unit) in enumerate(_COLUMNS):
        found = [
            Curve(run.name, epochs + 1, unit * values)
            for run in runs
            if run.history and (curve := run.history.curve(column))
            for epochs, values in [curve]
        ]
        if column == _ROBUST:
            title += _under([run for run in runs if run.history and run.history.curve(column)])
        if 2 <= len(found) <= CURVES:
            drawn.append(plot_of(f"trainings-{i}", f"{title} by epoch", found, ("epoch", label), percent=unit == 100))
    noises = [noise for run in runs for parameter in _NOISES if (noise := _noise(run, parameter))]
    if 2 <= len(noises) <= CURVES:
        title = "Parameters of the noise by epoch, mean over the layers"
        drawn.append(plot_of("trainings-noise", title, noises, ("epoch", "mean parameter")))
    return drawn


def _under(runs: Sequence[Run]) -> str:
    """The attack of their validation in words; empty where it is not known."""
    attacks = {str(run.option("validation_attack", "") or "") for run in runs}
    if "" in attacks or not attacks:
        return ""
    return f" under {plain(attacks.pop())}" if len(attacks) == 1 else ", each under the attack of its own validation,"


def _noise(run: Run, parameter: str) -> Curve | None:
    means = run.history.noise_means(parameter) if run.history else None
    if means is None or run.history is None:
        return None
    there = ~np.isnan(means)
    return Curve(f"{run.name}, {parameter}", run.history.epochs[there] + 1, means[there])
