"""What happens around the steps of a training: schedule, validation, history, best model, state, stopping."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from l2p_tf.artifacts import atomic_write, digest_file
from l2p_tf.attacks.base import Attack
from l2p_tf.devices import Devices
from l2p_tf.fitting.state import STATE, Progress, keep_best_state, save_state
from l2p_tf.inference import predict
from l2p_tf.layers.noise import noise_statistics
from l2p_tf.models.saving import auxiliary_path, save_classifier
from l2p_tf.training.base import RobustTrainer
from l2p_tf.types import Interrupted, UserError

HISTORY = "history.csv"
LOGS = "logs"
BEST = "best.keras"
LAST = "last.keras"
RHO_IMAGES = 128
"""Most images, of those answered correctly, that the attack of smallest norm is run on at each validation."""


class Schedule(keras.callbacks.Callback):
    """Sets what depends on the epoch, and puts a resumed epoch's running means back.

    Args:
      progress: what is done.
      rate: the learning rate at a time, in epochs.
      initial: the one it is a share of, for optimizers with a rate of their own.
      steps: of an epoch, where the rate changes at each; None where it changes with the epoch alone.
      resumed: the running means of the epoch that was interrupted.
    """

    def __init__(
        self, progress: Progress, rate: Callable[[float], float], initial: float, steps: int | None,
        resumed: list[np.ndarray] | None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.progress, self.rate, self.initial, self.steps, self.resumed = progress, rate, initial, steps, resumed
        self.first_step, self.epoch, self.now = progress.step, 0, 0.0
        self.facts: dict[str, float] = {}
        self.begun = self.seconds = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Rates, noise, tau."""
        self.begun, self.epoch = time.monotonic(), epoch
        self.facts = self.model.begin_epoch(epoch)
        self._set(epoch)
        if self.resumed is not None:
            # `fit` has just reset them.
            for variable, value in zip(metric_variables(self.model), self.resumed, strict=True):
                variable.assign(value)
            self.resumed = None

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """The rate, where it changes at each step: that of the step's middle."""
        if self.steps is not None:
            self._set(self.epoch + (self.first_step + batch + 0.5) / self.steps)

    def _set(self, at: float) -> None:
        self.now = self.rate(at)
        self.model.set_rate(self.now, self.now / (self.initial or 1.0))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Stops the clock before validation, and the training where the loss is bad, before anything is kept of it."""
        self.first_step = 0
        self.seconds = round(self.progress.seconds + time.monotonic() - self.begun, 3)
        check_finite(epoch, logs)


class Validation(keras.callbacks.Callback):
    """Clean and robust accuracy on held-out images, every so many epochs and after the last.

    Args:
      images: uint8 (count, height, width, channels).
      labels: integers (count,).
      attack: for robust accuracy.
      every: epochs between evaluations.
      epochs: of the training.
      batch_size: images a pass.
      seed: of the attack and of the noise it meets.
      jit_compile: as the attack takes it.
      samples_per_prediction: draws of the noise that one answer averages.
      rho_attack: an attack of smallest norm, whose mean norm is recorded too; None for none.
      devices: of several workers the chief judges, and tells the others.
    """

    NAMES = ("validation_accuracy", "validation_robust_accuracy", "validation_rho_success", "validation_rho")

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        attack: Attack,
        every: int,
        epochs: int,
        batch_size: int,
        seed: int,
        jit_compile: bool,
        samples_per_prediction: int,
        rho_attack: Attack | None,
        devices: Devices,
    ) -> None:
        super().__init__()
        self.images, self.labels, self.attack = images, labels, attack
        self.every, self.epochs, self.batch_size, self.seed = every, epochs, batch_size, seed
        self.jit_compile, self.samples_per_prediction, self.rho_attack = jit_compile, samples_per_prediction, rho_attack
        self.devices = devices
        self.copy: keras.Model | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds `validation_accuracy` and `validation_robust_accuracy`, perhaps `validation_rho`, to the logs."""
        if logs is None or ((epoch + 1) % self.every and epoch + 1 != self.epochs):
            return
        with self.model.averaged_weights():
            values = self.devices.of_chief(lambda: self._judged(self._plain(self.model.classifier), epoch), 4)
        logs.update({name: float(v) for name, v in zip(self.NAMES, values, strict=True) if not np.isnan(v)})

    def _plain(self, classifier: keras.Model) -> keras.Model:
        """The classifier itself, or of several workers one that the chief can ask without the others."""
        if self.devices.workers == 1:
            return classifier
        if self.copy is None:
            self.copy = classifier.__class__.from_config(classifier.get_config())
        for variable, value in zip(self.copy.variables, classifier.variables, strict=True):
            variable.assign(keras.ops.convert_to_numpy(value))
        return self.copy

    def _judged(self, classifier: keras.Model, epoch: int) -> list[float]:
        """The values of `NAMES`; nan for what there is not."""
        how: dict[str, Any] = {"batch_size": self.batch_size, "jit_compile": self.jit_compile}
        predictions = predict(
            classifier, self.images, self.seed + epoch, samples_per_prediction=self.samples_per_prediction, **how
        ).argmax(-1)
        how["prediction_draws"] = self.samples_per_prediction
        found = self.attack(classifier, self.images, self.labels, self.seed + epoch, **how)
        values = [float(np.mean(predictions == self.labels)), float(1.0 - np.mean(found.wrong)), math.nan, math.nan]
        right = np.flatnonzero(predictions == self.labels)[:RHO_IMAGES]
        if self.rho_attack is not None and len(right):
            small = self.rho_attack(classifier, self.images[right], self.labels[right], self.seed + epoch, **how)
            is_adversarial = small.success >= 0.5
            values[2] = float(is_adversarial.mean())
            if is_adversarial.any():
                values[3] = float(small.l2[is_adversarial].mean())
        return values


