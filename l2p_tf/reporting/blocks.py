"""The comparison of many runs on a console, where lines are short: runs down, as many attacks across as there is room for."""

from __future__ import annotations

from collections.abc import Sequence

import rich.table
from rich.text import Text

from l2p_tf.reporting.entries import Column, Entry, Row
from l2p_tf.reporting.text import DASH

ACROSS = 4
"""With more runs than this a line of a console has no room for a column of each."""

_TITLE = "Accuracy in percent (\N{PLUS-MINUS SIGN} standard deviation over repeats)"
_NOTE = "Intervals and numbers of images are on the page and in table.csv."
_SMALLEST = "Of an attack that looks for the smallest perturbation: the median norm of those that succeeded."
# The narrowest column that a name is folded into; borders take two characters of a table and three of each column.
_NAME, _EDGE, _BETWEEN = 16, 1, 3
# A head of a column is folded into lines of this many characters; a longer label is numbered and said below.
_HEAD, _SHORT = 10, 24


def blocks(rows: Sequence[Row], columns: Sequence[Column], width: int) -> list[rich.table.Table]:
    """Tables of runs by attacks that fit into lines of `width` characters; no value and no name is cut off."""
    values = [[_value(row.entries.get(column.key)) for column in columns] for row in rows]
    long = {column.key: i + 1 for i, column in enumerate(columns) if len(column.label) > _SHORT}
    heads = [_head(column, long.get(column.key)) for column in columns]
    sizes = [
        max(*map(len, head.split()), *(len(row[i]) for row in values), min(_HEAD, len(head)))
        for i, head in enumerate(heads)
    ]
    names = [row.name for row in rows]
    name = max(map(len, names))
    parts: list[list[int]] = [[]]
    for i, size in enumerate(sizes):
        used = sum(sizes[j] + _BETWEEN for j in parts[-1]) + _EDGE + min(name, _NAME) + _BETWEEN
        if parts[-1] and used + size + _BETWEEN > width:
            parts.append([])
        parts[-1].append(i)
    found: list[rich.table.Table] = []
    for part in parts:
        shown = rich.table.Table(title=Text(_TITLE) if not found else None, title_justify="left")
        left = width - _EDGE - _BETWEEN - sum(sizes[i] + _BETWEEN for i in part)
        shown.add_column("run", overflow="fold", width=max(min(name, left), 3))
        for i in part:
            shown.add_column(Text(heads[i]), justify="right", width=sizes[i], overflow="fold")
        for run, line in zip(names, values, strict=True):
            shown.add_row(Text(run), *(Text(line[i]) for i in part))
        said = [f"[{long[columns[i].key]}] {columns[i].label}" for i in part if columns[i].key in long]
        said += [_SMALLEST] if any(columns[i].minimal for i in part) else []
        said += [_NOTE] if part is parts[-1] else []
        shown.caption = Text("\n".join(said)) if said else None
        shown.caption_justify = "left"
        found.append(shown)
    return found


def _head(column: Column, number: int | None) -> str:
    """The label; of a long one its beginning, with the number under which all of it is said below."""
    return column.label if number is None else f"{column.label.partition(': ')[0][:_SHORT].rstrip()} [{number}]"


def _value(entry: Entry | None) -> str:
    return DASH if entry is None else entry.lines[0]
