"""Certifies a trained classifier over a data split; writes records and per-example arrays."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import time
from collections.abc import Callable, Sequence

import keras
import numpy as np

from l2p_tf import artifacts, inference
from l2p_tf.certification.base import ABSTAINED, Certificate
from l2p_tf.certification.options import CertificationOptions
from l2p_tf.certification.records import CertificateRecord, certified_accuracy, read_certificates, write_certificates
from l2p_tf.data.store import ImageData
from l2p_tf.environment import user_path
from l2p_tf.evaluation.chunked import Arrays, Folder, Slice, moving, share_slices, slices_of
from l2p_tf.evaluation.evaluate import PARTS
from l2p_tf.evaluation.other_data import check_data, notes_on
from l2p_tf.models.saving import load_classifier
from l2p_tf.observation import PROBED_IMAGES
from l2p_tf.progress import bar
from l2p_tf.types import UserError

STAGE = "certify"
_SLICE = 32
"""Images between two saved parts of the work."""


def certify_artifact(
    options: CertificationOptions,
    trained: artifacts.Artifact,
    data: ImageData,
    output: str | os.PathLike[str],
    *,
    checkpoint: str = "best",
    overwrite: bool = False,
    share: bool = False,
    other_data: bool = False,
) -> list[CertificateRecord]:
    """Certifies a trained model, or resumes, or returns finished results.

    Args:
      options: certification options.
      trained: artifact of a training.
      data: source of the examples.
      output: folder to create.
      checkpoint: `best` or `last`.
      overwrite: replace results of other options.
      share: divide the work among processes that make the same call at the same time.
      other_data: whether the data may differ from those the model was trained on.

    Returns:
      The records.

    Raises:
      UserError: a certificate does not fit the model, the data are not those it was trained on or do not fit it, or the
      folder has other options.
    """
    check_data(trained, data, other_data)
    request = {**options.request(), "checkpoint": checkpoint}

    @functools.cache
    def certification(folder: pathlib.Path) -> Certification:
        model = load_classifier(trained.path / f"{checkpoint}.keras")
        return Certification(model, data, options, folder, str(trained.options["name"]))

    with artifacts.produce(
        output,
        STAGE,
        request,
        {"train": trained, "data": data.artifact},
        seed=options.seed,
        device=inference.device(),
        overwrite=overwrite,
        share=(lambda folder: certification(folder).share()) if share else None,
    ) as work:
        if work is not None:
            work.scratch.append(PARTS)
            work.notes |= notes_on([trained], data, options.split, options.limit, options.seed)
            certification(work.path).run()
    return read_certificates(user_path(output))


class Certification:
    """Computes certificates of a classifier; finished parts in the folder are reused.

    Args:
      model: the classifier.
      data: source of the examples.
      options: certification options.
      folder: receives `certificates.json` and `arrays/*.npz`.
      name: name of the model, for the records.
    """

    def __init__(
        self, model: keras.Model, data: ImageData, options: CertificationOptions, folder: pathlib.Path, name: str
    ) -> None:
        self.options, self.folder, self.name, self.dataset = options, folder, name, data.info.name
        self.index, self.images, self.labels = data.select(options.split, options.limit, options.seed)
        self.model = inference.prepared(model, self.images[:PROBED_IMAGES])[0]
        for certificate in options.certificates:
            certificate.check(self.model)
        inference.checked_labels(self.labels, len(self.labels), int(self.model.output_shape[-1]))
        (folder / "arrays").mkdir(exist_ok=True)
        (folder / PARTS).mkdir(exist_ok=True)

    def share(self) -> None:
        """Processes all slices together with other processes that do the same."""
        slices = [piece for number in range(len(self.options.certificates)) for piece in self._slices(number)]
        share_slices(self.name, slices, self.folder / PARTS)

    def run(self) -> list[CertificateRecord]:
        """Processes unfinished slices and writes the results; returns one record per certificate."""
        options, labels, records = self.options, self.labels, []
        for number, certificate in enumerate(options.certificates):
            with bar(f"{self.name}: {certificate.label}", len(labels), "images") as advance:
                certified = self._joined(number, advance)
            seconds, prediction = float(certified.pop("seconds").sum()), certified["prediction"]
            arrays = {"index": self.index, "label": labels.astype(np.int32), **certified}
            file = f"arrays/{number:02d}.npz"
            artifacts.atomic_write(
                self.folder / file, lambda opened, arrays=arrays: np.savez_compressed(opened, **arrays)
            )
            records.append(CertificateRecord(
                model=self.name, dataset=self.dataset, split=options.split, certificate=certificate.spec,
                label=certificate.label, **certificate.facts(self.model), seed=options.seed, count=len(labels),
                correct=int((prediction == labels).sum()), abstained=int((prediction == ABSTAINED).sum()),
                seconds=seconds, arrays=file,
            ))  # fmt: skip
        write_certificates(self.folder, records)
        return records

    def _slices(self, number: int) -> list[Slice]:
        certificate = self.options.certificates[number]
        make = functools.partial(self._slice, certificate)
        return slices_of(f"{number:02d}", len(self.images), _SLICE, certificate.label, make)

    def _slice(
        self, certificate: Certificate, rows: np.ndarray, progress: Callable[[float], None], _store: Folder
    ) -> Arrays:
        begun = time.monotonic()
        certified = certificate.certify(
            self.model, self.images[rows], int(inference.seed_pair(self.options.seed, int(rows[0]))[0]),
            batch_size=self.options.batch_size, jit_compile=self.options.jit_compile, progress=progress,
        )  # fmt: skip
        return {**dataclasses.asdict(certified), "seconds": np.array([time.monotonic() - begun])}

    def _joined(self, number: int, advance: Callable[..., None]) -> Arrays:
        parts: list[Arrays] = []
        for piece in self._slices(number):
            move = moving(advance, len(piece.rows))
            parts.append(piece.part(Folder(self.folder / PARTS), move))
            right = np.concatenate([part["prediction"] for part in parts])
            share = certified_accuracy(self.labels[: len(right)], right, np.zeros(len(right)), 0.0)
            move(1.0, accuracy=f"{100 * share:.1f}%")
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def fitting(
    certificates: Sequence[Certificate], trained: artifacts.Artifact, checkpoint: str = "best"
) -> tuple[list[Certificate], list[str]]:
    """Returns the certificates that fit a trained model, and for each of the others the reason why not."""
    model = load_classifier(trained.path / f"{checkpoint}.keras")
    kept, reasons = [], []
    for certificate in certificates:
        try:
            certificate.check(model)
            kept.append(certificate)
        except UserError as error:
            reasons.append(str(error))
    return kept, reasons
