"""A run that is made from another run's classifiers, without training."""

from __future__ import annotations

import os
import shutil
from typing import Any

from l2p_tf import artifacts, inference
from l2p_tf.data.store import ImageData
from l2p_tf.defenses.base import DerivedDefense
from l2p_tf.models.saving import load_classifier, save_classifier
from l2p_tf.registry import spec_of
from l2p_tf.training import callbacks as cb
from l2p_tf.types import UserError


def derive(
    name: str,
    defense: DerivedDefense,
    source: artifacts.Artifact,
    data: ImageData,
    output: str | os.PathLike[str],
    *,
    seed: int = 0,
    published: str = "",
    overwrite: bool = False,
) -> artifacts.Artifact:
    """Makes a training's artifact from another's, or finds it done.

    It holds `best.keras` and `last.keras` made from those of the source, whose history and settings it keeps.

    Args:
      name: of the new run.
      defense: what is done to the classifiers.
      source: the training they come from.
      data: what the source was trained on.
      output: the folder to make.
      seed: of the noise.
      published: the published table row this reproduces, or empty.
      overwrite: replace what was made with other options.

    Raises:
      UserError: the source was trained on other data, or the folder was made with other options.
    """
    if source.manifest["inputs"].get("data") != data.artifact.fingerprint:
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
        "published": published,
    }
    inputs = {"data": data.artifact, "source": source}
    how: dict[str, Any] = {"seed": seed, "device": inference.device(), "overwrite": overwrite}
    with artifacts.produce(output, "train", request, inputs, **how) as work:
        if work is not None:
            for file in (cb.BEST, cb.LAST):
                save_classifier(defense.derive(load_classifier(source.path / file), seed), work.path / file)
            if (source.path / cb.HISTORY).is_file():
                shutil.copyfile(source.path / cb.HISTORY, work.path / cb.HISTORY)
            notes = {"randomized": True, "prediction_draws": defense.draws_per_answer}
            work.notes.update({**source.manifest["notes"], **notes})
    return artifacts.read(output, "train")
