"""Runs attacks on a classifier over a data split; writes records, per-example arrays and a gallery."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from l2p_tf import artifacts, files, inference, sharing
from l2p_tf.artifacts import atomic_write
from l2p_tf.attacks.base import Attack
from l2p_tf.attacks.corruption import Corruption
from l2p_tf.data.store import ImageData
from l2p_tf.environment import user_path
from l2p_tf.evaluation.chunked import EIGHT_BITS, Arrays, ChunkedEvaluation, share_slices
from l2p_tf.evaluation.join import ADDED, joining, merge
from l2p_tf.evaluation.options import EvaluationOptions
from l2p_tf.evaluation.other_data import check_data, notes_on
from l2p_tf.evaluation.records import CLEAN, COLUMNS, GALLERY, Record, read_records, write_records
from l2p_tf.layers.noise import is_randomized
from l2p_tf.models.saving import load_classifier
from l2p_tf.models.surrogates import with_surrogates
from l2p_tf.observation import PROBED_IMAGES
from l2p_tf.progress import bar

PARTS = "parts"
OWN = "l2p_tf"
_GALLERY_EXAMPLES = 10


class Evaluation:
    """Evaluates a classifier under attacks; finished parts in the folder are reused.

    Args:
      model: the classifier.
      data: source of the examples.
      options: evaluation options.
      folder: receives `results.json`, `arrays/*.npz` and `gallery.npz`.
      name: name of the model, for the records.
    """

    def __init__(
        self, model: keras.Model, data: ImageData, options: EvaluationOptions, folder: pathlib.Path, name: str
    ) -> None:
        self.folder, self.name, self.dataset = folder, name, data.info.name
        self.index, self.images, self.labels = data.select(options.split, options.limit, options.seed)
        self.model = inference.prepared(model, self.images[:PROBED_IMAGES])[0]
        self.classes = int(self.model.output_shape[-1])
        inference.checked_labels(self.labels, len(self.labels), self.classes)
        for wanted in options.attacks:
            wanted.fitting(self.model)
        self.randomized = is_randomized(self.model)
        self.options = options if self.randomized else dataclasses.replace(options, repeats=1, prediction_draws=1)
        classes = np.unique(self.labels)[:_GALLERY_EXAMPLES]
        self.shown = np.sort([np.flatnonzero(self.labels == c)[0] for c in classes])
        (folder / "arrays").mkdir(exist_ok=True)
        (folder / PARTS).mkdir(exist_ok=True)
        kept = options.save_images.replace("none", "")
        self.jobs = [
            ChunkedEvaluation(
                self.options, self.model, attack, self.images, self.labels, folder / PARTS, self.shown,
                eight_bits=True, keeps=kept if attack else "",
            )
            for attack in (None, *options.attacks)
        ]  # fmt: skip

    def share(self) -> None:
        """Processes all slices together with other processes that do the same."""
        repeats = range(self.options.repeats)
        slices = [piece for n, job in enumerate(self.jobs) for repeat in repeats for piece in job.slices(n, repeat)]
        with _clean_told():
            share_slices(self.name, slices, self.folder / PARTS)

    def run(self) -> list[Record]:
        """Processes unfinished slices, and writes the results.

        Returns:
          The records: clean first, then the attacks in order, each with its repeats.
        """
        options, samples = self.options, self.options.prediction_draws or 1
        records, gallery = [], []
        where = {
            "model": self.name, "dataset": self.dataset, "split": options.split, "prediction_draws": samples,
            "seed": options.seed, "randomized": self.randomized,
        }  # fmt: skip
        right: dict[int, np.ndarray] = {}
        for number, job in enumerate(self.jobs):
            attack = job.attack
            label = attack.label if attack else CLEAN
            with bar(f"{self.name}: {label}", len(self.images) * options.repeats, "images") as advance:
                for repeat in range(options.repeats):
                    file = f"{number:02d}-{repeat:02d}"
                    with _clean_told() if attack else contextlib.nullcontext(), self._kept(job, file) as kept:
                        values, pictures = job.run(number, repeat, advance, right.get(repeat), kept)
                    if attack is None:
                        right[repeat] = values["wrong"] < 0.5
                    record = recorded(
                        self.folder, f"arrays/{file}.npz", self.index, self.labels, values, attack, repeat=repeat,
                        **where,
                    )  # fmt: skip
                    records.append(record)
                    if attack is None:
                        inference.warn_at_chance(record.correct, self.model, self.images, self.labels, self.name)
                    if repeat == 0 and not isinstance(attack, Corruption):
                        gallery.append((label, pictures))
        clean, labels = self.images[self.shown], self.labels[self.shown]
        _write_gallery(self.folder / GALLERY, self.model, clean, labels, gallery, options.seed, samples)
        write_records(self.folder, records)
        return records

    @contextlib.contextmanager
    def _kept(self, job: ChunkedEvaluation, name: str) -> Iterator[np.ndarray | None]:
        """Opens a memory-mapped file for the adversarial images, if they are kept."""
        if not job.keeps:
            yield None
            return
        file = self.folder / "images" / f"{name}.npy"
        file.parent.mkdir(exist_ok=True)
        images = np.lib.format.open_memmap(file, "w+", job.keeps, self.images.shape)
        if hasattr(os, "posix_fallocate"):
            # A disk that is full where it is mapped would end the process by SIGBUS.
            with files.naming(file), file.open("r+b") as opened:
                os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
        yield images
        images.flush()


@contextlib.contextmanager
def _clean_told() -> Iterator[None]:
    """Suppresses attacks' warnings about accuracy at chance level, which the clean images already report."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", f".*{inference.AT_CHANCE}")
        yield


