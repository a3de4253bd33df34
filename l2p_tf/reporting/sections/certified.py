"""Certified accuracy by the size of the perturbations it covers."""

from __future__ import annotations

import dataclasses

import numpy as np

from l2p_tf.certification.records import CertificateRecord, certified_accuracy, read_certified
from l2p_tf.reporting.format import percent, plain, plural
from l2p_tf.reporting.load import Evaluation, Run
from l2p_tf.reporting.measured import strongest
from l2p_tf.reporting.plot import Curve, Plot, plot_of, thin
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import Section, section
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

RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
_CAPTION = (
    "For each image a certificate promises, with the confidence given, that no perturbation whose L2 norm is below the "
    "image's radius changes the prediction of the smoothed classifier. It says nothing of L∞ attacks. Certified "
    "accuracy is the share of images, in percent, that are predicted right with at least the radius in the column's "
    "head; an image on which the certificate abstained counts as wrong. The mean radius is over the images predicted "
    "right. Smoothing certifies a randomized model with its own noise off. Pixels lie in [0, 1]. Below each accuracy "
    "stands its 95% interval."
)
_COLUMNS = (
    Column("Run", figures=False), Column("Certificate", figures=False), Column("Abstained", "%"),
    *(Column("Radius", f"≥ {radius:g}") for radius in RADII), Column("Mean", "radius"),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Certified:
    """One certificate on one run.

    Attributes:
      run: the certified run.
      name: its name, with the weights if they are not the best ones.
      record: the certificate.
      label: the correct classes, (count,).
      prediction: classes predicted by the smoothed classifier; -1 if the certificate abstained.
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
        """Sorted radii of the images predicted correctly."""
        return np.sort(self.radius[self.prediction == self.label])

    @property
    def mean_radius(self) -> float | None:
        """Mean radius over the images predicted correctly; None if there are none."""
        return float(self.radii.mean(dtype=np.float64)) if self.radii.size else None

    def accuracy(self, at: float) -> float:
        """Share of the images predicted correctly with at least this radius."""
        return certified_accuracy(self.label, self.prediction, self.radius, at)


@section("certified", "Certified robustness", order=50)
def certified(results: Results) -> Section | None:
    """One row per certificate of each run, and certified accuracy by radius."""
    stages = [
        (run, stage, record) for run in results.all_runs for stage in run.certifications for record in stage.records
    ]
    kept = strongest(
        stages, lambda s: (s[0].key, s[1].checkpoint, s[2].dataset, s[2].split, s[2].certificate), lambda s: s[2].count
    )
    certificates = [_read(*stage) for stage in kept]
    if not certificates:
        return None
    table = Table("", _CAPTION, _COLUMNS, tuple(map(_row, certificates)))
    return Section((table,), figures(list(map(_figures, certificates))), plots=(_plot(certificates),))


def _read(run: Run, stage: Evaluation, record: CertificateRecord) -> Certified:
    assert stage.artifact is not None  # Only attacks may have records without files.
    arrays = read_certified(stage.artifact.path, record)
    wanted = {name: arrays[name] for name in ("label", "prediction", "radius")}
    return Certified(run, run.named(stage.checkpoint), record, **wanted)


def _row(result: Certified) -> tuple[Cell, ...]:
    record, mean = result.record, result.mean_radius
    return (
        Cell(result.name, (f"{result.run.title_of(record.dataset)}, {plain(record.split)}", f"n = {record.count:,}")),
        Cell(plain(record.label), (f"confidence {100 * record.confidence:g}%", plural(record.draws, "draw"))),
        Cell(percent(record.abstained / record.count, record.count)),
        *(share(result.accuracy(radius), record.count) for radius in RADII),
        NOTHING if mean is None else Cell(f"{mean:.3g}"),
    )


def _figures(result: Certified) -> dict[str, object]:
    record = result.record
    names = ("dataset", "split", "certificate", "sigma", "draws", "confidence", "count")
    row = {
        "run": result.name, **columns_of(record, *names), "abstained": in_percent(record.abstained / record.count),
        "mean_radius": rounded(result.mean_radius),
    }  # fmt: skip
    for radius in RADII:
        row |= share_of(result.accuracy(radius), record.count, f"_{radius:g}")
    return row


def _plot(certificates: list[Certified]) -> Plot:
    curves = [Curve(f"{c.name}, {c.record.label}", *steps(c), kind="steps") for c in certificates]
    title = "Certified accuracy against L2 radius, a curve for each certificate of each run"
    right = max(float(curve.x[-1]) for curve in curves) or 1.0
    return plot_of("certified", title, curves, ("L2 radius", "certified accuracy, %"), percent=True, right=right)


def steps(result: Certified) -> tuple[np.ndarray, np.ndarray]:
    """Returns radii, and the percentage certified between the previous radius and each of them."""
    radii = np.unique(result.radii)
    # At omitted radii, the share is that of the next larger one: never more than is certified.
    radii = np.concatenate([[0.0], radii[thin(len(radii))]])
    shares = [100 * result.accuracy(radius) for radius in radii.tolist()]
    return np.append(radii, radii[-1]), np.append(shares, 0.0)
