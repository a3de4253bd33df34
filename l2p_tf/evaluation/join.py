"""Adds attacks to a finished attack stage: existing results are kept, and only missing attacks are run."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from l2p_tf import artifacts
from l2p_tf.artifacts import Artifact
from l2p_tf.environment import user_path
from l2p_tf.evaluation.records import CLEAN, GALLERY, images_of, read_records, write_records
from l2p_tf.manifest import difference
from l2p_tf.types import UserError

ADDED = "added"
"""Subfolder of the unfinished work for the new attacks."""
_BY_ATTACK = ("attacks", "attacks_options", "backends")
_GALLERY_BY_ATTACK = ("attacks", "adversarial", "prediction", "confidence")


@dataclasses.dataclass(frozen=True)
class Joining:
    """A finished attack stage and the attacks it lacks.

    Attributes:
      finished: the stage.
      missing: positions of the requested attacks that it lacks.
      request: its options with those attacks appended.
      inputs: its inputs and those of the attacks, by role.
    """

    finished: Artifact
    missing: tuple[int, ...]
    request: dict[str, Any]
    inputs: dict[str, Artifact]


def joining(
    output: str | os.PathLike[str], request: Mapping[str, Any], inputs: Mapping[str, Artifact]
) -> Joining | None:
    """Determines which attacks to add to a finished stage.

    Args:
      output: folder of the stage.
      request: the requested options.
      inputs: input artifacts by role.

    Returns:
      None if nothing is finished, or if it has exactly the requested attacks.

    Raises:
      UserError: other options differ, the stage is damaged, or another of its inputs has changed or is missing.
    """
    path = user_path(output)
    if not (path / artifacts.MANIFEST).is_file():
        return None
    finished = artifacts.read(path, "attack")
    request = json.loads(json.dumps(request))
    known, wanted = _attacks(finished.options), _attacks(request)
    recorded = finished.manifest["inputs"]
    if known == wanted:
        return None
    used = {role: artifact.fingerprint for role, artifact in inputs.items() if role in recorded}
    same = all(recorded[role] == fingerprint for role, fingerprint in used.items())
    if not same or _shared(finished.options) != _shared(request):
        wanted_request = {"options": _shared(request), "inputs": used}
        existing = {"options": _shared(finished.options), "inputs": recorded}
        raise UserError(
            f"{str(path)!r} was made with {difference(existing, wanted_request)}, so further attacks cannot join it. "
            "Pass --overwrite to replace it."
        )
    missing = tuple(i for i, attack in enumerate(wanted) if attack not in known)
    columns = zip(*known, *(wanted[i] for i in missing), strict=True)
    joined = {**finished.options, **dict(zip(_BY_ATTACK, map(list, columns), strict=True))}
    others = {role: _input(finished, role) for role in recorded if role not in inputs}
    return Joining(finished, missing, joined, {**others, **inputs})


def merge(finished: Artifact, added: pathlib.Path, folder: pathlib.Path) -> None:
    """Merges records, arrays and images of a finished stage and of further attacks into one folder.

    Args:
      finished: the stage.
      added: evaluation of the further attacks on the same images; the clean records of the stage are kept.
      folder: destination.
    """
    for name in finished.manifest["outputs"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(finished.path / name, folder / name)
    records = read_records(finished.path)
    last = max(int(pathlib.PurePosixPath(record.arrays).stem.split("-")[0]) for record in records)
    for record in read_records(added):
        if record.attack != CLEAN:
            number, repeat = pathlib.PurePosixPath(record.arrays).stem.split("-")
            arrays = f"arrays/{last + int(number):02d}-{repeat}.npz"
            shutil.copyfile(added / record.arrays, folder / arrays)
            if (images := added / images_of(record)).is_file():
                shutil.copyfile(images, folder / images_of(dataclasses.replace(record, arrays=arrays)))
            records.append(dataclasses.replace(record, arrays=arrays))
    with np.load(finished.path / GALLERY) as old, np.load(added / GALLERY) as new:
        pictures = {key: old[key] for key in old.files}
        pictures |= {key: np.concatenate([old[key], new[key]]) for key in _GALLERY_BY_ATTACK}
    artifacts.atomic_write(folder / GALLERY, lambda file: np.savez_compressed(file, **pictures))
    write_records(folder, records)


def _attacks(options: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    return list(zip(*(options[key] for key in _BY_ATTACK), strict=True))


def _shared(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key not in _BY_ATTACK}


def _input(finished: Artifact, role: str) -> Artifact:
    artifact = artifacts.read(finished.manifest["lineage"][role]["path"], verify=False)
    if artifact.fingerprint != finished.manifest["inputs"][role]:
        raise UserError(
            f"{str(artifact.path)!r} has changed since the attacks in {str(finished.path)!r} were made from it. "
            "Pass --overwrite to make them anew."
        )
    return artifact
