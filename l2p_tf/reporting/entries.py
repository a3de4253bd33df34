"""What the comparison is made of: its columns, its rows, and the entry where the two meet."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from l2p_tf.evaluation.records import CLEAN, Summary
from l2p_tf.reporting.norms import Sizes
from l2p_tf.reporting.published import PrintedNumber, Target
from l2p_tf.reporting.runs import Run
from l2p_tf.reporting.table import Cell, accuracy
from l2p_tf.reporting.text import DASH, interval, minimal, norm_name, number, percent, plain, signed

Key = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class AttackColumn:
    """One attack, or none (`clean`).

    Attributes:
      key: spec and backend.
      label: the attack in a few words, different from every other column's.
      detail: what it was allowed.
      minimal: whether it looks for the smallest perturbation, whatever its size.
    """

    key: Key
    label: str
    detail: str
    minimal: bool = False


@dataclasses.dataclass(frozen=True)
class Entry:
    """One measured accuracy and the number printed for it.

    Attributes:
      summary: the measurement.
      published: the printed number; None where there is none for this run and attack.
      sizes: of an attack of smallest norm what it tells: its perturbations. None for other attacks, and where they are
        not at hand.
    """

    summary: Summary
    published: PrintedNumber | None = None
    sizes: Sizes | None = None

    @property
    def count(self) -> int:
        """Number of examples."""
        return self.summary.first.count

    @property
    def difference(self) -> float | None:
        """Measured minus published, in percentage points."""
        return None if self.published is None else 100 * self.summary.accuracy - self.published.value

    @property
    def accuracy(self) -> str:
        """Accuracy in percent, as text."""
        return percent(self.summary.accuracy, self.count)

    @property
    def interval(self) -> str:
        """95% interval in percent, as text."""
        return interval(self.summary.low, self.summary.high, self.count)

    @property
    def spread(self) -> str | None:
        """Standard deviation over the repeats in percentage points, as text; None for a single one."""
        return None if self.summary.spread is None else percent(self.summary.spread, self.count)

    def cell(self, common: Sequence[str] = ()) -> Cell:
        """What a table shows: the accuracy, or the median norm of the smallest perturbations; without common lines."""
        published = (f"published {self.comparison}",) if self.comparison else ()
        shown = accuracy(self.summary, *published)
        if self.sizes is not None:
            median, rate = self.sizes.median, self.sizes.rate
            norm = f"median {norm_name(self.summary.first.norm)}"
            success = f"success {DASH if rate is None else percent(rate, self.sizes.tried) + '%'}"
            text = DASH if median is None else f"{median:#.3g}"
            shown = Cell(text, (norm, success, *shown.below[1:]), value=median)
        return dataclasses.replace(shown, below=tuple(line for line in shown.below if line not in common))

    @property
    def comparison(self) -> str | None:
        """Published number, spread and difference, as text; None where nothing is published."""
        cell, difference = self.published, self.difference
        if cell is None or difference is None:
            return None
        spread = "" if cell.spread is None else f" ± {number(cell.spread)}"
        return f"{number(cell.value)}{spread}{' †' if cell.suspect else ''} ({signed(difference, self.count)})"


@dataclasses.dataclass(frozen=True)
class Row:
    """One model on one split of one data set.

    Attributes:
      run: where it comes from.
      name: name of the run, with what sets this row apart from the run's others.
      dataset: title of the data set, its name where the title is not known; empty where the run was not attacked.
      split: its split; empty likewise.
      entries: what was measured, by column.
      target: what the run is to reproduce; None for nothing.
      checkpoint: the weights: `best` or `last`.
    """

    run: Run
    name: str
    dataset: str
    split: str
    entries: Mapping[Key, Entry]
    target: Target | None
    checkpoint: str = "best"

    @property
    def defense(self) -> str:
        """The defense as the training was told; empty where the training was not given."""
        return plain(self.run.option("defense")) if self.run.train else ""

    @property
    def model(self) -> str:
        """The architecture as the training was told; empty where the training was not given."""
        return plain(self.run.option("model")) if self.run.train else ""

    @property
    def data(self) -> str:
        """Data set and split; empty where the run was not attacked."""
        return f"{self.dataset}, {self.split}" if self.dataset else ""

    @property
    def attacked(self) -> list[Entry]:
        """The entries of attacks, without the clean one."""
        return [entry for (attack, _), entry in self.entries.items() if attack != CLEAN]

    @property
    def bounded(self) -> list[Entry]:
        """The entries of attacks that keep to a given size; what the others leave is near 0 by construction."""
        return [entry for entry in self.attacked if not minimal(entry.summary.first)]
