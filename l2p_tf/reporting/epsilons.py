"""How accuracy, and the probability of the right class, fall with the radius that an attack is allowed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from l2p_tf.evaluation.records import Summary
from l2p_tf.reporting.families import Family, Ladder, effect_of, families
from l2p_tf.reporting.kinds import method_of
from l2p_tf.reporting.lines import Curve, Plot, plot_of
from l2p_tf.reporting.runs import Run
from l2p_tf.reporting.section import Section
from l2p_tf.reporting.subjects import subjects
from l2p_tf.reporting.sweeps import panels
from l2p_tf.reporting.table import NOTHING, Cell, Column, Table, accuracy, in_percent, rounded
from l2p_tf.reporting.text import attack_name, epsilon, norm_name, plural, titled

NAME = "epsilons"
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
class Fall:
    """The probability of the right class against the norm of the perturbation on one run.

    Attributes:
      ladder: the run and the attack.
      norms: mean L2 norms, 0 for clean images first, (k,).
      probabilities: mean probabilities, (k,).
      target: c_L of the Gaussian that the training aimed at; None where it aimed at none.
    """

    ladder: Ladder
    norms: np.ndarray
    probabilities: np.ndarray
    target: float | None


def section(runs: Sequence[Run]) -> Section | None:
    """A table for each attack that was run at three radii or more; None where there is none.

    Raises:
      UserError: arrays cannot be read.
    """
    found = families(subjects(runs))
    if not found:
        return None
    lines = [line for family in found for ladder in family.ladders for line in _lines(ladder)]
    generated = any(target_of(ladder) is not None for family in found for ladder in family.ladders)
    note = f"{_NOTE} {_TARGET}" if generated else _NOTE
    return Section(NAME, "Accuracy by radius", tuple(map(_sheet, found)), tuple(lines), note)


def plots(runs: Sequence[Run]) -> list[Plot]:
    """For each such attack the accuracy by its radius, and of L2 attacks the probability of the right class.

    Raises:
      UserError: arrays cannot be read.
    """
    drawn: list[Plot] = []
    for family in families(subjects(runs)):
        ladders = {id(ladder.subject): ladder for ladder in family.ladders}
        for label, shown in panels([ladder.subject for ladder in family.ladders]):
            mine = [ladders[id(subject)] for subject in shown]
            drawn.append(_accuracies(f"{NAME}-{len(drawn)}", family, mine, label))
            if falls := [fall for ladder in mine if (fall := fall_of(ladder))]:
                drawn.append(_falls(f"{NAME}-{len(drawn)}", family, falls, label))
    return drawn


def fall_of(ladder: Ladder) -> Fall | None:
    """How the probability of the right class falls; None where it was not recorded or the attack is not of L2.

    Raises:
      UserError: arrays cannot be read.
    """
    if ladder.steps[0].first.norm != "l2" or not all(one.sized for one in ladder.steps):
        return None
    one = ladder.steps[0]
    parts = [(one.evaluation, one.clean)] if one.clean else []
    parts += [(one.evaluation, one.summary) for one in ladder.steps]
    effects = [effect_of(*part) for part in parts]
    known = [effect.probability for effect in effects if effect.probability is not None]
    if len(known) < len(effects):
        return None
    return Fall(ladder, np.array([effect.norm for effect in effects]), np.array(known), target_of(ladder))


def target_of(ladder: Ladder) -> float | None:
    """c_L of the Gaussian that a generator's training aims at; None for other defenses, or another penalty."""
    run = ladder.subject.run
    options = run.option("defense_options", None)
    if not isinstance(options, dict) or method_of(run).partition("(")[0] != "generator":
        return None
    # A penalty on the generator's raw output says nothing of the size of the change of the pixels.
    value = options.get("c_l") if options.get("penalty", "pixels") == "pixels" else None
    return float(value) if isinstance(value, int | float) else None


def gaussian(c_l: float, norms: np.ndarray) -> np.ndarray:
    """The probability aimed at for these L2 norms: 1 at 0."""
    return np.exp(-c_l * norms**2)


