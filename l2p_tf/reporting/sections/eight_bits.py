"""Attacks whose success rate drops when their images are stored in 8 bits."""

from __future__ import annotations

from typing import Any

from l2p_tf.reporting.format import plain, plural
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import Section, section
from l2p_tf.reporting.table import Cell, Column, Table, columns_of, figures, in_percent

_POINT = 0.01
_CAPTION = (
    "Images are stored in 8 bits a number. Success is the share of images on which an attack succeeds; in 8 bits, that "
    "on which it still does when its image is rounded to 8 bits within its ball. Attacks for which the two are within "
    "a point of each other are left out. Attacks leave an image as soon as it is misclassified, close to the boundary: "
    "one that went on, or that tried stored images alone, would keep more."
)
_COLUMNS = (
    Column("Run", figures=False), Column("Attack", figures=False), Column("Success", "% of images"),
    Column("In 8 bits", "% of images"), Column("Images"),
)  # fmt: skip


@section("eightbits", "In 8 bits", order=56)
def eight_bits(results: Results) -> Section | None:
    """One row per attack whose success differs, and a warning about the largest difference."""
    attacks = results.attacks
    known = attacks[attacks.reached_8bit.notna() & (attacks.kind != "clean")]
    rows = [row for row in known.itertuples(index=False) if row.reached - row.reached_8bit > _POINT]
    if not rows:
        return None
    table = Table("", _CAPTION, _COLUMNS, tuple(map(_cells, rows)))
    return Section((table,), figures([_figures(row) for row in rows]), warnings=(_warning(rows),))


def _cells(row: Any) -> tuple[Cell, ...]:
    shares = (Cell(f"{100 * share:.1f}", value=share) for share in (row.reached, row.reached_8bit))
    return Cell(row.name), Cell(plain(row.label), (row.allowed,)), *shares, Cell(f"{row.count:,}", value=row.count)


def _figures(row: Any) -> dict[str, object]:
    shares = {name: in_percent(getattr(row, name)) for name in ("reached", "reached_8bit")}
    return {"run": row.run, **columns_of(row), "count": row.count, **shares}


def _warning(rows: list[Any]) -> str:
    worst = max(rows, key=lambda row: row.reached - row.reached_8bit)
    more = f"; {plural(len(rows) - 1, 'other')} in the table" if len(rows) > 1 else ""
    return (
        f"Not all that attacks found can be stored as images: {plain(worst.label)} succeeds on "
        f"{100 * worst.reached:.1f}% of those of {worst.name}, in 8 bits on {100 * worst.reached_8bit:.1f}%{more}."
    )
