"""Reads `published.json`, which holds the papers' tables so that they can be proofread.

The numbers stand in grids that look like the printed tables: a line for each printed line. The names on a grid's
sides, `down` and `across`, say which row, column and metric a number belongs to.
"""

from __future__ import annotations

import collections
import itertools
import math
import re
from collections.abc import Mapping
from typing import Any

from l2p_tf.registry import parse_spec
from l2p_tf.reporting.printed import L2, PERCENT, SECONDS, Metric, Place, PrintedNumber, PrintedTable, Setting
from l2p_tf.types import UserError

FILE_NAME = "published.json"

_Metrics = Mapping[str, tuple[Metric, int]]
"""The metrics of a paper, each with what its printed numbers are multiplied by: 100 where they are shares."""


def read_tables(data: Any) -> tuple[dict[str, str], dict[str, PrintedTable]]:
    """Titles of the papers by key, and their tables by id, from the contents of the file.

    Raises:
      UserError: a field is missing, unknown or of another type; a grid's lines do not fit its sides; a cell is there
        twice, out of range, or of an undeclared metric; a table has gaps; a suspect cell is not there.
    """
    top = _fields(data, "the file", {"papers": dict, "metrics": dict, "tables": dict, "suspect": list})
    for paper, title in top["papers"].items():
        _text(title, f"the title of {paper}")
    metrics = {paper: _metrics(paper, given) for paper, given in top["metrics"].items()}
    reasons: dict[str, list[str]] = collections.defaultdict(list)
    for entry in top["suspect"]:
        fields = _fields(entry, "an entry of `suspect`", {"reason": str, "cells": list})
        for place in fields["cells"]:
            said = reasons[_text(place, "`cells` of an entry of `suspect`")]
            if fields["reason"] in said:
                raise UserError(f"{FILE_NAME}: {place} is suspect twice for the same reason.")
            said.append(fields["reason"])
    tables = {}
    for name, given in top["tables"].items():
        tables[name] = _table(name, given, top["papers"], metrics, reasons)
    strays = reasons.keys() - {cell.reference for table in tables.values() for cell in table.cells.values()}
    if strays:
        raise _wrong("`suspect`", "name cells that are there", min(strays))
    return top["papers"], tables


def _metrics(paper: str, given: Any) -> _Metrics:
    found: dict[str, tuple[Metric, int]] = {}
    for key, one in _mapping(given, f"the metrics of {paper}").items():
        where = f"metric {key} of {paper}"
        optional = {"scale": int, "spec": str, "also": list, "source": str, "ours": str}
        fields = _fields(one, where, {"label": str, "unit": str}, optional)
        if fields["unit"] not in (PERCENT, L2, SECONDS):
            raise _wrong(where, f"have as `unit` one of {PERCENT}, {L2}, {SECONDS}", fields["unit"])
        specs = [_text(spec, where) for spec in (fields["spec"], *fields["also"])]
        for spec in filter(None, specs):
            parse_spec(spec, f"{where}: attack")
        setting = Setting(specs[0], tuple(specs[1:]), fields["source"], fields["ours"]) if specs[0] else None
        found[key] = Metric(key, fields["label"], fields["unit"], setting), fields["scale"] or 1
    return found


def _table(
    name: str, given: Any, papers: Mapping[str, str], metrics: Mapping[str, _Metrics], reasons: Mapping[str, list[str]]
) -> PrintedTable:
    texts = dict.fromkeys(("paper", "number", "title", "dataset", "split"), str)
    fields = _fields(given, name, {**texts, "grids": list}, {"rows": dict, "notes": list})
    paper = fields["paper"]
    if paper not in papers or paper not in metrics:
        raise _wrong(name, f"have as `paper` one of {', '.join(papers)}", paper)
    if not fields["grids"]:
        raise _wrong(name, "have `grids`", [])
    cells: dict[Place, PrintedNumber | None] = {}
    for grid in fields["grids"]:
        for place, printed in _places(name, grid).items():
            where = "/".join((name, *place))
            if place in cells:
                raise UserError(f"{FILE_NAME}: {where} is there twice.")
            if place[2] not in metrics[paper]:
                raise _wrong(where, f"be of a metric of {paper}: {', '.join(metrics[paper])}", place[2])
            metric, scale = metrics[paper][place[2]]
            value, spread = _value(where, printed, metric.unit, scale)
            why = "; ".join(reasons.get(where, ())) or None
            cells[place] = None if value is None else PrintedNumber(paper, name, *place, value, spread, why)
    rows, columns, keys = (tuple(dict.fromkeys(names)) for names in zip(*cells, strict=True))
    if len(cells) != len(rows) * len(columns) * len(keys):
        raise _wrong(name, "give every row each of its columns and metrics, null where there is no number", len(cells))
    facts = {row: _facts(f"row {row} of {name}", one) for row, one in fields["rows"].items()}
    for row in facts:
        if row not in rows:
            raise _wrong(name, f"have `rows` among {', '.join(rows)}", row)
    return PrintedTable(
        name=name,
        cited=f"{papers[paper]}, {fields['number']}",
        **{key: fields[key] for key in texts},
        rows=rows,
        columns=columns,
        metrics={key: metrics[paper][key][0] for key in keys},
        cells={place: cell for place, cell in cells.items() if cell},
        parameters={row: one["parameters"] for row, one in facts.items() if one["parameters"]},
        networks={row: one["network"] for row, one in facts.items() if one["network"]},
        sources={row: one["source"] for row, one in facts.items() if one["source"]},
        notes=tuple(_text(note, f"`notes` of {name}") for note in fields["notes"]),
    )


