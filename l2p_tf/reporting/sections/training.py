"""Training curves: all trainings together, then each separately."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from l2p_tf.reporting import plot
from l2p_tf.reporting.format import plain
from l2p_tf.reporting.history import History
from l2p_tf.reporting.load import Run
from l2p_tf.reporting.plot import BLUE, GREEN, HEIGHT, INK, MUTED, VERMILLION, Curve, Mark, Plot, plot_of
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import Section, section
from l2p_tf.reporting.series import CURVES

_ROBUST = "validation_robust_accuracy"
_TOGETHER = "Trainings side by side"
_EPOCH = "epoch"
# A few points are separate measurements, and a single one would be invisible as a line.
_POINTS = 25
_LEGEND: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}


@dataclasses.dataclass(frozen=True)
class _Line:
    column: str
    label: str
    color: str
    dashes: str


_LOSSES = (
    _Line("loss", "total", INK, "-"),
    _Line("clean_loss", "clean", BLUE, "--"),
    _Line("adversarial_loss", "adversarial", VERMILLION, ":"),
)
_ACCURACIES = (
    _Line("clean_accuracy", "clean, train", BLUE, "--"),
    _Line("validation_accuracy", "clean, validation", BLUE, "-"),
    _Line("adversarial_accuracy", "adversarial, train", VERMILLION, "--"),
    _Line(_ROBUST, "adversarial, validation", VERMILLION, "-"),
)
_SUCCESSES = (
    _Line("validation_accuracy", "clean accuracy", BLUE, "-"),
    _Line("validation_rho_success", "attack's success", VERMILLION, ":"),
)
_RHO = (_Line("validation_rho", "\N{GREEK SMALL LETTER RHO} of the successes", GREEN, "--"),)
_NOISES: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "theta": ("theta", np.asarray), "alpha": ("alpha", np.asarray),
    "kernel_log_std": ("posterior std of kernels", np.exp),
}  # fmt: skip
"""Noise parameters by their names in `history.csv`, with the name and function of what is drawn."""


@section("training", "Training", order=110)
def training(results: Results) -> Section | None:
    """The curves of each training, and those of all trainings together."""
    own = [plot for i, run in enumerate(results.all_runs) if run.history for plot in of_training(run, f"run-{i}")]
    return Section(plots=(*side_by_side(results.all_runs), *own)) if own else None


def side_by_side(runs: Sequence[Run]) -> Iterator[Plot]:
    """Plots curves that two or more, but not too many, trainings have; one plot per kind of curve."""
    histories = [(run, run.history) for run in runs if run.history]
    robust = [run for run, history in histories if history.curve(_ROBUST)]
    rho = "mean L2 norm, \N{GREEK SMALL LETTER RHO}"
    kinds = [
        (
            f"Robust accuracy on held-out images{_under(robust)} by epoch",
            "accuracy, %",
            _columns(histories, _ROBUST, 100),
        ),
        ("Mean size of perturbations on held-out images by epoch", rho, _columns(histories, "validation_rho", 1)),
        ("Parameters of the noise by epoch, mean over the layers", "mean parameter", _noises(histories)),
    ]
    for i, (title, label, curves) in enumerate(kinds):
        if 2 <= len(curves) <= CURVES:
            percent, labels = label == "accuracy, %", (_EPOCH, label)
            made = plot_of(f"trainings-{i}", title, curves, labels, percent=percent, integers=True)
            yield dataclasses.replace(made, group=_TOGETHER)


def of_training(run: Run, name: str) -> Iterator[Plot]:
    """Plots one training's available curves: loss, accuracy, size of perturbations, noise.

    Args:
      run: the training, which has a history.
      name: prefix of the plots' names.
    """
    history, attack = run.history, str(run.option("validation_attack", "") or "")
    assert history is not None
    best = epoch if isinstance(epoch := run.note("best_epoch"), int) else None
    accuracy = f"Accuracy of {run.name} by epoch"
    if attack and history.curve(_ROBUST):
        accuracy += f"; in validation under {plain(attack)}"
    rho = f"Clean accuracy and mean L2 norm of the smallest perturbations of {run.name}, on validation images, by epoch"
    figures: dict[str, tuple[str, list[tuple[Sequence[_Line], str, float]]]] = {
        f"{name}-loss": (f"Loss of {run.name} by epoch", [(_LOSSES, "loss", 1)]),
        f"{name}-accuracy": (accuracy, [(_ACCURACIES, "accuracy, %", 100)]),
        f"{name}-rho": (rho, [(_SUCCESSES, "%", 100), (_RHO, "\N{GREEK SMALL LETTER RHO}, L2 norm", 1)]),
    }
    plots = [_curves(history, key, title, parts, best) for key, (title, parts) in figures.items()]
    plots += [_noise(history, parameter, name, run.name) for parameter in _NOISES]
    yield from (dataclasses.replace(made, group=f"Training of {run.name}") for made in plots if made)


def _columns(histories: Sequence[tuple[Run, History]], column: str, factor: float) -> list[Curve]:
    curves = [(run.name, history.curve(column)) for run, history in histories]
    return [Curve(name, curve[0] + 1, factor * curve[1]) for name, curve in curves if curve]


def _noises(histories: Sequence[tuple[Run, History]]) -> list[Curve]:
    curves = []
    for run, history in histories:
        for parameter in ("theta", "alpha"):
            means = history.noise_means(parameter)
            if means is not None:
                known = ~np.isnan(means)
                curves.append(Curve(f"{run.name}, {parameter}", history.epochs[known] + 1, means[known]))
    return curves


def _under(runs: Sequence[Run]) -> str:
    """Describes the attack used in validation; empty if unknown."""
    attacks = {str(run.option("validation_attack", "") or "") for run in runs}
    if "" in attacks or not attacks:
        return ""
    return f" under {plain(attacks.pop())}" if len(attacks) == 1 else ", each under the attack of its own validation,"


def _curves(
    history: History, name: str, title: str, parts: Sequence[tuple[Sequence[_Line], str, float]], best: int | None
) -> Plot | None:
    """Plots curves over epochs, in a panel for each part: its lines, their unit and the factor to it.

    None if the last panel has no curve.
    """
    if not any(history.curve(line.column) for line in parts[-1][0]):
        return None

    def draw(panels: Sequence[Axes]) -> list[Mark]:
        marks: list[Mark] = []
        for axes, (lines, unit, factor) in zip(panels, parts, strict=True):
            for line in lines:
                if curve := history.curve(line.column):
                    marks += _draw_line(axes, line, curve[0], factor * curve[1], unit)
                    if line.column == _ROBUST:
                        marks += _best_and_last(axes, line, curve[0], factor * curve[1], best)
            axes.set_ylim(*((-2, 102) if factor == 100 else (0, None) if lines is _RHO else (None, None)))
            _finish(axes, history, unit, best)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(ncols=2, handlelength=2.6, **_LEGEND)
        for axes in panels[:-1]:
            axes.set_xlabel("")
        return marks

    return plot.make(name, title, HEIGHT if len(parts) == 1 else 430, draw, panels=len(parts))


def _noise(history: History, parameter: str, prefix: str, run: str) -> Plot | None:
    """Plots a noise parameter over epochs: its mean in each layer and overall, and its range."""
    layers = history.layers(parameter)
    if not layers:
        return None
    label, function = _NOISES[parameter]

    def stacked(statistic: str) -> np.ndarray:
        return function(np.stack([history.noise(parameter, layer, statistic) for layer in layers]))

    with warnings.catch_warnings():
        # Epochs without recorded layers are NaN, and overflows are left out of the plot.
        warnings.simplefilter("ignore", RuntimeWarning)
        means = stacked("mean")
        mean, low, high = np.nanmean(means, 0), np.nanmin(stacked("min"), 0), np.nanmax(stacked("max"), 0)
        positive = not np.nanmin(low) < 0
    kept = plot.thin(len(history.epochs))
    epochs = history.epochs[kept]

    def draw(panels: Sequence[Axes]) -> list[Mark]:
        (axes,) = panels
        axes.fill_between(epochs, low[kept], high[kept], color=GREEN, alpha=0.15, linewidth=0, label="min to max")
        for i, layer in enumerate(means):
            name = "each layer" if i == 0 else None
            axes.plot(epochs, layer[kept], color=GREEN, alpha=0.8, linewidth=0.8, label=name)
        marker = "o" if len(epochs) == 1 else ""
        axes.plot(epochs, mean[kept], color=INK, linewidth=2, marker=marker, label="mean")
        if positive:
            axes.set_ylim(bottom=0)
        _finish(axes, history, label)
        axes.legend(ncols=3, handlelength=1.8, **_LEGEND)
        places = [i for i in np.flatnonzero(np.isfinite(mean)).tolist() if np.isfinite([low[i], high[i]]).all()]
        return [
            Mark(
                axes, float(history.epochs[i]), float(mean[i]),
                f"{label}: mean {mean[i]:.3g}, {low[i]:.3g} to {high[i]:.3g}, {_at(history.epochs[i])}",
            )
            for i in (places[k] for k in plot.spoken(len(places)))
        ]  # fmt: skip

    name = f"{prefix}-{parameter.replace('_', '-')}"
    return plot.make(name, f"Evolution of {label} of {run}, mean over layers, by epoch", HEIGHT, draw)


def _draw_line(axes: Axes, line: _Line, epochs: np.ndarray, values: np.ndarray, unit: str) -> list[Mark]:
    marker = "o" if len(epochs) <= _POINTS else ""
    axes.plot(epochs, values, line.dashes, color=line.color, marker=marker, label=line.label)
    percent = "%" if unit.endswith("%") else ""
    return [
        Mark(axes, float(epochs[i]), float(values[i]), f"{line.label}: {values[i]:.3g}{percent}, {_at(epochs[i])}")
        for i in plot.spoken(len(epochs))
    ]


def _best_and_last(axes: Axes, line: _Line, epochs: np.ndarray, values: np.ndarray, best: int | None) -> list[Mark]:
    """Marks a curve at the best and at the last epoch; a drop between them indicates overfitting."""
    last = int(epochs[-1])
    if best is None or best not in epochs or best == last:
        return []
    marks = []
    for word, epoch, marker in (("best", best, "D"), ("last", last, "s")):
        value = float(values[epochs == epoch][0])
        axes.plot(epoch, value, marker, color=line.color, markerfacecolor="none", markersize=7)
        marks.append(Mark(axes, epoch, value, f"accuracy {value:.3g}% at the {word} epoch, {line.label}, {_at(epoch)}"))
    return marks


def _at(epoch: float) -> str:
    return f"{_EPOCH} {epoch + 1:.0f}"


def _finish(axes: Axes, history: History, unit: str, best: int | None = None) -> None:
    axes.set_xlabel(_EPOCH)
    axes.set_ylabel(unit)
    # The history numbers epochs from 0; plots number them from 1.
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda epoch, _: f"{epoch + 1:.0f}"))
    if history.noise_start is not None:
        _mark(axes, history, history.noise_start, "noise on", top=True)
    if best is not None and history.epochs[0] <= best <= history.epochs[-1]:
        _mark(axes, history, best, "best", top=False)


def _mark(axes: Axes, history: History, epoch: float, text: str, *, top: bool) -> None:
    """Draws a line at an epoch, with its text at one end, on the side with room."""
    axes.axvline(epoch, color=MUTED, linewidth=1, dashes=(2, 2))
    late = epoch > (history.epochs[0] + history.epochs[-1]) / 2
    axes.annotate(
        text,
        (epoch, 1 if top else 0),
        (-4 if late else 4, -4 if top else 4),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="right" if late else "left",
        va="top" if top else "bottom",
        color=MUTED,
        fontsize=8.5,
        # An opaque background, so that no curve runs through the text.
        bbox={"boxstyle": "square,pad=0.1", "facecolor": plot.GROUND, "edgecolor": "none"},
    )
