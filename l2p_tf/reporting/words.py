"""The summary of a comparison in words: a run is called better only where a paired test bears it out."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Collection, Sequence

from l2p_tf.evaluation.records import CLEAN
from l2p_tf.reporting.comparison import Comparison
from l2p_tf.reporting.entries import AttackColumn, Entry, Row
from l2p_tf.reporting.paired import Who
from l2p_tf.reporting.text import listed, plural, several

# Beyond this many rows a sentence that names each of them is no longer read.
_NAMED = 5


@dataclasses.dataclass(frozen=True)
class Figure:
    """A key figure: what it is, its value, and what must be known with it."""

    label: str
    value: str
    note: str


def paragraphs(comparison: Comparison) -> list[str]:
    """One paragraph for each data set and split."""
    texts = [_paragraph(comparison, rows) for rows in _groups(comparison)]
    idle = [row.name for row in comparison.rows if not row.entries and not row.run.records]
    if idle:
        texts.append(f"Not attacked, so without accuracies: {listed(idle)}.")
    if comparison.transferred:
        names = listed(list(comparison.transferred))
        texts.append(f"Judged on transferred examples only, so not in the comparison: {names}.")
    return texts


def figures(comparison: Comparison) -> list[Figure]:
    """Key figures of the first data set: highest clean accuracy, and highest under the hardest common attack."""
    groups = _groups(comparison)
    if not groups:
        return []
    rows = groups[0]
    found = []
    clean = [column for column in comparison.columns if column.key[0] == CLEAN]
    for column in [*clean, *_hardest(comparison, rows)]:
        measured = _measured(rows, column)
        if not measured:
            continue
        rank = _rank(comparison, column, measured)
        best, entry = rank.best, rank.entry
        kind = "on clean images" if column in clean else f"under {column.label}"
        note = f"{best.name}; 95% interval {entry.interval}"
        if column not in clean:
            note = f"{column.detail}; {note}"
        if rank.level:
            note += f"; no significant difference from {several(rank.level)}"
        if rank.untested:
            note += f"; not tested against {several(rank.untested)}"
        found.append(Figure(f"{'Highest' if len(measured) > 1 else 'Accuracy'} {kind}", f"{entry.accuracy}%", note))
    counts = sorted({entry.count for row in rows for entry in row.entries.values()})
    size = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    found.append(Figure("Images judged", size, f"{rows[0].dataset}, {rows[0].split} split"))
    return found


def _groups(comparison: Comparison) -> list[list[Row]]:
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in comparison.rows:
        if row.entries:
            groups.setdefault((row.dataset, row.split), []).append(row)
    return list(groups.values())


def _measured(rows: Sequence[Row], column: AttackColumn) -> list[tuple[Row, Entry]]:
    return [(row, row.entries[column.key]) for row in rows if column.key in row.entries]


def _hardest(comparison: Comparison, rows: Sequence[Row]) -> list[AttackColumn]:
    """The attack that all rows were put to and that left the lowest mean accuracy; none where there is no such.

    Any model falls to a perturbation of whatever size, so attacks of smallest norm do not count, and of several radii
    of a norm only one does: that which most runs trained with, else the middle one.
    """
    bounded = [column for column in comparison.columns if column.key[0] != CLEAN and not column.minimal]
    common = [column for column in bounded if len(_measured(rows, column)) == len(rows)]
    places = {column.key: _place(_measured(rows, column)[0][1]) for column in common}
    usual = {norm: _radius(norm, {r for n, r in places.values() if n == norm}, rows) for norm, _ in places.values()}
    common = [column for column in common if places[column.key][1] == usual[places[column.key][0]]]

    def mean(column: AttackColumn) -> float:
        return sum(entry.summary.accuracy for _, entry in _measured(rows, column)) / len(rows)

    return [min(common, key=mean)] if common else []


def _place(entry: Entry) -> tuple[str, float]:
    """Norm and radius; 0 for none. Radii that differ by rounding alone are the same."""
    first = entry.summary.first
    return str(first.norm), float(f"{first.epsilon or 0:.5g}")


def _radius(norm: str, radii: Collection[float], rows: Sequence[Row]) -> float:
    """Of the radii of a norm that which most runs trained with, else the middle one, the smaller of two."""
    options = [found for row in rows if isinstance(found := row.run.option("defense_options", None), dict)]
    trained = [float(f"{o['epsilon']:.5g}") for o in options if o.get("norm") == norm and _is_number(o.get("epsilon"))]
    counted = {radius: trained.count(radius) for radius in sorted(radii)}
    best = max(counted, key=lambda radius: counted[radius])
    return best if counted[best] else statistics.median_low(radii)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _paragraph(comparison: Comparison, rows: Sequence[Row]) -> str:
    attacks = {key for row in rows for key in row.entries if key[0] != CLEAN}
    names = [row.name for row in rows]
    who = listed(names) if len(rows) <= _NAMED else plural(len(rows), "model")
    sentences = [
        f"On the {rows[0].split} split of {rows[0].dataset}, {who} {'was' if len(rows) == 1 else 'were'} judged "
        + (f"under {plural(len(attacks), 'attack')}." if attacks else "on clean images only.")
    ]
    clean = next((c for c in comparison.columns if c.key[0] == CLEAN), None)
    if clean and (measured := _measured(rows, clean)):
        sentences.append(_range("Clean accuracy", measured))
    worst = [(row, min(row.bounded, key=lambda e: e.summary.accuracy)) for row in rows if row.bounded]
    if worst:
        sentences.append(_lowest(comparison, worst))
    if len(worst) > 1:
        hardest = _hardest(comparison, rows)
        sentences.append(_order(comparison, hardest[0], rows) if hardest else "No attack was run on all of them.")
    if any(column.minimal and _measured(rows, column) for column in comparison.columns):
        sentences.append(
            "Attacks that look for the smallest perturbation, whatever its size, leave little by construction; what "
            "they tell is that size."
        )
    if worst:
        sentences.append("An accuracy under attack is an upper bound: an attack that was not tried may lower it.")
    return " ".join(sentences)


def _range(what: str, measured: Sequence[tuple[Row, Entry]]) -> str:
    ordered = sorted(measured, key=lambda pair: pair[1].summary.accuracy)
    if len(ordered) == 1:
        only = ordered[0][1]
        return f"{what} is {only.accuracy}% (95% interval {only.interval}%)."
    ends = [
        f"{entry.accuracy}% ({row.name}; 95% interval {entry.interval}%)" for row, entry in (ordered[0], ordered[-1])
    ]
    return f"{what} lies between {ends[0]} and {ends[1]}."


def _lowest(comparison: Comparison, worst: Sequence[tuple[Row, Entry]]) -> str:
    labels = {column.key: column.label for column in comparison.columns}
    if len(worst) > _NAMED:
        return _range("The lowest accuracy of a model under any of its attacks", worst)
    parts = []
    for row, entry in worst:
        first = entry.summary.first
        label = labels[first.attack, first.backend]
        parts.append(f"{row.name} {entry.accuracy}% ({label}; 95% interval {entry.interval}%)")
    return f"Lowest accuracy under any of the attacks: {'; '.join(parts)}."


@dataclasses.dataclass(frozen=True)
class _Rank:
    """The run with the highest accuracy, and how it stands to the others by a paired test, by their names."""

    best: Row
    entry: Entry
    below: list[str]
    level: list[str]
    untested: list[str]


def _rank(comparison: Comparison, column: AttackColumn, measured: Sequence[tuple[Row, Entry]]) -> _Rank:
    (best, entry), *others = sorted(measured, key=lambda pair: -pair[1].summary.accuracy)
    rank = _Rank(best, entry, [], [], [])
    for row, other in others:
        pair = comparison.paired.between(column.key, _who(best, entry), _who(row, other))
        group = rank.untested if pair is None else rank.below if pair.better else rank.level
        group.append(row.name)
    return rank


def _who(row: Row, entry: Entry) -> Who:
    return row.run.key, row.checkpoint, entry.summary.first.dataset, entry.summary.first.split


def _order(comparison: Comparison, column: AttackColumn, rows: Sequence[Row]) -> str:
    """Who is ahead under an attack; better only than those from whom a paired test tells it apart."""
    rank = _rank(comparison, column, _measured(rows, column))
    name, value = rank.best.name, f"{rank.entry.accuracy}%"
    text = f"{column.label} ({column.detail}) was the strongest attack common to all runs at its radius; "
    text += f"under it {name} is best ({value})"
    text += f", significantly better than {several(rank.below)}" if rank.below else ""
    text += f", with no significant difference from {several(rank.level)}" if rank.level else ""
    text += " (paired test on the same images)." if rank.below or rank.level else "."
    if rank.untested:
        text += f" Not tested against {several(rank.untested)}: that takes results per image, of the same images."
    return text
