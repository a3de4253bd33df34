"""Images of a gallery as data URIs: clean, adversarial, and the scaled difference between the two."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from l2p_tf.evaluation.records import CLEAN, GALLERY, MOST_CLASSES, Record
from l2p_tf.reporting.examples import class_name, data_uri
from l2p_tf.reporting.format import plain, strength
from l2p_tf.reporting.load import Evaluation, Run
from l2p_tf.schema import Column, read_arrays
from l2p_tf.types import UserError

_COLUMNS = {
    "clean": Column("f", 0, 1, rank=4), "label": Column("iu", 0, MOST_CLASSES - 1),
    "clean_prediction": Column("iu", -1, MOST_CLASSES - 1), "clean_confidence": Column("f", 0, 1, unknown=True),
    "attacks": Column("U"), "adversarial": Column("f", 0, 1, rank=5),
    "prediction": Column("iu", -1, MOST_CLASSES - 1, rank=2), "confidence": Column("f", 0, 1, unknown=True, rank=2),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Picture:
    """One image and what the model made of it."""

    source: str
    prediction: str
    confidence: str
    right: bool


@dataclasses.dataclass(frozen=True)
class Attacked:
    """One example under one attack: the adversarial image and the source of the scaled difference."""

    picture: Picture
    difference: str


@dataclasses.dataclass(frozen=True)
class Example:
    """One example: its label, the clean image and what each attack made of it."""

    label: str
    clean: Picture
    attacked: tuple[Attacked, ...]


@dataclasses.dataclass(frozen=True)
class Head:
    """Head of an attack's column: its name, what it was allowed, and the factor of the differences below."""

    label: str
    detail: str
    factor: str


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Examples of one attack stage.

    Attributes:
      title: which model was attacked.
      heads: the attacks.
      examples: those shown.
      total: how many the stage kept.
    """

    title: str
    heads: tuple[Head, ...]
    examples: tuple[Example, ...]
    total: int


def galleries(runs: Sequence[Run], budget: int) -> list[Gallery]:
    """The galleries of all runs that have one.

    Args:
      runs: the runs.
      budget: bytes that all of them may take in the page, about; each shows one example at least.

    Raises:
      UserError: a gallery is damaged.
    """
    places = [
        (run, evaluation)
        for run in runs
        for evaluation in run.evaluations
        if evaluation.artifact and evaluation.artifact.stage == "attack"
        if (evaluation.artifact.path / GALLERY).is_file()
    ]
    return [
        shown
        for run, evaluation in places
        if (shown := _gallery(run, evaluation, _read(evaluation), budget // len(places)))
    ]


def scale_of(difference: np.ndarray) -> float:
    """The factor that brings the largest change of an attack to half the range: whole where it is above 2."""
    largest = float(np.max(np.abs(difference), initial=0.0))
    if not math.isfinite(largest) or largest == 0:
        return 1.0
    factor = 0.5 / largest + 1e-4
    return float(math.floor(factor)) if factor >= 2 else math.floor(100 * factor) / 100


def _read(evaluation: Evaluation) -> dict[str, np.ndarray]:
    assert evaluation.artifact is not None
    path = evaluation.artifact.path / GALLERY
    expected = "hold the gallery of an attack stage"
    arrays = read_arrays(path, _COLUMNS, expected)
    shapes = {key: array.shape for key, array in arrays.items()}
    images, attacks = shapes["clean"], shapes["attacks"]
    for key, column in _COLUMNS.items():
        wanted = attacks if key == "attacks" else (*(attacks if column.rank in (2, 5) else ()), *images)
        if shapes[key] != wanted[: column.rank] or images[-1] not in (1, 3) or 0 in images[1:]:
            raise UserError(f"{str(path)!r} should {expected}: `{key}` has shape {shapes[key]}")
    return arrays


def _gallery(run: Run, evaluation: Evaluation, arrays: dict[str, np.ndarray], budget: int) -> Gallery | None:
    difference = arrays["adversarial"] - arrays["clean"]
    factors = [scale_of(change) for change in difference]
    records = _attacks(evaluation, [str(name) for name in arrays["attacks"]])
    heads = [
        Head(plain(record.label if record else name), strength(record) if record else "", f"{factor:g}")
        for name, record, factor in zip(arrays["attacks"], records, factors, strict=True)
    ]
    examples: list[Example] = []
    spent = 0
    for i in range(len(arrays["clean"])):
        example = _example(run, arrays, difference, factors, i)
        spent += _size(example)
        if spent > budget and examples:
            break
        examples.append(example)
    if not examples or not heads:
        return None
    title = f"{run.name} ({evaluation.detail})" if evaluation.detail else run.name
    return Gallery(title, tuple(heads), tuple(examples), len(arrays["clean"]))


def _attacks(evaluation: Evaluation, names: list[str]) -> list[Record | None]:
    """The first record of each attack of a gallery, which names them by label or spec in the order of the records."""
    found: dict[str, Record] = {}
    for record in evaluation.records:
        if record.attack != CLEAN:
            found.setdefault(record.attack, record)
    firsts = list(found.values())
    if len(firsts) == len(names):
        return [r if name in (r.label, r.attack) else None for name, r in zip(names, firsts, strict=True)]
    return [next((r for r in firsts if name in (r.label, r.attack)), None) for name in names]


def _example(run: Run, arrays: dict[str, np.ndarray], difference: np.ndarray, factors: list[float], i: int) -> Example:
    label = int(arrays["label"][i])

    def picture(image: np.ndarray, prediction: np.ndarray, confidence: np.ndarray) -> Picture:
        right = int(prediction) == label
        return Picture(data_uri(image), class_name(run, int(prediction)), f"{100 * float(confidence):.0f}%", right)

    attacked = tuple(
        Attacked(
            picture(arrays["adversarial"][a, i], arrays["prediction"][a, i], arrays["confidence"][a, i]),
            data_uri(0.5 + factor * difference[a, i]),
        )
        for a, factor in enumerate(factors)
    )
    clean = picture(arrays["clean"][i], arrays["clean_prediction"][i], arrays["clean_confidence"][i])
    return Example(class_name(run, label), clean, attacked)


def _size(example: Example) -> int:
    images = [example.clean.source]
    for attacked in example.attacked:
        images += [attacked.picture.source, attacked.difference]
    return sum(map(len, images))