def _facts(where: str, given: Any) -> dict[str, Any]:
    return _fields(given, where, {}, {"parameters": int, "network": str, "source": str})


def _places(name: str, grid: Any) -> dict[Place, Any]:
    """What is printed in a grid, by row, column and metric.

    The metric's key may be put together from several names on the grid's sides: `{attack}_from_{source}`.
    """
    where = f"a grid of {name}"
    fields = _fields(grid, where, {"down": dict, "across": dict, "values": list}, {"metric": str})
    template = fields["metric"] or "{metric}"
    needed = {"row", "column", *re.findall(r"\{(\w+)\}", template)}
    if sorted(needed) != sorted([*fields["down"], *fields["across"]]):
        raise _wrong(where, f"have on its sides each of {', '.join(sorted(needed))} once", fields)
    down, across = _heads(where, fields["down"]), _heads(where, fields["across"])
    if [len(line) if isinstance(line, list) else -1 for line in fields["values"]] != [len(across)] * len(down):
        shape = [len(line) if isinstance(line, list) else line for line in fields["values"]]
        raise _wrong(where, f"have {len(down)} lines of {len(across)} values", shape)
    found = {}
    for high, line in zip(down, fields["values"], strict=True):
        for wide, printed in zip(across, line, strict=True):
            names = high | wide
            metric = "".join(names[part] if i % 2 else part for i, part in enumerate(re.split(r"\{(\w+)\}", template)))
            found[names["row"], names["column"], metric] = printed
    if len(found) != len(down) * len(across):
        raise _wrong(where, "have names on its sides that differ", fields["down"] | fields["across"])
    return found


def _heads(where: str, side: Mapping[str, Any]) -> list[dict[str, str]]:
    for axis, names in side.items():
        if not isinstance(names, list) or not names or any("/" in _text(name, f"{axis} of {where}") for name in names):
            raise _wrong(where, f"have under `{axis}` a list of names without a slash", names)
    return [dict(zip(side, names, strict=True)) for names in itertools.product(*side.values())]


def _value(where: str, printed: Any, unit: str, scale: int) -> tuple[float | None, float | None]:
    """Value and spread in the metric's unit; None for what is not printed."""
    if printed is None:
        return None, None
    numbers = printed if isinstance(printed, list) and len(printed) == 2 else [printed]
    most = 100.0 if unit == PERCENT else math.inf
    for number in numbers:
        fit = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
        if not fit or not 0 <= number * scale <= most:
            limits = f"be from 0 to {100 / scale:g}" if unit == PERCENT else "not be negative"
            raise _wrong(where, f"{limits}, alone or with its spread as [value, spread]", printed)
    # A share times 100 has digits that the paper does not print: 0.0612 becomes 6.12 and not 6.119999999999999.
    found = [round(float(number * scale), 6) for number in numbers]
    return found[0], found[1] if len(found) == 2 else None


def _fields(
    given: Any, where: str, required: Mapping[str, type], optional: Mapping[str, type] | None = None
) -> dict[str, Any]:
    """The fields of an object, each of its type; an optional one that is missing is empty."""
    known = {**required, **(optional or {})}
    for key, value in _mapping(given, where).items():
        if key not in known:
            raise _wrong(where, f"have no other fields than {', '.join(known)}", key)
        if type(value) is not known[key]:
            raise _wrong(where, f"have `{key}` of type {known[key].__name__}", value)
    for key in required:
        if key not in given:
            raise _wrong(where, f"have `{key}`", ", ".join(given))
    return {key: given.get(key, kind()) for key, kind in known.items()}


def _mapping(given: Any, where: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise _wrong(where, "be an object", given)
    return given


def _text(given: Any, where: str) -> str:
    if not isinstance(given, str):
        raise _wrong(where, "be text", given)
    return given


def _wrong(where: str, wanted: str, received: Any) -> UserError:
    return UserError(f"{FILE_NAME}: {where} should {wanted}. Received: {str(received)[:200]!r}")
