"""Plots drawn by matplotlib as SVG, with colors of the page's theme and tooltips for points."""

from __future__ import annotations

import dataclasses
import html
import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from l2p_tf.reporting.format import plain

# Okabe and Ito's palette; on the page each color is a variable that a dark theme may brighten.
BLUE, VERMILLION, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
INK, MUTED, GRID, GROUND = "#1f2328", "#59636e", "#d1d9e0", "#ffffff"
_VARIABLES = {
    BLUE: "--blue", VERMILLION: "--vermillion", GREEN: "--green", PURPLE: "--purple",
    INK: "--ink", MUTED: "--muted", GRID: "--grid", GROUND: "--page",
}  # fmt: skip
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
}


_RADIUS = 6.5
_MARKS = '<g class="marks"'


@dataclasses.dataclass(frozen=True)
class Mark:
    """A place in a plot with a tooltip, which is also read by screen readers.

    Attributes:
      axes: its axes.
      x: its center, in data coordinates.
      y: likewise.
      text: the tooltip.
    """

    axes: Axes
    x: float
    y: float
    text: str


def _shape(figure: Figure, mark: Mark) -> str:
    """Returns a mark as an invisible element; empty if it lies outside its axes."""
    x, y = mark.axes.transData.transform((mark.x, mark.y))
    box = mark.axes.bbox
    if not (box.x0 - 1 <= x <= box.x1 + 1 and box.y0 - 1 <= y <= box.y1 + 1):
        return ""
    height = figure.bbox.height
    shape = f'<circle cx="{x:.1f}" cy="{height - y:.1f}" r="{_RADIUS}"'
    return f'{shape} role="img"><title>{html.escape(mark.text)}</title></circle>'


def inline(plot: Plot) -> Markup:
    """Embeds a plot in a page; its name prefixes every id in it."""
    svg, name, title = plot.svg, plot.name, plot.title
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)
    # Use the page's own font and theme; sizes are kept.
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    for color, variable in _VARIABLES.items():
        svg = re.sub(rf"(fill|stroke): {color}", rf"\1: var({variable})", svg)
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    if box is None:
        raise ValueError("`plot` should be one of `make`: no viewBox is in its SVG.")
    drawn, _, tail = svg[svg.index(">") + 1 :].rpartition("</svg>")
    drawn, marks, rest = drawn.partition(_MARKS)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box[0][9:-1]}" '
        f'role="{"group" if marks else "img"}" aria-labelledby="{name}-title">'
        f'<title id="{name}-title">{html.escape(title)}</title>'
    )
    # Without positions, ticks and labels are useless to screen readers; the marks contain everything.
    return Markup(f'{head}<g aria-hidden="true">{drawn}</g>{marks}{rest}</svg>{tail}'.strip())


WIDTH, HEIGHT = 480, 300
"""Size of a plot with a one-line legend, approximately in CSS pixels."""

COLORS: tuple[str, ...] = (BLUE, VERMILLION, GREEN, PURPLE, INK)
DASHES: tuple[str, ...] = ("-", "--", ":", "-.")
# Four dash styles, five colors and six markers: neighbors differ in all, and sixty curves are distinct.
_MARKERS = ("o", "s", "^", "D", "v", "P")
_LEGEND = 18
# More points cannot be distinguished at the plots' width.
_POINTS = 150
# Maximum number of tooltips per curve; more could not be pointed at separately.
_SPOKEN = 25
# Legends with more lines have two columns if their labels are short enough.
_LINES, _SHORT = 3, 26
# More ticks would overlap; values with a larger ratio need a logarithmic axis.
_TICKS, _LOG = 8, 15


@dataclasses.dataclass(frozen=True)
class Plot:
    """One plot.

    Attributes:
      name: file name and prefix of its ids; letters, digits and dashes.
      title: one-line title.
      svg: the document.
      group: heading it appears under with others; empty for that of its section.
    """

    name: str
    title: str
    svg: str
    group: str = ""


