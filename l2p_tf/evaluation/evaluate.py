"""Runs attacks on a classifier over a data split and writes records, per-example arrays and a gallery."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import time
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from l2p_tf import artifacts, inference
from l2p_tf.artifacts import atomic_write
from l2p_tf.attacks.base import Attack, AttackOutput
from l2p_tf.attacks.projection import sizes
from l2p_tf.data.store import ImageData
from l2p_tf.evaluation.records import CLEAN, GALLERY, Record, read_records, write_records
from l2p_tf.layers.noise import is_randomized
from l2p_tf.models.saving import load_classifier
from l2p_tf.progress import bar
from l2p_tf.registry import spec_of
from l2p_tf.types import UserError

_PARTS = "parts"
_GALLERY_EXAMPLES = 10
_PER_EXAMPLE = ("prediction", "success", "l0", "l2", "linf", "gradients", "forwards", "seconds")


@dataclasses.dataclass(frozen=True)
class EvaluationOptions:
    """How a model is evaluated.

    Attributes:
      attacks: in the order of the tables; clean accuracy is always measured first.
      split: `test` or `validation`.
      limit: most examples, drawn by the seed with every class alike; None for all.
      repeats: evaluations of a randomised model, each with its own attack and its own draws.
      batch_size: images a compiled run.
      slice_size: images between two saved parts of the work.
      seed: of examples, attacks and draws.
      jit_compile: compile with XLA; None decides by device.
    """

    attacks: tuple[Attack, ...]
    split: str = "test"
    limit: int | None = None
    repeats: int = 3
    batch_size: int = 128
    slice_size: int = 512
    seed: int = 0
    jit_compile: bool | None = None


def evaluate(
    model: keras.Model, data: ImageData, options: EvaluationOptions, folder: pathlib.Path, name: str
) -> list[Record]:
    """Evaluates a classifier; parts already in `folder` are not done again.

    Args:
      model: the classifier.
      data: where the examples come from.
      options: what to do.
      folder: gets `results.json`, `arrays/*.npz` and `gallery.npz`.
      name: of the model, for the records.

    Returns:
      The records: clean first, then the attacks in order, each with its repeats.
    """
    index, images, labels = data.sample(options.split, options.limit, options.seed)
    inference.checked_images(model, images[:1])
    inference.checked_labels(model, labels, len(labels))
    randomized = is_randomized(model)
    repeats = options.repeats if randomized else 1
    shown = np.sort([np.flatnonzero(labels == c)[0] for c in np.unique(labels)[:_GALLERY_EXAMPLES]])
    (folder / "arrays").mkdir(exist_ok=True)
    (folder / _PARTS).mkdir(exist_ok=True)
    records, gallery = [], []
    for number, attack in enumerate([None, *options.attacks]):
        job = _Job(model, attack, images, labels, shown, options, folder / _PARTS)
        label = attack.label if attack else CLEAN
        with bar(f"{name}: {label}", len(images) * repeats, "images") as advance:
            for repeat in range(repeats):
                values, pictures = job.run(number, repeat, advance)
                arrays = f"arrays/{number:02d}-{repeat:02d}.npz"
                correct = values["success"] < 0.5
                _save(folder / arrays, {
                    "index": index, "label": labels, "correct": correct,
                    **{key: values[key] for key in ("prediction", "l0", "l2", "linf")},
                })  # fmt: skip
                facts = attack.facts() if attack else _clean_facts()
                records.append(Record(
                    model=name, dataset=data.info.name, split=options.split, attack=spec_of(attack) if attack else CLEAN,
                    label=label, **facts, backend="l2p_tf", repeat=repeat, seed=options.seed, randomized=randomized,
                    count=len(labels), correct=int(correct.sum()), gradients=float(values["gradients"].mean()),
                    forwards=float(values["forwards"].mean()), seconds=float(values["seconds"].sum()), arrays=arrays,
                ))  # fmt: skip
                if repeat == 0:
                    gallery.append((label, pictures))
    _write_gallery(folder / GALLERY, model, images[shown], labels[shown], gallery, options.seed)
    write_records(folder, records)
    return records


def attack_artifact(
    options: EvaluationOptions,
    trained: artifacts.Artifact,
    data: ImageData,
    output: str | os.PathLike[str],
    *,
    which: str = "best",
    overwrite: bool = False,
) -> list[Record]:
    """Attacks a trained model, or continues, or finds it done.

    Args:
      options: what to do.
      trained: the artifact of a training.
      data: where the examples come from.
      output: the folder to make.
      which: `best` or `last`.
      overwrite: replace what was made with other options.

    Returns:
      The records.

    Raises:
      UserError: the data are not those the model was trained on, or the folder was made with other options.
    """
    if trained.manifest["inputs"].get("data") != data.artifact.fingerprint:
        # Its test images may be among those the model was trained on.
        raise UserError(
            f"`data` should be what the model was trained on: {trained.manifest['lineage']['data']['path']!r}. "
            f"Received: {str(data.artifact.path)!r}"
        )
    request = {
        "attacks": [spec_of(attack) for attack in options.attacks],
        "attacks_options": [attack.options() for attack in options.attacks],
        **{key: getattr(options, key) for key in ("split", "limit", "repeats", "batch_size", "seed")},
        "which": which,
    }
    with artifacts.produce(
        output,
        "attack",
        request,
        {"train": trained, "data": data.artifact},
        seed=options.seed,
        device=inference.device(),
        overwrite=overwrite,
    ) as work:
        if work is not None:
            work.scratch.append(_PARTS)
            model = load_classifier(trained.path / f"{which}.keras")
            evaluate(model, data, options, work.path, str(trained.options["name"]))
    return read_records(pathlib.Path(output))


class _Job:
    """One attack (None: no attack) on one set of examples, in slices that are saved one by one."""

    def __init__(
        self, model: keras.Model, attack: Attack | None, images: np.ndarray, labels: np.ndarray, shown: np.ndarray,
        options: EvaluationOptions, parts: pathlib.Path,
    ) -> None:  # fmt: skip
        self.model, self.attack, self.images, self.labels = model, attack, images, labels
        self.shown, self.options, self.parts = shown, options, parts

    def run(self, number: int, repeat: int, advance: Any) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Per-example arrays over all slices, and the adversarial images of the gallery."""
        found: list[dict[str, np.ndarray]] = []
        fallen, done = 0.0, 0
        for start in range(0, len(self.images), self.options.slice_size):
            rows = np.arange(start, min(start + self.options.slice_size, len(self.images)))
            path = self.parts / f"{number:02d}-{repeat:02d}-{start:07d}.npz"
            part = _load(path)
            if part is None:
                moved = [0]

                def progress(n: int, moved: list[int] = moved) -> None:
                    moved[0] += n
                    advance(n)

                part = self._slice(rows, repeat, start, progress)
                _save(path, part)
                advance(len(rows) - moved[0])
            else:
                advance(len(rows))
            fallen, done = fallen + float(part["success"].sum()), done + len(rows)
            advance(0, accuracy=f"{100 * (1 - fallen / done):.1f}%")
            found.append(part)
        joined = {key: np.concatenate([part[key] for part in found]) for key in _PER_EXAMPLE}
        return joined, np.concatenate([part["pictures"] for part in found])

    def _slice(self, rows: np.ndarray, repeat: int, start: int, progress: Any) -> dict[str, np.ndarray]:
        seed = int(inference.seed_pair(self.options.seed, repeat, start)[0])
        images, labels = inference.checked_images(self.model, self.images[rows]), self.labels[rows]
        begun = time.monotonic()
        o = self.options
        if self.attack is None:
            output = self._clean(images, labels, seed)
        else:
            output = self.attack(
                self.model, images, labels, seed, batch_size=o.batch_size, jit_compile=o.jit_compile, progress=progress
            )
        values = {key: getattr(output, key) for key in _PER_EXAMPLE if key != "seconds"}
        values["seconds"] = np.full(len(rows), (time.monotonic() - begun) / len(rows))
        values["pictures"] = output.adversarial[np.isin(rows, self.shown)]
        return values

    def _clean(self, images: np.ndarray, labels: np.ndarray, seed: int) -> AttackOutput:
        o = self.options
        probabilities = inference.predict(self.model, images, seed, batch_size=o.batch_size, jit_compile=o.jit_compile)
        prediction = probabilities.argmax(-1).astype(np.int32)
        return AttackOutput(
            adversarial=images,
            prediction=prediction,
            success=(prediction != labels).astype(np.float32),
            gradients=np.zeros(len(images), np.int32),
            forwards=np.ones(len(images), np.int32),
            **sizes(np.zeros_like(images)),
        )


