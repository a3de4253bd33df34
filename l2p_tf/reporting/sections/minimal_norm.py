"""Minimizing attacks: sizes of their perturbations, and accuracy by allowed size."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from l2p_tf.reporting.examples import Perturbations, is_measurable, perturbations
from l2p_tf.reporting.format import DASH, attack_names, norm_name, percent, plain, titled
from l2p_tf.reporting.measured import Evaluated
from l2p_tf.reporting.plot import Curve, Plot, plot_of, thin
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import Section, section
from l2p_tf.reporting.series import ordered, panels
from l2p_tf.reporting.table import (
    NOTHING,
    Cell,
    Column,
    Table,
    columns_of,
    figures,
    in_percent,
    rounded,
    share,
    share_of,
)  # fmt: skip

_SIZES = (
    "Attacks that look for the smallest perturbation that succeeds: a larger one means a more robust model. Over the "
    "images that were classified correctly when clean and on which the attack succeeded (on at least half of the "
    "draws, where a model is randomized); all repeats together. Success is a share of the images classified correctly "
    "when clean. Pixels lie in [0, 1]; the mean, \N{GREEK SMALL LETTER RHO}, is of the norm itself, not of its ratio "
    "to the norm of the image."
)
_COLUMNS = (
    Column("Run", figures=False), Column("Attack", figures=False), Column("Success", "% of images"), Column("Norm"),
    Column("Mean, \N{GREEK SMALL LETTER RHO}"), Column("Median"), Column("Mean L∞", "of L2 attacks"),
)  # fmt: skip
_POWER = (
    "From attacks that look for the smallest perturbation: the share of all images that are classified correctly when "
    "clean and on which none of at most this norm was found to succeed; an upper bound, as of any attack. In percent, "
    "over all repeats of a randomized model together; below it the 95% interval."
)
# The few images that need very large perturbations would squeeze the others.
_SHOWN = 0.98
# Maximum number of columns of the table.
_BUDGETS = 8


@dataclasses.dataclass(frozen=True)
class Power:
    """Accuracy of a run under a minimizing attack as a function of the allowed size.

    Attributes:
      row: the attack, a row of `Results.attacks`.
      count: number of images, over all repeats.
      tried: number of those classified correctly when clean.
      norms: sorted norms of the successful perturbations.
    """

    row: Any
    count: int
    tried: int
    norms: np.ndarray

    def accuracy(self, budget: float) -> float:
        """Share of all images that are correct when clean and not fooled by a perturbation of this norm or smaller."""
        # Norms are stored as float32, in which 0.1 is slightly larger; a budget of zero means the clean images.
        fallen = np.searchsorted(self.norms, float(np.float32(budget)), "right") if budget else 0
        return float(self.tried - fallen) / self.count

    def steps(self, right: float) -> tuple[np.ndarray, np.ndarray]:
        """Returns corners of the curve up to a norm: norms, and the share between the previous norm and each."""
        radii = np.unique(self.norms[self.norms < right])
        # At omitted norms, the share is that of the next larger one: never more than the attack left.
        radii = np.append(radii[thin(len(radii))] if len(radii) else radii, right)
        shares = (self.tried - np.searchsorted(self.norms, radii, "left")) / self.count
        return np.concatenate([[0.0], radii]), np.concatenate([[self.accuracy(0.0)], shares])


@section("power", "Accuracy by size of perturbation", order=60)
def power(results: Results) -> Section | None:
    """A table and a plot for each minimizing attack in L1, L2 or L∞."""
    groups = [list(group.values()) for group in powers(results.evaluated)]
    if not groups:
        return None
    names = attack_names([group[0].row.measured.first for group in groups])
    tables, rows = [], []
    for group, name in zip(groups, names, strict=True):
        # The same for all attacks of one norm, to allow comparisons.
        budgets = budgets_to(max(right_of(other) for other in groups if other[0].row.norm == group[0].row.norm))
        tables.append(_table(group, name, budgets))
        rows += [_budget(curve, budget) for curve in group for budget in (0.0, *budgets)]
    return Section(tuple(tables), figures(rows), _POWER, plots=tuple(power_plots(results.evaluated)))


@section("norms", "Size of perturbations", order=70)
def norms(results: Results) -> Section | None:
    """One row per minimizing attack on each run."""
    sizes = [(row, perturbations(row.measured)) for row in results.attacks.itertuples() if is_measurable(row.measured)]
    if not sizes:
        return None
    table = Table("", _SIZES, _COLUMNS, tuple(_size_row(*pair) for pair in sizes))
    return Section((table,), figures([_size_figures(*pair) for pair in sizes]))


def powers(evaluated: Sequence[Evaluated]) -> list[dict[Evaluated, Power]]:
    """Returns the attacks that minimize L1, L2 or L∞, each with the runs it was tried on with the same images.

    Raises:
      UserError: arrays cannot be read.
    """
    groups: dict[tuple[object, ...], dict[Evaluated, Power]] = {}
    for model in evaluated:
        for row in model.rows:
            if is_measurable(row.measured, "l1", "l2", "linf"):
                sizes = perturbations(row.measured)
                key = (row.dataset, row.split, row.attack, row.backend, row.count)
                groups.setdefault(key, {})[model] = Power(row, sizes.count, sizes.tried, np.sort(sizes.norms))
    return [{model: group[model] for model in ordered(list(group))} for group in groups.values()]


def right_of(group: Sequence[Power]) -> float:
    """Upper limit of the norms to show for some runs."""
    return max((float(np.quantile(curve.norms, _SHOWN)) for curve in group if curve.norms.size), default=0.0) or 1.0


def budgets_to(right: float) -> list[float]:
    """Returns evenly spaced round norms from above 0 up to a limit."""
    ticks = MaxNLocator(_BUDGETS, steps=[1, 2, 2.5, 5, 10]).tick_values(0.0, right)
    return [float(f"{tick:.6g}") for tick in ticks if 0 < tick <= right]


def power_plots(evaluated: Sequence[Evaluated], name: str = "power", title: str = "") -> list[Plot]:
    """Returns plots for each attack that minimizes L1, L2 or L∞, a curve per run; several if there are many runs.

    Args:
      evaluated: the runs.
      name: prefix of the plots' names.
      title: describes the runs, if they are a subset.

    Raises:
      UserError: arrays cannot be read.
    """
    groups = powers(evaluated)
    plots: list[Plot] = []
    rows = [next(iter(group.values())).row for group in groups]
    names = attack_names([row.measured.first for row in rows])
    for group, row, attack in zip(groups, rows, names, strict=True):
        right, norm = right_of(list(group.values())), norm_name(row.norm)
        for label, part in panels(list(group)):
            steps = [(model.name, *group[model].steps(right)) for model in part]
            curves = [Curve(run, x, 100 * y, kind="steps") for run, x, y in steps]
            text = f"Accuracy against the {norm} norm that {attack} is allowed, {row.where}"
            labels = (f"{norm} norm of the perturbation", "accuracy, %")
            how: Any = {"percent": True, "right": right}
            plots.append(plot_of(f"{name}-{len(plots)}", titled(text, title or label), curves, labels, **how))
    return plots


def _table(group: Sequence[Power], name: str, budgets: Sequence[float]) -> Table:
    row = group[0].row
    columns = [Column(f"{norm_name(row.norm)} \N{LESS-THAN OR EQUAL TO} {budget:.4g}") for budget in budgets]
    rows = [
        (Cell(run.row.name), *(share(run.accuracy(budget), row.count) for budget in (0.0, *budgets))) for run in group
    ]
    caption = f"{row.where}; n = {row.count:,}."
    return Table(name, caption, (Column("Run", figures=False), Column("Clean"), *columns), tuple(rows))


def _budget(curve: Power, budget: float) -> dict[str, object]:
    attack = columns_of(curve.row, "dataset", "split", "attack", "norm", "backend", "count")
    return {"run": curve.row.name, **attack, "budget": budget, **share_of(curve.accuracy(budget), curve.row.count)}


def _size_row(row: Any, sizes: Perturbations) -> tuple[Cell, ...]:
    rate = DASH if sizes.rate is None else percent(sizes.rate, sizes.tried)
    return (
        Cell(row.name, (row.where,)),
        Cell(plain(row.label), (row.allowed,)),
        Cell(rate, (f"{sizes.succeeded:,} of {sizes.tried:,}",)),
        Cell(norm_name(row.norm)),
        _size(sizes.mean, row.norm == "linf"),
        _size(sizes.median, row.norm == "linf"),
        _size(sizes.mean_linf, True) if row.norm == "l2" else Cell(""),
    )


def _size(value: float | None, levels: bool) -> Cell:
    """Formats a size to four digits; changes of a pixel also in gray levels, like radii."""
    return NOTHING if value is None else Cell(f"{value:.4g}", (f"{255 * value:.3g}/255",) if levels else ())


def _size_figures(row: Any, sizes: Perturbations) -> dict[str, object]:
    names = (
        "dataset", "split", "attack", "norm", "steps", "restarts", "draws", "prediction_draws", "backend", "repeats",
    )  # fmt: skip
    return {
        "run": row.name, **columns_of(row, *names), "tried": sizes.tried, "succeeded": sizes.succeeded,
        "success": in_percent(sizes.rate), "mean": rounded(sizes.mean), "median": rounded(sizes.median),
        "mean_linf": rounded(sizes.mean_linf if row.norm == "l2" else None),
    }  # fmt: skip
