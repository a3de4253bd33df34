"""A training from data to artifact: builds, resumes, fits, keeps the best and the last model."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from l2p_tf import artifacts, inference
from l2p_tf.data.pipeline import TrainBatches
from l2p_tf.data.store import ImageData
from l2p_tf.devices import Devices
from l2p_tf.environment import user_path
from l2p_tf.fitting import callbacks as cb
from l2p_tf.fitting.extend import extended
from l2p_tf.fitting.options import TrainOptions
from l2p_tf.fitting.resume import best_files, check_best, resume
from l2p_tf.fitting.state import BEST_STATE, Progress
from l2p_tf.layers.batch_norm import synchronize
from l2p_tf.layers.noise import noise_layers
from l2p_tf.models.base import trainable_parameters
from l2p_tf.models.saving import auxiliary_path
from l2p_tf.progress import bar
from l2p_tf.radii import check_radii
from l2p_tf.registry import spec_of
from l2p_tf.training.base import RobustTrainer
from l2p_tf.training.optimizers import MomentumSGD
from l2p_tf.training.schedules import learning_rate
from l2p_tf.types import UserError


def train(
    options: TrainOptions,
    data: ImageData,
    output: str | os.PathLike[str],
    *,
    jit_compile: bool | None = None,
    checkpoint_minutes: float = 10.0,
    overwrite: bool = False,
    devices: Devices | None = None,
) -> artifacts.Artifact:
    """Trains, or continues, or finds it done; returns the artifact.

    A finished training of fewer epochs, otherwise the same, is continued: what comes of it is what all epochs at once
    would have given. It stays until the longer one is finished.

    Args:
      options: what to train.
      data: on what.
      output: the folder to make. It holds `best.keras` (by validation), `last.keras`, `history.csv`, TensorBoard's
        `logs` and `state.npz`, from which more epochs go on.
      jit_compile: compile the step with XLA; None does so on a GPU.
      checkpoint_minutes: most time between saved states within an epoch.
      overwrite: replace work made with other options.
      devices: those that share every batch; None for one. With several workers each calls this, and `output` is a
        folder that all of them see. A training may go on with others than it began with.

    Raises:
      UserError: options that do not fit the data, a finished training of fewer epochs that cannot go on, or a loss that
        is not finite.
      Interrupted: a signal asked to stop; the state is saved.
    """
    devices = devices or Devices()
    rows = devices.own_rows(options.batch_size)
    batches = TrainBatches(data, options.batch_size, options.seed, augment=options.augment, rows=rows)
    if options.batch_size < devices.replicas:
        raise UserError(
            f"`batch_size` should be at least {devices.replicas}, the replicas that share a batch. "
            f"Received: {options.batch_size}"
        )
    if not data.info.counts["validation"]:
        raise UserError("`validation_share` should be above 0: held-out images choose the best model. Received: 0")
    # XLA compiles no step that several devices share; where it is asked for, the trainer says so.
    jit = bool(jit_compile) if devices.strategy else inference.resolve_jit(jit_compile)
    request = {**options.as_json(), "jit": jit}
    inputs = {"data": data.artifact, **options.inputs()}
    finished = None if overwrite else extended(output, request, inputs)
    produced = artifacts.produce(
        output,
        "train",
        request,
        inputs,
        seed=options.seed,
        device=inference.device(),
        overwrite=overwrite,
        extends=finished,
    )
    with _work_of_all(devices, produced, artifacts.partial_path(user_path(output))) as work:
        if work is not None:
            _train(options, data, batches, work, finished, jit, checkpoint_minutes, devices)
    devices.wait()
    return artifacts.read(output, "train")


@contextlib.contextmanager
def _work_of_all(
    devices: Devices, produced: AbstractContextManager[artifacts.Work | None], partial: pathlib.Path
) -> Iterator[artifacts.Work | None]:
    """The chief's work on the artifact, and for the other workers a copy of it that is dropped in the end."""
    if devices.is_chief:
        with produced as work:
            devices.of_chief(lambda: [float(work is not None)], 1)
            devices.wait()  # For the copies.
            yield work
        return
    with tempfile.TemporaryDirectory() as folder:
        needed = bool(devices.of_chief(lambda: [], 1)[0])
        copy = pathlib.Path(folder) / "train"
        if needed:
            shutil.copytree(partial, copy)
        devices.wait()
        yield artifacts.Work(copy, resumed=True) if needed else None


def build_trainer(
    options: TrainOptions, data: ImageData, jit_compile: bool = False, strategy: tf.distribute.Strategy | None = None
) -> RobustTrainer:
    """A compiled trainer with freshly seeded weights, optimizers built, for one device or under a strategy."""
    with strategy.scope() if strategy else contextlib.nullcontext():
        return _build_trainer(options, data, jit_compile)


def _build_trainer(options: TrainOptions, data: ImageData, jit_compile: bool) -> RobustTrainer:
    check_radii(options.defense, data.info.image_shape)
    # Keras draws the seeds of initializers from Python's generator, which this sets.
    keras.utils.set_random_seed(options.seed)
    with _precision(options.precision):
        classifier = options.model.build(
            data.info.image_shape,
            data.info.num_classes,
            options.defense.factory(options.seed),
            options.mean or data.info.mean,
            options.std or data.info.std,
        )
        if options.sync_batch_norm:
            synchronize(classifier)
        trainer = options.defense.trainer(classifier, options.seed, data.info.counts["train"])
    with _precision("float32"):
        if options.ema:
            trainer.keep_averages(options.ema)
        trainer.compile(optimizer=_optimizer(options), jit_compile=jit_compile)
    return trainer