def recorded(
    folder: pathlib.Path, file: str, index: np.ndarray, labels: np.ndarray, values: Arrays, attack: Attack | None,
    **where: Any,
) -> Record:  # fmt: skip
    """Writes the per-example arrays of one record as `file` in `folder`; returns the record.

    `values` are those of `ChunkedEvaluation.run` under the attack, or on clean images if it is None. `where` holds the
    fields of the record that do not follow from these.
    """
    correct = values["wrong"] < 0.5
    keys = [key for key in COLUMNS if key in values]
    _save(folder / file, {"index": index, "label": labels, "correct": correct, **{key: values[key] for key in keys}})
    fields: dict[str, Any] = {
        "attack": CLEAN, "label": CLEAN, "backend": OWN, "norm": None, "epsilon": None, "steps": 0, "restarts": 0,
        "draws": 1, "source": None,
    }  # fmt: skip
    if attack:
        fields |= {"attack": attack.spec, "label": attack.label, "backend": attack.BACKEND, **attack.facts()}
    figures = {
        "count": len(labels), "correct": int(correct.sum()), "reached": int((values["success"] >= 0.5).sum()),
        "reached_8bit": int((values[EIGHT_BITS] >= 0.5).sum()) if EIGHT_BITS in values else None,
        "invalid": int((values["prediction"] < 0).sum()), "gradients": float(values["gradients"].mean()),
        "forwards": float(values["forwards"].mean()), "seconds": float(values["seconds"].sum()), "arrays": file,
    }  # fmt: skip
    return Record(**(fields | figures | where))


def attack_artifact(
    options: EvaluationOptions,
    trained: artifacts.Artifact,
    data: ImageData,
    output: str | os.PathLike[str],
    *,
    checkpoint: str = "best",
    overwrite: bool = False,
    share: bool = False,
    other_data: bool = False,
) -> list[Record]:
    """Attacks a trained model, or resumes, or returns finished results.

    Attacks missing from a finished stage with otherwise equal options are added; its results stay unchanged.

    Args:
      options: evaluation options.
      trained: artifact of a training.
      data: source of the examples.
      output: folder to create.
      checkpoint: `best` or `last`.
      overwrite: replace results of other options or other attacks.
      share: divide the work among processes that make the same call at the same time.
      other_data: whether the data may differ from those the model was trained on.

    Returns:
      The records of all finished attacks.

    Raises:
      UserError: the data are not those the model was trained on or do not fit it, or the folder has other options.
    """
    check_data(trained, data, other_data)
    options = options.resolved(trained)
    request = {**options.request(), "checkpoint": checkpoint}
    inputs = {"train": trained, "data": data.artifact, **options.inputs()}
    with sharing.settled(user_path(output)) if share else contextlib.nullcontext():
        joined = None if overwrite else joining(output, request, inputs)
        if joined and not joined.missing:
            return read_records(joined.finished.path)
    if joined:
        request, inputs = joined.request, joined.inputs
        options = dataclasses.replace(options, attacks=tuple(options.attacks[i] for i in joined.missing))

    @functools.cache
    def evaluation(folder: pathlib.Path) -> Evaluation:
        place = folder / ADDED if joined else folder
        place.mkdir(exist_ok=True)
        model = with_surrogates(load_classifier(trained.path / f"{checkpoint}.keras"), options.bpda)
        return Evaluation(model, data, options, place, str(trained.options["name"]))

    with artifacts.produce(
        output,
        "attack",
        request,
        inputs,
        seed=options.seed,
        device=inference.device(),
        overwrite=overwrite,
        extends=joined.finished if joined else None,
        share=(lambda folder: evaluation(folder).share()) if share else None,
    ) as work:
        if work is not None:
            work.scratch += [PARTS, ADDED]
            work.notes |= notes_on([trained], data, options.split, options.limit, options.seed)
            added = evaluation(work.path)
            added.run()
            if joined:
                merge(joined.finished, added.folder, work.path)
    return read_records(user_path(output))


def _write_gallery(
    path: pathlib.Path, model: keras.Model, clean: np.ndarray, labels: np.ndarray,
    examples: Sequence[tuple[str, np.ndarray]], seed: int, samples: int,
) -> None:  # fmt: skip
    """Saves clean and adversarial images of one example per class, with predictions and confidences on fresh draws."""
    views = [inference.checked_images(clean), *(pictures for label, pictures in examples[1:])]
    answers = [inference.predict_with_votes(model, view, seed + 1, samples_per_prediction=samples) for view in views]
    probabilities = [p for p, _ in answers]
    classes = np.stack([inference.decided(votes) for _, votes in answers])
    confidences = np.stack([p.max(-1).astype(np.float32) for p in probabilities])
    empty = np.zeros((0, *views[0].shape), np.float32)
    _save(path, {
        "clean": views[0], "label": labels.astype(np.int32),
        "clean_prediction": classes[0], "clean_confidence": confidences[0],
        "attacks": np.array([label for label, _ in examples[1:]], dtype=np.str_),
        "adversarial": np.stack(views[1:]) if views[1:] else empty,
        "prediction": classes[1:], "confidence": confidences[1:],
    })  # fmt: skip


def _save(path: pathlib.Path, arrays: dict[str, Any]) -> None:
    atomic_write(path, lambda file: np.savez_compressed(file, **arrays))
