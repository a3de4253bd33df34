"""How many images a certificate vouches for, by the size of the perturbations it covers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from l2p_tf.certification.records import CertificateRecord, certified_accuracy, read_certified
from l2p_tf.evaluation.records import wilson_interval
from l2p_tf.reporting.runs import Certification, Run
from l2p_tf.reporting.section import Section
from l2p_tf.reporting.subjects import strongest
from l2p_tf.reporting.table import NOTHING, Cell, Column, Table, in_percent, share
from l2p_tf.reporting.text import percent, plain, plural

NAME = "certified"
RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
_CAPTION = (
    "For each image a certificate promises, with the confidence given, that no perturbation whose L2 norm is below the "
    "image's radius changes the prediction of the smoothed classifier. It says nothing of L∞ attacks. Certified "
    "accuracy is the share of images, in percent, that are predicted right with at least the radius in the column's "
    "head; an image on which the certificate abstained counts as wrong. The mean radius is over the images predicted "
    "right. Smoothing certifies a randomized model with its own noise off. Pixels lie in [0, 1]. Below each accuracy "
    "stands its 95% interval."
)


@dataclasses.dataclass(frozen=True)
class Certified:
    """One certificate on one run.

    Attributes:
      run: what was certified.
      name: its name, with the weights where they are not the best ones.
      record: the certificate.
      label: the right classes, (count,).
      prediction: those of the smoothed classifier; -1 where the certificate abstained.
      radius: the certified radii.
    """

    run: Run
    name: str
    record: CertificateRecord
    label: np.ndarray
    prediction: np.ndarray
    radius: np.ndarray

    @property
    def radii(self) -> np.ndarray:
        """The radii of the images predicted right, in order; one each."""
        return np.sort(self.radius[self.prediction == self.label])

    @property
    def mean_radius(self) -> float | None:
        """Mean radius over the images predicted right; None where there are none."""
        return float(self.radii.mean(dtype=np.float64)) if self.radii.size else None

    def accuracy(self, at: float) -> float:
        """Share of the images predicted right with at least this radius."""
        return certified_accuracy(self.label, self.prediction, self.radius, at)


def certificates(runs: Sequence[Run]) -> list[Certified]:
    """All certificates; of several under one name on the same run, that on the most images.

    Raises:
      UserError: the arrays of a certificate cannot be read.
    """
    found = [(run, one, record) for run in runs for one in run.certifications for record in one.records]
    kept = strongest(
        found, lambda p: (p[0].key, p[1].checkpoint, p[2].dataset, p[2].split, p[2].certificate), lambda p: p[2].count
    )
    return [_read(*place) for place in kept]


def section(runs: Sequence[Run]) -> Section | None:
    """A row for each certificate of each run; None where there is none.

    Raises:
      UserError: the arrays of a certificate cannot be read.
    """
    found = certificates(runs)
    if not found:
        return None
    heads = (
        Column("Run", figures=False), Column("Certificate", figures=False), Column("Abstained", "%"),
        *(Column("Radius", f"≥ {radius:g}") for radius in RADII), Column("Mean", "radius"),
    )  # fmt: skip
    sheet = Table("", _CAPTION, heads, tuple(_row(one) for one in found))
    return Section(NAME, "Certified robustness", (sheet,), tuple(_line(one) for one in found))


def _read(run: Run, certification: Certification, record: CertificateRecord) -> Certified:
    arrays = read_certified(certification.artifact.path, record)
    wanted = {name: arrays[name] for name in ("label", "prediction", "radius")}
    return Certified(run, run.named(certification.checkpoint), record, **wanted)


def _row(one: Certified) -> tuple[Cell, ...]:
    record = one.record
    mean = one.mean_radius
    shares = [one.accuracy(radius) for radius in RADII]
    return (
        Cell(one.name, (f"{one.run.title_of(record.dataset)}, {plain(record.split)}", f"n = {record.count:,}")),
        Cell(plain(record.label), (f"confidence {100 * record.confidence:g}%", plural(record.draws, "draw"))),
        Cell(percent(record.abstained / record.count, record.count)),
        *(share(value, record.count) for value in shares),
        NOTHING if mean is None else Cell(f"{mean:.3g}"),
    )


def _line(one: Certified) -> dict[str, object]:
    record = one.record
    mean = one.mean_radius
    line: dict[str, object] = {
        "run": one.name, "dataset": record.dataset, "split": record.split, "certificate": record.certificate,
        "sigma": record.sigma, "draws": record.draws, "confidence": record.confidence, "count": record.count,
        "abstained": in_percent(record.abstained / record.count),
        "mean_radius": "" if mean is None else float(f"{mean:.6g}"),
    }  # fmt: skip
    for radius in RADII:
        accuracy = one.accuracy(radius)
        low, high = wilson_interval(accuracy, record.count)
        line[f"accuracy_{radius:g}"] = in_percent(accuracy)
        line |= {f"low_{radius:g}": in_percent(low), f"high_{radius:g}": in_percent(high)}
    return line
