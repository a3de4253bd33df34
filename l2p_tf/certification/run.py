"""Certifies a trained classifier over a data split and writes records and per-example arrays."""

from __future__ import annotations

import dataclasses
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
from l2p_tf.data.view import ImageView
from l2p_tf.environment import user_path
from l2p_tf.evaluation.chunked import Arrays, Folder
from l2p_tf.evaluation.evaluate import PARTS, check_data
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
) -> list[CertificateRecord]:
    """Certifies a trained model, or continues, or finds it done.

    Args:
      options: what to do.
      trained: the artifact of a training.
      data: where the examples come from.
      output: the folder to make.
      checkpoint: `best` or `last`.
      overwrite: replace what was made with other options.

    Returns:
      The records.

    Raises:
      UserError: a certificate does not fit the model, the data are not those it was trained on, or the folder was made
        with other options.
    """
    check_data(trained, data)
    request = {**options.request(), "checkpoint": checkpoint}
    with artifacts.produce(
        output,
        STAGE,
        request,
        {"train": trained, "data": data.artifact},
        seed=options.seed,
        device=inference.device(),
        overwrite=overwrite,
    ) as work:
        if work is not None:
            work.scratch.append(PARTS)
            model = load_classifier(trained.path / f"{checkpoint}.keras")
            certify(model, data, options, work.path, str(trained.options["name"]))
    return read_certificates(user_path(output))


def certify(
    model: keras.Model, data: ImageData, options: CertificationOptions, folder: pathlib.Path, name: str
) -> list[CertificateRecord]:
    """Certifies a classifier; parts already in `folder` are not done again.

    Args:
      model: the classifier.
      data: where the examples come from.
      options: what to do.
      folder: gets `certificates.json` and `arrays/*.npz`.
      name: of the model, for the records.

    Returns:
      The records, in the order of the certificates.
    """
    index, images, labels = data.select(options.split, options.limit, options.seed)
    model = inference.prepared(model, images[:PROBED_IMAGES])[0]
    for certificate in options.certificates:
        certificate.check(model)
    inference.checked_labels(labels, len(labels), int(model.output_shape[-1]))
    (folder / "arrays").mkdir(exist_ok=True)
    (folder / PARTS).mkdir(exist_ok=True)
    records = []
    for number, certificate in enumerate(options.certificates):
        with bar(f"{name}: {certificate.label}", len(images), "images") as advance:
            store = Folder(folder / PARTS, f"{number:02d}-")
            certified, seconds = _slices(certificate, model, images, labels, options, store, advance)
        arrays = {"index": index, "label": labels.astype(np.int32), **certified}
        file, prediction = f"arrays/{number:02d}.npz", certified["prediction"]
        artifacts.atomic_write(folder / file, lambda opened, arrays=arrays: np.savez_compressed(opened, **arrays))
        records.append(CertificateRecord(
            model=name, dataset=data.info.name, split=options.split, certificate=certificate.spec,
            label=certificate.label, **certificate.facts(model), seed=options.seed, count=len(labels),
            correct=int((prediction == labels).sum()), abstained=int((prediction == ABSTAINED).sum()), seconds=seconds,
            arrays=file,
        ))  # fmt: skip
    write_certificates(folder, records)
    return records


def fitting(
    certificates: Sequence[Certificate], trained: artifacts.Artifact, checkpoint: str = "best"
) -> tuple[list[Certificate], list[str]]:
    """The certificates that fit a trained model, and for each of the others why it does not."""
    model = load_classifier(trained.path / f"{checkpoint}.keras")
    kept, reasons = [], []
    for certificate in certificates:
        try:
            certificate.check(model)
            kept.append(certificate)
        except UserError as error:
            reasons.append(str(error))
    return kept, reasons


def _slices(
    certificate: Certificate, model: keras.Model, images: ImageView, labels: np.ndarray,
    options: CertificationOptions, store: Folder, advance: Callable[..., None],
) -> tuple[Arrays, float]:  # fmt: skip
    """What the certificate says of all images, slice by slice, and the seconds it took."""
    parts: list[Arrays] = []
    for start in range(0, len(images), _SLICE):
        chunk = images[start : start + _SLICE]
        moved = 0.0

        def progress(share: float, size: int = len(chunk)) -> None:
            nonlocal moved
            advance(max(0.0, share * size - moved))
            moved = max(moved, share * size)

        key = f"{start:07d}"
        part = store.load(key)
        if part is None:
            begun = time.monotonic()
            certified = certificate.certify(
                model, chunk, int(inference.seed_pair(options.seed, start)[0]), batch_size=options.batch_size,
                jit_compile=options.jit_compile, progress=progress,
            )  # fmt: skip
            part = {**dataclasses.asdict(certified), "seconds": np.array([time.monotonic() - begun])}
            store.save(key, part)
        parts.append(part)
        right = np.concatenate([part["prediction"] for part in parts])
        share = certified_accuracy(labels[: len(right)], right, np.zeros(len(right)), 0.0)
        advance(len(chunk) - moved, accuracy=f"{100 * share:.1f}%")
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return joined, float(joined.pop("seconds").sum())