def _accuracies(name: str, family: Family, ladders: Sequence[Ladder], label: str) -> Plot:
    curves = []
    for ladder in ladders:
        points = [(0.0, clean)] if (clean := _clean(ladder)) else []
        points += [(e, one.summary) for e, one in zip(ladder.epsilons, ladder.steps, strict=True)]
        values = np.array([(e, 100 * s.accuracy, 100 * s.low, 100 * s.high) for e, s in points]).T
        curves.append(Curve(ladder.subject.name, *values))
    norm = norm_name(family.first.norm)
    title = f"Accuracy under {attack_name(family.first)} against its radius, {ladders[0].subject.where}"
    labels = (f"{norm} radius, \N{GREEK SMALL LETTER EPSILON}", "accuracy, %")
    return plot_of(name, titled(title, label), curves, labels, percent=True)


def _falls(name: str, family: Family, falls: Sequence[Fall], label: str) -> Plot:
    curves, aimed = [], set()
    x = np.linspace(0, max(float(fall.norms.max()) for fall in falls), 60)
    for i, fall in enumerate(falls):
        curves.append(Curve(fall.ladder.subject.name, fall.norms, fall.probabilities, style=i))
        # Runs that aim at the same have one line for it, in the color of the first of them.
        if fall.target is not None and fall.target not in aimed:
            aimed.add(fall.target)
            curves.append(Curve(f"target, c_L = {fall.target:g}", x, gaussian(fall.target, x), kind="target", style=i))
    where = falls[0].ladder.subject.where
    title = f"Probability of the right class against the L2 norm of {attack_name(family.first)}, {where}"
    labels = ("mean L2 norm of the perturbation", "mean probability")
    return plot_of(name, titled(title, label), curves, labels)


def _clean(ladder: Ladder) -> Summary | None:
    return ladder.steps[0].clean or ladder.subject.clean


def _sheet(family: Family) -> Table:
    first = family.first
    radii = sorted({value for ladder in family.ladders for value in ladder.epsilons})
    heads = (
        Column("Run", figures=False),
        Column("Clean"),
        *(Column(f"\N{GREEK SMALL LETTER EPSILON} {epsilon(r)}") for r in radii),
    )
    rows = []
    for ladder in family.ladders:
        steps = {value: one.summary for value, one in zip(ladder.epsilons, ladder.steps, strict=True)}
        fields = [_field(steps.get(radius)) for radius in radii]
        rows.append((Cell(ladder.subject.name), _field(_clean(ladder)), *fields))
    allowed = [norm_name(first.norm), plural(first.steps, "step")]
    if first.restarts > 1:
        allowed.append(plural(first.restarts, "restart"))
    if first.draws > 1:
        allowed.append(f"EOT over {first.draws} draws")
    caption = f"{', '.join(allowed)}; {family.ladders[0].subject.where}."
    return Table(attack_name(first), caption, heads, tuple(rows))


def _field(summary: Summary | None) -> Cell:
    return NOTHING if summary is None else accuracy(summary)


def _lines(ladder: Ladder) -> list[dict[str, object]]:
    lines: list[dict[str, object]] = []
    for one in ladder.steps:
        first, summary = one.first, one.summary
        effect = effect_of(one.evaluation, summary) if one.sized else None
        target = target_of(ladder) if first.norm == "l2" else None
        aimed = None if target is None or effect is None else float(gaussian(target, np.array(effect.norm)))
        lines.append({
            "run": ladder.subject.name, "dataset": first.dataset, "split": first.split, "attack": first.attack,
            "norm": first.norm, "epsilon": first.epsilon, "steps": first.steps, "restarts": first.restarts,
            "draws": first.draws, "prediction_draws": first.prediction_draws, "backend": first.backend,
            "repeats": len(summary.records), "count": first.count, "accuracy": in_percent(summary.accuracy),
            "low": in_percent(summary.low), "high": in_percent(summary.high),
            "mean_l2": rounded(effect.norm if effect else None),
            "probability": rounded(effect.probability if effect else None), "target": rounded(aimed),
        })  # fmt: skip
    return lines
