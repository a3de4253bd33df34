"""Transfer attacks: adversarial examples made on one model, or on an ensemble, and evaluated on others."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from l2p_tf import artifacts, inference
from l2p_tf.data.store import ImageData
from l2p_tf.environment import user_path
from l2p_tf.evaluation.chunked import ChunkedEvaluation, share_slices
from l2p_tf.evaluation.evaluate import PARTS, measured
from l2p_tf.evaluation.options import EvaluationOptions
from l2p_tf.evaluation.other_data import check_data, notes_on
from l2p_tf.evaluation.records import Record, read_records, write_records
from l2p_tf.layers.noise import is_randomized
from l2p_tf.models.saving import load_classifier
from l2p_tf.models.surrogates import with_surrogates
from l2p_tf.observation import PROBED_IMAGES
from l2p_tf.progress import bar
from l2p_tf.types import UserError


def ensemble(models: Sequence[keras.Model]) -> keras.Model:
    """A classifier whose logits are the mean of several classifiers' logits (Dong et al. 2018, Section 3.3)."""
    if len(models) == 1:
        return models[0]
    for number, model in enumerate(models):
        model.name = f"member_{number}"  # Layers of a model need unique names.
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
    share: bool = False,
    other_data: bool = False,
) -> list[Record]:
    """Makes examples on every source and evaluates them on every target, or resumes, or returns finished results.

    Args:
      options: attacks, images, repeats and so on.
      sources: names of runs; several joined by `+` are attacked as one ensemble.
      trained: trainings by name of the run; every one of them is a target.
      data: the data all were trained on.
      output: folder to create.
      checkpoint: `best` or `last`.
      overwrite: replace results of other options.
      share: divide the work among processes that make the same call at the same time.
      other_data: whether the data may differ from those the models were trained on.

    Returns:
      The records, by source, attack, target and repeat; `source` is the run whose model the examples were made on.

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
        check_data(run, data, other_data)
    request = {**options.request(), "checkpoint": checkpoint, "sources": list(sources), "targets": list(trained)}
    inputs = {"data": data.artifact, **{f"train:{name}": run for name, run in trained.items()}, **options.inputs()}
    how: dict[str, Any] = {"seed": options.seed, "device": inference.device(), "overwrite": overwrite}

    @functools.cache
    def work_in(folder: pathlib.Path) -> _Transfer:
        return _Transfer(options, sources, trained, data, folder, checkpoint)

    how["share"] = (lambda folder: work_in(folder).share()) if share else None
    with artifacts.produce(output, "transfer", request, inputs, **how) as work:
        if work is not None:
            work.scratch.append(PARTS)
            work.notes |= notes_on(trained.values(), data, options.split, options.limit, options.seed)
            write_records(work.path, work_in(work.path).run())
    return read_records(user_path(output))


class _Transfer:
    """The work in the artifact's folder; arguments as in `transfer_artifact`."""

    def __init__(
        self, options: EvaluationOptions, sources: Sequence[str], trained: Mapping[str, artifacts.Artifact],
        data: ImageData, folder: pathlib.Path, checkpoint: str,
    ) -> None:  # fmt: skip
        self.sources, self.trained, self.folder, self.checkpoint = sources, trained, folder, checkpoint
        self.dataset = data.info.name
        self.index, self.images, self.labels = data.select(options.split, options.limit, options.seed)
        self.options, probed = options, self.images[:PROBED_IMAGES]
        self.models = {name: inference.prepared(self._load(name), probed)[0] for name in trained}
        random = any(is_randomized(model) for model in self.models.values())
        self.options = dataclasses.replace(options, repeats=options.repeats if random else 1)
        (folder / "arrays").mkdir(exist_ok=True)
        (folder / PARTS).mkdir(exist_ok=True)

    def share(self) -> None:
        """Makes all examples together with other processes that do the same."""
        for source, jobs in self._jobs():
            repeats = range(self.options.repeats)
            slices = [piece for number, job in jobs for repeat in repeats for piece in job.slices(number, repeat)]
            with bar(f"{source}: shared", sum(len(piece.rows) for piece in slices), "images") as advance:
                share_slices(slices, self.folder / PARTS, advance)

    def run(self) -> list[Record]:
        """Makes missing examples, and evaluates all on every target."""
        options, labels = self.options, self.labels
        samples = {name: options.resolved(run).prediction_draws for name, run in self.trained.items()}
        records = []
        for s, (source, jobs) in enumerate(self._jobs()):
            for a, (number, job) in enumerate(jobs):
                attack = options.attacks[a]
                with bar(f"{source}: {attack.label}", len(labels) * options.repeats, "images") as advance:
                    for repeat in range(options.repeats):
                        values, adversarial = job.run(number, repeat, advance)
                        for t, (target, model) in enumerate(self.models.items()):
                            seed = int(inference.seed_pair(options.seed, repeat, t, 5)[0])
                            how: dict[str, Any] = {"batch_size": options.batch_size, "jit_compile": options.jit_compile}
                            how["samples_per_prediction"] = samples[target] if is_randomized(model) else 1
                            answers, votes = inference.predict_with_votes(model, adversarial, seed, **how)
                            prediction = inference.decided(votes)
                            wrong = (prediction != labels).astype(np.float32)
                            likely = answers[np.arange(len(labels)), labels].astype(np.float32)
                            transferred = {**values, "prediction": prediction, "probability": likely}
                            transferred |= {"success": wrong, "wrong": wrong}
                            file = f"arrays/{s:02d}-{a:02d}-{t:02d}-{repeat:02d}.npz"
                            records.append(Record(
                                model=target, dataset=self.dataset, split=options.split, attack=attack.spec,
                                label=attack.label, **attack.facts(), prediction_draws=how["samples_per_prediction"],
                                backend=attack.BACKEND, source=source, repeat=repeat,
                                seed=options.seed, randomized=is_randomized(model),
                                **measured(self.folder, file, self.index, labels, transferred),
                            ))  # fmt: skip
        return records

    def _jobs(self) -> Iterator[tuple[str, list[tuple[int, ChunkedEvaluation]]]]:
        for s, source in enumerate(self.sources):
            # Separate copies, because an ensemble renames its members.
            made_on = ensemble([self._load(name) for name in source.split("+")])
            rows = np.arange(len(self.images))
            yield (
                source,
                [
                    (
                        s * len(self.options.attacks) + a,
                        ChunkedEvaluation.of(
                            self.options, made_on, attack, self.images, self.labels, rows, self.folder / PARTS
                        ),
                    )
                    for a, attack in enumerate(self.options.attacks)
                ],
            )

    def _load(self, name: str) -> keras.Model:
        model = load_classifier(self.trained[name].path / f"{self.checkpoint}.keras")
        return with_surrogates(model, self.options.bpda)
