"""How examples made on one model fare on another: a matrix per attack, sources by targets."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence

from l2p_tf.evaluation.records import Record, Summary, summarize
from l2p_tf.reporting.runs import Evaluation, Run
from l2p_tf.reporting.section import Section
from l2p_tf.reporting.table import NOTHING, Cell, Column, Table, accuracy, in_percent
from l2p_tf.reporting.text import percent, plain, strength

NAME = "transfer"
_TITLE = "Transfer of adversarial examples"
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
_WHERE = 1
_Matrix = dict[tuple[str, str], tuple[Summary, str]]


@dataclasses.dataclass(frozen=True)
class Matrix:
    """One attack of one transfer stage.

    Attributes:
      title: the attack, told from those of the other matrices.
      where: data set and split, in words.
      sources: names of the models that examples were made on; those that are targets too first, in their order.
      targets: names of the models that they were shown to.
      cells: what each target kept and what it shares with the source, by both names.
    """

    title: str
    where: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    cells: Mapping[tuple[str, str], tuple[Summary, str]]


def section(runs: Sequence[Run]) -> Section | None:
    """A matrix for each attack of each transfer stage; None where nothing was transferred."""
    found = matrices(runs)
    if not found:
        return None
    lines = [_line(*names, *cell) for matrix in found for names, cell in matrix.cells.items()]
    return Section(NAME, _TITLE, tuple(map(_sheet, found)), tuple(lines), _NOTE)


def matrices(runs: Sequence[Run]) -> list[Matrix]:
    """A matrix for each attack of each transfer stage."""
    known = {run.key: run for run in runs}
    found: dict[tuple[str, ...], _Matrix] = {}
    titles: dict[tuple[str, ...], tuple[str, ...]] = {}
    for run in runs:
        for evaluation in run.evaluations:
            for summary in summarize(r for r in evaluation.records if r.source is not None):
                first = summary.first
                stage = evaluation.artifact.fingerprint if evaluation.artifact else ""
                place = (stage, evaluation.checkpoint, first.dataset, first.split, first.attack, first.backend)
                cells = found.setdefault(place, {})
                cells[source_name(evaluation, first, known), run.name] = summary, relation_of(evaluation, first, known)
                titles[place] = _titles(run, evaluation, first)
    return [_matrix(title, titles[place][_WHERE], found[place]) for place, title in _distinct(titles).items()]


def source_name(evaluation: Evaluation, record: Record, known: Mapping[str, Run]) -> str:
    """How the report calls the source of a transferred record; `known` are its runs by their keys."""
    parts = _parts(evaluation, record).items()
    return f" {_JOINT} ".join(known[key].name if key in known else plain(part) for part, key in parts)


def relation_of(evaluation: Evaluation, record: Record, known: Mapping[str, Run]) -> str:
    """What the source has of the target: it is the target, the target is part of it, its weights, or nothing."""
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
    """The runs that a source is joined from, with their keys.

    A name that is known as it stands is a single one, whatever is in it.
    """
    source = record.source or ""
    names = [source] if evaluation.key_of(source) != source else source.split(_JOINT)
    return {name: evaluation.key_of(name) for name in names}


def _origin(key: str, known: Mapping[str, Run]) -> str:
    """The training that a run's weights come from: its own, unless it was derived from another one."""
    while key in known and (source := known[key].input("source")):
        key = source
    return key


def _titles(run: Run, evaluation: Evaluation, record: Record) -> tuple[str, ...]:
    """What may tell one matrix from another, the most telling first."""
    where = f"{run.title_of(record.dataset)}, {plain(record.split)}"
    weights = "" if evaluation.checkpoint == "best" else f"{plain(evaluation.checkpoint)} weights"
    folder = plain(evaluation.artifact.path) if evaluation.artifact else ""
    return plain(record.label), where, strength(record), weights, plain(record.attack), folder


def _distinct(titles: Mapping[tuple[str, ...], tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """The first part of each title, with as many of the others as tell it from those of the same name."""
    found = {}
    for place, title in titles.items():
        same = [other for other in titles.values() if other[0] == title[0]]
        told = []
        for i, part in enumerate(title):
            if len({other[i] for other in same}) > 1:
                same = [other for other in same if other[i] == part]
                told += [part] if part else []
        found[place] = f"{title[0]} ({'; '.join(told)})" if told else title[0]
    return found


def _matrix(title: str, where: str, cells: _Matrix) -> Matrix:
    # Targets that are sources themselves come first and in the sources' order, so that the diagonal is one.
    sources = list(dict.fromkeys(source for source, _ in cells))
    targets = sorted(dict.fromkeys(target for _, target in cells), key=lambda target: _rank(sources, target))
    return Matrix(title, where, tuple(sorted(sources, key=lambda s: _rank(targets, s))), tuple(targets), cells)


def _sheet(matrix: Matrix) -> Table:
    cells, targets = matrix.cells, matrix.targets
    allowed = strength(next(iter(cells.values()))[0].first)
    caption = f"{allowed[:1].upper()}{allowed[1:]}. Source by target, on {matrix.where}. Robust accuracy in percent."
    rows = [(Cell(s), *(_field(*cells[s, t]) if (s, t) in cells else NOTHING for t in targets)) for s in matrix.sources]
    heads = (Column("Source", "by target", figures=False), *(Column(target) for target in targets))
    return Table(matrix.title, caption, heads, tuple(rows))


def _rank(order: Sequence[str], name: str) -> int:
    return order.index(name) if name in order else len(order)


def _field(summary: Summary, relation: str) -> Cell:
    count, records = summary.first.count, summary.records
    below = []
    if any(record.reached != record.count - record.correct for record in records):
        below.append(f"target class reached {percent(_reached(summary), count)}%")
    if relation:
        below.append(relation)
    cell = accuracy(summary, *below, marked=relation == WHITE_BOX)
    return dataclasses.replace(cell, tint=summary.accuracy)


def _reached(summary: Summary) -> float:
    return statistics.fmean(record.reached / record.count for record in summary.records)


def _line(source: str, target: str, summary: Summary, relation: str) -> dict[str, object]:
    first = summary.first
    return {
        "source": source, "target": target, "white_box": str(relation == WHITE_BOX).lower(), "relation": relation,
        "dataset": first.dataset, "split": first.split, "attack": first.attack, "norm": first.norm,
        "epsilon": first.epsilon, "steps": first.steps, "restarts": first.restarts, "draws": first.draws,
        "prediction_draws": first.prediction_draws, "backend": first.backend, "repeats": len(summary.records),
        "count": first.count, "accuracy": in_percent(summary.accuracy), "low": in_percent(summary.low),
        "high": in_percent(summary.high), "spread": in_percent(summary.spread),
        "reached": in_percent(_reached(summary)),
    }  # fmt: skip
