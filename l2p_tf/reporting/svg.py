"""matplotlib figures as SVG that can be put into a page: unique ids, colors that follow the theme, a title."""

from __future__ import annotations

import contextlib
import html
import io
import re
import warnings
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Okabe and Ito's palette; on the page each color is a variable, which a dark theme may brighten.
BLUE, VERMILLION, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
INK, MUTED, GRID = "#1f2328", "#59636e", "#d1d9e0"
_VARIABLES = {
    BLUE: "--blue", VERMILLION: "--vermillion", GREEN: "--green", PURPLE: "--purple",
    INK: "--ink", MUTED: "--muted", GRID: "--grid",
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


def to_svg(figure: Figure, name: str) -> str:
    """A figure as an SVG document of its own, the same for the same figure."""
    stream = io.StringIO()
    metadata: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(stream, format="svg", transparent=True, metadata=metadata)
    # Hundredths of a point are finer than any screen, and half the size; the text between the tags stays as it is.
    return re.sub(r"<[^>]*>", lambda tag: re.sub(r"(?<=\d\.\d\d)\d+", "", tag[0]), stream.getvalue())


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
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box[0][9:-1]}" '
        f'role="img" aria-labelledby="{name}-title"><title id="{name}-title">{html.escape(title)}</title>'
    )
    return Markup(head + svg[svg.index(">") + 1 :].strip())
