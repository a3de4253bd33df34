"""The summary of a report as text: a run is called better only if a paired test supports it."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Collection, Sequence
from typing import Any

from l2p_tf.evaluation.records import CLEAN
from l2p_tf.reporting.format import listed, plural, several
from l2p_tf.reporting.pairs import Pairs, pairs_of
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.sections.comparison import AttackColumn, Comparison, Row, compare, shares

# Sentences that name more rows are unreadable.
_NAMED = 5


@dataclasses.dataclass(frozen=True)
class Figure:
    """A key figure: label, value and note."""

    label: str
    value: str
    note: str


def paragraphs(results: Results) -> list[str]:
    """Returns one paragraph per data set and split."""
    comparison, pairs = results.once(compare), results.once(pairs_of)
    texts = [_paragraph(comparison, pairs, rows) for rows in _groups(comparison)]
    idle = [row.name for row in comparison.rows if not row.entries and not row.run.records]
    if idle:
        texts.append(f"Not attacked, so without accuracies: {listed(idle)}.")
    moved = [r.name for r in results.all_runs if r.records and all(record.source is not None for record in r.records)]
    if moved:
        texts.append(f"Judged on transferred examples only, so not in the comparison: {listed(moved)}.")
    return texts


def key_figures(results: Results) -> list[Figure]:
    """Key figures of the first data set: highest accuracy clean, and under the strongest common attack."""
    comparison, pairs = results.once(compare), results.once(pairs_of)
    groups = _groups(comparison)
    if not groups:
        return []
    rows = groups[0]
    made = []
    clean = [column for column in comparison.columns if column.key[0] == CLEAN]
    for column in [*clean, *_hardest(comparison, rows)]:
        measured = _measured(rows, column)
        if not measured:
            continue
        rank = _rank(pairs, measured)
        value, interval = shares(rank.entry)
        kind = "on clean images" if column in clean else f"under {column.label}"
        note = f"{rank.best.name}; 95% interval {interval}"
        if column not in clean:
            note = f"{column.allowed}; {note}"
        if rank.level:
            note += f"; no significant difference from {several(rank.level)}"
        if rank.untested:
            note += f"; not tested against {several(rank.untested)}"
        made.append(Figure(f"{'Highest' if len(measured) > 1 else 'Accuracy'} {kind}", f"{value}%", note))
    counts = sorted({entry.count for row in rows for entry in row.entries.values()})
    size = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    return [*made, Figure("Images judged", size, f"{rows[0].dataset}, {rows[0].split} split")]


def _groups(comparison: Comparison) -> list[list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in comparison.rows:
        if row.entries:
            groups.setdefault(row.data, []).append(row)
    return list(groups.values())


def _measured(rows: Sequence[Row], column: AttackColumn) -> list[tuple[Row, Any]]:
    return [(row, row.entries[column.key]) for row in rows if column.key in row.entries]


def _hardest(comparison: Comparison, rows: Sequence[Row]) -> list[AttackColumn]:
    """Returns the attack that all rows have and with the lowest mean accuracy; empty if there is none.

    Every model is fooled by an unlimited perturbation, so minimizing attacks do not count, and of several radii in one
    norm only one does: the one most runs trained with, otherwise the middle one.
    """
    bounded = [column for column in comparison.columns if column.key[0] != CLEAN and not column.minimal]
    common = [column for column in bounded if len(_measured(rows, column)) == len(rows)]
    places = {column.key: _place(_measured(rows, column)[0][1]) for column in common}
    usual = {norm: _radius(norm, {r for n, r in places.values() if n == norm}, rows) for norm, _ in places.values()}
    common = [column for column in common if places[column.key][1] == usual[places[column.key][0]]]

    def mean(column: AttackColumn) -> float:
        return statistics.fmean(entry.accuracy for _, entry in _measured(rows, column))

    return [min(common, key=mean)] if common else []


def _place(entry: Any) -> tuple[str, float]:
    """Returns norm and radius (0 for none). Radii that differ only by rounding are the same."""
    return str(entry.norm), float(f"{entry.measured.first.epsilon or 0:.5g}")


def _radius(norm: str, radii: Collection[float], rows: Sequence[Row]) -> float:
    """Returns the radius that most runs trained with, otherwise the middle one (the smaller of two)."""
    chosen = [row.run.option("defense_options", None) for row in rows]
    given = [options.get("epsilon") for options in chosen if isinstance(options, dict) and options.get("norm") == norm]
    numbers = [value for value in given if isinstance(value, int | float) and not isinstance(value, bool)]
    trained = [float(f"{value:.5g}") for value in numbers]
    best = max(sorted(radii), key=trained.count)
    return best if best in trained else statistics.median_low(radii)


def _paragraph(comparison: Comparison, pairs: Pairs, rows: Sequence[Row]) -> str:
    attacks = {key for row in rows for key in row.entries if key[0] != CLEAN}
    who = listed([row.name for row in rows]) if len(rows) <= _NAMED else plural(len(rows), "model")
    sentences = [
        f"On the {rows[0].split} split of {rows[0].dataset}, {who} {'was' if len(rows) == 1 else 'were'} judged "
        + (f"under {plural(len(attacks), 'attack')}." if attacks else "on clean images only.")
    ]
    clean = next((c for c in comparison.columns if c.key[0] == CLEAN), None)
    if clean and (measured := _measured(rows, clean)):
        sentences.append(_range("Clean accuracy", measured))
    worst = [(row, min(row.bounded, key=lambda entry: entry.accuracy)) for row in rows if row.bounded]
    if worst:
        sentences.append(_lowest(comparison, worst))
    if len(worst) > 1:
        hardest = _hardest(comparison, rows)
        sentences.append(_order(hardest[0], pairs, rows) if hardest else "No attack was run on all of them.")
    if any(column.minimal and _measured(rows, column) for column in comparison.columns):
        sentences.append(
            "Attacks that look for the smallest perturbation, whatever its size, leave little by construction; what "
            "they tell is that size."
        )
    if worst:
        sentences.append("An accuracy under attack is an upper bound: an attack that was not tried may lower it.")
    return " ".join(sentences)


def _range(title: str, measured: Sequence[tuple[Row, Any]]) -> str:
    ordered = sorted(measured, key=lambda pair: pair[1].accuracy)
    ends = [(row.name, *shares(entry)) for row, entry in (ordered[0], ordered[-1])]
    if len(ordered) == 1:
        return f"{title} is {ends[0][1]}% (95% interval {ends[0][2]}%)."
    texts = [f"{value}% ({name}; 95% interval {interval}%)" for name, value, interval in ends]
    return f"{title} lies between {texts[0]} and {texts[1]}."


def _lowest(comparison: Comparison, worst: Sequence[tuple[Row, Any]]) -> str:
    labels = {column.key: column.label for column in comparison.columns}
    if len(worst) > _NAMED:
        return _range("The lowest accuracy of a model under any of its attacks", worst)
    parts = []
    for row, entry in worst:
        value, interval = shares(entry)
        parts.append(f"{row.name} {value}% ({labels[entry.attack, entry.backend]}; 95% interval {interval}%)")
    return f"Lowest accuracy under any of the attacks: {'; '.join(parts)}."


@dataclasses.dataclass(frozen=True)
class _Rank:
    """The run with the highest accuracy, and the others by the result of a paired test, as names."""

    best: Row
    entry: Any
    below: list[str]
    level: list[str]
    untested: list[str]


def _rank(pairs: Pairs, measured: Sequence[tuple[Row, Any]]) -> _Rank:
    (best, entry), *others = sorted(measured, key=lambda pair: -pair[1].accuracy)
    rank = _Rank(best, entry, [], [], [])
    for row, other in others:
        pair = pairs.between(entry, other)
        group = rank.untested if pair is None else rank.below if pair.better else rank.level
        group.append(row.name)
    return rank


def _order(column: AttackColumn, pairs: Pairs, rows: Sequence[Row]) -> str:
    """Describes the ranking under an attack; better only with a significant paired test."""
    rank = _rank(pairs, _measured(rows, column))
    text = f"{column.label} ({column.allowed}) was the strongest attack common to all runs at its radius; "
    text += f"under it {rank.best.name} is best ({shares(rank.entry)[0]}%)"
    text += f", significantly better than {several(rank.below)}" if rank.below else ""
    text += f", with no significant difference from {several(rank.level)}" if rank.level else ""
    text += " (paired test on the same images)." if rank.below or rank.level else "."
    if rank.untested:
        text += f" Not tested against {several(rank.untested)}: that takes results per image, of the same images."
    return text
