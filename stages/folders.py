"""Folders of a run's evaluations."""

from __future__ import annotations

import pathlib

from l2p_tf import artifacts
from stages.settings import Settings


def place(settings: Settings, name: str, stage: str, *parts: str) -> pathlib.Path:
    """Returns the folder of a stage of a run, with a suffix for each deviation from the default.

    Args:
      settings: provides RUN_DIR.
      name: name of the run.
      stage: attack, checks or certify.
      parts: suffixes for backend, checkpoint and data; default and empty ones are omitted.
    """
    return settings.folder / name / "_".join([stage, *(part for part in parts if part not in ("", "l2p_tf", "best"))])


def attack(settings: Settings, name: str, backend: str, checkpoint: str, other: str = "") -> pathlib.Path:
    """Returns the folder of attacks on a run: a separate one if attacks on another number of images are finished."""
    usual = place(settings, name, "attack", backend, checkpoint, other)
    limit = settings.evaluation.limit
    if settings.overwrite or not (usual / artifacts.MANIFEST).is_file():
        return usual
    if artifacts.read(usual, "attack", verify=False).options["limit"] == limit:
        return usual
    return place(settings, name, "attack", backend, checkpoint, other, f"{limit or 'all'}_images")


def attacks(settings: Settings, name: str, other: str = "") -> list[pathlib.Path]:
    """Returns the attack folders of a run; `other` names data that differ from the training data."""
    return [
        attack(settings, name, backend, checkpoint, other)
        for backend in settings.backends
        for checkpoint in settings.checkpoints
    ]


def checks(settings: Settings, name: str, other: str = "") -> list[pathlib.Path]:
    """Returns the checks folders of a run for --checkpoint; empty without checks."""
    places = [place(settings, name, "checks", checkpoint, other) for checkpoint in settings.checkpoints]
    return places if settings.masking_checks else []
