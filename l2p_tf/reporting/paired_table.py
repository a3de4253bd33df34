"""The tables of runs compared in pairs: for each attack, who is ahead of whom by how much, and whether that counts."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from l2p_tf.evaluation.records import CLEAN
from l2p_tf.reporting.paired import LEVEL, NAME, Group, Pair, Paired
from l2p_tf.reporting.section import Section
from l2p_tf.reporting.table import Cell, Column, Table, accuracy, in_percent, rounded
from l2p_tf.reporting.text import attack_names, minimal, plain, signed, strength

_NOTE = (
    "Runs judged on the same images are compared image by image, which tells more than whether their intervals "
    "overlap. A field says by how many percentage points the run in the head of its column is ahead of that of its "
    "row; below it the 95% interval (Newcombe's method 10) and the p-value of McNemar's exact test, or, of means over "
    "repeats of a randomized model, of the exact sign-flip test, which is the same for single evaluations. p-values "
    f"are corrected by Holm's method for the number of pairs under an attack; below {LEVEL:g}, where the interval "
    "leaves out 0 too, the run is called better. Intervals are for one pair by itself. All this is about these trained "
    "models; other trainings of the same methods may differ."
)
# Of more runs than these a matrix is not read any more.
_MATRIX = 6


def section(found: Paired) -> Section | None:
    """A table for clean images and for each attack, the highest accuracy first; None where nothing can be compared."""
    if not found.groups:
        return None
    names = attack_names([group.record for group in found.groups])
    # Where the same attack was run on several splits or weights, each has tables of its own.
    several = len({group.members[0].subject.place for group in found.groups}) > 1
    sheets = []
    for group, name in zip(found.groups, names, strict=True):
        title = f"{name}, {group.members[0].subject.title}" if several else name
        sheets.append(_sheet(title, group))
    lines = [_line(group, pair) for group in found.groups for pair in group.pairs]
    most = max(len(group.members) for group in found.groups)
    opened = _hardest(found.groups) if most > _MATRIX else None
    return Section(NAME, "Who is better", tuple(sheets), tuple(lines), _NOTE, opened=opened)


def _hardest(groups: Sequence[Group]) -> int:
    """Which group has the attack of a given size that leaves the least on average; the first where there is none."""

    def left(group: Group) -> tuple[bool, float]:
        first = group.record
        mean = statistics.fmean(member.summary.accuracy for member in group.members)
        return first.attack == CLEAN or minimal(first), mean

    return min(range(len(groups)), key=lambda i: left(groups[i]))


def p_value(value: float) -> str:
    """A p-value in words, to two digits."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}" if value < 0.995 else "p = 1"


def _sheet(title: str, group: Group) -> Table:
    members, count = group.members, group.record.count
    pairs = {(id(pair.first), id(pair.second)): pair for pair in group.pairs}
    ahead = members[:-1] if len(members) <= _MATRIX else members[:1]
    heads = [
        Column("Run", figures=False),
        Column("Accuracy", "%"),
        *(Column(one.subject.name, "is ahead by") for one in ahead),
    ]
    rows = []
    for member in members:
        fields = [_field(pairs.get((id(one), id(member))), count) for one in ahead]
        rows.append((Cell(member.subject.name), accuracy(member.summary), *fields))
    caption = f"{strength(group.record)}; {members[0].subject.where}; n = {count:,}."
    caption = caption[:1].upper() + caption[1:]
    if len(ahead) < len(members) - 1:
        caption += f" Each of {len(members):,} runs beside the highest; all pairs are in {NAME}.csv."
    return Table(title, caption, tuple(heads), tuple(rows))


def _field(pair: Pair | None, count: int) -> Cell:
    if pair is None:
        return Cell("")
    reach = f"{signed(100 * pair.low, count)} to {signed(100 * pair.high, count)}"
    below = (reach, p_value(pair.corrected), "better" if pair.better else "no significant difference")
    return Cell(signed(100 * pair.difference, count), below, tone="good" if pair.better else "unknown")


def _line(group: Group, pair: Pair) -> dict[str, object]:
    first = group.record
    checkpoint, dataset, split = pair.first.subject.place
    return {
        "dataset": dataset, "split": split, "weights": plain(checkpoint), "attack": first.attack, "norm": first.norm,
        "epsilon": first.epsilon, "steps": first.steps, "restarts": first.restarts, "draws": first.draws,
        "backend": first.backend, "count": first.count,
        "first": pair.first.subject.name, "second": pair.second.subject.name,
        "repeats_first": pair.first.repeats, "repeats_second": pair.second.repeats,
        "accuracy_first": in_percent(pair.first.summary.accuracy),
        "accuracy_second": in_percent(pair.second.summary.accuracy),
        "difference": in_percent(pair.difference), "low": in_percent(pair.low), "high": in_percent(pair.high),
        "p": rounded(pair.p), "p_holm": rounded(pair.corrected),
        "better": pair.first.subject.name if pair.better else "",
    }  # fmt: skip
