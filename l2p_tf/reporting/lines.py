"""Plots of one or more curves, which differ in color, dashes and markers alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes

from l2p_tf.reporting import svg
from l2p_tf.reporting.svg import Mark
from l2p_tf.reporting.text import plain

WIDTH, HEIGHT = 480, 300
"""Size of a plot with a one-line legend, in about CSS pixels."""

COLORS: tuple[str, ...] = (svg.BLUE, svg.VERMILLION, svg.GREEN, svg.PURPLE, svg.INK)
DASHES: tuple[str, ...] = ("-", "--", ":", "-.")
# Four dashes, five colors and six markers: neighbors differ in all, and it takes sixty curves to have two alike.
_MARKERS = ("o", "s", "^", "D", "v", "P")
_LEGEND = 18
# More points than this cannot be told apart at the plots' width.
_POINTS = 150
# As many points of a curve say their values: more could not be pointed at one by one.
_SPOKEN = 25
# A legend of more lines than this has two columns, where its labels are short enough.
_LINES, _SHORT = 3, 26
# Where the text beside a point may stand, in points from it, best first; and about how large it is.
_PLACES = ((5, 4), (5, -11), (-5, 4), (-5, -11), (0, 8), (0, -15), (12, -4), (-12, -4))
_LETTER, _LINE = 5.0, 9.0
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
    names = [plain(curve.label, 60) for curve in curves]
    columns = 2 if len(curves) > _LINES and max(map(len, names)) <= _SHORT else 1
    rows = -(-len(curves) // columns)

    def draw(axes: Axes) -> list[Mark]:
        handles = [_draw(axes, curve, i if curve.style is None else curve.style) for i, curve in enumerate(curves)]
        if percent:
            axes.set_ylim(-2, 102)
        if right is not None:
            axes.set_xlim(0, right)
        _set_ticks(axes, ticks)
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        axes.legend(handles, names, loc="lower center", bbox_to_anchor=(0.5, 1.0), handlelength=3.2, ncols=columns)
        _write_beside(axes, curves)
        return [mark for curve, name in zip(curves, names, strict=True) for mark in _marks(axes, curve, name, labels)]

    return make(name, title, HEIGHT + _LEGEND * (rows - 1), draw)


def make(name: str, title: str, height: float, draw: Callable[[Axes], Sequence[Mark]]) -> Plot:
    """A plot that `draw` draws, which returns the places in it that say their values."""
    with svg.drawing(WIDTH, height) as figure:
        marks = draw(figure.add_subplot())
        return Plot(name, title, svg.to_svg(figure, name, marks))


def spoken(count: int) -> list[int]:
    """Indices of at most 25 of `count` points, first and last among them: those that say their values."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, _SPOKEN)).tolist()})


def said(label: str, value: float) -> str:
    """A value under the label of its axis in words: `accuracy, %` and 81.53 make `accuracy 81.5%`."""
    name = label.removesuffix(", %")
    return f"{name} {value:.3g}%" if name != label else f"{name} {value:.4g}"


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


def _marks(axes: Axes, curve: Curve, name: str, labels: tuple[str, str]) -> list[Mark]:
    marks = []
    for i in spoken(len(curve.x)) if curve.kind != "target" else ():
        x, y = float(curve.x[i]), float(curve.y[i])
        text = f"{name}: {said(labels[1], y)}"
        if curve.low is not None and curve.high is not None:
            text += f" ({curve.low[i]:.3g}\N{EN DASH}{curve.high[i]:.3g})"
        text += f" at {said(labels[0], x)}"
        marks.append(Mark(axes, x, y, f"{text}, {plain(curve.texts[i], 24)}" if curve.texts else text))
    return marks


def _write_beside(axes: Axes, curves: Sequence[Curve]) -> None:
    """Writes the texts of points beside them, each where it covers nothing; one without room is left to its mark."""
    written = [(x, y, plain(t, 24)) for c in curves for x, y, t in zip(c.x, c.y, c.texts, strict=False)]
    if not written:
        return
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]
    edge = axes.figure.bbox.x1
    points = axes.transData.transform(np.concatenate([np.stack([curve.x, curve.y], 1) for curve in curves]))
    taken = [(x - 3, y - 3, x + 3, y + 3) for x, y in points.tolist()]
    for x, y, text in written:
        px, py = axes.transData.transform((x, y)).tolist()
        for dx, dy in _PLACES:
            width = _LETTER * len(text)
            left = px + dx - (0 if dx > 0 else width if dx < 0 else width / 2)
            box = (left, py + dy, left + width, py + dy + _LINE)
            if left >= 0 and box[2] <= edge and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                align: Any = "left" if dx > 0 else "right" if dx < 0 else "center"
                where: dict[str, Any] = {"textcoords": "offset points", "color": svg.MUTED, "fontsize": 8}
                axes.annotate(text, (x, y), (dx, dy), ha=align, **where).set_in_layout(False)
                break


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
