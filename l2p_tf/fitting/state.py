"""All that decides a training's future, as one file: variables, optimizer slots, seeds, position, history, best."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import shutil
from typing import Any

import keras
import msgspec
import numpy as np

from l2p_tf.artifacts import atomic_write
from l2p_tf.files import flush
from l2p_tf.training.base import RobustTrainer
from l2p_tf.types import UserError

STATE = "state.npz"
BEST_STATE = "state-best.npz"
"""The state after the epoch of the best model so far, from which that model can be had again."""
_META = "meta"


class DamagedError(UserError):
    """A state that cannot be read."""


@dataclasses.dataclass
class Progress:
    """Where a training stands.

    Attributes:
      epoch: the epoch in progress, from 0.
      step: batches of that epoch that are done.
      history: one row per finished epoch.
      best: validation accuracy of the best model so far; None before the first.
      best_epoch: its epoch.
      best_files: the files it was saved to, with their digests.
      seconds: time spent on the epoch in progress, before the last stop.
    """

    epoch: int = 0
    step: int = 0
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    best: float | None = None
    best_epoch: int | None = None
    best_files: dict[str, str] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0


def state_variables(trainer: RobustTrainer) -> dict[str, keras.Variable]:
    """Every variable of the trainer, its classifier, seeds, metrics and optimizers, by a name of its own."""
    found = [*trainer.classifier.variables, *trainer.weights, trainer.attack_seed.state]
    for metric in trainer.metrics:
        found += metric.variables
    for optimizer in trainer.optimizers:
        found += optimizer.variables
    unique = {id(variable): variable for variable in found}
    # Without the numbers that Keras gives to the second object of a name in a process.
    return {f"{n:04d}:{re.sub(r'_[0-9]+(?=/)', '', v.path)}": v for n, v in enumerate(unique.values())}


def save_state(path: pathlib.Path, trainer: RobustTrainer, progress: Progress) -> None:
    """Writes the state whole or not at all; the former one stays where that fails."""
    arrays = {name: keras.ops.convert_to_numpy(value) for name, value in state_variables(trainer).items()}
    meta = json.dumps(dataclasses.asdict(progress)).encode()
    arrays[_META] = np.frombuffer(meta, np.uint8)
    atomic_write(path, lambda file: np.savez(file, **arrays))


def keep_best_state(folder: pathlib.Path) -> None:
    """Keeps the state that was saved last as that of the best model."""
    (folder / BEST_STATE).unlink(missing_ok=True)
    try:
        os.link(folder / STATE, folder / BEST_STATE)  # The next state replaces the name, not the file.
    except OSError:
        shutil.copyfile(folder / STATE, folder / BEST_STATE)  # A file system without links.
    flush(folder)


def load_state(path: pathlib.Path, trainer: RobustTrainer) -> Progress:
    """Restores a state into a trainer of the same model, defense and optimizers.

    Raises:
      DamagedError: the file cannot be read; nothing is restored.
      UserError: it is of another model.
    """
    progress, arrays = _read(path)
    variables = state_variables(trainer)
    for name in [*variables, *arrays]:
        wanted = tuple(variables[name].shape) if name in variables else None
        found = arrays[name].shape if name in arrays else None
        if wanted != found:
            raise UserError(
                f"{str(path)!r} is the checkpoint of another model: {name.split(':')[-1]!r} has shape {found} there "
                f"and {wanted} here."
            )
    for name, variable in variables.items():
        variable.assign(arrays[name])
    return progress


def read_progress(path: pathlib.Path) -> Progress:
    """What a state says of itself, after all of it was read.

    Raises:
      DamagedError: the file is not there or cannot be read.
    """
    return _read(path)[0]


def _read(path: pathlib.Path) -> tuple[Progress, dict[str, np.ndarray]]:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays: dict[str, Any] = {name: file[name] for name in file.files}
        meta = json.loads(arrays.pop(_META).tobytes())
        msgspec.convert(meta, Progress)  # For its types: the numbers of the history stay as they were written.
        return Progress(**meta), arrays
    except FileNotFoundError as error:
        raise DamagedError(f"{str(path)!r} is missing.") from error
    # What reads zip files raises anything on damage.
    except Exception as error:
        raise DamagedError(f"{str(path)!r} is damaged: {error}.") from error
