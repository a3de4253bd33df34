"""Paired comparisons of runs: for each attack, the lead of every run over others, and its significance."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from l2p_tf.reporting.format import attack_names, plain, sentence, signed
from l2p_tf.reporting.pairs import LEVEL, Group, Pair, pairs_of
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import Section, section
from l2p_tf.reporting.table import Cell, Column, Table, accuracy, columns_of, figures, in_percent, rounded

_NOTE = (
    "Runs judged on the same images are compared image by image, which tells more than whether their intervals "
    "overlap. A cell says by how many percentage points the run in the head of its column is ahead of that of its "
    "row; below it the 95% interval (Newcombe's method 10) and the p-value of McNemar's exact test, or, of means over "
    "repeats of a randomized model, of the exact sign-flip test, which is the same for single evaluations. p-values "
    f"are corrected by Holm's method for the number of pairs under an attack; below {LEVEL:g}, where the interval "
    "leaves out 0 too, the run is called better. Intervals are for one pair by itself. All this is about these trained "
    "models; other trainings of the same methods may differ."
)
# Larger matrices are unreadable.
_MATRIX = 6


@section("paired", "Who is better", order=30)
def paired(results: Results) -> Section | None:
    """A table for clean images and for each attack, the highest accuracy first."""
    pairs = results.once(pairs_of)
    groups = pairs.groups
    if not groups:
        return Section(note=" ".join(pairs.notes)) if pairs.notes else None
    names = attack_names([group.row.measured.first for group in groups])
    # If the same attack was run on several splits or weights, each has its own tables.
    several = len({group.members[0].evaluated.place for group in groups}) > 1
    tables = [
        _table(f"{name}, {group.row.title}" if several else name, group)
        for group, name in zip(groups, names, strict=True)
    ]
    large = max(len(group.members) for group in groups) > _MATRIX
    rows = [_figures(group, pair) for group in groups for pair in group.pairs]
    return Section(tuple(tables), figures(rows), _NOTE, remarks=pairs.notes, opened=_hardest(groups) if large else None)


def _hardest(groups: Sequence[Group]) -> int:
    """Returns the group of the attack with the lowest mean accuracy; the first if there are only clean images."""

    def left(group: Group) -> tuple[bool, float]:
        return group.row.kind == "clean", statistics.fmean(member.row.accuracy for member in group.members)

    return min(range(len(groups)), key=lambda i: left(groups[i]))


def p_value(value: float) -> str:
    """Formats a p-value to two digits."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}" if value < 0.995 else "p = 1"


def _table(title: str, group: Group) -> Table:
    members, count = group.members, group.row.count
    pairs = {(id(pair.first), id(pair.second)): pair for pair in group.pairs}
    ahead = members[:-1] if len(members) <= _MATRIX else members[:1]
    columns = [Column("Run", figures=False), Column("Accuracy", "%")]
    columns += [Column(member.name, "is ahead by") for member in ahead]
    rows = [
        (Cell(m.name), accuracy(m.row), *(_cell(pairs.get((id(other), id(m))), count) for other in ahead))
        for m in members
    ]
    caption = f"{sentence(group.row.allowed)}; {group.row.where}; n = {count:,}."
    if len(ahead) < len(members) - 1:
        caption += f" Each of {len(members):,} runs beside the highest; all pairs are in paired.csv."
    return Table(title, caption, tuple(columns), tuple(rows))


def _cell(pair: Pair | None, count: int) -> Cell:
    if pair is None:
        return Cell("")
    reach = f"{signed(100 * pair.low, count)} to {signed(100 * pair.high, count)}"
    below = (reach, p_value(pair.corrected), "better" if pair.better else "no significant difference")
    return Cell(signed(100 * pair.difference, count), below, tone="good" if pair.better else "unknown")


def _figures(group: Group, pair: Pair) -> dict[str, object]:
    first, second = pair.first, pair.second
    weights = {"weights": plain(group.row.weights)}
    attack = ("attack", "norm", "epsilon", "steps", "restarts", "draws", "backend", "count")
    return {
        **columns_of(group.row, "dataset", "split"), **weights, **columns_of(group.row, *attack),
        "first": first.name, "second": second.name,
        "repeats_first": first.row.repeats, "repeats_second": second.row.repeats,
        "accuracy_first": in_percent(first.row.accuracy), "accuracy_second": in_percent(second.row.accuracy),
        "difference": in_percent(pair.difference), "low": in_percent(pair.low), "high": in_percent(pair.high),
        "p": rounded(pair.p), "p_holm": rounded(pair.corrected), "better": first.name if pair.better else None,
    }  # fmt: skip