@contextlib.contextmanager
def _precision(policy: str) -> Iterator[None]:
    """Within it layers follow `policy`, and learning rates and metrics are float32, whatever keras.json says."""
    before = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_dtype_policy(policy)
    keras.config.set_floatx("float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before[0])
        keras.config.set_floatx(before[1])


def _optimizer(options: TrainOptions) -> keras.optimizers.Optimizer:
    if options.optimizer == "adam":
        return keras.optimizers.Adam(options.learning_rate, epsilon=1e-8, name="w_adam")
    return MomentumSGD(options.learning_rate, options.momentum, decay=options.decay, name="w_sgd")


def _train(
    options: TrainOptions,
    data: ImageData,
    batches: TrainBatches,
    work: artifacts.Work,
    finished: artifacts.Artifact | None,
    jit_compile: bool,
    checkpoint_minutes: float,
    devices: Devices,
) -> None:
    trainer = build_trainer(options, data, jit_compile, devices.strategy)
    if not trainer.is_mature(options.epochs - 1):
        raise UserError(
            f"`epochs` should reach beyond the warm-up of {spec_of(options.defense)}: no model of {options.epochs} "
            "epochs would have the whole defense. Train longer, or shorten the warm-up."
        )
    for attack in (options.validation_attack, options.rho_attack):
        for member in attack.members() if attack else ():
            member.check(trainer.classifier)
    work.scratch.append(BEST_STATE)
    progress, means = resume(work, trainer, finished), None
    if progress.step:
        means = [keras.ops.convert_to_numpy(variable) for variable in cb.metric_variables(trainer)]
    steps_of_rate = None if options.schedule == "drops" else batches.steps_per_epoch
    schedule = cb.Schedule(progress, lambda at: _rate(options, at), options.learning_rate, steps_of_rate, means)
    state = cb.KeepState(work.path, progress, batches.steps_per_epoch, checkpoint_minutes, devices)
    _, images, labels = data.sample("validation", options.validation_limit or None, options.seed)
    validation = cb.Validation(
        images,
        labels,
        options.validation_attack,
        options.validate_every,
        options.epochs,
        options.batch_size,
        options.seed,
        jit_compile,
        options.defense.draws_per_answer,
        options.rho_attack,
        devices,
    )
    robust = options.defense.trains_on_attacks
    criterion = "validation_robust_accuracy" if robust else "validation_accuracy"
    best = cb.BestModel(work.path, progress, criterion)
    steps = options.epochs * batches.steps_per_epoch
    done = progress.epoch * batches.steps_per_epoch + progress.step
    with bar(f"train {options.name}", steps, "batches", done) as advance:
        history = cb.History(work.path, progress, schedule)
        stopping = cb.EarlyStopping(trainer, progress, criterion, options.early_stopping or options.epochs)
        callbacks = [schedule, validation, history, best, state, stopping, cb.Bar(advance)]
        try:
            with state.listening():
                if progress.step:
                    # The rest of the epoch that was interrupted; Keras counts the same steps in every epoch of a fit.
                    _fit(trainer, batches, progress.epoch, progress.epoch + 1, callbacks, progress.step)
                if not stopping.due:
                    _fit(trainer, batches, progress.epoch, options.epochs, callbacks)
        finally:
            history.writer.close()
    cb.save_models(trainer, work.path / cb.LAST)
    check_best(work.path, trainer, progress, finished)
    best_of_all = cb.best_path(work.path, progress.best_epoch)
    for suffix in ("", *trainer.auxiliary_models):
        kept, name = (auxiliary_path(p, suffix) if suffix else p for p in (best_of_all, work.path / cb.BEST))
        # Copied, not moved: killed here, the same command must find it again.
        shutil.copyfile(kept, name)
    work.scratch += [file.name for file in best_files(work.path)]
    work.notes.update(_notes(options, trainer, progress, batches.steps_per_epoch), replicas=devices.replicas)


def _fit(
    trainer: RobustTrainer, batches: TrainBatches, epoch: int, end: int, callbacks: list[Any], step: int = 0
) -> None:
    if epoch < end:
        trainer.fit(
            batches.dataset(epoch, step),
            steps_per_epoch=batches.steps_per_epoch - step,
            initial_epoch=epoch,
            epochs=end,
            verbose=0,
            shuffle=False,
            callbacks=callbacks,
        )


def _rate(options: TrainOptions, at: float) -> float:
    how: dict[str, Any] = {"schedule": options.schedule, "epochs": options.epochs}
    return learning_rate(at, options.learning_rate, options.drops, options.drop_factor, **how)


def _notes(options: TrainOptions, trainer: RobustTrainer, progress: Progress, steps: int) -> dict[str, Any]:
    seconds = [row["seconds"] for row in progress.history]
    noisy = [row.get("noise_active", 0.0) for row in progress.history]
    return {
        "parameters": trainable_parameters(trainer.classifier),
        "noise_parameters": sum(int(np.prod(v.shape)) for v in trainer.noise_parameters),
        "epochs": len(progress.history),
        "best_epoch": progress.best_epoch,
        "best_validation": progress.best,
        "noisy_epochs": int(sum(noisy)),
        "seconds_per_epoch": round(float(np.median(seconds)), 3),
        "images_per_second": round(steps * options.batch_size / max(float(np.median(seconds)), 1e-9), 1),
        "randomized": bool(noise_layers(trainer.classifier)),
        "prediction_draws": options.defense.draws_per_answer,
    }


def make_deterministic() -> None:
    """The same bits on every run on this machine: deterministic operations and, on a CPU, one thread.

    Call it before TensorFlow is first used. With several threads a CPU's sums change with their order.
    """
    tf.config.experimental.enable_op_determinism()
    if not tf.config.list_physical_devices("GPU"):
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
