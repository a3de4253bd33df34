"""Plots of one or more curves, which differ in color, dashes and markers alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes

from l2p_tf.reporting import svg
from l2p_tf.reporting.text import plain

WIDTH, HEIGHT = 400, 270
"""Size of a plot with a one-line legend, in about CSS pixels."""

COLORS: tuple[str, ...] = (svg.BLUE, svg.VERMILLION, svg.GREEN, svg.PURPLE, svg.INK)
DASHES: tuple[str, ...] = ("-", "--", ":", "-.")
# Four dashes, five colors and six markers: neighbors differ in all, and it takes sixty curves to have two alike.
_MARKERS = ("o", "s", "^", "D", "v", "P")
_LEGEND = 18
# More points than this cannot be told apart at the plots' width.
_POINTS = 150
# More ticks than this run into each other, and so do those of values that lie further apart than this.
_TICKS, _LOG = 8, 15


@dataclasses.dataclass(frozen=True)
class Plot:
    """One plot.

    Attributes:
      name: of its file, and prefix of its ids; letters, digits and dashes.
      title: what it shows, in a line.
      svg: the document.
    """

    name: str
    title: str
    svg: str


@dataclasses.dataclass(frozen=True)
class Curve:
    """One curve.

    Attributes:
      label: its name in the legend.
      x: of its points, (k,).
      y: of its points, (k,).
      low: lower ends of the points' intervals, (k,); None for no intervals.
      high: upper ends.
      texts: what stands beside each point; empty for nothing.
      kind: points joined by lines; points alone; steps, each of which holds from the point before up to its own; or a
        thin line without points for what is aimed at.
      style: of its color, dashes and marker; None for its place among the curves.
    """

    label: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    texts: tuple[str, ...] = ()
    kind: Literal["line", "points", "steps", "target"] = "line"
    style: int | None = None


def plot_of(
    name: str,
    title: str,
    curves: Sequence[Curve],
    labels: tuple[str, str],
    *,
    percent: bool = False,
    right: float | None = None,
    ticks: Sequence[float] = (),
) -> Plot:
    """A plot of some curves, its legend above it.

    Args:
      name: of the plot.
      title: of the plot.
      curves: at least one.
      labels: of the two axes.
      percent: whether y runs from 0 to 100.
      right: where x ends, from 0 on; None for where the points are.
      ticks: values of x at which ticks are wanted; they also say whether the axis is better logarithmic.
    """

    def draw(axes: Axes) -> None:
        handles = [_draw(axes, curve, i if curve.style is None else curve.style) for i, curve in enumerate(curves)]
        if percent:
            axes.set_ylim(-2, 102)
        if right is not None:
            axes.set_xlim(0, right)
        _set_ticks(axes, ticks)
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        shown = [plain(curve.label, 60) for curve in curves]
        axes.legend(handles, shown, loc="lower center", bbox_to_anchor=(0.5, 1.0), handlelength=3.2)

    return make(name, title, HEIGHT + _LEGEND * (len(curves) - 1), draw)


def make(name: str, title: str, height: float, draw: Callable[[Axes], None]) -> Plot:
    """A plot that `draw` draws."""
    with svg.drawing(WIDTH, height) as figure:
        draw(figure.add_subplot())
        return Plot(name, title, svg.to_svg(figure, name))


def thin(count: int) -> np.ndarray:
    """Indices of at most 150 of `count` places, first and last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, _POINTS)).round().astype(int))


def _draw(axes: Axes, curve: Curve, style: int) -> Any:
    """Draws a curve; returns what stands for it in the legend."""
    color, dashes = COLORS[style % len(COLORS)], DASHES[style % len(DASHES)]
    if curve.kind == "steps":
        return axes.step(curve.x, curve.y, where="pre", color=color, linestyle=dashes)[0]
    if curve.kind == "target":
        return axes.plot(curve.x, curve.y, color=color, linewidth=0.9, linestyle=(0, (1, 2)))[0]
    joined = "none" if curve.kind == "points" else dashes
    look: dict[str, Any] = {"color": color, "linestyle": joined, "marker": _MARKERS[style % len(_MARKERS)]}
    for x, y, text in zip(curve.x, curve.y, curve.texts, strict=False):
        axes.annotate(plain(text, 24), (x, y), (5, 4), textcoords="offset points", color=svg.MUTED, fontsize=8)
    if curve.low is None or curve.high is None:
        return axes.plot(curve.x, curve.y, **look)[0]
    errors = np.clip([curve.y - curve.low, curve.high - curve.y], 0, None)
    return axes.errorbar(curve.x, curve.y, yerr=errors, capsize=2.5, elinewidth=0.9, **look)


def _set_ticks(axes: Axes, ticks: Sequence[float]) -> None:
    if not ticks:
        return
    if min(ticks) > 0 and max(ticks) / min(ticks) > _LOG:
        axes.set_xscale("log")
    if len(ticks) <= _TICKS:
        axes.set_xticks(ticks, [f"{tick:.4g}" for tick in ticks])
        axes.minorticks_off()
