"""Accuracy against the size of the perturbation, from attacks that look for the smallest one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from l2p_tf.evaluation.records import Record, wilson_interval
from l2p_tf.reporting.lines import Curve, Plot, plot_of, thin
from l2p_tf.reporting.norms import Found, found_of
from l2p_tf.reporting.runs import Run
from l2p_tf.reporting.section import Section
from l2p_tf.reporting.subjects import Subject, Trial, subjects
from l2p_tf.reporting.sweeps import ordered, panels
from l2p_tf.reporting.table import Cell, Column, Table, in_percent, share
from l2p_tf.reporting.text import attack_names, norm_name, titled

NAME = "power"
_NOTE = (
    "From attacks that look for the smallest perturbation: the share of all images that are classified correctly when "
    "clean and on which none of at most this norm was found to succeed; an upper bound, as of any attack. In percent, "
    "over all repeats of a randomized model together; below it the 95% interval."
)
_NORMS = ("l2", "linf")
# The few images that need very large perturbations would leave no room for the others.
_SHOWN = 0.98
# No more columns of the table than this.
_BUDGETS = 8


@dataclasses.dataclass(frozen=True)
class Power:
    """What an attack of smallest norm leaves of a run's accuracy, by the size it is allowed.

    Attributes:
      count: images, over all repeats.
      tried: how many of them are classified correctly when clean.
      norms: smallest perturbations of those that fell, in order.
    """

    count: int
    tried: int
    norms: np.ndarray

    @property
    def clean(self) -> float:
        """Share of all images that are right when clean."""
        return self.tried / self.count

    def accuracy(self, budget: float) -> float:
        """Share of all images that are right when clean and fall to no perturbation of this norm or a smaller one."""
        # Norms are stored as float32, in which 0.1 is a little more.
        return float(self.tried - np.searchsorted(self.norms, float(np.float32(budget)), "right")) / self.count

    def steps(self, right: float) -> tuple[np.ndarray, np.ndarray]:
        """Corners of the curve up to a norm: norms, and the share that holds from the norm before up to each."""
        radii = np.unique(self.norms[self.norms < right])
        # Where norms are left out, the share is that of the next larger one: never more than the attack left.
        radii = radii[thin(len(radii))] if len(radii) else radii
        shares = (self.tried - np.searchsorted(self.norms, radii, "left")) / self.count
        end = (self.tried - np.searchsorted(self.norms, right, "left")) / self.count
        return np.concatenate([[0.0], radii, [right]]), np.concatenate([[self.clean], shares, [end]])


def power_of(found: Found) -> Power:
    """The accuracy that some perturbations leave."""
    return Power(found.count, found.tried, np.sort(found.norms))


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs on which one attack of smallest norm was tried on the same images.

    Attributes:
      first: a record of it, for what all have in common.
      name: the attack, told from those of the other groups.
      subjects: the runs.
      powers: what it leaves of the accuracy of each.
    """

    first: Record
    name: str
    subjects: tuple[Subject, ...]
    powers: tuple[Power, ...]

    @property
    def right(self) -> float:
        """The norm up to which the curves are of interest."""
        ends = [float(np.quantile(power.norms, _SHOWN)) for power in self.powers if power.norms.size]
        return max(ends, default=0.0) or 1.0

    def part(self, found: Sequence[Subject]) -> Group:
        """That of some of the runs, in their order."""
        powers = {id(subject): power for subject, power in zip(self.subjects, self.powers, strict=True)}
        return dataclasses.replace(self, subjects=tuple(found), powers=tuple(powers[id(one)] for one in found))


def groups_of(found: Sequence[Subject]) -> list[Group]:
    """The attacks of smallest L2 or L∞ norm, with the runs they were tried on.

    Raises:
      UserError: arrays cannot be read.
    """
    tried: dict[tuple[str, str, Trial], list[tuple[Subject, Record, Power]]] = {}
    for subject in found:
        for one in subject.minimal(*_NORMS):
            power = power_of(found_of(one.evaluation, one.summary.records))
            tried.setdefault((*subject.place[1:], one.trial), []).append((subject, one.first, power))
    # On other images an attack has the same name: the images are told beside it.
    firsts = {trial: mine[0][1] for (_, _, trial), mine in tried.items()}
    names = dict(zip(firsts, attack_names(list(firsts.values())), strict=True))
    return [
        Group(firsts[trial], names[trial], tuple(one[0] for one in mine), tuple(one[2] for one in mine))
        for (_, _, trial), mine in tried.items()
    ]