class History(keras.callbacks.Callback):
    """One row per epoch: in the progress, as CSV, and for TensorBoard."""

    def __init__(self, folder: pathlib.Path, progress: Progress, schedule: Schedule) -> None:
        super().__init__()
        self.folder, self.progress, self.schedule = folder, progress, schedule
        self.writer = tf.summary.create_file_writer(str(folder / LOGS))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the row."""
        # Means that nothing was added to this epoch (no adversarial part yet) are left out.
        empty = {name for name, mean in self.model.means.items() if not keras.ops.convert_to_numpy(mean.count)}
        row: dict[str, float] = {"epoch": epoch, "learning_rate": self.schedule.now}
        row["seconds"] = self.schedule.seconds
        row |= {name: float(value) for name, value in (logs or {}).items() if name not in empty}
        row |= self.schedule.facts | noise_statistics(self.model.classifier)
        self.progress.history.append(row)
        write_history(self.folder / HISTORY, self.progress.history)
        try:
            with self.writer.as_default(step=epoch):
                for name, value in row.items():
                    if name != "epoch":
                        tf.summary.scalar(name, value)
                for variable in self.model.noise_parameters:
                    tf.summary.histogram(variable.path, variable.value)
            self.writer.flush()
        except tf.errors.OpError as error:
            # How TensorFlow reports a full disk.
            raise OSError(f"{str(self.folder / LOGS)!r} cannot be written: {error.message}") from error


class BestModel(keras.callbacks.Callback):
    """Keeps the model of the best validation accuracy, among the epochs in which the method is whole.

    Args:
      folder: where it goes, by the number of its epoch: the state says which one counts.
      progress: holds the best so far.
      criterion: the log to maximize.
    """

    def __init__(self, folder: pathlib.Path, progress: Progress, criterion: str) -> None:
        super().__init__()
        self.folder, self.progress, self.criterion = folder, progress, criterion

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Saves the classifier where it is the best so far; of equals, the later."""
        value = (logs or {}).get(self.criterion)
        if value is None or not self.model.is_mature(epoch):
            return
        if self.progress.best is None or value >= self.progress.best:
            self.progress.best, self.progress.best_epoch = value, epoch
            save_best(self.model, self.folder, self.progress)


