"""Transfer of examples between models: a matrix per attack, sources by targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from l2p_tf.evaluation.records import Record
from l2p_tf.reporting.format import percent, plain, sentence
from l2p_tf.reporting.load import Evaluation, Run
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import Section, section
from l2p_tf.reporting.table import (
    NOTHING,
    Cell,
    Column,
    Table,
    accuracy,
    accuracy_of,
    columns_of,
    figures,
    in_percent,
)  # fmt: skip

_JOINT = "+"
WHITE_BOX, PARTLY, SHARED = "white-box", "part of the source", "shares its weights"
_NOTE = (
    "A row is the model that examples were made on, a column the model that they were shown to. Each cell is a robust "
    "accuracy in percent, ± its standard deviation over repeats where there are several; below it the 95% interval and "
    f"the number of images n; more tint is higher. Marked {WHITE_BOX}: made on the target itself. "
    f"Where several models joined by {_JOINT} "
    f"are the source, the target may be one of them: {PARTLY}. Where the source and the target have their weights from "
    f"one training, as where noise was added to a network afterward: {SHARED}."
)


@section("transfer", "Transfer of adversarial examples", order=80)
def transfer(results: Results) -> Section | None:
    """A matrix for each attack of each transfer stage."""
    transferred = results.summaries[results.summaries.kind == "transfer"]
    if transferred.empty:
        return None
    known = results.by_key
    stages: dict[tuple[object, ...], dict[tuple[str, str], tuple[Any, str]]] = {}
    for row in transferred.itertuples(index=False):
        evaluation, first = row.measured.evaluation, row.measured.first
        stage = evaluation.artifact.fingerprint if evaluation.artifact else ""
        place = (stage, row.weights, row.dataset, row.split, row.attack, row.backend)
        source = source_name(evaluation, first, known)
        stages.setdefault(place, {})[source, row.run] = row, relation_of(evaluation, first, known)
    titles = _distinct([next(iter(cells.values()))[0] for cells in stages.values()])
    tables = [_table(title, cells) for title, cells in zip(titles, stages.values(), strict=True)]
    rows = [
        {
            "source": source, "target": target, "white_box": str(relation == WHITE_BOX).lower(), "relation": relation,
            **columns_of(row), **accuracy_of(row), "spread": in_percent(row.spread) if row.repeats > 1 else None,
            "reached": in_percent(row.reached),
        }
        for cells in stages.values()
        for (source, target), (row, relation) in cells.items()
    ]  # fmt: skip
    return Section(tuple(tables), figures(rows), _NOTE)


def source_name(evaluation: Evaluation, record: Record, known: Mapping[str, Run]) -> str:
    """Returns the report's name of a transferred record's source; `known` maps keys to runs."""
    parts = _parts(evaluation, record).items()
    return f" {_JOINT} ".join(known[key].name if key in known else plain(part) for part, key in parts)


def relation_of(evaluation: Evaluation, record: Record, known: Mapping[str, Run]) -> str:
    """Returns how the source is related to the target: the same, containing it, sharing weights, or not at all."""
    keys = list(_parts(evaluation, record).values())
    target = evaluation.key_of(record.model)
    if keys == [target]:
        return WHITE_BOX
    if target in keys:
        return PARTLY
    return SHARED if _origin(target, known) in [_origin(key, known) for key in keys] else ""


def begun_alike(evaluation: Evaluation, record: Record, known: Mapping[str, Run]) -> bool:
    """Whether the source, or part of it, was trained with the target's seed and architecture."""

    def start(key: str) -> tuple[object, ...]:
        run = known.get(key)
        return (run.option("seed"), run.option("model")) if run and run.train else (key,)

    return start(evaluation.key_of(record.model)) in map(start, _parts(evaluation, record).values())


def _parts(evaluation: Evaluation, record: Record) -> dict[str, str]:
    """Returns the runs that a source consists of, with their keys.

    A name that is known as a whole is a single run, whatever it contains.
    """
    source = record.source or ""
    names = [source] if evaluation.key_of(source) != source else source.split(_JOINT)
    return {name: evaluation.key_of(name) for name in names}


def _origin(key: str, known: Mapping[str, Run]) -> str:
    """Returns the training that a run's weights come from: its own, unless it was derived from another one."""
    while key in known and (source := known[key].input("source")):
        key = source
    return key


def _distinct(rows: list[Any]) -> list[str]:
    """Returns distinct titles of the matrices: the attack, with distinguishing details, the most telling first."""
    titles = []
    for row in rows:
        artifact = row.measured.evaluation.artifact
        weights = "" if row.weights == "best" else f"{plain(row.weights)} weights"
        folder = plain(artifact.path) if artifact else ""
        titles.append((plain(row.label), row.where, row.allowed, weights, plain(row.attack), folder))
    distinct = []
    for title in titles:
        same = [other for other in titles if other[0] == title[0]]
        parts = []
        for i, part in enumerate(title):
            if len({other[i] for other in same}) > 1:
                same = [other for other in same if other[i] == part]
                parts += [part] if part else []
        distinct.append(f"{title[0]} ({'; '.join(parts)})" if parts else title[0])
    return distinct


def _table(title: str, cells: Mapping[tuple[str, str], tuple[Any, str]]) -> Table:
    # Models that are both sources and targets come first in the same order, which gives a diagonal.
    sources = list(dict.fromkeys(source for source, _ in cells))
    targets = sorted(dict.fromkeys(target for _, target in cells), key=lambda target: _rank(sources, target))
    sources = sorted(sources, key=lambda source: _rank(targets, source))
    first = next(iter(cells.values()))[0]
    caption = f"{sentence(first.allowed)}. Source by target, on {first.where}. Robust accuracy in percent."
    rows = [(Cell(s), *(_cell(*cells[s, t]) if (s, t) in cells else NOTHING for t in targets)) for s in sources]
    columns = (Column("Source", "by target", figures=False), *map(Column, targets))
    return Table(title, caption, columns, tuple(rows))


def _rank(order: list[str], name: str) -> int:
    return order.index(name) if name in order else len(order)


def _cell(row: Any, relation: str) -> Cell:
    below = []
    if any(record.reached != record.count - record.correct for record in row.measured.summary.records):
        below.append(f"target class reached {percent(row.reached, row.count)}%")
    if relation:
        below.append(relation)
    return dataclasses.replace(accuracy(row, *below, marked=relation == WHITE_BOX), tint=row.accuracy)
