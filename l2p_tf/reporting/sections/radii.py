"""Accuracy, and probability of the correct class, as functions of the attack's radius."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from l2p_tf.evaluation.records import Record
from l2p_tf.registry import parse_spec
from l2p_tf.reporting.examples import has_sizes, read_arrays
from l2p_tf.reporting.format import attack_name, epsilon, norm_name, plural, titled
from l2p_tf.reporting.measured import Evaluated, Measured
from l2p_tf.reporting.methods import method_of
from l2p_tf.reporting.plot import Curve, Plot, plot_of
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import Section, section
from l2p_tf.reporting.series import ordered, panels
from l2p_tf.reporting.table import NOTHING, Cell, Column, Table, accuracy, accuracy_of, columns_of, figures, rounded
from l2p_tf.types import UserError

LEAST = 3
"""Minimum number of radii of a curve."""

# The step size does not define a different attack, because it scales with the radius.
_VARYING = ("epsilon", "step_size")
_NOTE = (
    "The same attack at several radii; a radius of 0 is the clean images. Accuracy in percent, ± its standard "
    "deviation over repeats where there are several; below it the 95% interval and the number of images. Mean norms "
    "and probabilities of the right class, over all images, are in the CSV where they were recorded."
)
_TARGET = (
    "The target of a generator's training is exp(-c_L r\N{SUPERSCRIPT TWO}), drawn as 1 at r = 0, where c_L = "
    "1 / (2 \N{GREEK SMALL LETTER SIGMA}\N{SUPERSCRIPT TWO})."
)


@dataclasses.dataclass(frozen=True)
class Curved:
    """One attack on one run at several radii.

    Attributes:
      evaluated: the run.
      rows: the attack at each radius in increasing order, rows of `Results.attacks`.
    """

    evaluated: Evaluated
    rows: tuple[Any, ...]

    @property
    def clean(self) -> Measured | None:
        """Clean results of the run, of the same stage if available."""
        first, clean = self.rows[0].measured, self.evaluated.clean
        if first.clean:
            return dataclasses.replace(first, summary=first.clean)
        return clean.measured if clean else None

    @property
    def target(self) -> float | None:
        """c_L of the Gaussian target of a generator's training; None for other defenses, or another penalty."""
        options = self.evaluated.run.option("defense_options", None)
        if not isinstance(options, dict) or method_of(self.evaluated.run).partition("(")[0] != "generator":
            return None
        # A penalty on the generator's raw output does not determine the size of pixel changes.
        value = options.get("c_l") if options.get("penalty", "pixels") == "pixels" else None
        return float(value) if isinstance(value, int | float) else None


@section("epsilons", "Accuracy by radius", order=40)
def radii(results: Results) -> Section | None:
    """A table and plots for each attack that was run at three radii or more."""
    attacks = curves_of(results)
    if not attacks:
        return None
    curves = [curve for group in attacks for curve in group.values()]
    note = f"{_NOTE} {_TARGET}" if any(curve.target is not None for curve in curves) else _NOTE
    tables = tuple(_table(list(group.values())) for group in attacks)
    rows = [_figures(curve, row) for curve in curves for row in curve.rows]
    return Section(tables, figures(rows), note, plots=tuple(plots(attacks)))


def curves_of(results: Results) -> list[dict[Evaluated, Curved]]:
    """Returns the attacks that some run has at three radii or more, with those runs in display order."""
    groups: dict[tuple[object, ...], dict[Evaluated, Curved]] = {}
    for model in results.evaluated:
        attacks: dict[tuple[object, ...], dict[float, Any]] = {}
        for row in model.bounded:
            if row.measured.first.epsilon is not None:
                # Of several with the same radius, keep the stronger one.
                radii = attacks.setdefault(attack_family(row.measured.first), {})
                if row.epsilon not in radii or row.accuracy < radii[row.epsilon].accuracy:
                    radii[row.epsilon] = row
        for family, radii in attacks.items():
            if len(radii) >= LEAST:
                curve = Curved(model, tuple(radii[radius] for radius in sorted(radii)))
                groups.setdefault((*model.place[1:], *family), {})[model] = curve
    return [{model: curves[model] for model in ordered(list(curves))} for curves in groups.values()]


def attack_family(record: Record) -> tuple[object, ...]:
    """Returns a key that is the same for an attack at every radius."""
    try:
        name, options = parse_spec(record.attack, "attack")
    except UserError:  # Written by another version or another program: a separate family.
        name, options = record.attack, {}
    settings = tuple(sorted((key, repr(value)) for key, value in options.items() if key not in _VARYING))
    return name, settings, record.norm, record.steps, record.restarts, record.draws, record.backend


def effect_of(measured: Measured) -> tuple[float, float | None]:
    """Returns mean L2 norm of perturbations and mean probability of the correct class (None if not recorded).

    Raises:
      UserError: the arrays cannot be read.
    """
    evaluation, records = measured.evaluation, measured.summary.records
    norms = [read_arrays(evaluation, record, "l2")["l2"] for record in records]
    arrays = [read_arrays(evaluation, record, "probability", optional=True) for record in records]
    probabilities = [repeat["probability"] for repeat in arrays if repeat]
    mean = _mean(probabilities) if len(probabilities) == len(records) else None
    return _mean(norms), mean


