"""Attacks used on each run, with warnings if they are too weak to support the figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from l2p_tf.evaluation.records import Record, wilson_interval
from l2p_tf.registry import parse_spec, shown
from l2p_tf.reporting.format import attack_name, listed, norm_name, plain, plural, several, strength
from l2p_tf.reporting.measured import Measured, by_place
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import Section, section
from l2p_tf.reporting.sections.comparison import Row, compare
from l2p_tf.reporting.table import Cell, Column, Table, columns_of, figures, rounded
from l2p_tf.types import UserError

FEW = 100
"""With fewer images, a 95% interval around 50% extends more than 10 points to one side."""

USUAL = 20
"""Steps of the usual PGD; only stronger attacks suggest that an accuracy will hold."""

ITERATED = {
    "apgd": 100, "bim": 20, "cw": 1000, "fab": 100, "gen_cw": 100, "gen_mim": 100, "l2p_cw": 1000, "l2p_eot": 7,
    "l2p_pgd": 7, "mim": 20, "pgd": 20,
}  # fmt: skip
"""Default numbers of steps of attacks that follow the gradient repeatedly; DeepFool stops at the first boundary."""

_NOTE = (
    "Every accuracy under attack is an upper bound, and as good as the attack. Gradients are backward passes, every "
    "draw of the noise counted; they and forward passes are per image, means over all images: one that falls early "
    "costs less. Draws of an answer are those that one prediction averages. Examples made on other runs are not "
    "counted here."
)
_COLUMNS = (
    Column("Attack", figures=False), Column("Allowed", figures=False), Column("Loss", "target", figures=False),
    Column("Draws", "of a gradient"), Column("Draws", "of an answer"), Column("Repeats"), Column("Images"),
    Column("Gradients", "per image"), Column("Forward passes", "per image"), Column("Runs", figures=False),
)  # fmt: skip


@section("strength", "What they were attacked with", order=100)
def attacks_used(results: Results) -> Section | None:
    """A table per choice of weights and split, one row per attack; and warnings about weak attacks."""
    tables, rows = [], []
    places = by_place(results.evaluated)
    for place in places:
        uses = [row for model in place for row in model.rows if row.kind != "clean"]
        if uses:
            title = place[0].title if len(places) > 1 else ""
            tables.append(Table(title, f"On {place[0].where}.", _COLUMNS, tuple(_rows(uses))))
            rows += [_figures(row) for row in uses]
    judged = results.once(compare).rows
    warnings = (*_weak(judged), *_few(judged), *_chosen(judged))
    if not tables:
        return Section(warnings=warnings) if warnings else None
    return Section(tuple(tables), figures(rows), _NOTE, warnings=warnings)


def stronger(record: Record) -> bool:
    """Whether an attack of fixed budget is stronger than PGD-20.

    It must take at least 20 steps along the gradient of the model itself, and have more steps, more than one start, an
    adaptive step size (apgd), or be a sequence (autoattack; worst_case of two or more). Averaging the gradient over
    draws alone does not count, nor do targeted attacks, gradient-free attacks on their own, or DeepFool. C&W and FAB
    count if they are limited to an epsilon: otherwise they give no accuracy at any radius.
    """
    try:
        name, options = parse_spec(record.attack)
        if name == "worst_case":
            members = options.get("attacks", ("pgd", "apgd"))
            specs = [parse_spec(str(spec)) for spec in (members if isinstance(members, tuple | list) else (members,))]
            return len(specs) > 1 and any(_steps(*spec) >= USUAL for spec in specs)
    except UserError:  # Written by another version or another program.
        name, options = "", {}
    if not record.gradients or options.get("target", "none") != "none" or name in ("deepfool", "gen_deepfool"):
        return False
    adapts = name in ("apgd", "autoattack")
    return record.steps >= USUAL and (adapts or record.steps > USUAL or record.restarts > 1)


def _steps(name: str, options: Mapping[str, Any]) -> int:
    """Returns the number of gradient steps of an attack; 0 for one that takes none."""
    value = options.get("steps", ITERATED[name]) if name in ITERATED else 0
    return value if isinstance(value, int) else 0


def _weak(rows: Sequence[Row]) -> list[str]:
    """Returns one sentence for all runs with the same advice, in whatever norms."""
    groups: dict[tuple[str, tuple[str, ...]], list[tuple[str, tuple[float, ...]]]] = {}
    for row in rows:
        radii, randomized = {}, False
        for norm in ("linf", "l2", "l1"):
            firsts = [entry.measured.first for entry in row.bounded if entry.norm == norm]
            if firsts and not any(map(stronger, firsts)):
                radii[norm] = max(first.epsilon or 0.0 for first in firsts)
                randomized |= any(first.randomized for first in firsts)
        if radii:
            name = "autoattack(version=rand)" if randomized else "autoattack"
            classes = row.run.info.get("num_classes")
            if isinstance(classes, int) and classes < 4:  # AutoAttack's targeted loss needs four classes.
                name = "apgd(restarts=5)"
            groups.setdefault((name, tuple(radii)), []).append((row.name, tuple(radii.values())))
    warnings = []
    for (name, norms), members in groups.items():
        largest = [max(radii) for radii in zip(*(radii for _, radii in members), strict=True)]
        specs = [_advised(name, norm, radius) for norm, radius in zip(norms, largest, strict=True)]
        names = list(dict.fromkeys(member for member, _ in members))
        warnings.append(
            f"Nothing stronger than PGD-{USUAL} was run in {listed([norm_name(norm) for norm in norms])} on "
            f"{listed(names)}, so the accuracy there may be overstated. Put {listed(specs)} among the --attacks of the "
            "attack stage."
        )
    return warnings


def _advised(name: str, norm: str, radius: float) -> str:
    options = [f"epsilon={shown(radius)}", *([f"norm={norm}"] if norm != "linf" else [])]
    opened = f"{name[:-1]}, " if name.endswith(")") else f"{name}("
    return f"{opened}{', '.join(options)})"


def _few(rows: Sequence[Row]) -> list[str]:
    counts: dict[int, list[str]] = {}
    for row in rows:
        if row.entries and (count := min(entry.count for entry in row.entries.values())) < FEW:
            counts.setdefault(count, []).append(row.name)
    warnings = []
    for count, names in counts.items():
        low, high = wilson_interval(0.5, count)
        warnings.append(
            f"{several(names)} {'was' if len(names) == 1 else 'were'} judged on {plural(count, 'image')} only, too few "
            f"for a claim: a 95% interval is up to {50 * (high - low):.0f} points wide to either side. Attack at least "
            f"{FEW} images, by a larger --limit or none."
        )
    return warnings


def _chosen(rows: Sequence[Row]) -> list[str]:
    names = [row.name for row in rows if row.weights == "best" and row.split == "validation" and row.entries]
    if not names:
        return []
    return [
        f"{several(names)} {'was' if len(names) == 1 else 'were'} judged on the validation split, by which the best "
        "weights were chosen, so the accuracy there is flattered. Attack with --split=test."
    ]


def _rows(uses: Sequence[Any]) -> Iterator[tuple[Cell, ...]]:
    """Returns one row per attack, with the runs that it was used on in the same way."""
    groups: dict[tuple[object, ...], list[Any]] = {}
    for row in uses:
        alike = (row.attack, row.backend, row.count, row.prediction_draws, row.repeats, row.randomized)
        groups.setdefault(alike, []).append(row)
    order = list(dict.fromkeys(key[0] for key in groups))
    runs = len({row.name for row in uses})
    for key in sorted(groups, key=lambda key: order.index(key[0])):
        rows = groups[key]
        row, first = rows[0], rows[0].measured.first
        names = [row.name for row in rows]
        # Without noise all draws are the same, and a single one is taken.
        idle = first.draws > 1 and not first.randomized
        yield (
            Cell(attack_name(first), (plain(first.attack),)),
            Cell(strength(dataclasses.replace(first, draws=1) if idle else first)),
            _loss(row.measured),
            Cell("1", ("no noise",)) if idle else Cell(f"{first.draws:,}"),
            Cell(f"{first.prediction_draws:,}"),
            Cell(f"{row.repeats:,}"),
            Cell(f"{first.count:,}"),
            _passes([row.gradients for row in rows]),
            _passes([row.forwards for row in rows]),
            Cell(f"all {runs}" if len(names) == runs > 2 else listed(names)),
        )


def _loss(measured: Measured) -> Cell:
    options, complete = _options(measured)
    loss, target = options.get("loss"), options.get("target")
    below = () if target in (None, "none") else (f"to {plain(target)}",)
    if not isinstance(loss, str):
        members = options.get("attacks")
        specs = tuple(plain(spec) for spec in members) if isinstance(members, list | tuple) else ()
        return Cell("of its members", specs) if specs else Cell("its own" if complete else "its usual one", below)
    return Cell(plain(loss), below)


def _options(measured: Measured) -> tuple[dict[str, Any], bool]:
    """Returns the options of an attack, and whether they are complete or only those given."""
    artifact, spec = measured.evaluation.artifact, measured.first.attack
    if artifact:
        specs, resolved = artifact.options.get("attacks"), artifact.options.get("attacks_options")
        if isinstance(specs, list) and isinstance(resolved, list) and len(specs) == len(resolved) and spec in specs:
            options = resolved[specs.index(spec)]
            if isinstance(options, dict):
                return options, True
    try:
        return parse_spec(spec)[1], False
    except UserError:  # Written by another version or another program.
        return {}, False


def _passes(values: Sequence[float]) -> Cell:
    low, high = (f"{float(f'{value:.3g}'):,.12g}" for value in (min(values), max(values)))
    return Cell(low if low == high else f"{low} to {high}")


def _figures(row: Any) -> dict[str, object]:
    options, _ = _options(row.measured)
    return {
        "run": row.name, "weights": plain(row.weights), **columns_of(row), "loss": options.get("loss"),
        "target": options.get("target"), "gradients": rounded(row.gradients), "forwards": rounded(row.forwards),
        "stronger_than_pgd_20": str(stronger(row.measured.first)).lower(),
    }  # fmt: skip
