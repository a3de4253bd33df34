"""The worst case per image over attacks of several libraries, compared with each library alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from l2p_tf.reporting.format import backend_name, epsilon, norm_name, plural, signed
from l2p_tf.reporting.measured import Evaluated
from l2p_tf.reporting.pairs import LEVEL, Member, images_of, member_of
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import Section, section
from l2p_tf.reporting.sections.paired import p_value
from l2p_tf.reporting.stats import difference_interval, holm, sign_flip
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
)

_OWN = "l2p_tf"
_CAPTION = (
    "Accuracy in percent under the worst attack for each image, of all attacks of the same norm and radius: of each "
    "library alone, and of all together, with 95% intervals (Wilson\N{RIGHT SINGLE QUOTATION MARK}s). A randomized "
    "model counts with the share of repeats in which it was right, under the attack that leaves the smallest. Below "
    "the accuracy of a library stands by how many points it is above that of the first, the 95% interval of that "
    "(Newcombe\N{RIGHT SINGLE QUOTATION MARK}s), and the p-value of McNemar\N{RIGHT SINGLE QUOTATION MARK}s exact test "
    "(the sign-flip test over repeats), corrected by Holm\N{RIGHT SINGLE QUOTATION MARK}s method for the number of "
    f"comparisons in the table; in color below {LEVEL:g}. Found by others alone: images that the first library left "
    "right in at least one repeat more than all libraries together."
)


@dataclasses.dataclass(frozen=True)
class _Budget:
    """A run under attacks of one budget on the same images.

    Attributes:
      members: each attack, with results per image.
    """

    members: tuple[Member, ...]

    @property
    def first(self) -> Member:
        """The first attack, for fields that all share."""
        return self.members[0]

    @property
    def backends(self) -> list[str]:
        """Backends of the attacks, this package's first."""
        return sorted(dict.fromkeys(member.row.backend for member in self.members), key=lambda name: name != _OWN)

    @property
    def scale(self) -> int:
        """Common number of repeats in which `worst` counts."""
        return math.lcm(*(member.row.repeats for member in self.members))

    def of(self, backend: str) -> list[Member]:
        """Returns the attacks of one library; all for an empty name."""
        return [member for member in self.members if backend in ("", member.row.backend)]

    def worst(self, backend: str = "") -> np.ndarray:
        """Returns how often each image was correct under the library's worst attack on it: int64 (count,)."""
        return np.min([m.times * (self.scale // m.row.repeats) for m in self.of(backend)], axis=0)


@section("libraries", "Worst case over libraries", order=95)
def libraries(results: Results) -> Section | None:
    """One row per run and budget with attacks of two or more libraries on the same images."""
    budgets = [budget for model in results.evaluated for budget in _budgets(model) if len(budget.backends) > 1]
    if not budgets:
        return None
    names = sorted(dict.fromkeys(name for b in budgets for name in b.backends), key=lambda name: name != _OWN)
    tests = [(i, name) for i, budget in enumerate(budgets) for name in budget.backends[1:]]
    p = [sign_flip(budgets[i].worst(name) - budgets[i].worst(budgets[i].backends[0])) for i, name in tests]
    corrected = dict(zip(tests, map(float, holm(p)), strict=True))
    columns = (
        Column("Run", figures=False), Column("Budget", figures=False), *(Column(backend_name(n)) for n in names),
        Column("All libraries"), Column("Found by others alone", "images"),
    )  # fmt: skip
    rows, lines = [], []
    for i, budget in enumerate(budgets):
        tested = {name: corrected[i, name] for name in budget.backends[1:]}
        cells = (_library(budget, name, tested.get(name)) for name in names)
        rows.append((*_head(budget), *cells, _share(budget, ""), _alone(budget)))
        lines += [_figures(budget, name, tested.get(name)) for name in (*budget.backends, "")]
    return Section((Table("", _CAPTION, columns, tuple(rows)),), figures(lines))


def _budgets(model: Evaluated) -> Iterator[_Budget]:
    parts: dict[object, list[Member]] = {}
    for row in model.bounded:
        if row.norm is not None and row.measured.has_arrays:
            member = member_of(model, row)
            key = (row.norm, round(row.epsilon, 9), images_of(row.measured), member.index.tobytes())
            parts.setdefault(key, []).append(member)
    return (_Budget(tuple(members)) for members in parts.values())


def _head(budget: _Budget) -> tuple[Cell, Cell]:
    row = budget.first.row
    radius = f"{norm_name(row.norm)}, ε {epsilon(row.epsilon)}"
    return Cell(budget.first.name, (row.where, f"n = {row.count:,}")), Cell(radius)


def _share(budget: _Budget, backend: str, *below: str, tone: str = "") -> Cell:
    row, attacks = budget.first.row, plural(len(budget.of(backend)), "attack")
    cell = share(budget.worst(backend).mean() / budget.scale, row.count, attacks, *below)
    return dataclasses.replace(cell, tone=tone)


def _library(budget: _Budget, backend: str, p: float | None) -> Cell:
    if not budget.of(backend):
        return NOTHING
    if p is None:
        return _share(budget, backend)
    count, (difference, low, high) = budget.first.row.count, _difference(budget, backend)
    reach = f"({signed(100 * low, count)} to {signed(100 * high, count)})"
    tone = "unknown" if p >= LEVEL else "good" if difference > 0 else "bad"
    return _share(budget, backend, f"{signed(100 * difference, count)} {reach}", p_value(p), tone=tone)


def _difference(budget: _Budget, backend: str) -> tuple[float, float, float]:
    """Returns the difference of a library's accuracy from the first library's, and its 95% interval."""
    a, b = (budget.worst(name) / budget.scale for name in (backend, budget.backends[0]))
    covariance = np.mean((a - a.mean()) * (b - b.mean()))
    low, high = difference_interval(a.mean(), b.mean(), covariance, len(a))
    return float(a.mean() - b.mean()), float(low), float(high)


def _alone(budget: _Budget) -> Cell:
    return Cell(f"{int((budget.worst() < budget.worst(budget.backends[0])).sum()):,}")


def _figures(budget: _Budget, backend: str, p: float | None) -> dict[str, object]:
    row = budget.first.row
    values = _difference(budget, backend) if p is not None else (None, None, None)
    return {
        "run": budget.first.name, **columns_of(row, "dataset", "split", "norm", "epsilon", "count"),
        "library": backend or "all", "attacks": len(budget.of(backend)),
        **share_of(float(budget.worst(backend).mean() / budget.scale), row.count),
        **dict(zip(("difference", "difference_low", "difference_high"), map(in_percent, values), strict=True)),
        "p_holm": rounded(p),
    }  # fmt: skip
