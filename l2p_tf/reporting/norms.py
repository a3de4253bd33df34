"""How large perturbations are that attacks of smallest norm need."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from l2p_tf.evaluation.records import CLEAN, Record, Summary
from l2p_tf.reporting.arrays import read_arrays
from l2p_tf.reporting.runs import Evaluation, Run
from l2p_tf.reporting.section import Section
from l2p_tf.reporting.subjects import Subject, subjects
from l2p_tf.reporting.table import NOTHING, Cell, Column, Table, in_percent, rounded
from l2p_tf.reporting.text import DASH, minimal, norm_name, percent, plain, strength

NAME = "norms"

_CAPTION = (
    "Attacks that look for the smallest perturbation that succeeds: a larger one means a more robust model. Over the "
    "images that were classified correctly when clean and on which the attack succeeded (on at least half of the "
    "draws, where a model is randomized); all repeats together. Success is a share of the images classified correctly "
    "when clean. Pixels lie in [0, 1]; the mean, \N{GREEK SMALL LETTER RHO}, is of the norm itself, not of its ratio "
    "to the norm of the image."
)
_NORMS = ("l0", "l2", "linf")


@dataclasses.dataclass(frozen=True)
class Found:
    """Perturbations of an attack that succeeded on images classified correctly when clean, all repeats together.

    Attributes:
      count: images.
      tried: how many of them were classified correctly when clean.
      norms: of the perturbations that succeeded, (k,) float64.
      linf: their largest changes of a pixel, (k,) float64.
    """

    count: int
    tried: int
    norms: np.ndarray
    linf: np.ndarray


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Perturbations that one attack found on one model.

    Attributes:
      tried: images classified correctly when clean, over all repeats.
      succeeded: on how many of them the attack succeeded.
      mean: of the norm over the latter; None where there are none.
      median: likewise.
      mean_linf: mean of the largest change of a pixel; None likewise.
    """

    tried: int
    succeeded: int
    mean: float | None
    median: float | None
    mean_linf: float | None

    @property
    def rate(self) -> float | None:
        """Share of the images tried on which the attack succeeded; None where none was tried."""
        return self.succeeded / self.tried if self.tried else None


def section(runs: Sequence[Run]) -> Section | None:
    """A row for each attack of smallest norm on each run; None where there is none.

    Raises:
      UserError: the arrays of such an attack cannot be read.
    """
    rows, lines = [], []
    for subject in subjects(runs):
        for one in subject.minimal(*_NORMS):
            sizes = sizes_of(one.evaluation, one.summary.records)
            rows.append(_row(subject, one.first, sizes))
            lines.append(_line(subject.name, one.first, sizes, len(one.summary.records)))
    if not rows:
        return None
    heads = (
        Column("Run", figures=False), Column("Attack", figures=False), Column("Success", "% of images"), Column("Norm"),
        Column("Mean, \N{GREEK SMALL LETTER RHO}"), Column("Median"), Column("Mean L∞", "of L2 attacks"),
    )  # fmt: skip
    return Section(NAME, "Size of perturbations", (Table("", _CAPTION, heads, tuple(rows)),), tuple(lines))


def sizes_if_minimal(evaluation: Evaluation, summary: Summary) -> Sizes | None:
    """The perturbations of an attack of smallest norm; None for other attacks, and where they are not at hand.

    Raises:
      UserError: their arrays cannot be read.
    """
    first = summary.first
    place = (first.dataset, first.split, first.count)
    clean = [r for r in evaluation.records if r.attack == CLEAN and (r.dataset, r.split, r.count) == place]
    if not (minimal(first) and first.norm in _NORMS and evaluation.artifact and clean):
        return None
    return sizes_of(evaluation, summary.records)


def sizes_of(evaluation: Evaluation, records: Sequence[Record], norm: str = "") -> Sizes:
    """The perturbations of an attack, all its repeats together.

    Args:
      evaluation: where the records come from.
      records: the repeats, of one attack with a norm.
      norm: the norm to measure; empty for the attack's own.

    Raises:
      UserError: their arrays cannot be read.
    """
    found = found_of(evaluation, records, norm)
    if not found.norms.size:
        return Sizes(found.tried, 0, None, None, None)
    mean, median = float(found.norms.mean()), float(np.median(found.norms))
    return Sizes(found.tried, found.norms.size, mean, median, float(found.linf.mean()))


def found_of(evaluation: Evaluation, records: Sequence[Record], norm: str = "") -> Found:
    """The perturbations themselves; arguments and errors as those of `sizes_of`."""
    norm = norm or str(records[0].norm)
    cleans = {record.repeat: record for record in evaluation.records if record.attack == CLEAN}
    tried, found = 0, []
    for record in records:
        arrays = read_arrays(evaluation, record, "success", *dict.fromkeys((norm, "linf")))
        # Each repeat of a randomized model has draws of its own, on the clean images too.
        clean = cleans.get(record.repeat) or next(iter(cleans.values()))
        right = read_arrays(evaluation, clean, "correct")["correct"].astype(bool)
        tried += int(right.sum())
        kept = right & (arrays["success"] >= 0.5)
        found.append(np.stack([arrays[norm][kept], arrays["linf"][kept]]).astype(np.float64))
    sizes, largest = np.concatenate(found, axis=1)
    return Found(sum(record.count for record in records), tried, sizes, largest)


def _row(subject: Subject, first: Record, sizes: Sizes) -> tuple[Cell, ...]:
    rate = DASH if sizes.rate is None else percent(sizes.rate, sizes.tried)
    return (
        Cell(subject.name, (subject.where,)),
        Cell(plain(first.label), (strength(first),)),
        Cell(rate, (f"{sizes.succeeded:,} of {sizes.tried:,}",)),
        Cell(norm_name(first.norm)),
        _size(sizes.mean, first.norm == "linf"),
        _size(sizes.median, first.norm == "linf"),
        _size(sizes.mean_linf, True) if first.norm == "l2" else Cell(""),
    )


def _size(value: float | None, levels: bool) -> Cell:
    """A size to four digits; changes of a pixel also in gray levels, in which radii are given."""
    if value is None:
        return NOTHING
    return Cell(f"{value:.4g}", (f"{255 * value:.3g}/255",) if levels else ())


def _line(name: str, first: Record, sizes: Sizes, repeats: int) -> dict[str, object]:
    linf = sizes.mean_linf if first.norm == "l2" else None
    return {
        "run": name, "dataset": first.dataset, "split": first.split, "attack": first.attack, "norm": first.norm,
        "steps": first.steps, "restarts": first.restarts, "draws": first.draws,
        "prediction_draws": first.prediction_draws, "backend": first.backend, "repeats": repeats,
        "tried": sizes.tried, "succeeded": sizes.succeeded, "success": in_percent(sizes.rate),
        "mean": rounded(sizes.mean), "median": rounded(sizes.median), "mean_linf": rounded(linf),
    }  # fmt: skip
