"""Plots of a sweep: robustness against clean accuracy, and accuracy against a swept setting."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from l2p_tf.evaluation.records import Record, Summary
from l2p_tf.reporting.kinds import SEED, setting, setting_name, shown, swept
from l2p_tf.reporting.lines import Curve, Plot, plot_of
from l2p_tf.reporting.norms import sizes_of
from l2p_tf.reporting.runs import Run
from l2p_tf.reporting.subjects import Subject, Trial, by_place, subjects
from l2p_tf.reporting.sweeps import Series, along_of, series, series_along, swept_kinds, unswept
from l2p_tf.reporting.text import attack_names, titled

# Beside the clean accuracy; more lines than this over a few points are not read.
_ATTACKS = 5
# A setting other than the one along the curves is worth a plot of its own from this many values on.
_VALUES = 3
# Robustness curves cross each other and have their values beside them, so that few go into one plot.
_CURVES = 5


def plots(runs: Sequence[Run]) -> list[Plot]:
    """The robustness curves of each sweep, then the accuracy against each of its settings.

    Raises:
      UserError: arrays cannot be read.
    """
    drawn: list[Plot] = []
    for found in by_place(subjects(runs)).values():
        curves = series(found)
        if not curves:
            continue
        for trial, attack in _attacks(found, smallest=True).items():
            for label, part in _panels(curves):
                points = _curves(trial, part, unswept(found))
                if points:
                    drawn.append(_robustness(f"sweep-curve-{len(drawn)}", attack, points, label, found[0].title))
        for one in _by_setting(found):
            drawn.append(_accuracies(f"sweep-setting-{len(drawn)}", one))
    return drawn


def point_of(subject: Subject, trial: Trial) -> tuple[float, float] | None:
    """Clean accuracy, and mean norm of the successes of an attack of smallest L2 norm; None where either is unknown.

    Raises:
      UserError: arrays cannot be read.
    """
    one = next((one for one in subject.minimal("l2") if one.trial == trial), None)
    if one is None or one.clean is None:
        return None
    mean = sizes_of(one.evaluation, one.summary.records).mean
    return None if mean is None else (one.clean.accuracy, mean)


def _curves(trial: Trial, found: Sequence[Series], others: Sequence[Subject]) -> list[Curve]:
    """A curve for each series and a point for each run beside the sweep; none where no series has a point."""
    curves = []
    for one in found:
        pairs = zip(one.subjects, one.values, strict=True)
        points = [(*point, shown(value)) for subject, value in pairs if (point := point_of(subject, trial))]
        if points:
            clean, sizes, texts = zip(*points, strict=True)
            x, y = 100 * np.array(clean), np.array(sizes)
            way = f", by {setting_name(one.along)}"
            # Repeats have no order that a line could follow, and stand in no need of their seed.
            repeats = Curve(one.label, x, y, kind="points")
            curves.append(Curve(one.label.removesuffix(way) + way, x, y, texts=texts) if one.along else repeats)
    for subject in others if curves else ():
        if point := point_of(subject, trial):
            curves.append(Curve(subject.name, 100 * np.array(point[:1]), np.array(point[1:]), kind="points"))
    return curves


def _robustness(name: str, attack: str, curves: Sequence[Curve], label: str, where: str) -> Plot:
    what = "Robustness curves" if any(curve.kind == "line" for curve in curves) else "Robustness"
    title = f"{what} under {attack}: size of its perturbations against clean accuracy, {where}"
    return plot_of(
        name, titled(title, label), curves, ("clean accuracy, %", "\N{GREEK SMALL LETTER RHO}, mean L2 norm")
    )


def _panels(found: Sequence[Series]) -> list[tuple[str, list[Series]]]:
    """All curves in one plot; where they are many, the methods at each choice of what is not their own, then each."""
    if len(found) <= _CURVES:
        return [("", list(found))]
    groups: dict[tuple[bool, str], list[Series]] = {}
    for one in found:
        groups.setdefault((False, ", ".join(setting(*pair) for pair in one.fixed)), []).append(one)
    for one in found:
        groups.setdefault((True, one.method), []).append(one)
    several = {key: mine for key, mine in groups.items() if len(mine) > 1}
    # One with nothing to be set beside still has to be seen.
    shown_before = {id(one) for mine in several.values() for one in mine}
    alone = [(one.label, [one]) for one in found if id(one) not in shown_before]
    return [*((label or "nothing else swept", mine) for (_, label), mine in several.items()), *alone]


def _by_setting(found: Sequence[Subject]) -> list[Series]:
    """Runs that differ in one setting only, where its values are numbers and enough of them."""
    curves = []
    for label, mine in swept_kinds(found):
        along = along_of(mine)
        keys = dict.fromkeys([along, *swept(mine[0].run)])
        for key in (key for key in keys if key not in ("", SEED)):
            for one in series_along(label, mine, key):
                numbers = {value for value in one.values if isinstance(value, float)}
                if len(numbers) >= (2 if key == along else _VALUES):
                    curves.append(one)
    return curves


def _accuracies(name: str, found: Series) -> Plot:
    numbered = [(s, v) for s, v in zip(found.subjects, found.values, strict=True) if isinstance(v, float)]
    measured: list[tuple[str, list[tuple[float, Summary]]]] = []
    if clean := [(value, subject.clean) for subject, value in numbered if subject.clean]:
        measured.append(("clean", clean))
    named = list(_attacks([subject for subject, _ in numbered], smallest=False).items())
    for trial, label in [named[i] for i in _some(len(named))]:
        points = [(v, one.summary) for subject, v in numbered for one in subject.bounded if one.trial == trial]
        measured.append((label, points))
    curves = []
    for label, points in measured:
        values = np.array([(v, 100 * s.accuracy, 100 * s.low, 100 * s.high) for v, s in points]).T
        curves.append(Curve(label, *values))
    word = setting_name(found.along)
    ticks = sorted({value for _, value in numbered})
    title = f"Accuracy against {word} of {found.label.removesuffix(f', by {word}')}, {found.subjects[0].title}"
    return plot_of(name, title, curves, (word, "accuracy, %"), percent=True, ticks=ticks)


def _attacks(found: Sequence[Subject], *, smallest: bool) -> dict[Trial, str]:
    """The attacks of smallest L2 norm, or those that keep to a size, with their names."""
    attacks: dict[Trial, Record] = {}
    for subject in found:
        for one in subject.minimal("l2") if smallest else subject.bounded:
            attacks.setdefault(one.trial, one.first)
    return dict(zip(attacks, attack_names(list(attacks.values())), strict=True))


def _some(count: int) -> list[int]:
    """Indices of at most `_ATTACKS` of `count` attacks, evenly among them."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, _ATTACKS)).tolist()})
