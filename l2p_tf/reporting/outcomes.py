"""What became of each image: the per-example results of all runs on one set of images, side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from l2p_tf.evaluation.records import CLEAN, MOST_CLASSES, Record
from l2p_tf.reporting.arrays import read_those_there
from l2p_tf.reporting.gallery import class_name
from l2p_tf.reporting.runs import Run
from l2p_tf.reporting.subjects import Measured, Subject, by_place, subjects
from l2p_tf.reporting.text import attack_names, minimal
from l2p_tf.types import UserError

_NEEDED = ("index", "label", "correct", "prediction")
Key = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One run under one attack, or clean, image by image.

    Attributes:
      measured: the records.
      index: places of the images in the split, (n,).
      label: their classes, (n,).
      correct: whether each was classified correctly, in each repeat, bool (repeats, n).
      prediction: as which class, int (repeats, n).
      probability: of the right class, in the first repeat, (n,); None where it was not recorded.
    """

    measured: Measured
    index: np.ndarray
    label: np.ndarray
    correct: np.ndarray
    prediction: np.ndarray
    probability: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """Every run on one set of images.

    Attributes:
      subjects: the runs.
      attacks: clean first, then the attacks that keep to a given size, by spec and backend, with their names.
      found: the outcomes, by number of the run and attack.
      classes: number of classes met.
    """

    subjects: tuple[Subject, ...]
    attacks: dict[Key, str]
    found: dict[tuple[int, Key], Outcome]
    classes: int

    @property
    def title(self) -> str:
        """Data set and split, and the weights where they are not the best ones."""
        return self.subjects[0].title

    def class_name(self, number: int) -> str:
        """What the data calls a class; only classes that are there have names."""
        return class_name(self.subjects[0].run, number)


def outcomes(runs: Sequence[Run]) -> list[Outcomes]:
    """The per-example results by weights, data set and split; runs without them are left out.

    Raises:
      UserError: arrays cannot be read.
    """
    places = []
    for mine in by_place(subjects(runs)).values():
        firsts: dict[Key, Record] = {}
        kept: list[tuple[Subject, dict[Key, Outcome]]] = []
        for subject in mine:
            by_attack = {one.key: outcome for one in subject.measured if (outcome := _outcome(subject.run, one))}
            if by_attack:
                kept.append((subject, by_attack))
                for key, outcome in by_attack.items():
                    firsts.setdefault(key, outcome.measured.first)
        if not kept:
            continue
        keys = sorted(firsts, key=lambda key: key[0] != CLEAN)
        names = dict(zip(keys, attack_names([firsts[key] for key in keys]), strict=True))
        found = {(i, key): one for i, (_, by_attack) in enumerate(kept) for key, one in by_attack.items()}
        classes = 1 + max(int(one.label.max()) for one in found.values())
        places.append(Outcomes(tuple(subject for subject, _ in kept), names, found, classes))
    return places


def missing(runs: Sequence[Run], found: Sequence[Outcomes]) -> list[str]:
    """Names of the runs that were judged on examples of their own, but whose per-example results were not kept."""
    there = {id(subject.run) for place in found for subject in place.subjects}
    judged = {id(one.run): one.run.name for one in subjects(runs)}
    return [name for key, name in judged.items() if key not in there]


def _outcome(run: Run, one: Measured) -> Outcome | None:
    """None for attacks of smallest norm, which leave nothing right, and where the arrays were not kept."""
    artifact, first = one.evaluation.artifact, one.first
    outputs = artifact.manifest.get("outputs", {}) if artifact else {}
    if minimal(first) or not all(record.arrays in outputs for record in one.summary.records):
        return None
    arrays = [read_those_there(one.evaluation, record, *_NEEDED, "probability") for record in one.summary.records]
    if any(name not in part for part in arrays for name in _NEEDED) or not len(arrays[0]["label"]):
        return None
    known = run.info.get("name") == first.dataset
    classes = run.info.get("num_classes", MOST_CLASSES) if known else MOST_CLASSES
    if max(int(part[name].max()) for part in arrays for name in ("label", "prediction")) >= classes:
        raise UserError(f"The arrays of {run.name!r} should hold labels below {classes}, as its data has them.")
    return Outcome(
        one,
        arrays[0]["index"],
        arrays[0]["label"],
        np.stack([part["correct"].astype(bool) for part in arrays]),
        np.stack([part["prediction"] for part in arrays]),
        arrays[0].get("probability"),
    )