def _clean_facts() -> dict[str, Any]:
    return {"norm": None, "epsilon": None, "steps": 0, "restarts": 0, "draws": 1}


def _write_gallery(
    path: pathlib.Path, model: keras.Model, clean: np.ndarray, labels: np.ndarray,
    found: Sequence[tuple[str, np.ndarray]], seed: int,
) -> None:  # fmt: skip
    """Clean and adversarial images of one example per class, with predictions and confidences on a fresh draw."""
    views = [inference.checked_images(model, clean), *(pictures for label, pictures in found[1:])]
    probabilities = [inference.predict(model, view, seed + 1) for view in views]
    classes = np.stack([p.argmax(-1).astype(np.int32) for p in probabilities])
    confidences = np.stack([p.max(-1).astype(np.float32) for p in probabilities])
    empty = np.zeros((0, *views[0].shape), np.float32)
    _save(path, {
        "clean": views[0], "label": labels.astype(np.int32),
        "clean_prediction": classes[0], "clean_confidence": confidences[0],
        "attacks": np.array([label for label, _ in found[1:]], dtype=np.str_),
        "adversarial": np.stack(views[1:]) if views[1:] else empty,
        "prediction": classes[1:], "confidence": confidences[1:],
    })  # fmt: skip


def _save(path: pathlib.Path, arrays: dict[str, Any]) -> None:
    atomic_write(path, lambda file: np.savez_compressed(file, **arrays))


def _load(path: pathlib.Path) -> dict[str, np.ndarray] | None:
    """A saved part; None where there is none, or it cannot be read and is to be made again."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error):
        return None
