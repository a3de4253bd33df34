"""The same attacks in two implementations, compared on the same examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from l2p_tf.evaluation.records import CLEAN
from l2p_tf.reporting.examples import read_arrays
from l2p_tf.reporting.format import backend_name, pace, percent, plain, signed
from l2p_tf.reporting.measured import strongest
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import Section, section
from l2p_tf.reporting.table import (
    Cell,
    Column,
    Table,
    accuracy,
    accuracy_of,
    columns_of,
    figures,
    in_percent,
    rounded,
)  # fmt: skip

_CAPTION = (
    "The same attack on the same images, by this package and by {name}. Accuracy in percent, ± its standard "
    "deviation over repeats where there are several, with its 95% interval. The difference is {name} minus l2p_tf, "
    "in percentage points: below 0, that of {name} was the stronger one. Disagree: images that one attack left "
    "classified correctly and the other did not, in the first repeat. Time is per image, and depends on the device."
)


@section("backends", "Backends side by side", order=90)
def backends(results: Results) -> Section | None:
    """Compares, for each other implementation, the attacks that were also run with ours on the same images."""
    summaries = results.summaries
    attacked = summaries[(summaries.attack != CLEAN) & (summaries.kind != "transfer")]
    own = list(attacked[attacked.backend == "l2p_tf"].itertuples())
    pairs_by_backend = {}
    for backend in dict.fromkeys(attacked.backend[attacked.backend != "l2p_tf"]):
        other = list(attacked[attacked.backend == backend].itertuples())
        pairs = [(a, b, n) for a in own for b in other if _what(a) == _what(b) and (n := _disagree(a, b)) is not None]
        if pairs := strongest(pairs, lambda pair: _what(pair[0])[:-1], lambda pair: pair[0].count):
            pairs_by_backend[backend] = pairs
    if not pairs_by_backend:
        return None
    tables = tuple(_table(backend, pairs, len(pairs_by_backend) > 1) for backend, pairs in pairs_by_backend.items())
    rows = [_figures(backend, *pair) for backend, pairs in pairs_by_backend.items() for pair in pairs]
    return Section(tables, figures(rows))


def _table(backend: str, pairs: Sequence[tuple[Any, Any, int]], several: bool) -> Table:
    name = backend_name(backend)
    columns = (
        Column("Run", figures=False), Column("Attack", figures=False), Column("l2p_tf"), Column(name),
        Column("Difference", "points"), Column("Disagree", "images"), Column("Time", "l2p_tf"), Column("Time", name),
    )  # fmt: skip
    return Table(name if several else "", _CAPTION.format(name=name), columns, tuple(_row(*pair) for pair in pairs))


def _what(row: Any) -> tuple[object, ...]:
    return row.key, row.weights, row.dataset, row.split, row.attack, row.count


def _disagree(own: Any, other: Any) -> int | None:
    """Number of images where only one of the two left the class, in the first repeat; None for different images."""
    if not (own.measured.evaluation.artifact and other.measured.evaluation.artifact):
        return None
    a, b = (read_arrays(r.measured.evaluation, r.measured.first, "index", "correct") for r in (own, other))
    return int((a["correct"] != b["correct"]).sum()) if np.array_equal(a["index"], b["index"]) else None


def _row(own: Any, other: Any, disagree: int) -> tuple[Cell, ...]:
    count = own.count
    return (
        Cell(own.name, (own.where, f"n = {count:,}")),
        Cell(plain(own.label), (own.allowed,)),
        accuracy(own),
        accuracy(other),
        Cell(signed(100 * (other.accuracy - own.accuracy), count)),
        Cell(f"{disagree:,}", (f"{percent(disagree / count, count)}%",)),
        Cell(pace(own.seconds), value=own.seconds),
        Cell(pace(other.seconds), value=other.seconds),
    )


def _figures(backend: str, own: Any, other: Any, disagree: int) -> dict[str, object]:
    return {
        "run": own.name, **columns_of(own), f"repeats_{backend}": other.repeats, **accuracy_of(own),
        f"accuracy_{backend}": in_percent(other.accuracy), "difference": in_percent(other.accuracy - own.accuracy),
        "disagree": disagree, "seconds": rounded(own.seconds), f"seconds_{backend}": rounded(other.seconds),
    }  # fmt: skip
