"""Sweeps: the tried settings, their cost, and their results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from l2p_tf.reporting.examples import Perturbations, is_measurable, perturbations
from l2p_tf.reporting.format import DASH, attack_names, norm_name, percent, plain, titled
from l2p_tf.reporting.measured import Evaluated, by_place
from l2p_tf.reporting.methods import SEED, setting, setting_name, settings_of, swept, value_name
from l2p_tf.reporting.plot import Curve, Plot, plot_of
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import Section, section
from l2p_tf.reporting.series import Series, along_of, labels, ordered, series, series_along, swept_kinds, unswept
from l2p_tf.reporting.table import NOTHING, Cell, Column, Table, accuracy, figures, in_percent, rounded

Trial = tuple[str, str, int]
"""An attack, its backend, and its number of images, which figures of one curve share."""

_CAPTION = (
    "Accuracy in percent, ± its standard deviation over repeats where there are several; below it the 95% interval and "
    "the number of images. Of attacks that look for the smallest perturbation: mean norm "
    "\N{GREEK SMALL LETTER RHO} over the images that were classified correctly when clean and on which the attack "
    "succeeded, the median, and the share of the images classified correctly when clean on which it succeeded. "
    "Lowest: under any of the attacks that keep to a given size."
)
# Attacks besides clean; plots with more lines over a few points are unreadable.
_ATTACKS = 5
# Minimum number of values for a separate plot of a setting other than that along the curves.
_VALUES = 3
# Robustness curves cross each other, so only few fit into one plot.
_CURVES = 5


@section("sweep", "Sweep", order=20)
def sweep(results: Results) -> Section | None:
    """A table for each sweep, preceded by other runs on the same images, and its curves."""
    groups = [ordered(place) for place in by_place(results.evaluated) if len(unswept(place)) < len(place)]
    if not groups:
        return None
    keys = list(dict.fromkeys(key for group in groups for model in group for key in swept(model.run)))
    attacks = _smallest([model for group in groups for model in group])
    tables = [_table(group[0].title if len(groups) > 1 else "", group) for group in groups]
    rows = [_figures(model, labels(group)[model], keys, attacks) for group in groups for model in group]
    return Section(tuple(tables), figures(rows), plots=tuple(plots(groups)))


def lowest(evaluated: Evaluated) -> Any:
    """Returns the row of the attack of fixed budget with the lowest accuracy; None if there is none."""
    return min(evaluated.bounded, key=lambda row: row.accuracy, default=None)


def trial_of(row: Any) -> Trial:
    """Returns the attack of a row, its backend and its number of images."""
    return row.attack, row.backend, row.count


def _smallest(evaluated: Sequence[Evaluated], *norms: str) -> dict[Trial, Any]:
    """Returns a row for each minimizing attack that was tried on any of the runs."""
    rows: dict[Trial, Any] = {}
    for row in (row for model in evaluated for row in model.rows if is_measurable(row.measured, *norms)):
        rows.setdefault(trial_of(row), row)
    return rows


def _sizes(evaluated: Evaluated, trial: Trial) -> Perturbations | None:
    rows = (row for row in evaluated.rows if trial_of(row) == trial and is_measurable(row.measured))
    return next((perturbations(row.measured) for row in rows), None)


def _table(title: str, group: Sequence[Evaluated]) -> Table:
    attacks, names = _smallest(group), labels(group)
    attack_heads = zip(attack_names([row.measured.first for row in attacks.values()]), attacks.values(), strict=True)
    columns = (
        Column("Run", figures=False), Column("Method", "swept", figures=False), Column("Clean"),
        *(Column(name, f"mean {norm_name(row.norm)}") for name, row in attack_heads),
        Column("Lowest", "attack"), Column("Seconds", "per epoch"), Column("Parameters"),
    )  # fmt: skip
    rows = tuple(_row(model, names[model], attacks) for model in group)
    return Table(title, f"{_CAPTION} On {group[0].where}.", columns, rows)


def _row(model: Evaluated, method: str, attacks: Mapping[Trial, Any]) -> tuple[Cell, ...]:
    run, clean, worst = model.run, model.clean, lowest(model)
    seconds, parameters = run.note("seconds_per_epoch"), run.note("parameters")
    return (
        Cell(model.name, (plain(run.option("model")),) if run.train else ()),
        Cell(method, settings_of(run)),
        accuracy(clean) if clean else NOTHING,
        *(_size(_sizes(model, trial)) for trial in attacks),
        accuracy(worst, plain(worst.label), worst.allowed) if worst else NOTHING,
        Cell(f"{seconds:.3g}") if isinstance(seconds, int | float) else NOTHING,
        Cell(f"{parameters:,}") if isinstance(parameters, int) else NOTHING,
    )


def _size(sizes: Perturbations | None) -> Cell:
    if sizes is None or sizes.rate is None:
        return NOTHING
    success = f"success {percent(sizes.rate, sizes.tried)}%"
    if sizes.mean is None:
        return Cell(DASH, (success,))
    return Cell(f"{sizes.mean:.4g}", (f"median {sizes.median:.4g}", success))


def _figures(model: Evaluated, method: str, keys: Sequence[str], attacks: Mapping[Trial, Any]) -> dict[str, object]:
    run, clean, worst = model.run, model.clean, lowest(model)
    row: dict[str, object] = {
        "run": model.name, "method": method, "defense": run.option("defense"), "model": run.option("model"),
        "dataset": model.place[1], "split": model.place[2], **{key: swept(run).get(key) for key in keys},
        "count": clean.count if clean else None, **_interval("clean", clean),
        "lowest_attack": worst.attack if worst else None, **_interval("lowest", worst),
    }  # fmt: skip
    attacked = [trial[:2] for trial in attacks]
    for trial in attacks:
        attack, backend, count = trial
        name = attack if backend == "l2p_tf" else f"{attack} ({backend})"
        name += f", n = {count}" if attacked.count(trial[:2]) > 1 else ""
        sizes = _sizes(model, trial)
        rate, mean, median = (sizes.rate, sizes.mean, sizes.median) if sizes else (None, None, None)
        row |= {f"success/{name}": in_percent(rate), f"mean/{name}": rounded(mean), f"median/{name}": rounded(median)}
    return row | {name: run.note(name) for name in ("seconds_per_epoch", "parameters")}


def _interval(name: str, row: Any) -> dict[str, object]:
    values = (row.accuracy, row.low, row.high) if row else (None, None, None)
    return dict(zip((name, f"{name}_low", f"{name}_high"), map(in_percent, values), strict=True))


def plots(groups: Sequence[Sequence[Evaluated]]) -> list[Plot]:
    """Plots the robustness curves of each sweep, then accuracy against each of its settings.

    Raises:
      UserError: arrays cannot be read.
    """
    made: list[Plot] = []
    for group in groups:
        attacks = _smallest(group, "l2")
        names = attack_names([row.measured.first for row in attacks.values()])
        for trial, attack in zip(attacks, names, strict=True):
            for label, part in _panels(series(group)):
                if curves := robustness_curves(trial, part, unswept(group)):
                    kind = "Robustness curves" if any(curve.kind == "line" for curve in curves) else "Robustness"
                    title = f"{kind} under {attack}: size of its perturbations against clean accuracy, {group[0].title}"
                    axes = ("clean accuracy, %", "\N{GREEK SMALL LETTER RHO}, mean L2 norm")
                    made.append(plot_of(f"sweep-curve-{len(made)}", titled(title, label), curves, axes))
        made += [_accuracies(f"sweep-setting-{len(made) + i}", runs) for i, runs in enumerate(_by_setting(group))]
    return made


def point_of(evaluated: Evaluated, trial: Trial) -> tuple[float, float] | None:
    """Returns clean accuracy and mean norm of an L2-minimizing attack's successes; None if either is unknown.

    Raises:
      UserError: arrays cannot be read.
    """
    sizes = _sizes(evaluated, trial)
    row = next((row for row in evaluated.rows if trial_of(row) == trial), None)
    if row is None or sizes is None or sizes.mean is None:
        return None
    return row.measured.clean.accuracy, sizes.mean


def robustness_curves(trial: Trial, curves: Sequence[Series], others: Sequence[Evaluated]) -> list[Curve]:
    """Returns a curve per series and a point per run outside the sweep; nothing if no series has a point."""
    made = []
    for curve in curves:
        pairs = zip(curve.runs, curve.values, strict=True)
        points = [(*point, value_name(value)) for run, value in pairs if (point := point_of(run, trial))]
        if points:
            clean, sizes, texts = zip(*points, strict=True)
            x, y = 100 * np.array(clean), np.array(sizes)
            way = f", by {setting_name(curve.along)}"
            # Repeats have no order for a line to follow, and need no seed in the label.
            repeats = Curve(curve.label, x, y, kind="points")
            made.append(Curve(curve.label.removesuffix(way) + way, x, y, texts=texts) if curve.along else repeats)
    for run in others if made else ():
        if point := point_of(run, trial):
            made.append(Curve(run.name, 100 * np.array(point[:1]), np.array(point[1:]), kind="points"))
    return made


def _panels(curves: Sequence[Series]) -> list[tuple[str, list[Series]]]:
    """All curves in one plot; if there are many, one per choice of the other settings, then one per method."""
    if len(curves) <= _CURVES:
        return [("", list(curves))]
    groups: dict[tuple[bool, str], list[Series]] = {}
    for curve in curves:
        groups.setdefault((False, ", ".join(setting(*pair) for pair in curve.fixed)), []).append(curve)
    for curve in curves:
        groups.setdefault((True, curve.method), []).append(curve)
    several = {key: group for key, group in groups.items() if len(group) > 1}
    # A curve with nothing to be compared with still has to be shown.
    drawn = {id(curve) for group in several.values() for curve in group}
    alone = [(curve.label, [curve]) for curve in curves if id(curve) not in drawn]
    return [*((label or "nothing else swept", group) for (_, label), group in several.items()), *alone]


def _by_setting(group: Sequence[Evaluated]) -> list[Series]:
    """Returns runs that differ in one setting only, if its values are numbers and there are enough."""
    curves = []
    for label, runs in swept_kinds(group):
        along = along_of(runs)
        keys = dict.fromkeys([along, *swept(runs[0].run)])
        for key in (key for key in keys if key not in ("", SEED)):
            for curve in series_along(label, runs, key):
                numbers = {value for value in curve.values if isinstance(value, float)}
                if len(numbers) >= (2 if key == along else _VALUES):
                    curves.append(curve)
    return curves


def _accuracies(name: str, one: Series) -> Plot:
    numbered = [(run, value) for run, value in zip(one.runs, one.values, strict=True) if isinstance(value, float)]
    attacks: dict[Trial, Any] = {}
    for row in (row for run, _ in numbered for row in run.bounded):
        attacks.setdefault(trial_of(row), row)
    names = dict(zip(attacks, attack_names([row.measured.first for row in attacks.values()]), strict=True))
    # Evenly spaced, if there are many.
    chosen = {round(i) for i in np.linspace(0, len(names) - 1, min(len(names), _ATTACKS)).tolist()}
    points = {"clean": [(value, run.clean) for run, value in numbered if run.clean]}
    for trial in (trial for i, trial in enumerate(names) if i in chosen):
        points[names[trial]] = [(v, row) for run, v in numbered for row in run.bounded if trial_of(row) == trial]
    curves = [
        Curve(label, *np.array([(v, 100 * row.accuracy, 100 * row.low, 100 * row.high) for v, row in rows]).T)
        for label, rows in points.items()
        if rows
    ]
    word = setting_name(one.along)
    title = f"Accuracy against {word} of {one.label.removesuffix(f', by {word}')}, {one.runs[0].title}"
    ticks = sorted({value for _, value in numbered})
    return plot_of(name, title, curves, (word, "accuracy, %"), percent=True, ticks=ticks)
