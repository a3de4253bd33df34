"""Tables in LaTeX: booktabs rules, escaped text, and one row per line of the cells."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

_NEEDS = r"% Needs \usepackage{booktabs}. Names in scripts that pdfLaTeX does not know need LuaLaTeX or XeLaTeX."
_SPECIAL = {
    "\0": "{}", "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "`": "{`}", "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{EN DASH}": "--", "\N{EM DASH}": "---", "\N{HORIZONTAL ELLIPSIS}": r"\ldots{}", "\N{DAGGER}": r"\dag{}",
    "\N{PLUS-MINUS SIGN}": r"$\pm$", "\N{MINUS SIGN}": "$-$", "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{INFINITY}": r"$\infty$", "\N{LESS-THAN OR EQUAL TO}": r"$\leq$", "\N{GREATER-THAN OR EQUAL TO}": r"$\geq$",
    "\N{RIGHTWARDS ARROW}": r"$\rightarrow$", "\N{SUPERSCRIPT TWO}": "$^2$", "\N{CHECK MARK}": r"$\surd$",
    "\N{GREEK SMALL LETTER ALPHA}": r"$\alpha$", "\N{GREEK SMALL LETTER EPSILON}": r"$\varepsilon$",
    "\N{GREEK SMALL LETTER RHO}": r"$\rho$", "\N{GREEK SMALL LETTER SIGMA}": r"$\sigma$",
    "\N{GREEK SMALL LETTER THETA}": r"$\theta$",
}  # fmt: skip


def escape(text: str) -> str:
    """Escapes TeX markup, ligatures of dashes and quotes, and symbols that its fonts lack."""
    apart = re.sub(r"([-',])(?=\1)", "\\1\0", text.replace("\0", ""))
    return "".join(_SPECIAL.get(character, character) for character in apart)


def table(caption: str, figures: Sequence[bool], rows: Sequence[Sequence[Sequence[str]]]) -> str:
    """Formats a table in a floating environment; further lines of cells are rows in small type.

    Args:
      caption: the caption, as plain text.
      figures: by column, whether it holds figures, which are right-aligned.
      rows: rows of cells of lines, as plain text; the first row is the head.
    """
    head, *body = map(_row, rows)
    lines = [
        _NEEDS, r"\begin{table}", r"\centering", rf"\caption{{{escape(caption)}}}",
        rf"\begin{{tabular}}{{{''.join('r' if figure else 'l' for figure in figures)}}}",
        r"\toprule", *head, r"\midrule", *(line for row in body for line in row),
        r"\bottomrule", r"\end{tabular}", r"\end{table}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[Sequence[str]]) -> list[str]:
    first, *below = itertools.zip_longest(*cells, fillvalue="")
    small = [[rf"\footnotesize {escape(text)}" if text else "" for text in line] for line in below]
    # A bracket at the start of a row would be an argument of the preceding line end.
    return ["{}" + " & ".join(line) + r" \\" for line in [list(map(escape, first)), *small]]
