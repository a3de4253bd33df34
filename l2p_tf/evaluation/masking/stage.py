"""Artifact of a model's gradient masking checks."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import keras
import numpy as np

from l2p_tf import artifacts, inference
from l2p_tf.data.store import ImageData
from l2p_tf.environment import user_path
from l2p_tf.evaluation.evaluate import PARTS, recorded
from l2p_tf.evaluation.masking.battery import Battery, request_of, resolved
from l2p_tf.evaluation.masking.record import Inspection, read_inspection, write_inspection
from l2p_tf.evaluation.options import CheckOptions
from l2p_tf.evaluation.other_data import check_data, notes_on
from l2p_tf.evaluation.records import write_records
from l2p_tf.models.saving import load_classifier
from l2p_tf.models.surrogates import with_surrogates

STAGE = "checks"
PROBE = "arrays/probe.npz"


def check_artifact(
    options: CheckOptions,
    trained: artifacts.Artifact,
    data: ImageData,
    output: str | os.PathLike[str],
    *,
    checkpoint: str = "best",
    overwrite: bool = False,
    share: bool = False,
    other_data: bool = False,
) -> Inspection:
    """Checks a trained model for gradient masking, or resumes, or returns finished results.

    Args:
      options: check options.
      trained: artifact of a training.
      data: source of the examples.
      output: folder to create.
      checkpoint: `best` or `last`.
      overwrite: replace results of other options.
      share: wait for another process that makes the same call, because each attack depends on earlier ones.
      other_data: whether the data may differ from those the model was trained on.

    Returns:
      The findings.

    Raises:
      UserError: the data are not those the model was trained on or do not fit it, or the folder has other options.
    """
    check_data(trained, data, other_data)
    options = resolved(options, trained)
    request = {**request_of(options), "checkpoint": checkpoint}
    inputs = {"train": trained, "data": data.artifact}
    how: dict[str, Any] = {"seed": options.seed, "device": inference.device(), "overwrite": overwrite}
    how["share"] = (lambda folder: None) if share else None
    with artifacts.produce(output, STAGE, request, inputs, **how) as work:
        if work is not None:
            work.scratch.append(PARTS)
            work.notes |= notes_on([trained], data, options.split, options.count, options.seed)
            model = with_surrogates(load_classifier(trained.path / f"{checkpoint}.keras"), options.bpda)
            inspect(model, data, options, work.path, str(trained.options["name"]))
    return read_inspection(user_path(output))


def inspect(
    model: keras.Model, data: ImageData, options: CheckOptions, folder: pathlib.Path, name: str
) -> Inspection:  # fmt: skip
    """Checks a classifier for gradient masking; finished parts in `folder` are reused.

    Args:
      model: the classifier.
      data: source of the examples.
      options: check options, with an epsilon.
      folder: receives `checks.json`, `results.json` with a record of each attack, and `arrays/*.npz`.
      name: name of the model, for the records.
    """
    index, images, labels = data.sample(options.split, options.count, options.seed)
    battery = Battery(model, options, images, labels, folder, name)
    findings = battery.run()
    arrays: dict[str, Any] = {"index": index, "label": battery.labels, "correct": battery.right, **battery.around}
    artifacts.atomic_write(folder / PROBE, lambda file: np.savez_compressed(file, **arrays))
    where: dict[str, Any] = {
        "model": name, "dataset": data.info.name, "split": options.split, "seed": options.seed,
        "randomized": battery.randomized, "prediction_draws": battery.options.prediction_draws,
    }  # fmt: skip
    records = [
        recorded(
            folder, f"arrays/{number:02d}.npz", index[rows], battery.labels[rows], values, entry.attack, repeat=0,
            label=entry.label, **where,
        )
        for number, (entry, rows, values) in enumerate(battery.done)
    ]  # fmt: skip
    write_records(folder, records)
    inspection = Inspection(
        norm="linf", epsilon=battery.epsilon, draws=battery.draws, count=len(labels), correct=int(battery.right.sum()),
        seconds=sum(record.seconds for record in records), findings=tuple(findings), **where,
    )  # fmt: skip
    write_inspection(folder, inspection)
    return inspection
