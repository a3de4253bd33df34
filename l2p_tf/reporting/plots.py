"""The plots of a report. Each is small and stands alone, so that a narrow page can set them one below the other."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from l2p_tf.reporting import certified, svg
from l2p_tf.reporting.certified import Certified
from l2p_tf.reporting.history import History
from l2p_tf.reporting.lines import COLORS, DASHES, HEIGHT, WIDTH, Plot, make, said, spoken, thin
from l2p_tf.reporting.svg import Mark
from l2p_tf.reporting.text import plain


@dataclasses.dataclass(frozen=True)
class _Line:
    column: str
    label: str
    color: str
    dashes: str


_ROBUST = "validation_robust_accuracy"
_LOSSES = (
    _Line("loss", "total", svg.INK, "-"),
    _Line("clean_loss", "clean", svg.BLUE, "--"),
    _Line("adversarial_loss", "adversarial", svg.VERMILLION, ":"),
)
_ACCURACIES = (
    _Line("clean_accuracy", "clean, train", svg.BLUE, "--"),
    _Line("validation_accuracy", "clean, validation", svg.BLUE, "-"),
    _Line("adversarial_accuracy", "adversarial, train", svg.VERMILLION, "--"),
    _Line(_ROBUST, "adversarial, validation", svg.VERMILLION, "-"),
)


_CLEAN = _Line("validation_accuracy", "clean accuracy", svg.BLUE, "-")
_SUCCESS = _Line("validation_rho_success", "attack's success", svg.VERMILLION, ":")
_RHO = _Line("validation_rho", "\N{GREEK SMALL LETTER RHO} of the successes", svg.GREEN, "--")
_STACKED = 430
_EPOCH = "epoch"
_APART, _LOW = 0.1, 12


@dataclasses.dataclass(frozen=True)
class _Noise:
    """A parameter of the noise as `history.csv` calls it, and what is drawn of it."""

    parameter: str
    label: str
    function: Callable[[np.ndarray], np.ndarray] = np.asarray


_NOISES = (
    _Noise("theta", "theta"),
    _Noise("alpha", "alpha"),
    _Noise("kernel_log_std", "posterior std of kernels", np.exp),
)


def of_training(history: History, name: str, run: str, best: int | None = None, attack: str = "") -> list[Plot]:
    """The plots of one training that its history has values for: loss, accuracy, size of perturbations, noise.

    Args:
      history: its curves.
      name: prefix for the plots' names.
      run: its name, for their titles.
      best: the epoch whose weights were kept as the best; None where it is not known.
      attack: spec of the attack under which the accuracy in validation was measured; empty where it is not known.
    """
    title = f"Accuracy of {run} by epoch"
    if attack and history.curve(_ROBUST):
        title += f"; in validation under {plain(attack)}"
    found = [
        _curves(history, _LOSSES, f"{name}-loss", f"Loss of {run} by epoch", "loss", 1),
        _curves(history, _ACCURACIES, f"{name}-accuracy", title, "accuracy, %", 100, best),
        _tradeoff(history, f"{name}-rho", run, best),
        *(_noise(history, noise, name, run) for noise in _NOISES),
    ]
    return [plot for plot in found if plot is not None]


def of_certificates(found: Sequence[Certified]) -> list[Plot]:
    """One plot of all certificates: the share of images that each vouches for, by radius; none where there are none."""
    if not found:
        return []

    labels = [plain(f"{one.name}, {one.record.label}", 60) for one in found]
    marks: list[Mark] = []

    def draw(axes: Axes) -> list[Mark]:
        lines = []
        for i, one in enumerate(found):
            color, dashes = COLORS[i % len(COLORS)], DASHES[i % len(DASHES)]
            radii, shares = _steps(one)
            lines += axes.step(radii, 100 * shares, where="pre", color=color, linestyle=dashes)
            for at in spoken(len(radii)):
                text = f"{labels[i]}: {100 * shares[at]:.3g}% certified at L2 radius {radii[at]:.3g}"
                marks.append(Mark(axes, radii[at], 100 * shares[at], text))
        axes.set_ylim(-2, 102)
        axes.set_xlim(left=0)
        axes.set_xlabel("L2 radius")
        axes.set_ylabel("certified accuracy, %")
        axes.legend(lines, labels, loc="lower center", bbox_to_anchor=(0.5, 1.0), handlelength=3.2)
        return marks

    title = "Certified accuracy against L2 radius, a curve for each certificate of each run"
    return [make(certified.NAME, title, HEIGHT + 18 * (len(found) - 1), draw)]


def _steps(one: Certified) -> tuple[np.ndarray, np.ndarray]:
    """Radii, and the share certified at each, which holds from the radius before up to this one."""
    radii = np.unique(one.radii)
    # Where radii are left out, the share is that of the next larger one: never more than is certified.
    radii = np.concatenate([[0.0], radii[thin(len(radii))]])
    shares = [one.accuracy(radius) for radius in radii.tolist()]
    return np.append(radii, radii[-1]), np.append(shares, 0.0)


def _curves(
    history: History, lines: Sequence[_Line], name: str, title: str, unit: str, factor: float, best: int | None = None
) -> Plot | None:
    drawn = [(line, curve) for line in lines if (curve := history.curve(line.column))]
    if not drawn:
        return None

    def draw(axes: Axes) -> list[Mark]:
        marks = []
        for line, (epochs, values) in drawn:
            marks += _draw_line(axes, line, epochs, factor * values, unit)
            if line.column == _ROBUST:
                marks += _best_and_last(axes, line, epochs, factor * values, unit, best)
        if factor == 100:
            axes.set_ylim(-2, 102)
        _finish(axes, history, unit)
        _mark_best(axes, history, best)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, handlelength=2.6)
        return marks

    return make(name, title, HEIGHT, draw)


def _tradeoff(history: History, name: str, run: str, best: int | None) -> Plot | None:
    """Clean accuracy above the size of the smallest perturbations: as one rises over a training the other may fall."""
    clean, rho = history.curve("validation_accuracy"), history.curve("validation_rho")
    if rho is None:
        return None
    success = history.curve("validation_rho_success")
    title = f"Clean accuracy and mean L2 norm of the smallest perturbations of {run}, on validation images, by epoch"
    with svg.drawing(WIDTH, _STACKED) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True)
        marks = _draw_line(lower, _RHO, *rho, "L2 norm")
        if clean:
            marks += _draw_line(upper, _CLEAN, clean[0], 100 * clean[1], ", %")
        if success and success[1].min() < 1:
            marks += _draw_line(upper, _SUCCESS, success[0], 100 * success[1], ", %")
        upper.set_ylim(-2, 102)
        lower.set_ylim(bottom=0)
        _finish(upper, history, "%")
        upper.set_xlabel("")
        _finish(lower, history, "\N{GREEK SMALL LETTER RHO}, L2 norm")
        for axes in (upper, lower):
            _mark_best(axes, history, best)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, handlelength=2.6)
        return Plot(name, title, svg.to_svg(figure, name, marks))


def _noise(history: History, noise: _Noise, prefix: str, run: str) -> Plot | None:
    layers = history.layers(noise.parameter)
    if not layers:
        return None

    def stacked(statistic: str) -> np.ndarray:
        return noise.function(np.stack([history.noise(noise.parameter, layer, statistic) for layer in layers]))

    with warnings.catch_warnings():
        # An epoch in which no layer recorded anything is NaN, and what overflows is left out of the plot.
        warnings.simplefilter("ignore", RuntimeWarning)
        means = stacked("mean")
        mean, low, high = np.nanmean(means, 0), np.nanmin(stacked("min"), 0), np.nanmax(stacked("max"), 0)
        positive = not np.nanmin(low) < 0
    shown = thin(len(history.epochs))
    epochs = history.epochs[shown]
    marker = "o" if len(epochs) == 1 else ""

    def draw(axes: Axes) -> list[Mark]:
        axes.fill_between(epochs, low[shown], high[shown], color=svg.GREEN, alpha=0.15, linewidth=0, label="min to max")
        for i, layer in enumerate(means):
            label = "each layer" if i == 0 else None
            axes.plot(epochs, layer[shown], color=svg.GREEN, alpha=0.8, linewidth=0.8, label=label)
        axes.plot(epochs, mean[shown], color=svg.INK, linewidth=2, marker=marker, label="mean")
        if positive:
            axes.set_ylim(bottom=0)
        _finish(axes, history, noise.label)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, handlelength=1.8)
        places = [i for i in np.flatnonzero(np.isfinite(mean)).tolist() if np.isfinite([low[i], high[i]]).all()]
        return [
            Mark(
                axes, float(history.epochs[i]), float(mean[i]),
                f"{noise.label}: mean {mean[i]:.3g}, {low[i]:.3g} to {high[i]:.3g}, {_at(history.epochs[i])}",
            )
            for i in (places[k] for k in spoken(len(places)))
        ]  # fmt: skip

    name = f"{prefix}-{noise.parameter.replace('_', '-')}"
    return make(name, f"Evolution of {noise.label} of {run}, mean over layers, by epoch", HEIGHT, draw)


def _draw_line(axes: Axes, line: _Line, epochs: np.ndarray, values: np.ndarray, unit: str) -> list[Mark]:
    # Few points are each a measurement of its own, and a single one would not be seen as a line.
    marker = "o" if len(epochs) <= 25 else ""
    axes.plot(epochs, values, line.dashes, color=line.color, marker=marker, label=line.label)
    percent = "%" if unit.endswith("%") else ""
    return [
        Mark(axes, float(epochs[i]), float(values[i]), f"{line.label}: {values[i]:.3g}{percent}, {_at(epochs[i])}")
        for i in spoken(len(epochs))
    ]


def _best_and_last(
    axes: Axes, line: _Line, epochs: np.ndarray, values: np.ndarray, unit: str, best: int | None
) -> list[Mark]:
    """Marks a curve at the best epoch and at the last: where it is lower at the last, the training overfitted."""
    last = int(epochs[-1])
    if best is None or best not in epochs or best == last:
        return []
    marks = []
    for word, epoch, marker in (("best", best, "D"), ("last", last, "s")):
        value = float(values[epochs == epoch][0])
        axes.plot(epoch, value, marker, color=line.color, markerfacecolor="none", markersize=7)
        # Below the point, where the curve of the training images is not; where there is room for both.
        if word == "best" or last - best > _APART * (last - int(epochs[0])):
            where = (epoch, value), (0, -13 if value > _LOW else 7)
            axes.annotate(f"{value:.1f}", *where, textcoords="offset points", ha="center", color=svg.INK, fontsize=8.5)
        marks.append(Mark(axes, epoch, value, f"{said(unit, value)} at the {word} epoch, {line.label}, {_at(epoch)}"))
    return marks


def _at(epoch: float) -> str:
    return f"{_EPOCH} {epoch + 1:.0f}"


def _finish(axes: Axes, history: History, unit: str) -> None:
    axes.set_xlabel(_EPOCH)
    axes.set_ylabel(unit)
    # Epochs are numbered from 0 in the history, and from 1 for people.
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda epoch, _: f"{epoch + 1:.0f}"))
    if history.noise_start is not None:
        _mark(axes, history, history.noise_start, "noise on", top=True)


def _mark_best(axes: Axes, history: History, best: int | None) -> None:
    if best is not None and history.epochs[0] <= best <= history.epochs[-1]:
        _mark(axes, history, best, "best", top=False)


def _mark(axes: Axes, history: History, epoch: float, text: str, *, top: bool) -> None:
    """A line at an epoch, with its text at one end and on the side where there is room."""
    axes.axvline(epoch, color=svg.MUTED, linewidth=1, dashes=(2, 2))
    late = epoch > (history.epochs[0] + history.epochs[-1]) / 2
    axes.annotate(
        text,
        (epoch, 1 if top else 0),
        (-4 if late else 4, -4 if top else 4),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="right" if late else "left",
        va="top" if top else "bottom",
        color=svg.MUTED,
        fontsize=8.5,
        # On a ground of its own, so that no curve runs through it.
        bbox={"boxstyle": "square,pad=0.1", "facecolor": svg.GROUND, "edgecolor": "none"},
    )
