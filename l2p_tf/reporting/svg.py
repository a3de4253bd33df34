"""matplotlib figures as SVG that can be put into a page: unique ids, colors that follow the theme, a title."""

from __future__ import annotations

import contextlib
import dataclasses
import html
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Okabe and Ito's palette; on the page each color is a variable, which a dark theme may brighten.
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
    """A place in a plot that says its value when it is pointed at, touched or read aloud.

    Attributes:
      axes: where it is.
      x: of its center, in the units of the axes.
      y: likewise.
      text: what it says.
    """

    axes: Axes
    x: float
    y: float
    text: str


@contextlib.contextmanager
def drawing(width: float, height: float) -> Iterator[Figure]:
    """A figure in the reports' style, in hundredths of an inch, about the size of a CSS pixel here.

    The style and the silenced warning hold inside the `with` block, so `to_svg` should be called in it too.
    """
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # Text stays text and the reader's browser draws it; that matplotlib's own font lacks a glyph is no matter.
        warnings.filterwarnings("ignore", message="(?s).*[Gg]lyph.*missing from (font|current font)")
        figure = Figure(figsize=(width / 100, height / 100), dpi=72, layout="constrained")
        FigureCanvasSVG(figure)
        yield figure


def to_svg(figure: Figure, name: str, marks: Sequence[Mark] = ()) -> str:
    """A figure as an SVG document of its own, the same for the same figure.

    Args:
      figure: the figure.
      name: of the plot.
      marks: the places in it that say their values; those outside of their axes are left out.
    """
    stream = io.StringIO()
    metadata: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(stream, format="svg", transparent=True, metadata=metadata)
    # Hundredths of a point are finer than any screen, and half the size; the text between the tags stays as it is.
    document = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(?<=\d\.\d\d)\d+", "", tag[0]), stream.getvalue())
    # Only now is it laid out, and known where things are.
    shapes = "".join(_shape(figure, mark) for mark in marks)
    head, end, tail = document.rpartition("</svg>")
    return f'{head}{_MARKS} fill-opacity="0">{shapes}</g>{end}{tail}' if shapes else document


def _shape(figure: Figure, mark: Mark) -> str:
    """A mark as an element that is not seen; empty where it is outside of its axes."""
    x, y = mark.axes.transData.transform((mark.x, mark.y))
    box = mark.axes.bbox
    if not (box.x0 - 1 <= x <= box.x1 + 1 and box.y0 - 1 <= y <= box.y1 + 1):
        return ""
    height = figure.bbox.height
    shape = f'<circle cx="{x:.1f}" cy="{height - y:.1f}" r="{_RADIUS}"'
    return f'{shape} role="img"><title>{html.escape(mark.text)}</title></circle>'


def inline(svg: str, name: str, title: str) -> Markup:
    """An SVG document as an element of a page.

    Args:
      svg: what `to_svg` gave.
      name: prefix of every id in it; different from that of every other plot on the page.
      title: what the plot shows, for those who do not see it.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)
    # The page's own font and theme; sizes are kept.
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    for color, variable in _VARIABLES.items():
        svg = re.sub(rf"(fill|stroke): {color}", rf"\1: var({variable})", svg)
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    if box is None:
        raise ValueError("`svg` should be what `to_svg` gives: no viewBox is in it.")
    drawn, _, tail = svg[svg.index(">") + 1 :].rpartition("</svg>")
    drawn, marks, rest = drawn.partition(_MARKS)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box[0][9:-1]}" '
        f'role="{"group" if marks else "img"}" aria-labelledby="{name}-title">'
        f'<title id="{name}-title">{html.escape(title)}</title>'
    )
    # Ticks and labels without their places say nothing to those who listen; the marks say all.
    return Markup(f'{head}<g aria-hidden="true">{drawn}</g>{marks}{rest}</svg>{tail}'.strip())
