"""More epochs for a finished training: whether they can follow on those it has, and what they start from."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

from l2p_tf import artifacts, schema
from l2p_tf.artifacts import Artifact
from l2p_tf.environment import user_path
from l2p_tf.files import replacing
from l2p_tf.fitting.callbacks import BEST, HISTORY, best_path
from l2p_tf.fitting.state import STATE, DamagedError, Progress, read_progress
from l2p_tf.types import UserError

_VARIED = ("epochs", "drops")
"""The options in which a longer training may differ."""


@dataclasses.dataclass(frozen=True)
class _Schedule:
    """The options that decide whether a training can go on."""

    epochs: schema.Positive
    drops: tuple[int, ...]
    validate_every: schema.Positive


def extended(
    output: str | os.PathLike[str], request: Mapping[str, Any], inputs: Mapping[str, Artifact]
) -> Artifact | None:
    """The finished training that a longer one continues.

    Args:
      output: the folder of the training.
      request: the options that are wanted.
      inputs: what it is made from, by role.

    Returns:
      None where nothing is finished, it is just what is wanted, or more than its length differs.

    Raises:
      UserError: what is finished is damaged, or only its length differs, but `check_extends` refuses it.
    """
    path = user_path(output)
    if not (path / artifacts.MANIFEST).is_file():
        return None
    finished = artifacts.read(path, "train")
    same = finished.manifest["inputs"] == {role: one.fingerprint for role, one in inputs.items()}
    return finished if same and check_extends(finished, request) else None


def check_extends(finished: Artifact, request: Mapping[str, Any]) -> bool:
    """Whether a training is a finished one with more epochs, and perhaps drops of the rate in those.

    Args:
      finished: the training that there is.
      request: the options of the other.

    Raises:
      UserError: it is, but would have done the epochs of the finished one in another way, or no state is kept of it.
    """
    request = json.loads(json.dumps(request))
    try:
        known, wanted = (schema.as_type(dict(one), _Schedule) for one in (finished.options, request))
    except ValueError:
        return False  # Made from another run, or by another version.
    same = all(finished.options.get(key) == value for key, value in request.items() if key not in _VARIED)
    shared_drops = tuple(drop for drop in wanted.drops if drop < known.epochs)
    if not same or wanted.epochs <= known.epochs or shared_drops != known.drops:
        return False
    why = ""
    done = finished.manifest["notes"].get("epochs", known.epochs)
    if done < known.epochs:
        why = f"early stopping ended it after {done}, as it would a longer one"
    elif known.epochs % known.validate_every:
        why = (
            f"it was validated after its last epoch, where a longer one is not: {known.epochs} is no multiple of "
            f"`validate_every`, {known.validate_every}"
        )
    elif finished.options.get("schedule", "drops") != "drops":
        why = f"its learning rate ({finished.options['schedule']}) was set for so many"
    elif STATE not in finished.manifest["outputs"]:
        why = f"it holds no {STATE} to go on from"
    if why:
        raise UserError(
            f"{str(finished.path)!r} has {known.epochs} epochs and cannot go on to {wanted.epochs}: {why}. "
            "Pass --overwrite to train anew."
        )
    return True


def copy_finished(finished: Artifact, folder: pathlib.Path) -> None:
    """Puts what a finished training goes on from into the folder of unfinished work.

    Raises:
      UserError: the state it kept is not that of its end.
    """
    progress = _progress(finished)
    copy_best(finished, folder, progress)
    for name in finished.manifest["outputs"]:
        if "/" in name or name == HISTORY:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            _copy(finished.path / name, folder / name)
    _copy(finished.path / STATE, folder / STATE)  # Last: with it the copy is whole.


def copy_best(finished: Artifact, folder: pathlib.Path, progress: Progress) -> bool:
    """Puts the best model of a finished training where it lay while it was trained.

    Args:
      finished: the training.
      folder: of the unfinished work that continues it.
      progress: of that work.

    Returns:
      Whether its best model so far is that of the finished training.
    """
    if progress.best_epoch is None or progress.best_epoch >= finished.options["epochs"]:
        return False
    for name in finished.manifest["outputs"]:
        if name.split(".")[0] == pathlib.PurePath(BEST).stem:
            suffix = name.removeprefix(pathlib.PurePath(BEST).stem)
            _copy(finished.path / name, folder / f"{best_path(folder, progress.best_epoch).stem}{suffix}")
    return True


def _progress(finished: Artifact) -> Progress:
    try:
        progress = read_progress(finished.path / STATE)
    except DamagedError as error:
        raise UserError(f"{error} Pass --overwrite to train anew.") from error
    if (progress.epoch, progress.step) != (finished.options["epochs"], 0):
        raise UserError(
            f"{str(finished.path / STATE)!r} should be the state after epoch {finished.options['epochs']}. It is that "
            f"of epoch {progress.epoch}, batch {progress.step}. Pass --overwrite to train anew."
        )
    return progress


def _copy(file: pathlib.Path, to: pathlib.Path) -> None:
    with replacing(to) as temporary:
        shutil.copyfile(file, temporary)
