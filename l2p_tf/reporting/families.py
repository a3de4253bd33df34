"""Attacks that were run at several radii: the same attack but for its epsilon."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from l2p_tf.evaluation.records import Record, Summary
from l2p_tf.registry import parse_spec
from l2p_tf.reporting.arrays import read_arrays, read_those_there
from l2p_tf.reporting.runs import Evaluation
from l2p_tf.reporting.subjects import Measured, Subject
from l2p_tf.reporting.sweeps import ordered
from l2p_tf.types import UserError

LEAST = 3
"""Radii that make a curve."""

# The step size is told apart from no other strength: it goes with the radius.
_VARYING = ("epsilon", "step_size")
Key = tuple[object, ...]


@dataclasses.dataclass(frozen=True)
class Ladder:
    """One attack on one run at several radii.

    Attributes:
      subject: the run.
      steps: the attack at each radius, in their order.
    """

    subject: Subject
    steps: tuple[Measured, ...]

    @property
    def epsilons(self) -> list[float]:
        """The radii."""
        return [_epsilon(one) for one in self.steps]


@dataclasses.dataclass(frozen=True)
class Family:
    """One attack at several radii on each of some runs, on the same images.

    Attributes:
      first: a record of it, for what all have in common.
      ladders: one a run.
    """

    first: Record
    ladders: tuple[Ladder, ...]


@dataclasses.dataclass(frozen=True)
class Effect:
    """What an attack did on average over all images and repeats.

    Attributes:
      norm: mean L2 norm of the perturbations.
      probability: mean softmax probability of the right class; None where that was not recorded.
    """

    norm: float
    probability: float | None


def families(found: Sequence[Subject]) -> list[Family]:
    """The attacks that some run was put to at three radii or more, with those runs."""
    groups: dict[Key, list[Ladder]] = {}
    for subject in found:
        for key, steps in _by_family(subject).items():
            if len(steps) >= LEAST:
                climbed = tuple(steps[epsilon] for epsilon in sorted(steps))
                groups.setdefault((*subject.place[1:], *key), []).append(Ladder(subject, climbed))
    return [Family(ladders[0].steps[0].first, _ordered(ladders)) for ladders in groups.values()]


def family_of(record: Record) -> Key:
    """What an attack shares with itself at another radius: all that it is told but for that."""
    try:
        name, options = parse_spec(record.attack, "attack")
    except UserError:  # Of another version or another maker: a family of its own.
        name, options = record.attack, {}
    told = tuple(sorted((key, repr(value)) for key, value in options.items() if key not in _VARYING))
    return name, told, record.norm, record.steps, record.restarts, record.draws, record.backend


def effect_of(evaluation: Evaluation, summary: Summary) -> Effect:
    """The mean norm and the mean probability of the right class under an attack, or of clean images.

    Args:
      evaluation: where the records come from; it has an artifact.
      summary: the records.

    Raises:
      UserError: their arrays cannot be read.
    """
    norms = [read_arrays(evaluation, record, "l2")["l2"] for record in summary.records]
    found = [read_those_there(evaluation, record, "probability") for record in summary.records]
    probabilities = [arrays["probability"] for arrays in found if arrays]
    return Effect(_mean(norms), _mean(probabilities) if len(probabilities) == len(found) else None)


def _ordered(ladders: Sequence[Ladder]) -> tuple[Ladder, ...]:
    by_subject = {id(ladder.subject): ladder for ladder in ladders}
    return tuple(by_subject[id(subject)] for subject in ordered([ladder.subject for ladder in ladders]))


def _by_family(subject: Subject) -> dict[Key, dict[float, Measured]]:
    """A run's attacks by family and radius; of several with one radius the one that left less."""
    groups: dict[Key, dict[float, Measured]] = {}
    for one in subject.bounded:
        if one.first.epsilon is not None:
            steps = groups.setdefault(family_of(one.first), {})
            kept = steps.setdefault(_epsilon(one), one)
            if one.summary.accuracy < kept.summary.accuracy:
                steps[_epsilon(one)] = one
    return groups


def _epsilon(one: Measured) -> float:
    return float(one.first.epsilon or 0.0)


def _mean(arrays: Sequence[np.ndarray]) -> float:
    return float(np.mean(np.concatenate(arrays), dtype=np.float64))
