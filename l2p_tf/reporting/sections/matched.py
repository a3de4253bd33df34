"""Comparison of methods at the same clean accuracy, laid out as in the paper on perturbation generators."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from l2p_tf.reporting.examples import Perturbations, has_sizes, perturbations
from l2p_tf.reporting.format import listed, percent, plain
from l2p_tf.reporting.load import Run
from l2p_tf.reporting.measured import Evaluated, by_place
from l2p_tf.reporting.methods import method_of, settings_of
from l2p_tf.reporting.plot import Plot
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import Section, section
from l2p_tf.reporting.sections.minimal_norm import power_plots
from l2p_tf.reporting.sections.radii import LEAST, attack_family
from l2p_tf.reporting.sections.transfer import begun_alike, relation_of, source_name
from l2p_tf.reporting.series import labels, ordered, series, unswept
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
    rounded,
)  # fmt: skip

_NATURAL = "none"
# Tolerance for rounding of differences of shares.
_SLACK = 1e-9
_NOTE = (
    "The more robust a training, the lower its accuracy on clean images tends to be, so methods are compared at the "
    "same clean accuracy. Of each method, the run whose clean accuracy is nearest to the one wanted is picked on the "
    "very images shown here, as the paper on perturbation generators does; the figures of picked runs are a little "
    "flattered by it. Accuracy in percent, ± its standard deviation over repeats where there are several; below it the "
    "95% interval and the number of images. White-box: with full access to the model; "
    "black-box: by examples made on runs that have none of its weights, the mean over those named. L2: mean norm "
    "\N{GREEK SMALL LETTER RHO} and median of the perturbations that succeeded on images classified correctly when "
    "clean. Average: the plain mean of the lines above it. Of an attack that was run at many radii one is shown: the "
    "largest, of those at which examples were transferred where there are such."
)
_BLACK_BOX = 5
_COLUMNS = (
    Column("Method", figures=False), Column("Attack", figures=False), Column("Accuracy", "white-box"),
    Column("Mean L2", "white-box"), Column("Median L2", "white-box"), Column("Accuracy", "black-box"),
    Column("Clean", "accuracy"), Column("Seconds", "per epoch"),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Pick:
    """The run of a method that is closest to a clean accuracy.

    Attributes:
      label: the method, with the swept settings that are constant along its curve.
      evaluated: the run.
      within: whether it is within the tolerance.
    """

    label: str
    evaluated: Evaluated
    within: bool


@dataclasses.dataclass(frozen=True)
class Attacked:
    """One attack on one run.

    Attributes:
      row: the white-box attack, a row of `Results.attacks`.
      sizes: its L2 norms; None if unknown.
      transferred: rows of the same attack from runs that share no weights with it, by source name.
    """

    row: Any
    sizes: Perturbations | None
    transferred: Mapping[str, Any]

    @property
    def black_box(self) -> float | None:
        """Mean accuracy over the sources; None if there are none."""
        return _mean([row.accuracy for row in self.transferred.values()])


@section("matched", "Methods at the same clean accuracy", order=25)
def matched(results: Results) -> Section | None:
    """A table per clean accuracy at which methods are compared, and accuracy by size of perturbation."""
    comparisons = comparisons_of(results)
    if not comparisons:
        return None
    tables, rows, plots = [], [], []
    alike: dict[str, list[str]] = {}
    tolerance = in_percent(results.match.tolerance)
    for wanted, picks in comparisons:
        attacked = [attacks_on(pick.evaluated, results) if pick.within else [] for pick in picks]
        cells: list[tuple[Cell, ...]] = []
        for pick, attacks in zip(picks, at_one_radius(attacked), strict=True):
            cells += _rows(pick, attacks) if pick.within else [_none_near(pick, results.match.tolerance)]
            rows += [{"wanted": in_percent(wanted), "tolerance": tolerance, **row} for row in _figures(pick, attacks)]
            for source, row in (pair for attack in attacks for pair in attack.transferred.items()):
                if begun_alike(row.measured.evaluation, row.measured.first, results.by_key):
                    alike.setdefault(source, []).append(pick.evaluated.name)
        caption = f"Runs within {_points(results.match.tolerance)} of it, on {picks[0].evaluated.title}."
        table = Table(f"Clean accuracy of {100 * wanted:.4g}%", caption, _COLUMNS, tuple(cells))
        transferred = any(row[_BLACK_BOX] is not NOTHING and row[_BLACK_BOX].text for row in cells)
        tables.append(table if transferred else table.without(_BLACK_BOX))
        plots += _plots(wanted, picks, len(tables) - 1)
    return Section(tuple(tables), figures(rows), _NOTE + _alike(alike), plots=tuple(plots))


def comparisons_of(results: Results) -> list[tuple[float, list[Pick]]]:
    """Returns the clean accuracies at which methods are compared, with a run of each method.

    They are those given, or else, if runs were swept, that of the standard training.
    """
    comparisons = []
    for place in by_place(results.evaluated):
        natural = [model.clean.accuracy for model in ordered(place) if model.clean and method_of(model.run) == _NATURAL]
        swept = len(unswept(place)) < len(place)
        for wanted in results.match.wanted or natural[: int(swept)]:
            methods = _methods(place).items()
            picks = [_pick(label, runs, wanted, results.match.tolerance) for label, runs in methods]
            if known := [pick for pick in picks if pick]:
                comparisons.append((wanted, known))
    return comparisons


def attacks_on(evaluated: Evaluated, results: Results) -> list[Attacked]:
    """Returns every attack on a run.

    Raises:
      UserError: arrays cannot be read.
    """
    transferred = results.summaries[results.summaries.kind == "transfer"]
    rows = [row for row in transferred.itertuples() if row.measured.run is evaluated.run]
    attacks = []
    for row in evaluated.rows:
        if row.kind != "clean":
            sizes = perturbations(row.measured, "l2") if has_sizes(row.measured) else None
            same = [other for other in rows if _what(other) == _what(row)]
            attacks.append(Attacked(row, sizes, _independent(same, results.by_key)))
    return attacks


def at_one_radius(attacked: Sequence[Sequence[Attacked]]) -> list[list[Attacked]]:
    """Keeps one radius of each attack that was run at many: the same one for all runs.

    It is the largest, among those with transferred examples if there are any.
    """
    best: dict[object, tuple[bool, float]] = {}
    radii: dict[object, set[float]] = {}
    for attack in (attack for attacks in attacked for attack in attacks):
        record = attack.row.measured.first
        if record.epsilon is not None:
            family = attack_family(record)
            radii.setdefault(family, set()).add(record.epsilon)
            best[family] = max(best.get(family, (False, 0.0)), (bool(attack.transferred), record.epsilon))

    def kept(attack: Attacked) -> bool:
        record = attack.row.measured.first
        family = attack_family(record)
        return len(radii.get(family, ())) < LEAST or record.epsilon == best[family][1]

    return [list(filter(kept, attacks)) for attacks in attacked]


def averages(attacks: Sequence[Attacked]) -> tuple[float | None, ...]:
    """Means over attacks: accuracy, mean L2, median L2, black-box accuracy; None if no attack has the figure."""
    return (
        _mean([attack.row.accuracy for attack in attacks]),
        _mean([attack.sizes.mean if attack.sizes else None for attack in attacks]),
        _mean([attack.sizes.median if attack.sizes else None for attack in attacks]),
        _mean([attack.black_box for attack in attacks]),
    )


def _methods(place: Sequence[Evaluated]) -> dict[str, list[Evaluated]]:
    """Groups runs by curve, all seeds together; those that were not swept first.

    A run that was not swept belongs to a sweep along one setting if it differs in that setting only.
    """
    names = labels(place)
    groups: dict[str, list[Evaluated]] = {}
    for model in unswept(place):
        groups.setdefault(names[model], []).append(model)
    for curve in series(place):
        groups.setdefault(curve.over_seeds().label, []).extend(curve.runs)
    return groups


def _pick(label: str, runs: Sequence[Evaluated], wanted: float, tolerance: float) -> Pick | None:
    known = [model for model in runs if model.clean]
    if not known:
        return None
    nearest = min(known, key=lambda model: abs(model.clean.accuracy - wanted))
    return Pick(label, nearest, abs(nearest.clean.accuracy - wanted) <= tolerance + _SLACK)


def _what(row: Any) -> tuple[object, ...]:
    return row.weights, row.dataset, row.split, row.attack, row.backend


def _independent(rows: Sequence[Any], known: Mapping[str, Run]) -> dict[str, Any]:
    """Keeps rows from runs that share nothing with this one; for repeated sources, the one on the most images."""
    sources: dict[str, Any] = {}
    for row in rows:
        evaluation, first = row.measured.evaluation, row.measured.first
        source = source_name(evaluation, first, known)
        more = source not in sources or row.count > sources[source].count
        if more and not relation_of(evaluation, first, known):
            sources[source] = row
    return sources


def _plots(wanted: float, picks: Sequence[Pick], number: int) -> list[Plot]:
    runs = [pick.evaluated for pick in picks if pick.within]
    return power_plots(runs, f"matched-{number}", f"runs at a clean accuracy of {100 * wanted:.4g}%")


def _alike(pairs: Mapping[str, Sequence[str]]) -> str:
    """Returns a sentence on sources with the same seed and architecture as their targets; empty if there are none."""
    if not pairs:
        return ""
    texts = [f"{source} with {listed(list(dict.fromkeys(runs)))}" for source, runs in pairs.items()]
    return (
        " Of the sources of black-box examples, these share the seed and the architecture with the run, so that the "
        f"two were not initialized independently: {'; '.join(texts)}."
    )


def _rows(pick: Pick, attacks: Sequence[Attacked]) -> list[tuple[Cell, ...]]:
    """One row per attack and one for their average; common figures are in the first."""
    run, clean = pick.evaluated.run, pick.evaluated.clean
    seconds = run.note("seconds_per_epoch")
    body = [_cells(attack) for attack in attacks]
    if len(attacks) > 1:
        white, mean, median, black = averages(attacks)
        shares = [NOTHING if v is None else Cell(percent(v, clean.count)) for v in (white, black)]
        body.append((Cell("Average"), shares[0], _size(mean), _size(median), shares[1]))
    common = accuracy(clean), Cell(f"{seconds:.3g}") if isinstance(seconds, int | float) else NOTHING
    head = Cell(pick.label, (pick.evaluated.name, *settings_of(run)))
    rows = [(head, *(body or [(NOTHING,) * 5])[0], *common)]
    return rows + [(Cell(pick.label), *cells, Cell(""), Cell("")) for cells in body[1:]]


def _cells(attack: Attacked) -> tuple[Cell, ...]:
    row, sizes = attack.row, attack.sizes
    return (
        Cell(plain(row.label), (row.allowed,)),
        accuracy(row),
        _size(sizes.mean if sizes else None),
        _size(sizes.median if sizes else None),
        _black_box(attack),
    )


def _black_box(attack: Attacked) -> Cell:
    if attack.black_box is None:
        return NOTHING
    if len(attack.transferred) == 1:
        ((source, row),) = attack.transferred.items()
        return accuracy(row, f"from {source}")
    # The sources are not a random sample, so their mean has no interval; each of them has its own.
    cells = [(source, *accuracy(row).lines) for source, row in attack.transferred.items()]
    each = [f"{source}: {mean} ({interval}), {images}" for source, mean, interval, images in cells]
    return Cell(percent(attack.black_box, next(iter(attack.transferred.values())).count), tuple(each))


def _none_near(pick: Pick, tolerance: float) -> tuple[Cell, ...]:
    clean = pick.evaluated.clean
    nearest = f"nearest {pick.evaluated.name} at {percent(clean.accuracy, clean.count)}%"
    return Cell(pick.label), Cell(f"none within {_points(tolerance)}; {nearest}"), *([Cell("")] * 6)


def _points(tolerance: float) -> str:
    return f"{100 * tolerance:.1f} points" if tolerance >= 0.001 else f"{100 * tolerance:.3g} points"


def _size(value: float | None) -> Cell:
    return NOTHING if value is None else Cell(f"{value:.4g}")


def _figures(pick: Pick, attacks: Sequence[Attacked]) -> list[dict[str, object]]:
    model = pick.evaluated
    head = {
        **columns_of(model.clean, "dataset", "split"), "method": pick.label,
        "run": model.name, "swept": "; ".join(settings_of(model.run)), "clean": in_percent(model.clean.accuracy),
        "within": str(pick.within).lower(), "seconds_per_epoch": model.run.note("seconds_per_epoch"),
    }  # fmt: skip
    rows: list[dict[str, object]] = [
        {
            **columns_of(attack.row, "attack", "norm", "epsilon", "backend", "count"), **accuracy_of(attack.row),
            "succeeded": attack.sizes.succeeded if attack.sizes else None,
            "mean_l2": rounded(attack.sizes.mean if attack.sizes else None),
            "median_l2": rounded(attack.sizes.median if attack.sizes else None),
            "black_box": in_percent(attack.black_box), "sources": "; ".join(attack.transferred),
        }
        for attack in attacks
    ]  # fmt: skip
    if len(attacks) > 1:
        white, mean, median, black = averages(attacks)
        rows.append({
            "attack": "average", "accuracy": in_percent(white), "mean_l2": rounded(mean), "median_l2": rounded(median),
            "black_box": in_percent(black),
        })  # fmt: skip
    return [head | row for row in rows or [{}]]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
