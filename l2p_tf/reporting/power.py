"""Accuracy against the size of the perturbation, from attacks that look for the smallest one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from l2p_tf.reporting.lines import Curve, Plot, plot_of, thin
from l2p_tf.reporting.norms import Found, found_of
from l2p_tf.reporting.subjects import Subject
from l2p_tf.reporting.sweeps import panels
from l2p_tf.reporting.text import attack_name, norm_name, titled

_NORMS = ("l2", "linf")
# The few images that need very large perturbations would leave no room for the others.
_SHOWN = 0.98


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
        return float(self.tried - np.searchsorted(self.norms, budget, "right")) / self.count

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


def plots(found: Sequence[Subject], name: str = "power", title: str = "") -> list[Plot]:
    """A plot for each attack of smallest L2 or L∞ norm, with a curve for each run; several where there are many runs.

    Args:
      found: the runs.
      name: beginning of the plots' names.
      title: what the runs are, where they are not all there are.

    Raises:
      UserError: arrays cannot be read.
    """
    groups: dict[tuple[str, ...], list[Subject]] = {}
    for subject in found:
        for one in subject.minimal(*_NORMS):
            groups.setdefault((*subject.place[1:], *one.key), []).append(subject)
    drawn: list[Plot] = []
    for (_, _, *key), mine in groups.items():
        for label, shown in panels(mine):
            drawn.append(_plot(f"{name}-{len(drawn)}", (key[0], key[1]), shown, title or label))
    return drawn


def _plot(name: str, key: tuple[str, str], found: Sequence[Subject], label: str) -> Plot:
    measured = [next(one for one in subject.minimal(*_NORMS) if one.key == key) for subject in found]
    powers = [power_of(found_of(one.evaluation, one.summary.records)) for one in measured]
    right = max((float(np.quantile(power.norms, _SHOWN)) for power in powers if power.norms.size), default=0.0) or 1.0
    curves = []
    for subject, power in zip(found, powers, strict=True):
        x, y = power.steps(right)
        curves.append(Curve(subject.name, x, 100 * y, kind="steps"))
    first = measured[0].first
    norm = norm_name(first.norm)
    title = f"Accuracy against the {norm} norm that {attack_name(first)} is allowed, {found[0].where}"
    labels = (f"{norm} norm of the perturbation", "accuracy, %")
    return plot_of(name, titled(title, label), curves, labels, percent=True, right=right)
