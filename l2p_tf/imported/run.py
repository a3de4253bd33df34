"""The artifact of an imported model, with the same contents that a training leaves for later stages."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import keras
import numpy as np

from l2p_tf import artifacts, inference
from l2p_tf.contract import Finding
from l2p_tf.data.store import ImageData
from l2p_tf.imported.mending import mended, unlike
from l2p_tf.imported.opening import in_memory, open_model, quietly
from l2p_tf.imported.options import ImportOptions
from l2p_tf.layers.noise import is_randomized
from l2p_tf.models.base import trainable_parameters
from l2p_tf.models.saving import load_classifier, save_classifier
from l2p_tf.types import UserError

DEFENSE = "imported"
BEST = "best.keras"
_FEW, _COMPARED = 50, 8
_PIXELS, _FEWEST, _MOST = 2**22, 128, 1000
"""Total number of pixels used to determine a model's range, with a minimum and a maximum number of images."""
_SAME = 1e-3


def import_model(
    options: ImportOptions,
    data: ImageData,
    output: str | os.PathLike[str],
    overwrite: bool = False,
    model: keras.Model | None = None,
) -> artifacts.Artifact:
    """Creates a training artifact from an external model, or returns the finished one.

    It holds `best.keras`, and has no data among its inputs: because the training data are unknown, it may be evaluated
    on any data with matching images and classes.

    Args:
      options: the model, and what is known about it.
      data: its labeled images serve to determine the pixel range the model expects.
      output: folder to create.
      overwrite: replace an import of another model or with other options.
      model: the model itself, if it is in memory; then `model_file` of the options is not read.

    Raises:
      UserError: the model cannot be opened or used, or the folder has other options.
    """
    info = data.info
    # Prefer images on which it will not be evaluated, because they influence the import.
    split = next((name for name in ("train", "validation") if info.counts[name] >= _FEW), None)
    split = split or ("test" if info.counts["test"] else "train")
    height, width, _ = info.image_shape
    count = min(max(_PIXELS // (height * width), _FEWEST), _MOST)
    _, pictures, labels = data.sample(split, count, options.seed)
    images = pictures.astype(np.float32) / np.float32(255)
    opened = (
        in_memory(model)
        if model is not None
        else open_model(
            options.model_file, info.image_shape, info.num_classes, options.output, options.custom_objects, options.seed
        )
    )
    given = {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}
    request: dict[str, Any] = {
        **given, "class_map": list(options.class_map), "model_file": opened.label, "model_digest": opened.digest,
        "custom_objects": bool(options.custom_objects), "model": opened.label, "defense": DEFENSE,
    }  # fmt: skip
    how: dict[str, Any] = {"seed": options.seed, "device": inference.device(), "overwrite": overwrite}
    with artifacts.produce(output, "train", request, {"probe": data.artifact}, **how) as work:
        if work is not None:
            work.clear()
            classifier, findings = mended(opened, options, images, labels, info.num_classes)
            save_classifier(classifier, work.path / BEST)
            with quietly():
                again = load_classifier(work.path / BEST)
            if not is_randomized(classifier) and not unlike(classifier, again, images[:_COMPARED]) <= _SAME:
                raise UserError(
                    f"{opened.label} should answer the same once it is saved and opened again; it does not."
                )
            work.notes.update({
                "parameters": trainable_parameters(again), "noise_parameters": 0, "prediction_draws": 1,
                "randomized": is_randomized(again), "image_shape": list(info.image_shape), "classes": info.num_classes,
                "contract": [finding.as_json() for finding in findings],
            })  # fmt: skip
    return artifacts.read(output, "train")


def contract_of(trained: artifacts.Artifact) -> list[Finding]:
    """Returns the findings about an imported model."""
    return [Finding(**finding) for finding in trained.manifest["notes"].get("contract", ())]
