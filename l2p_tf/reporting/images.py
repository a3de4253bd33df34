"""Image by image: what each run made of it, clean and under each attack; the page filters and shows them."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from l2p_tf.data.store import ImageData
from l2p_tf.evaluation.records import CLEAN
from l2p_tf.reporting.examples import Outcome, data_uri
from l2p_tf.reporting.format import plain
from l2p_tf.reporting.sections.classes import Key, Outcomes

FIRST = 20
"""As many of them are in the page without its script."""

# A field takes about ten bytes of the page.
_CELLS = 60_000


@dataclasses.dataclass(frozen=True)
class Answer:
    """What one run made of one image under one attack.

    Attributes:
      prediction: number of the predicted class.
      right: whether it was the right one.
      probability: of the right class, in percent; -1 where it was not recorded.
    """

    prediction: int
    right: bool
    probability: int


@dataclasses.dataclass(frozen=True)
class Example:
    """One image.

    Attributes:
      index: its place in the split.
      label: number of its class.
      source: the image as a data URI; empty where the data is not at hand or there is no room: the hardest have theirs.
      cells: by attack and run; None where it was not measured.
    """

    index: int
    label: int
    source: str
    cells: tuple[tuple[Answer | None, ...], ...]


@dataclasses.dataclass(frozen=True)
class Images:
    """The images of one set, the hardest first: all of them where there is room for their results.

    Attributes:
      title: data set and split.
      runs: names of the runs.
      attacks: names of the attacks, clean first.
      hardest: number of the attack that leaves the least on average; what is shown first.
      classes: names of the classes.
      examples: the images on which the runs differ most, then those that most of them get wrong.
      total: how many images there are.
      differ: on how many of them two runs differ under some attack.
    """

    title: str
    runs: tuple[str, ...]
    attacks: tuple[str, ...]
    hardest: int
    classes: tuple[str, ...]
    examples: tuple[Example, ...]
    total: int
    differ: int

    @property
    def json(self) -> str:
        """All of it for the page's script, safe inside a `script` element."""
        cells = [[[_packed(cell) for cell in row] for row in example.cells] for example in self.examples]
        return escaped_json({
            "runs": self.runs, "attacks": self.attacks, "classes": self.classes, "total": self.total,
            "examples": [
                {"index": example.index, "label": example.label, "source": example.source, "cells": packed}
                for example, packed in zip(self.examples, cells, strict=True)
            ],
        })  # fmt: skip


def escaped_json(value: Any) -> str:
    """JSON in which HTML sees no markup: text of whatever kind cannot end the element that it is in."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def images_of(place: Outcomes, budget: int) -> Images:
    """The images on which the runs differ most.

    Args:
      place: the results.
      budget: bytes that the images may take in the page.

    Raises:
      UserError: the data of the runs is damaged.
    """
    keys = list(place.attacks)
    index = np.unique(np.concatenate([outcome.index for outcome in place.outcomes.values()]))
    right = np.full((len(keys), len(place.runs), len(index)), np.nan)
    for (i, key), outcome in place.outcomes.items():
        right[keys.index(key), i, np.searchsorted(index, outcome.index)] = outcome.correct[0]
    measured = np.maximum((~np.isnan(right)).sum(1), 1)
    share = np.nansum(right, axis=1) / measured
    differs = (share * (1 - share)).sum(0)
    wrong = np.nansum(1 - right, axis=(0, 1))
    limit = max(1, _CELLS // (len(keys) * len(place.runs)))
    order = np.lexsort((index, -wrong, -differs.round(9)))[:limit]
    means = [float(np.nanmean(right[k])) for k in range(len(keys))]
    attacked = [k for k, key in enumerate(keys) if key[0] != CLEAN] or [0]
    return Images(
        place.title,
        tuple(one.name for one in place.runs),
        tuple(plain(name, 60) for name in place.attacks.values()),
        min(attacked, key=lambda k: means[k]),
        tuple(place.class_name(number) for number in range(_classes(place))),
        tuple(_examples(place, keys, index[order].tolist(), budget)),
        len(index),
        int((differs > 0).sum()),
    )


def _examples(place: Outcomes, keys: Sequence[Key], order: Sequence[int], budget: int) -> list[Example]:
    rows = [[_Row.of(place.outcomes.get((i, key))) for i in range(len(place.runs))] for key in keys]
    outcomes = list(place.outcomes.values())
    labels = {int(i): int(c) for outcome in outcomes for i, c in zip(outcome.index, outcome.label, strict=True)}
    images = _images(place)
    found = []
    for index in order:
        room = budget > 0 and images is not None and index < len(images)
        source = data_uri(images[index] / np.float32(255)) if room else ""
        budget -= len(source)
        cells = tuple(tuple(row.cell(index) for row in mine) for mine in rows)
        found.append(Example(index, labels[index], source if budget >= 0 else "", cells))
    return found


def _images(place: Outcomes) -> Any:
    """The images of the split; None where the data of the runs is not at hand, or has no such split."""
    run, (_, dataset, split) = place.runs[0].run, place.runs[0].place
    data = run.data
    known = data is not None and "test_images.npy" in data.manifest.get("outputs", {})
    if not known or data is None or dataset != run.info.get("name") or split not in ("test", "validation"):
        return None
    return ImageData(data).split(split)[0]


@dataclasses.dataclass(frozen=True)
class _Row:
    """One run under one attack, ready to be asked for single images."""

    outcome: Outcome | None
    positions: dict[int, int]

    @classmethod
    def of(cls, outcome: Outcome | None) -> _Row:
        return cls(outcome, {int(i): at for at, i in enumerate(outcome.index)} if outcome else {})

    def cell(self, index: int) -> Answer | None:
        at = self.positions.get(index)
        if self.outcome is None or at is None:
            return None
        known = self.outcome.probability
        probability = -1 if known is None or not np.isfinite(known[at]) else round(100 * float(known[at]))
        return Answer(int(self.outcome.prediction[0, at]), bool(self.outcome.correct[0, at]), probability)


def _packed(cell: Answer | None) -> list[int]:
    return [] if cell is None else [cell.prediction, int(cell.right), cell.probability]


def _classes(place: Outcomes) -> int:
    largest = functools.reduce(max, (int(outcome.prediction.max()) for outcome in place.outcomes.values()), 0)
    return max(place.classes, largest + 1)
