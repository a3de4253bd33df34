"""What each run was attacked with, and warnings where that is too little for what the figures seem to say."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from l2p_tf.evaluation.records import CLEAN, Record, wilson_interval
from l2p_tf.registry import parse_spec, shown
from l2p_tf.reporting.entries import Row
from l2p_tf.reporting.runs import Run
from l2p_tf.reporting.section import Section
from l2p_tf.reporting.subjects import Measured, Subject, by_place, subjects
from l2p_tf.reporting.table import Cell, Column, Table, rounded
from l2p_tf.reporting.text import attack_name, listed, norm_name, plain, several, strength
from l2p_tf.types import UserError

NAME = "strength"
FEW = 100
"""With fewer images an interval reaches more than 10 points to a side where half of them are right."""

USUAL = 20
"""Steps of the PGD that everyone runs; only what is stronger says that an accuracy may last."""

ITERATED = {
    "apgd": 100, "bim": 20, "cw": 1000, "fab": 100, "gen_cw": 100, "gen_mim": 100, "l2p_cw": 1000, "l2p_eot": 7,
    "l2p_pgd": 7, "mim": 20, "pgd": 20,
}  # fmt: skip
"""Steps, where none are given, of attacks that follow the gradient on and on; DeepFool ends where it first crosses."""

_NOTE = (
    "What the runs were attacked with. Every accuracy under attack is an upper bound, and as good as the attack. "
    "Gradients are backward passes, every draw of the noise counted; they and forward passes are per image, means over "
    "all images: one that falls early costs less. Draws of an answer are those that one prediction averages. Examples "
    "made on other runs are not counted here."
)
_HEADS = (
    Column("Attack", figures=False), Column("Allowed", figures=False), Column("Loss", "target", figures=False),
    Column("Draws", "of a gradient"), Column("Draws", "of an answer"), Column("Repeats"), Column("Images"),
    Column("Gradients", "per image"), Column("Forward passes", "per image"), Column("Runs", figures=False),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Use:
    """One attack on one run."""

    subject: Subject
    measured: Measured

    @property
    def alike(self) -> tuple[object, ...]:
        """What runs have in common that share a line of the table."""
        first, summary = self.measured.first, self.measured.summary
        return *self.measured.trial, first.prediction_draws, len(summary.records), first.randomized

    @property
    def gradients(self) -> float:
        """Backward passes per image, mean over repeats."""
        return statistics.fmean(record.gradients for record in self.measured.summary.records)

    @property
    def forwards(self) -> float:
        """Forward passes per image, mean over repeats."""
        return statistics.fmean(record.forwards for record in self.measured.summary.records)


def section(runs: Sequence[Run]) -> Section | None:
    """A table for each choice of weights and split, a row for each attack; None where nothing was attacked."""
    sheets, lines = [], []
    places = by_place(subjects(runs))
    for found in places.values():
        uses = [Use(subject, one) for subject in found for one in subject.measured if one.first.attack != CLEAN]
        if uses:
            title = found[0].title if len(places) > 1 else ""
            sheets.append(Table(title, f"On {found[0].where}.", _HEADS, tuple(_rows(uses))))
            lines += [_line(use) for use in uses]
    if not sheets:
        return None
    return Section(NAME, "What they were attacked with", tuple(sheets), tuple(lines), _NOTE)


def warnings(rows: Sequence[Row]) -> list[str]:
    """What makes the accuracies of some models less than they seem; one sentence on each, and one on what to run."""
    return [*_weak(rows), *_few(rows), *_chosen(rows)]


def stronger(record: Record) -> bool:
    """Whether an attack of a given size is stronger than PGD-20.

    That takes at least 20 steps along the gradient of the model itself, and besides: more steps, more than one start, a
    step size that adapts (apgd), or a cascade (autoattack; worst_case of two or more). Averaging the gradient over
    draws alone does not count, nor does an attack that must hit a target class, one without gradients by itself, or
    DeepFool. C&W and FAB count where they were held to an epsilon: otherwise what they leave is no accuracy at any
    radius.
    """
    try:
        name, options = parse_spec(record.attack)
        if name == "worst_case":
            members = options.get("attacks", ("pgd", "apgd"))
            specs = [parse_spec(str(spec)) for spec in (members if isinstance(members, tuple | list) else (members,))]
            return len(specs) > 1 and any(_steps(*spec) >= USUAL for spec in specs)
    except UserError:  # Of another version or another maker.
        name, options = "", {}
    if not record.gradients or options.get("target", "none") != "none" or name in ("deepfool", "gen_deepfool"):
        return False
    adapts = name in ("apgd", "autoattack")
    return record.steps >= USUAL and (adapts or record.steps > USUAL or record.restarts > 1)


def _steps(name: str, options: Mapping[str, Any]) -> int:
    """Steps along the gradient that an attack is told to take; 0 for one that takes none."""
    value = options.get("steps", ITERATED[name]) if name in ITERATED else 0
    return value if isinstance(value, int) else 0


def _weak(rows: Sequence[Row]) -> list[str]:
    """One sentence for all runs that the same attack helps, in whatever norms."""
    groups: dict[tuple[str, tuple[str, ...]], list[tuple[str, tuple[float, ...]]]] = {}
    for row in rows:
        radii, randomized = {}, False
        for norm in ("linf", "l2"):
            firsts = [entry.summary.first for entry in row.bounded if entry.summary.first.norm == norm]
            if firsts and not any(map(stronger, firsts)):
                radii[norm] = max(first.epsilon or 0.0 for first in firsts)
                randomized |= any(first.randomized for first in firsts)
        if radii:
            name = "autoattack(version=rand)" if randomized else "autoattack"
            classes = row.run.info.get("num_classes")
            if isinstance(classes, int) and classes < 4:  # AutoAttack's targeted loss needs four.
                name = "apgd(restarts=5)"
            groups.setdefault((name, tuple(radii)), []).append((row.name, tuple(radii.values())))
    found = []
    for (name, norms), members in groups.items():
        largest = [max(radii) for radii in zip(*(radii for _, radii in members), strict=True)]
        specs = [_advised(name, norm, radius) for norm, radius in zip(norms, largest, strict=True)]
        names = list(dict.fromkeys(member for member, _ in members))
        found.append(
            f"Nothing stronger than PGD-{USUAL} was run in {listed([norm_name(norm) for norm in norms])} on "
            f"{listed(names)}, so the accuracy there may be overstated. Put {listed(specs)} among the --attacks of the "
            "attack stage."
        )
    return found


def _advised(name: str, norm: str, radius: float) -> str:
    options = [f"epsilon={shown(radius)}", *(["norm=l2"] if norm == "l2" else [])]
    opened = f"{name[:-1]}, " if name.endswith(")") else f"{name}("
    return f"{opened}{', '.join(options)})"


def _few(rows: Sequence[Row]) -> list[str]:
    counts: dict[int, list[str]] = {}
    for row in rows:
        if row.entries and (count := min(entry.count for entry in row.entries.values())) < FEW:
            counts.setdefault(count, []).append(row.name)
    found = []
    for count, names in counts.items():
        low, high = wilson_interval(0.5, count)
        images = f"{count:,} image{'' if count == 1 else 's'}"
        found.append(
            f"{several(names)} {'was' if len(names) == 1 else 'were'} judged on {images} only, too few for a claim: a "
            f"95% interval is up to {50 * (high - low):.0f} points wide to either side. Attack at least {FEW} images, "
            "by a larger --limit or none."
        )
    return found


def _chosen(rows: Sequence[Row]) -> list[str]:
    names = [row.name for row in rows if row.checkpoint == "best" and row.split == "validation" and row.entries]
    if not names:
        return []
    return [
        f"{several(names)} {'was' if len(names) == 1 else 'were'} judged on the validation split, by which the best "
        "weights were chosen, so the accuracy there is flattered. Attack with --split=test."
    ]


def _rows(uses: Sequence[Use]) -> Iterable[tuple[Cell, ...]]:
    groups: dict[tuple[object, ...], list[Use]] = {}
    for use in uses:
        groups.setdefault(use.alike, []).append(use)
    order = list(dict.fromkeys(key[0] for key in groups))
    every = len({id(use.subject) for use in uses})
    for key in sorted(groups, key=lambda key: order.index(key[0])):
        found = groups[key]
        first = found[0].measured.first
        names = [use.subject.name for use in found]
        # Without noise every draw is the same, and a single one is taken.
        idle = first.draws > 1 and not first.randomized
        yield (
            Cell(attack_name(first), (plain(first.attack),)),
            Cell(strength(dataclasses.replace(first, draws=1) if idle else first)),
            _goal(found[0].measured),
            Cell("1", ("no noise",)) if idle else Cell(f"{first.draws:,}"),
            Cell(f"{first.prediction_draws:,}"),
            Cell(f"{len(found[0].measured.summary.records):,}"),
            Cell(f"{first.count:,}"),
            _passes([use.gradients for use in found]),
            _passes([use.forwards for use in found]),
            Cell(f"all {every}" if len(names) == every > 2 else listed(names)),
        )


def _goal(measured: Measured) -> Cell:
    options, known = _options(measured)
    loss, target = options.get("loss"), options.get("target")
    below = () if target in (None, "none") else (f"to {plain(target)}",)
    if not isinstance(loss, str):
        members = options.get("attacks")
        specs = tuple(plain(spec) for spec in members) if isinstance(members, list | tuple) else ()
        return Cell("of its members", specs) if specs else Cell("its own" if known else "its usual one", below)
    return Cell(plain(loss), below)


def _options(measured: Measured) -> tuple[dict[str, Any], bool]:
    """The options of an attack, and whether these are all: only those given, where the stage omits the others."""
    artifact, spec = measured.evaluation.artifact, measured.first.attack
    if artifact:
        specs, resolved = artifact.options.get("attacks"), artifact.options.get("attacks_options")
        if isinstance(specs, list) and isinstance(resolved, list) and len(specs) == len(resolved) and spec in specs:
            found = resolved[specs.index(spec)]
            if isinstance(found, dict):
                return found, True
    try:
        return parse_spec(spec)[1], False
    except UserError:  # Of another version or another maker.
        return {}, False


def _passes(values: Sequence[float]) -> Cell:
    low, high = (f"{float(f'{value:.3g}'):,.12g}" for value in (min(values), max(values)))
    return Cell(low if low == high else f"{low} to {high}")


def _line(use: Use) -> dict[str, object]:
    first, (options, _) = use.measured.first, _options(use.measured)
    return {
        "run": use.subject.name, "dataset": first.dataset, "split": first.split, "weights": plain(use.subject.place[0]),
        "attack": first.attack, "norm": first.norm, "epsilon": first.epsilon, "steps": first.steps,
        "restarts": first.restarts, "draws": first.draws, "loss": options.get("loss", ""),
        "target": options.get("target", ""), "prediction_draws": first.prediction_draws, "backend": first.backend,
        "repeats": len(use.measured.summary.records), "count": first.count, "gradients": rounded(use.gradients),
        "forwards": rounded(use.forwards), "stronger_than_pgd_20": str(stronger(first)).lower(),
    }  # fmt: skip
