"""Where a training goes on: at the newest state that is whole, with the best model so far as it was saved."""

from __future__ import annotations

import pathlib
import warnings

import keras

from l2p_tf.artifacts import Artifact, Work, digest_file
from l2p_tf.fitting.callbacks import HISTORY, best_path, save_best
from l2p_tf.fitting.extend import copy_best, copy_finished
from l2p_tf.fitting.state import (
    BEST_STATE,
    STATE,
    DamagedError,
    Progress,
    keep_best_state,
    load_state,
    state_variables,
)
from l2p_tf.training.base import RobustTrainer
from l2p_tf.types import UserError


def resume(work: Work, trainer: RobustTrainer, finished: Artifact | None = None) -> Progress:
    """Restores a training into its trainer, and its best model where that is damaged; warns of what was lost.

    Args:
      work: the unfinished training; emptied where nothing of it is whole.
      trainer: as it was built.
      finished: a shorter training that this one continues, which then is its beginning; None for none.

    Returns:
      Where the training stands: at its beginning where there is nothing to continue.

    Raises:
      UserError: a state is of another model.
    """
    folder, lost = work.path, []
    # History and best model are written before the first state.
    if not any((folder / name).exists() for name in (STATE, BEST_STATE, HISTORY)) and not best_files(folder):
        return _beginning(work, trainer, finished)
    start = [(variable, keras.ops.convert_to_numpy(variable)) for variable in state_variables(trainer).values()]
    for name in (STATE, BEST_STATE):
        try:
            progress = load_state(folder / name, trainer)
            if not best_is_whole(folder, progress):
                lost.append(_damaged_best(folder, progress))
                _save_best_again(folder, trainer, progress, finished)
                files = progress.best_files
                progress = load_state(folder / name, trainer)
                progress.best_files = files
        except DamagedError as error:
            lost.append(str(error))
            continue
        if name == STATE and _is_after_best(progress):
            keep_best_state(folder)  # A kill may have come between the two.
        if lost:
            where = f"after epoch {progress.epoch}" + (f", batch {progress.step}" if progress.step else "")
            warnings.warn(f"{' '.join(lost)} The training goes on {where}.", UserWarning, stacklevel=2)
        return progress
    where = f"where {str(finished.path)!r} ends" if finished else "at the first epoch"
    warnings.warn(f"{' '.join(lost)} The training starts again {where}.", UserWarning, stacklevel=2)
    for variable, value in start:
        variable.assign(value)
    work.clear()
    return _beginning(work, trainer, finished)


def check_best(
    folder: pathlib.Path, trainer: RobustTrainer, progress: Progress, finished: Artifact | None = None
) -> None:
    """Sees, at the end of a training, that the best model is as it was saved.

    Where it is not, it is saved again from the state after its epoch, which the trainer has then.

    Raises:
      UserError: that state is damaged too.
    """
    if best_is_whole(folder, progress):
        return
    damaged = _damaged_best(folder, progress)
    try:
        _save_best_again(folder, trainer, progress, finished)
    except DamagedError as error:
        raise UserError(f"{damaged} {error} Run the same command again to train what is lost.") from error
    warnings.warn(f"{damaged} It was saved again from the state after its epoch.", UserWarning, stacklevel=2)


def best_is_whole(folder: pathlib.Path, progress: Progress) -> bool:
    """Whether the files of the best model so far, if there is one, are those that were saved."""
    files = {folder / name: digest for name, digest in progress.best_files.items()}
    saved = bool(files) == (progress.best_epoch is not None)
    return saved and all(file.is_file() and digest_file(file) == digest for file, digest in files.items())


def best_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Every model that was the best so far at some time and lies there still."""
    return sorted(folder.glob(best_path(folder, "*").name))


def _beginning(work: Work, trainer: RobustTrainer, finished: Artifact | None) -> Progress:
    if finished is None:
        return Progress()
    copy_finished(finished, work.path)
    return load_state(work.path / STATE, trainer)


def _save_best_again(
    folder: pathlib.Path, trainer: RobustTrainer, progress: Progress, finished: Artifact | None
) -> None:
    """From the finished training, or from the state after its epoch, which the trainer has then; else DamagedError."""
    if finished and copy_best(finished, folder, progress) and best_is_whole(folder, progress):
        return
    if not _is_after_best(progress) and load_state(folder / BEST_STATE, trainer).best_epoch != progress.best_epoch:
        raise DamagedError(f"{str(folder / BEST_STATE)!r} is of another epoch.")
    save_best(trainer, folder, progress)


def _is_after_best(progress: Progress) -> bool:
    return progress.best_epoch is not None and (progress.epoch, progress.step) == (progress.best_epoch + 1, 0)


def _damaged_best(folder: pathlib.Path, progress: Progress) -> str:
    return f"{str(best_path(folder, progress.best_epoch))!r} is missing or damaged."