class EarlyStopping(keras.callbacks.Callback):
    """Ends a training that has brought no better model for so many epochs; what is kept of it is the best one.

    Args:
      trainer: knows the epochs that count.
      progress: has the history.
      criterion: the log that the best model maximizes.
      patience: epochs. It ends at the first validation that lies so far behind the best one, of equals the first.
    """

    def __init__(self, trainer: RobustTrainer, progress: Progress, criterion: str, patience: int) -> None:
        super().__init__()
        self.trainer, self.progress, self.criterion, self.patience = trainer, progress, criterion, patience

    @property
    def due(self) -> bool:
        """Whether the epochs that are done are enough: of the history alone, so that a rerun stops where this does."""
        judged = [row for row in self.progress.history if self.criterion in row]
        judged = [row for row in judged if self.trainer.is_mature(int(row["epoch"]))]
        if not judged:
            return False
        best = max(judged, key=lambda row: row[self.criterion])
        return judged[-1]["epoch"] - best["epoch"] >= self.patience

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Stops `fit`; after the state was saved."""
        self.model.stop_training = self.due


class KeepState(keras.callbacks.Callback):
    """Saves the state after every epoch, every so many minutes, and when a signal asks to stop.

    A loss that is not finite stops the training before it is saved: the last good state stays. Several workers save and
    stop after the same batch, which they agree on now and then.
    """

    AGREE_EVERY = 20

    def __init__(
        self, folder: pathlib.Path, progress: Progress, steps_per_epoch: int, minutes: float, devices: Devices
    ) -> None:
        super().__init__()
        self.devices = devices
        self.path, self.progress, self.steps = folder / STATE, progress, steps_per_epoch
        self.minutes, self.first_step = minutes, progress.step
        self.signal: int | None = None
        self.saved = self.begun = time.monotonic()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Within it, SIGINT and SIGTERM are noted instead of acted on, where this is the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts the clock of the epoch."""
        self.progress.epoch, self.begun = epoch, time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Stops on a bad loss or a signal; saves when it is time."""
        done = self.first_step + batch + 1
        if batch % 20 == 0:
            check_finite(self.progress.epoch, logs)
        if done >= self.steps:
            return  # The end of the epoch follows.
        if self.devices.workers > 1 and done % self.AGREE_EVERY:
            return
        if self._agreed(float(time.monotonic() - self.saved > 60 * self.minutes)):
            check_finite(self.progress.epoch, logs)
            spent = self.progress.seconds
            self.progress.step, self.progress.seconds = done, spent + time.monotonic() - self.begun
            self._save()
            self.progress.seconds = spent
            self._leave(f"epoch {self.progress.epoch + 1}, batch {done}")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Saves; the next epoch starts at its first batch."""
        self.progress.epoch, self.progress.step, self.progress.seconds = epoch + 1, 0, 0.0
        self.first_step = 0
        self._save()
        if self.progress.best_epoch == epoch:
            keep_best_state(self.path.parent)
        for older in self.path.parent.glob(best_path(self.path.parent, "*").name):
            if not older.name.startswith(f"{best_path(self.path.parent, self.progress.best_epoch).stem}."):
                older.unlink()
        self._agreed()
        self._leave(f"the end of epoch {epoch + 1}")

    def _agreed(self, due: float = 0.0) -> bool:
        """Whether a worker is asked to stop, of which all then take note, or finds it time to save."""
        asked, due = self.devices.largest([float(self.signal or 0), due])
        if asked:
            self.signal = int(asked)
        return bool(asked or due)

    def _save(self) -> None:
        save_state(self.path, self.model, self.progress)
        self.saved = time.monotonic()

    def _leave(self, where: str) -> None:
        if self.signal is not None:
            if self.devices.workers > 1:
                time.sleep(5.0)  # The others may still be receiving what was agreed on.
            raise Interrupted(self.signal, f"stopped at {where}; run the same command to continue")

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.signal is not None:
            raise KeyboardInterrupt  # Asked twice: at once, with the state as it was last saved.
        self.signal = number


class Bar(keras.callbacks.Callback):
    """Moves a progress bar: one unit a batch."""

    def __init__(self, advance: Callable[..., None]) -> None:
        super().__init__()
        self.advance, self.shown = advance, 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Shows the loss a few times a second, so that a fast device need not wait for it."""
        facts = {}
        if logs and time.monotonic() - self.shown > 0.25:
            self.shown = time.monotonic()
            facts = {"loss": float(logs["loss"])}
        self.advance(1, **facts)


def save_models(trainer: RobustTrainer, path: pathlib.Path) -> list[pathlib.Path]:
    """Saves the classifier, with its averaged weights where they are kept, and what is trained beside it."""
    paths = [path]
    with trainer.averaged_weights():
        save_classifier(trainer.classifier, path)
    for name, network in trainer.auxiliary_models.items():
        paths.append(auxiliary_path(path, name))
        save_classifier(network, paths[-1])
    return paths


def save_best(trainer: RobustTrainer, folder: pathlib.Path, progress: Progress) -> None:
    """Saves the model as that of `progress.best_epoch`, and notes the files' digests."""
    paths = save_models(trainer, best_path(folder, progress.best_epoch))
    progress.best_files = {path.name: digest_file(path) for path in paths}


def best_path(folder: pathlib.Path, epoch: int | str | None) -> pathlib.Path:
    """Where the best model so far lies during the training."""
    return folder / f"best-{epoch}.keras"


def metric_variables(trainer: RobustTrainer) -> list[keras.Variable]:
    """The variables of the running means."""
    return [variable for metric in trainer.metrics for variable in metric.variables]


def check_finite(epoch: int, logs: dict[str, Any] | None) -> None:
    """UserError where the running loss is not finite."""
    loss = float((logs or {}).get("loss", 0.0))
    if not math.isfinite(loss):
        raise UserError(
            f"The loss is {loss} in epoch {epoch + 1}. The last good state is kept; a lower --learning_rate may help."
        )


def write_history(path: pathlib.Path, rows: list[dict[str, float]]) -> None:
    """The rows as CSV; cells without a value stay empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(path, text.getvalue())