def gaussian(c_l: float, norms: np.ndarray | float) -> Any:
    """Target probability for L2 norms: 1 at 0."""
    return np.exp(-c_l * np.square(norms))


def plots(attacks: Sequence[Mapping[Evaluated, Curved]]) -> list[Plot]:
    """Plots accuracy by radius for each attack, and for L2 attacks the probability of the correct class.

    Raises:
      UserError: arrays cannot be read.
    """
    made: list[Plot] = []
    for curves in attacks:
        for label, part in panels(list(curves)):
            drawn = [curves[model] for model in part]
            made.append(_accuracies(f"epsilons-{len(made)}", drawn, label))
            if falls := [(curve, *fall) for curve in drawn if (fall := fall_of(curve))]:
                made.append(_falls(f"epsilons-{len(made)}", falls, label))
    return made


def fall_of(curve: Curved) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns mean L2 norms and mean probabilities of the correct class, clean images first.

    None if they were not recorded, or if the attack is not in L2.
    """
    measured = [row.measured for row in curve.rows]
    if curve.rows[0].norm != "l2" or not all(map(has_sizes, measured)) or curve.clean is None:
        return None
    norms, probabilities = zip(*map(effect_of, (curve.clean, *measured)), strict=True)
    return None if None in probabilities else (np.array(norms), np.array(probabilities))


def _accuracies(name: str, curves: Sequence[Curved], label: str) -> Plot:
    drawn = []
    for curve in curves:
        points = [(0.0, curve.clean.summary)] if curve.clean else []
        points += [(row.epsilon, row.measured.summary) for row in curve.rows]
        values = np.array([(radius, 100 * s.accuracy, 100 * s.low, 100 * s.high) for radius, s in points]).T
        drawn.append(Curve(curve.evaluated.name, *values))
    first = curves[0].rows[0]
    title = f"Accuracy under {attack_name(first.measured.first)} against its radius, {first.where}"
    labels = (f"{norm_name(first.norm)} radius, \N{GREEK SMALL LETTER EPSILON}", "accuracy, %")
    return plot_of(name, titled(title, label), drawn, labels, percent=True)


def _falls(name: str, falls: Sequence[tuple[Curved, np.ndarray, np.ndarray]], label: str) -> Plot:
    curves, aimed = [], set()
    x = np.linspace(0, max(float(norms.max()) for _, norms, _ in falls), 60)
    for i, (curve, norms, probabilities) in enumerate(falls):
        curves.append(Curve(curve.evaluated.name, norms, probabilities, style=i))
        # Runs with the same target share one line, in the color of the first of them.
        if curve.target is not None and curve.target not in aimed:
            aimed.add(curve.target)
            goal = gaussian(curve.target, x)
            curves.append(Curve(f"target, c_L = {curve.target:g}", x, goal, kind="target", style=i))
    first = falls[0][0].rows[0]
    title = f"Probability of the right class against the L2 norm of {attack_name(first.measured.first)}, {first.where}"
    return plot_of(name, titled(title, label), curves, ("mean L2 norm of the perturbation", "mean probability"))


def _table(curves: Sequence[Curved]) -> Table:
    first = curves[0].rows[0]
    radii = sorted({row.epsilon for curve in curves for row in curve.rows})
    columns = (
        Column("Run", figures=False), Column("Clean"),
        *(Column(f"\N{GREEK SMALL LETTER EPSILON} {epsilon(radius)}") for radius in radii),
    )  # fmt: skip
    rows = []
    for curve in curves:
        model, at = curve.evaluated, {row.epsilon: accuracy(row) for row in curve.rows}
        clean = accuracy(model.clean) if model.clean else NOTHING
        rows.append((Cell(model.name), clean, *(at.get(radius, NOTHING) for radius in radii)))
    allowed = [norm_name(first.norm), plural(first.steps, "step")]
    allowed += [plural(first.restarts, "restart")] if first.restarts > 1 else []
    allowed += [f"EOT over {first.draws} draws"] if first.draws > 1 else []
    caption = f"{', '.join(allowed)}; {first.where}."
    return Table(attack_name(first.measured.first), caption, columns, tuple(rows))


def _figures(curve: Curved, row: Any) -> dict[str, object]:
    norm, probability = effect_of(row.measured) if has_sizes(row.measured) else (None, None)
    target = curve.target if row.norm == "l2" and norm is not None else None
    return {
        "run": row.name, **columns_of(row), **accuracy_of(row), "mean_l2": rounded(norm),
        "probability": rounded(probability),
        "target": None if target is None else rounded(float(gaussian(target, norm or 0.0))),
    }  # fmt: skip


def _mean(arrays: Sequence[np.ndarray]) -> float:
    return float(np.mean(np.concatenate(arrays), dtype=np.float64))
