"""Transfer attacks: adversarial examples made on one model, or on an ensemble, and evaluated on others."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from l2p_tf import artifacts, inference
from l2p_tf.data.store import ImageData
from l2p_tf.environment import user_path
from l2p_tf.evaluation.chunked import Arrays, ChunkedEvaluation, answers_to, passes, share_slices
from l2p_tf.evaluation.evaluate import PARTS, recorded
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
        repeats = range(self.options.repeats)
        for s, source in enumerate(self.sources):
            jobs = enumerate(self._jobs(source), s * len(self.options.attacks))
            slices = [piece for number, job in jobs for repeat in repeats for piece in job.slices(number, repeat)]
            share_slices(source, slices, self.folder / PARTS)

    def run(self) -> list[Record]:
        """Makes missing examples, and evaluates all on every target."""
        options, records = self.options, []
        for s, source in enumerate(self.sources):
            for a, job in enumerate(self._jobs(source)):
                title = f"{source}: {options.attacks[a].label}"
                with bar(title, len(self.labels) * options.repeats, "images") as advance:
                    for repeat in range(options.repeats):
                        values, adversarial = job.run(s * len(options.attacks) + a, repeat, advance)
                        for t, target in enumerate(self.models):
                            file = f"arrays/{s:02d}-{a:02d}-{t:02d}-{repeat:02d}.npz"
                            seed = int(inference.seed_pair(options.seed, repeat, t, 5)[0])
                            answers, where = self._shown_to(target, adversarial, seed)
                            where |= {"source": source, "repeat": repeat}
                            records.append(recorded(
                                self.folder, file, self.index, self.labels, values | answers, job.attack, **where
                            ))  # fmt: skip
        return records

    def _shown_to(self, target: str, adversarial: np.ndarray, seed: int) -> tuple[Arrays, dict[str, Any]]:
        """Evaluates examples on one target; returns its answers, and the fields of a record that tell how."""
        options, model = self.options, self.models[target]
        randomized = is_randomized(model)
        draws = options.resolved(self.trained[target]).prediction_draws if randomized else 1
        how = {"samples_per_prediction": draws, **passes(options)}
        return answers_to(model, adversarial, self.labels, seed, **how), {
            "model": target, "dataset": self.dataset, "split": options.split, "prediction_draws": draws,
            "seed": options.seed, "randomized": randomized,
        }  # fmt: skip

    def _jobs(self, source: str) -> list[ChunkedEvaluation]:
        # Separate copies, because an ensemble renames its members.
        made_on = ensemble([self._load(name) for name in source.split("+")])
        return [
            ChunkedEvaluation(self.options, made_on, attack, self.images, self.labels, self.folder / PARTS)
            for attack in self.options.attacks
        ]

    def _load(self, name: str) -> keras.Model:
        model = load_classifier(self.trained[name].path / f"{self.checkpoint}.keras")
        return with_surrogates(model, self.options.bpda)
