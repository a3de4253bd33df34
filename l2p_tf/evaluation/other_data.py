"""Evaluation on data other than the training data: whether they fit the model, and overlap with its training images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

from l2p_tf import artifacts
from l2p_tf.artifacts import Artifact
from l2p_tf.data.store import DataInfo, ImageData
from l2p_tf.data.streaming import StreamedImages
from l2p_tf.data.view import ImageView
from l2p_tf.models.saving import load_classifier
from l2p_tf.types import UserError

_READ = 256


def is_other(trained: Artifact, data: ImageData) -> bool:
    """Whether data differ from those the model was trained on or, if imported, imported with."""
    inputs = trained.manifest["inputs"]
    return inputs.get("data", inputs.get("probe")) != data.artifact.fingerprint


def check_data(trained: Artifact, data: ImageData, other: bool = False) -> None:
    """Checks that a model may be evaluated on data.

    Args:
      trained: artifact of a training or of an import.
      data: the data.
      other: whether they may differ from the training data, for example because the user names them.

    Raises:
      UserError: they differ, or do not fit the model.
    """
    manifest, info = trained.manifest, data.info
    known = "data" in manifest["inputs"]
    if known and not is_other(trained, data):
        return
    if known and not other:
        # Its test images may be among the model's training images.
        raise UserError(
            f"`data` should be what the model was trained on: {manifest['lineage']['data']['path']!r}; `--data` names "
            f"others to judge it on. Received: {str(data.artifact.path)!r}"
        )
    shape, classes = tuple(manifest["notes"].get("image_shape", ())), manifest["notes"].get("classes")
    if not shape:
        model = load_classifier(trained.path / "best.keras")
        shape, classes = tuple(model.input_shape[1:]), int(model.output_shape[-1])
    if (shape, classes) != (info.image_shape, info.num_classes):
        raise UserError(
            f"`data` should have images of {'x'.join(map(str, shape))} in {classes} classes, as the model takes them: "
            f"{str(trained.path)!r}. Received: {'x'.join(map(str, info.image_shape))} in {info.num_classes}"
        )
    training = _home(trained, "data") or _home(trained, "probe")
    if training and (names := _names(training.info)) and (others := _names(info)) and names != others:
        at = next(i for i, pair in enumerate(zip(names, others, strict=True)) if len(set(pair)) > 1)
        raise UserError(
            f"`data` should have the classes that the model was trained on, in their order. Class {at} is "
            f"{names[at]!r} there, and {others[at]!r} in {str(data.artifact.path)!r}; the option `class_names` of "
            "a data set sets it."
        )


def notes_on(trained: Iterable[Artifact], data: ImageData, split: str, limit: int | None, seed: int) -> dict[str, Any]:
    """Returns manifest notes for models evaluated on data other than their training data.

    Args:
      trained: the trainings of the models.
      data: evaluation data.
      split: split of the data.
      limit: maximum number of images; None for all.
      seed: seed of their selection.

    Returns:
      Under `other_data`, by the name of each such model, the number of `images`, and how many of them occur pixel by
      pixel among its training images (`trained_on`; None if unknown). Empty if there is no such model.
    """
    notes = {}
    known: dict[str, int | None] = {}
    images = data.select(split, limit, seed)[1]
    for run in trained:
        if is_other(run, data):
            key = run.manifest["inputs"].get("data", "")
            if key not in known:
                training = _home(run, "data")
                known[key] = _count_among(images, training.split("train")[0]) if training else None
            notes[str(run.options["name"])] = {"images": len(images), "trained_on": known[key]}
    return {"other_data": notes} if notes else {}


def _home(trained: Artifact, role: str) -> ImageData | None:
    """Returns the data a model was trained on, or imported with, if still available and unchanged."""
    origin = trained.manifest["lineage"].get(role)
    if origin is None:
        return None
    try:
        artifact = artifacts.read(origin["path"], "data")
        same = artifact.fingerprint == trained.manifest["inputs"][role]
        return ImageData(artifact) if same else None
    except UserError:  # Moved, recreated or damaged.
        return None


def _names(info: DataInfo) -> tuple[str, ...]:
    """Returns the names of the classes; empty if they are just their indices."""
    return () if info.class_names == tuple(map(str, range(info.num_classes))) else info.class_names


def _count_among(images: ImageView, training: ImageView) -> int | None:
    """Counts images that occur in `training` pixel by pixel; None if that is streamed, which would take too long."""
    if isinstance(training.base, StreamedImages):
        return None
    known = set(_digests(training))
    return sum(digest in known for digest in _digests(images))


def _digests(images: ImageView) -> Iterator[bytes]:
    for start in range(0, len(images), _READ):
        for image in images[start : start + _READ]:
            yield hashlib.blake2b(image.tobytes(), digest_size=16).digest()
