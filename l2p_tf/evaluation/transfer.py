"""Transfer: adversarial examples made on one model, or on several at once, and shown to others."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from l2p_tf import artifacts, inference
from l2p_tf.data.store import ImageData
from l2p_tf.environment import user_path
from l2p_tf.evaluation.chunked import ChunkedEvaluation
from l2p_tf.evaluation.evaluate import PARTS, check_data, measured
from l2p_tf.evaluation.options import EvaluationOptions
from l2p_tf.evaluation.records import Record, read_records, write_records
from l2p_tf.layers.noise import is_randomized
from l2p_tf.models.saving import load_classifier
from l2p_tf.observation import PROBED_IMAGES
from l2p_tf.progress import bar
from l2p_tf.types import UserError


def ensemble(models: Sequence[keras.Model]) -> keras.Model:
    """A classifier whose logits are the mean of several classifiers' logits (Dong et al. 2018, Section 3.3)."""
    if len(models) == 1:
        return models[0]
    for number, model in enumerate(models):
        model.name = f"member_{number}"  # Layers of one model need names of their own.
    images = keras.Input(models[0].input_shape[1:], name="images")
    return keras.Model(images, keras.layers.Average(name="logits")([model(images) for model in models]))


def transfer_artifact(
    options: EvaluationOptions,
    sources: Sequence[str],
    trained: Mapping[str, artifacts.Artifact],
    data: ImageData,
    output: str | os.PathLike[str],
    *,
    checkpoint: str = "best",
    overwrite: bool = False,
) -> list[Record]:
    """Makes examples on every source and shows them to every target, or continues, or finds it done.

    Args:
      options: attacks, images, repeats and so on.
      sources: names of runs; several joined by `+` are attacked as one ensemble.
      trained: the trainings by name of the run; every one of them is a target.
      data: what all were trained on.
      output: the folder to make.
      checkpoint: `best` or `last`.
      overwrite: replace what was made with other options.

    Returns:
      The records: by source, attack, target and repeat; `source` is what the examples were made on.

    Raises:
      UserError: a source is not among the runs, the data are not those of all trainings, or an attack is targeted.
    """
    for source in sources:
        unknown = [name for name in source.split("+") if name not in trained]
        if unknown:
            raise UserError(f"`--transfer` should name runs of {', '.join(trained)}. Received: {unknown[0]!r}")
    for attack in options.attacks:
        if attack.targeted:
            raise UserError(f"`--transfer` shows what untargeted attacks made. Received: {attack.spec!r}")
    for run in trained.values():
        check_data(run, data)
    request = {**options.request(), "checkpoint": checkpoint, "sources": list(sources), "targets": list(trained)}
    inputs = {"data": data.artifact, **{f"train:{name}": run for name, run in trained.items()}, **options.inputs()}
    how = {"seed": options.seed, "device": inference.device(), "overwrite": overwrite}
    with artifacts.produce(output, "transfer", request, inputs, **how) as work:  # type: ignore[arg-type]
        if work is not None:
            work.scratch.append(PARTS)
            models = {name: load_classifier(run.path / f"{checkpoint}.keras") for name, run in trained.items()}
            write_records(work.path, _transfer(options, sources, models, data, work.path, trained, checkpoint))
    return read_records(user_path(output))


def _transfer(
    options: EvaluationOptions, sources: Sequence[str], models: Mapping[str, keras.Model], data: ImageData,
    folder: pathlib.Path, trained: Mapping[str, artifacts.Artifact], checkpoint: str,
) -> list[Record]:  # fmt: skip
    index, images, labels = data.select(options.split, options.limit, options.seed)
    (folder / "arrays").mkdir(exist_ok=True)
    (folder / PARTS).mkdir(exist_ok=True)
    models = {name: inference.prepared(model, images[:PROBED_IMAGES])[0] for name, model in models.items()}
    random = any(is_randomized(model) for model in models.values())
    repeats = options.repeats if random else 1
    samples = {name: options.resolved(run).prediction_draws for name, run in trained.items()}
    records = []
    for s, source in enumerate(sources):
        # Copies of its own: an ensemble renames its members.
        members = source.split("+")
        made_on = ensemble([load_classifier(trained[name].path / f"{checkpoint}.keras") for name in members])
        for a, attack in enumerate(options.attacks):
            job = ChunkedEvaluation.of(options, made_on, attack, images, labels, np.arange(len(images)), folder / PARTS)
            with bar(f"{source}: {attack.label}", len(images) * repeats, "images") as advance:
                for repeat in range(repeats):
                    values, adversarial = job.run(s * len(options.attacks) + a, repeat, advance)
                    for t, (target, model) in enumerate(models.items()):
                        seed = int(inference.seed_pair(options.seed, repeat, t, 5)[0])
                        how: dict[str, Any] = {"batch_size": options.batch_size, "jit_compile": options.jit_compile}
                        how["samples_per_prediction"] = samples[target] if is_randomized(model) else 1
                        answers, votes = inference.predict_with_votes(model, adversarial, seed, **how)
                        shown = inference.decided(votes)
                        wrong = (shown != labels).astype(np.float32)
                        likely = answers[np.arange(len(labels)), labels].astype(np.float32)
                        seen = {**values, "prediction": shown, "probability": likely, "success": wrong, "wrong": wrong}
                        file = f"arrays/{s:02d}-{a:02d}-{t:02d}-{repeat:02d}.npz"
                        records.append(Record(
                            model=target, dataset=data.info.name, split=options.split, attack=attack.spec,
                            label=attack.label, **attack.facts(), prediction_draws=how["samples_per_prediction"],
                            backend=attack.BACKEND, source=source, repeat=repeat,
                            seed=options.seed, randomized=is_randomized(model),
                            **measured(folder, file, index, labels, seen),
                        ))  # fmt: skip
    return records
