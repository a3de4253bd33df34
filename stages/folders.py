"""Where the evaluations of a run go."""

from __future__ import annotations

import pathlib

from l2p_tf import artifacts
from stages.settings import Settings


def place(settings: Settings, name: str, stage: str, *parts: str) -> pathlib.Path:
    """The folder of a stage of a run, named by what sets it apart from its usual one.

    Args:
      settings: with RUN_DIR.
      name: of the run.
      stage: attack, checks or certify.
      parts: of the folder's name: backend, checkpoint and data; what is usual, or empty, is left out.
    """
    return settings.folder / name / "_".join([stage, *(part for part in parts if part not in ("", "l2p_tf", "best"))])


def attack(settings: Settings, name: str, backend: str, checkpoint: str, other: str = "") -> pathlib.Path:
    """Where attacks on a run go; beside what is finished there on another number of images, which stays."""
    usual = place(settings, name, "attack", backend, checkpoint, other)
    limit = settings.evaluation.limit
    if settings.overwrite or not (usual / artifacts.MANIFEST).is_file():
        return usual
    if artifacts.read(usual, "attack", verify=False).options["limit"] == limit:
        return usual
    return place(settings, name, "attack", backend, checkpoint, other, f"{limit or 'all'}_images")


def attacks(settings: Settings, name: str, other: str = "") -> list[pathlib.Path]:
    """What --backend and --checkpoint make of a run, with `other` on other data than it was trained on."""
    return [
        attack(settings, name, backend, checkpoint, other)
        for backend in settings.backends
        for checkpoint in settings.checkpoints
    ]


def checks(settings: Settings, name: str, other: str = "") -> list[pathlib.Path]:
    """What --checks and --checkpoint make of a run; nothing without checks."""
    every = [place(settings, name, "checks", checkpoint, other) for checkpoint in settings.checkpoints]
    return every if settings.masking_checks else []
