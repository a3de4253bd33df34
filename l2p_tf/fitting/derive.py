"""A run that is made from another run's classifiers, without training."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import Any

from l2p_tf import artifacts, inference
from l2p_tf.data.store import ImageData
from l2p_tf.defenses.base import DerivedDefense
from l2p_tf.environment import user_path
from l2p_tf.fitting import callbacks as cb
from l2p_tf.layers.noise import is_randomized
from l2p_tf.models.saving import load_classifier, save_classifier
from l2p_tf.registry import spec_of
from l2p_tf.types import UserError

_KEPT = ("parameters", "noise_parameters", "best_epoch", "image_shape", "classes", "contract")
"""What the notes of a training say of its classifiers, and not of the work they took."""


def derive(
    name: str,
    defense: DerivedDefense,
    source: artifacts.Artifact,
    data: ImageData,
    output: str | os.PathLike[str],
    *,
    seed: int = 0,
    published: str = "",
    sweep: Mapping[str, float | str] | None = None,
    overwrite: bool = False,
) -> artifacts.Artifact:
    """Makes a training's artifact from another's, or finds it done.

    It holds `best.keras` and `last.keras` made from those of the source, whose history and settings it keeps. An
    imported source has the first alone.

    Args:
      name: of the new run.
      defense: what is done to the classifiers.
      source: the training they come from.
      data: what the source was trained on.
      output: the folder to make.
      seed: of the noise.
      published: the published table row this reproduces, or empty.
      sweep: where the run is a point of a sweep, what is swept and its value here.
      overwrite: replace what was made with other options.

    Raises:
      UserError: the source is the run itself or was trained on other data, or the folder was made with other options.
    """
    if user_path(output).resolve() == source.path.resolve():
        raise UserError(f"`run` should be another run than the one that is made. Received: {str(source.path)!r}")
    trained_on = source.manifest["inputs"].get("data")
    if trained_on not in (None, data.artifact.fingerprint):
        raise UserError(
            f"`data` should be what {str(source.path)!r} was trained on: "
            f"{source.manifest['lineage']['data']['path']!r}. Received: {str(data.artifact.path)!r}"
        )
    request: dict[str, Any] = {
        **source.options,
        "name": name,
        "defense": spec_of(defense),
        "defense_options": defense.options(),
        "source_defense": source.options.get("defense"),
        "noise_seed": seed,
        "published": published,
        "sweep": dict(sweep or {}),
    }
    # What an imported model was trained on is not known.
    inputs = {"probe" if trained_on is None else "data": data.artifact, "source": source}
    how: dict[str, Any] = {"seed": seed, "device": inference.device(), "overwrite": overwrite}
    with artifacts.produce(output, "train", request, inputs, **how) as work:
        if work is not None:
            work.clear()
            for file in (f for f in (cb.BEST, cb.LAST) if f in source.manifest["outputs"]):
                save_classifier(defense.derive(load_classifier(source.path / file), seed), work.path / file)
            if (source.path / cb.HISTORY).is_file():
                shutil.copyfile(source.path / cb.HISTORY, work.path / cb.HISTORY)
            notes = source.manifest["notes"]
            work.notes.update({key: notes[key] for key in _KEPT if key in notes})
            work.notes.update({
                "randomized": is_randomized(load_classifier(work.path / cb.BEST)),
                "prediction_draws": defense.prediction_draws or notes.get("prediction_draws", 1),
            })  # fmt: skip
    return artifacts.read(output, "train")