@dataclasses.dataclass(frozen=True)
class Curve:
    """One curve.

    Attributes:
      label: its name in the legend.
      x: x values of the points, (k,).
      y: y values of the points, (k,).
      low: lower ends of the points' intervals, (k,); None for no intervals.
      high: upper ends.
      texts: additional tooltip text of each point; empty for none.
      kind: points joined by lines; points alone; steps, each from the point before to its own; or a thin target line
      without points.
      style: index of its color, dashes and marker; None for its position among the curves.
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
    integers: bool = False,
) -> Plot:
    """Plots curves with a legend above.

    Args:
      name: name of the plot.
      title: title of the plot.
      curves: at least one.
      labels: labels of the two axes.
      percent: whether y runs from 0 to 100.
      right: upper limit of x, which then starts at 0; None to fit the points.
      ticks: x values of ticks; they also determine whether the axis is logarithmic.
      integers: whether other ticks of x are at whole numbers only, such as epochs.
    """
    names = [plain(curve.label, 60) for curve in curves]
    columns = 2 if len(curves) > _LINES and max(map(len, names)) <= _SHORT else 1
    rows = -(-len(curves) // columns)

    def draw(panels: Sequence[Axes]) -> list[Mark]:
        (axes,) = panels
        handles = [_draw(axes, curve, i if curve.style is None else curve.style) for i, curve in enumerate(curves)]
        if percent:
            axes.set_ylim(-2, 102)
        if right is not None:
            axes.set_xlim(0, right)
        if integers:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _set_ticks(axes, ticks)
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        axes.legend(handles, names, loc="lower center", bbox_to_anchor=(0.5, 1.0), handlelength=3.2, ncols=columns)
        return [mark for curve, name in zip(curves, names, strict=True) for mark in _marks(axes, curve, name, labels)]

    return make(name, title, HEIGHT + _LEGEND * (rows - 1), draw)


def make(
    name: str, title: str, height: float, draw: Callable[[Sequence[Axes]], Sequence[Mark]], panels: int = 1
) -> Plot:
    """Makes a plot of one or more panels stacked vertically; the output is deterministic.

    Args:
      name: name of the plot.
      title: title of the plot.
      height: approximately in CSS pixels, here hundredths of an inch.
      draw: draws on the axes and returns the marks; those outside their axes are dropped.
      panels: number of panels.
    """
    stream = io.StringIO()
    metadata: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # Text is rendered by the browser, so glyphs missing from matplotlib's font do not matter.
        warnings.filterwarnings("ignore", message="(?s).*[Gg]lyph.*missing from (font|current font)")
        figure = Figure(figsize=(WIDTH / 100, height / 100), dpi=72, layout="constrained")
        every = list(figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0])
        marks = draw(every)
        for drawn in (figure, *every):
            drawn.patch.set_visible(False)
        # `savefig` would lay everything out twice.
        FigureCanvasSVG(figure).print_svg(stream, metadata=metadata)
    # Hundredths of a point are finer than any screen, and half the size; text between tags is not changed.
    document = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(?<=\d\.\d\d)\d+", "", tag[0]), stream.getvalue())
    # Positions are known only after layout.
    shapes = "".join(_shape(figure, mark) for mark in marks)
    head, end, tail = document.rpartition("</svg>")
    svg = f'{head}{_MARKS} fill-opacity="0">{shapes}</g>{end}{tail}' if shapes else document
    return Plot(name, title, svg)


def spoken(count: int) -> list[int]:
    """Returns indices of at most 25 of `count` points, including the first and last, which get tooltips."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, _SPOKEN)).tolist()})


def thin(count: int) -> np.ndarray:
    """Returns indices of at most 150 of `count` places, including the first and last."""
    return np.unique(np.linspace(0, count - 1, min(count, _POINTS)).round().astype(int))


def _draw(axes: Axes, curve: Curve, style: int) -> Any:
    """Draws a curve; returns its handle for the legend."""
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
        text = f"{name}: {_value(labels[1], y)}"
        if curve.low is not None and curve.high is not None:
            text += f" ({curve.low[i]:.3g}\N{EN DASH}{curve.high[i]:.3g})"
        text += f" at {_value(labels[0], x)}"
        marks.append(Mark(axes, x, y, f"{text}, {plain(curve.texts[i], 24)}" if curve.texts else text))
    return marks


def _value(label: str, value: float) -> str:
    """Formats a value with its axis label: `accuracy, %` and 81.53 give `accuracy 81.5%`."""
    name = label.removesuffix(", %")
    return f"{name} {value:.3g}%" if name != label else f"{name} {value:.4g}"