def section(runs: Sequence[Run]) -> Section | None:
    """A table for each attack of smallest L2 or L∞ norm; None where there is none.

    Raises:
      UserError: arrays cannot be read.
    """
    groups = [group.part(ordered(group.subjects)) for group in groups_of(subjects(runs))]
    if not groups:
        return None
    sheets, lines = [], []
    for group in groups:
        # The same for all attacks of one norm, to be set side by side.
        budgets = budgets_to(max(other.right for other in groups if other.first.norm == group.first.norm))
        sheets.append(_sheet(group, budgets))
        lines += _lines(group, budgets)
    return Section(NAME, "Accuracy by size of perturbation", tuple(sheets), tuple(lines), _NOTE)


def budgets_to(right: float) -> list[float]:
    """Round norms, evenly spaced from 0 on, up to one."""
    ticks = MaxNLocator(_BUDGETS, steps=[1, 2, 2.5, 5, 10]).tick_values(0.0, right)
    return [float(f"{tick:.6g}") for tick in ticks if 0 < tick <= right]


def plots(found: Sequence[Subject], name: str = NAME, title: str = "") -> list[Plot]:
    """A plot for each attack of smallest L2 or L∞ norm, with a curve for each run; several where there are many runs.

    Args:
      found: the runs.
      name: beginning of the plots' names.
      title: what the runs are, where they are not all there are.

    Raises:
      UserError: arrays cannot be read.
    """
    drawn: list[Plot] = []
    for group in groups_of(found):
        for label, shown in panels(group.subjects):
            drawn.append(_plot(f"{name}-{len(drawn)}", group.part(shown), title or label))
    return drawn


def _plot(name: str, group: Group, label: str) -> Plot:
    curves = []
    for subject, power in zip(group.subjects, group.powers, strict=True):
        x, y = power.steps(group.right)
        curves.append(Curve(subject.name, x, 100 * y, kind="steps"))
    norm = norm_name(group.first.norm)
    title = f"Accuracy against the {norm} norm that {group.name} is allowed, {group.subjects[0].where}"
    labels = (f"{norm} norm of the perturbation", "accuracy, %")
    return plot_of(name, titled(title, label), curves, labels, percent=True, right=group.right)


def _sheet(group: Group, budgets: Sequence[float]) -> Table:
    norm, count = norm_name(group.first.norm), group.first.count
    heads = [Column(f"{norm} \N{LESS-THAN OR EQUAL TO} {budget:.4g}") for budget in budgets]
    rows = [
        (Cell(subject.name), *(share(value, count) for value in (power.clean, *map(power.accuracy, budgets))))
        for subject, power in zip(group.subjects, group.powers, strict=True)
    ]
    caption = f"{group.subjects[0].where}; n = {count:,}."
    return Table(group.name, caption, (Column("Run", figures=False), Column("Clean"), *heads), tuple(rows))


def _lines(group: Group, budgets: Sequence[float]) -> list[dict[str, object]]:
    lines: list[dict[str, object]] = []
    first = group.first
    for subject, power in zip(group.subjects, group.powers, strict=True):
        # No perturbation at all is the clean images.
        for budget, accuracy in [(0.0, power.clean), *((budget, power.accuracy(budget)) for budget in budgets)]:
            low, high = wilson_interval(accuracy, first.count)
            lines.append({
                "run": subject.name, "dataset": first.dataset, "split": first.split, "attack": first.attack,
                "norm": first.norm, "backend": first.backend, "count": first.count, "budget": budget,
                "accuracy": in_percent(accuracy), "low": in_percent(low), "high": in_percent(high),
            })  # fmt: skip
    return lines
