"""Results per image, read on demand: outcomes under attacks, and sizes of perturbations."""

from __future__ import annotations

import base64
import dataclasses
import io

import numpy as np
from PIL import Image

from l2p_tf.evaluation.records import COLUMNS, MOST_CLASSES, Record
from l2p_tf.reporting.format import minimal, plain
from l2p_tf.reporting.load import Evaluation, Run
from l2p_tf.reporting.measured import Measured
from l2p_tf.schema import read_arrays as read_file
from l2p_tf.types import UserError

NO_CLASS = "no number"
"""Class name of non-finite outputs."""

# Longest side of an image on the page. Larger ones would take megabytes without being shown larger.
_SIDE = 96
_NORMS = ("l0", "l1", "l2", "linf")


def read_arrays(evaluation: Evaluation, record: Record, *names: str, optional: bool = False) -> dict[str, np.ndarray]:
    """Reads arrays of one record.

    Args:
      evaluation: the evaluation of the record; it must have an artifact.
      record: the record.
      names: names of the arrays.
      optional: skip arrays missing from the file, because older versions did not write all of them.

    Returns:
      The arrays by name, each of shape (count,).

    Raises:
      UserError: the file is missing, or does not hold the arrays.
    """
    if evaluation.artifact is None:
        raise ValueError("`evaluation` should have an artifact: bare records have no arrays.")
    columns = {name: COLUMNS[name] for name in names}
    expected = "hold the per-example arrays of an attack stage"
    return read_file(evaluation.artifact.path / record.arrays, columns, expected, record.count, optional)


@dataclasses.dataclass(frozen=True)
class Perturbations:
    """Successful perturbations of an attack on images that were classified correctly when clean, over all repeats.

    Attributes:
      count: number of images.
      tried: number of those classified correctly when clean.
      norms: norms of the successful perturbations, (k,) float64.
      linf: their largest changes of a pixel, (k,) float64.
    """

    count: int
    tried: int
    norms: np.ndarray
    linf: np.ndarray

    @property
    def succeeded(self) -> int:
        """Number of images on which the attack succeeded."""
        return len(self.norms)

    @property
    def rate(self) -> float | None:
        """Success rate on images classified correctly when clean; None if there are none."""
        return self.succeeded / self.tried if self.tried else None

    @property
    def mean(self) -> float | None:
        """Mean norm of the successful perturbations; None if there are none."""
        return float(self.norms.mean()) if self.succeeded else None

    @property
    def median(self) -> float | None:
        """Median norm of the successful perturbations; None if there are none."""
        return float(np.median(self.norms)) if self.succeeded else None

    @property
    def mean_linf(self) -> float | None:
        """Mean of their largest changes of a pixel; None if there are none."""
        return float(self.linf.mean()) if self.succeeded else None


def is_measurable(measured: Measured, *norms: str) -> bool:
    """Whether it is a minimizing attack in one of these norms whose perturbations can be measured."""
    first = measured.first
    return minimal(first) and has_sizes(measured) and first.norm in (norms or _NORMS)


def has_sizes(measured: Measured) -> bool:
    """Whether the norms of perturbations are available, and the results on clean images."""
    return measured.evaluation.artifact is not None and measured.clean is not None


def perturbations(measured: Measured, norm: str = "") -> Perturbations:
    """Returns the perturbations of an attack with measurable sizes, over all its repeats.

    Args:
      measured: the attack.
      norm: the norm to measure; empty for the attack's own.

    Raises:
      UserError: the arrays cannot be read.
    """
    if measured.clean is None:
        raise ValueError("`measured` should have clean images to tell which were right before.")
    norm = norm or str(measured.first.norm)
    cleans = {record.repeat: record for record in measured.clean.records}
    tried, kept = 0, []
    for record in measured.summary.records:
        arrays = read_arrays(measured.evaluation, record, "success", *dict.fromkeys((norm, "linf")))
        # Each repeat of a randomized model has its own draws, on the clean images too.
        clean = cleans.get(record.repeat) or measured.clean.first
        right = read_arrays(measured.evaluation, clean, "correct")["correct"].astype(bool)
        tried += int(right.sum())
        succeeded = right & (arrays["success"] >= 0.5)
        kept.append(np.stack([arrays[norm][succeeded], arrays["linf"][succeeded]]).astype(np.float64))
    norms, largest = np.concatenate(kept, axis=1)
    return Perturbations(sum(record.count for record in measured.summary.records), tried, norms, largest)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Results of one run per image, under one attack or clean.

    Attributes:
      index: positions of the images in the split, (n,).
      label: their classes, (n,).
      correct: whether each was classified correctly, in each repeat, bool (repeats, n).
      prediction: predicted classes, int (repeats, n).
      probability: of the correct class, in the first repeat, (n,); None if not recorded.
    """

    index: np.ndarray
    label: np.ndarray
    correct: np.ndarray
    prediction: np.ndarray
    probability: np.ndarray | None


def outcome(measured: Measured) -> Outcome | None:
    """Returns results per image; None for minimizing attacks, which leave nothing correct, and without arrays.

    Raises:
      UserError: arrays cannot be read, or hold classes that the data lack.
    """
    run, first = measured.run, measured.first
    if minimal(first) or not measured.has_arrays:
        return None
    needed = ("index", "label", "correct", "prediction")
    arrays = [
        read_arrays(measured.evaluation, record, *needed, "probability", optional=True)
        for record in measured.summary.records
    ]
    if any(name not in repeat for repeat in arrays for name in needed) or not len(arrays[0]["label"]):
        return None
    known = run.info.get("name") == first.dataset
    classes = run.info.get("num_classes", MOST_CLASSES) if known else MOST_CLASSES
    if max(int(repeat[name].max()) for repeat in arrays for name in ("label", "prediction")) >= classes:
        raise UserError(f"The arrays of {run.name!r} should hold labels below {classes}, as its data has them.")
    return Outcome(
        arrays[0]["index"],
        arrays[0]["label"],
        np.stack([repeat["correct"].astype(bool) for repeat in arrays]),
        np.stack([repeat["prediction"] for repeat in arrays]),
        arrays[0].get("probability"),
    )


def class_name(run: Run, number: int) -> str:
    """Returns the name of a class in a run's data, or its number; -1 is a non-finite output."""
    if number < 0:
        return NO_CLASS
    names = run.info.get("class_names")
    known = isinstance(names, list) and 0 <= number < len(names)
    return plain(names[number], 40) if known else f"class {number}"  # type: ignore[index]


def data_uri(image: np.ndarray) -> str:
    """Encodes an image (height, width, channels) in [0, 1] as a PNG data URI, reduced to the page's maximum size."""
    pixels = np.clip(np.nan_to_num(image), 0, 1)
    # Only one and three channels can be shown; otherwise show their mean.
    pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels if pixels.shape[-1] == 3 else pixels.mean(-1)
    picture = Image.fromarray(np.round(255 * pixels).astype(np.uint8))
    picture.thumbnail((_SIDE, _SIDE))
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=9)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
