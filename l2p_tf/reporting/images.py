"""Results per image for each run, clean and under each attack, which the page can filter and show."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np

from l2p_tf.data.store import ImageData, at_hand
from l2p_tf.evaluation.records import CLEAN
from l2p_tf.reporting.examples import data_uri
from l2p_tf.reporting.format import plain
from l2p_tf.reporting.sections.classes import Outcomes

FIRST = 20
"""Number of images in the page without its script."""

# A table cell takes about ten bytes of the page.
_CELLS = 60_000


@dataclasses.dataclass(frozen=True)
class Images:
    """Images of one set, the hardest first; all of them if there is room for their results.

    Attributes:
      title: data set and split.
      runs: names of the runs.
      attacks: names of the attacks, clean first.
      hardest: index of the attack with the lowest mean accuracy, which is shown first.
      classes: names of the classes.
      examples: images on which the runs differ most, then those that most runs get wrong. Each has its `index` in the
      split, its class number as `label`, the image as a data URI in `source` (empty if the data are not available or
      there is no room), and `cells`: by attack and run the predicted class, 1 for correct or 0 for wrong, and the
      probability of the correct class in percent, -1 if not recorded; empty if not measured.
      total: number of images.
      differ: number of images on which two runs differ under some attack.
    """

    title: str
    runs: tuple[str, ...]
    attacks: tuple[str, ...]
    hardest: int
    classes: tuple[str, ...]
    examples: tuple[dict[str, Any], ...]
    total: int
    differ: int

    @property
    def json(self) -> str:
        """Data for the page's script, safe inside a `script` element."""
        return escaped_json({
            "runs": self.runs, "attacks": self.attacks, "classes": self.classes, "total": self.total,
            "examples": self.examples,
        })  # fmt: skip


def escaped_json(value: Any) -> str:
    """Encodes JSON without HTML markup, so that no text can end the enclosing element."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def images_of(place: Outcomes, budget: int) -> Images:
    """Returns the images on which the runs differ most.

    Args:
      place: the results.
      budget: maximum bytes of the images in the page.

    Raises:
      UserError: the data of the runs are damaged.
    """
    keys, outcomes = list(place.attacks), place.outcomes.values()
    index = np.unique(np.concatenate([outcome.index for outcome in outcomes]))
    labels = np.zeros(len(index), int)
    # By attack, run and image: prediction, correctness, probability; correctness is -1 if not measured.
    answers = np.full((len(keys), len(place.runs), len(index), 3), -1)
    for (run, key), outcome in place.outcomes.items():
        at = np.searchsorted(index, outcome.index)
        labels[at] = outcome.label
        answers[keys.index(key), run, at, 0] = outcome.prediction[0]
        answers[keys.index(key), run, at, 1] = outcome.correct[0]
        if outcome.probability is not None:
            percents = np.round(100 * outcome.probability.astype(np.float64))
            answers[keys.index(key), run, at, 2] = np.where(np.isfinite(percents), percents, -1)
    right = np.where(answers[..., 1] < 0, np.nan, answers[..., 1])
    share = np.nansum(right, axis=1) / np.maximum((~np.isnan(right)).sum(1), 1)
    differs = (share * (1 - share)).sum(0)
    wrong = np.nansum(1 - right, axis=(0, 1))
    limit = max(1, _CELLS // (len(keys) * len(place.runs)))
    order = np.lexsort((index, -wrong, -differs.round(9)))[:limit]
    attacked = [k for k, key in enumerate(keys) if key[0] != CLEAN] or [0]
    classes = max(place.classes, 1 + max(int(outcome.prediction.max()) for outcome in outcomes))
    sources = _sources(place, index[order].tolist(), budget)
    return Images(
        place.title,
        tuple(member.name for member in place.runs),
        tuple(plain(name, 60) for name in place.attacks.values()),
        min(attacked, key=lambda k: float(np.nanmean(right[k]))),
        tuple(place.class_name(number) for number in range(classes)),
        tuple(
            {
                "index": int(index[i]), "label": int(labels[i]), "source": source,
                "cells": [[cell if cell[1] >= 0 else [] for cell in row] for row in answers[:, :, i].tolist()],
            }
            for i, source in zip(order, sources, strict=True)
        ),
        len(index),
        int((differs > 0).sum()),
    )  # fmt: skip


def _sources(place: Outcomes, order: list[int], budget: int) -> list[str]:
    """Returns images of the split as data URIs; empty if the data are not available, or the budget is used up."""
    run, (_, dataset, split) = place.runs[0].run, place.runs[0].place
    data = run.data_of(dataset)
    if data is None or not at_hand(data) or split not in ("test", "validation"):
        return [""] * len(order)
    images = ImageData(data).split(split)[0]
    sources = []
    for index in order:
        source = data_uri(images[index] / np.float32(255)) if budget > 0 and index < len(images) else ""
        budget -= len(source)
        sources.append(source if budget >= 0 else "")
    return sources
