"""Gallery images as data URIs: clean, adversarial, and the scaled difference between the two."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

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
class Gallery:
    """Examples of one attack stage.

    Attributes:
      title: the attacked model.
      heads: for each attack its `label`, its budget as `detail`, and the `factor` of the differences below.
      examples: for each example its `label`, the `clean` picture, and by attack the `adversarial` picture and the
      `difference` as a data URI. A picture has a data URI as `source`, the `prediction`, its `confidence`, and whether
      it is `right`.
      total: number of examples in the stage.
    """

    title: str
    heads: tuple[dict[str, str], ...]
    examples: tuple[dict[str, Any], ...]
    total: int


def galleries(runs: Sequence[Run], budget: int) -> list[Gallery]:
    """Returns the galleries of all runs that have one.

    Args:
      runs: the runs.
      budget: approximate number of bytes for all of them; each shows at least one example.

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
    made = [_gallery(run, evaluation, _read(evaluation), budget // len(places)) for run, evaluation in places]
    return [gallery for gallery in made if gallery.heads and gallery.examples]


def scale_of(difference: np.ndarray) -> float:
    """Returns the factor that scales the largest change to half the range; an integer if above 2."""
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


def _gallery(run: Run, evaluation: Evaluation, arrays: dict[str, np.ndarray], budget: int) -> Gallery:
    factors = [scale_of(change) for change in arrays["adversarial"] - arrays["clean"]]
    names = [str(name) for name in arrays["attacks"]]
    heads = tuple(
        {"label": plain(r.label if r else name), "detail": strength(r) if r else "", "factor": f"{factor:g}"}
        for name, r, factor in zip(names, _attacks(evaluation, names), factors, strict=True)
    )
    examples: list[dict[str, Any]] = []
    for i in range(len(arrays["clean"])):
        example = _example(run, arrays, factors, i)
        budget -= len(json.dumps(example))
        if budget < 0 and examples:
            break
        examples.append(example)
    title = f"{run.name} ({evaluation.detail})" if evaluation.detail else run.name
    return Gallery(title, heads, tuple(examples), len(arrays["clean"]))


def _attacks(evaluation: Evaluation, names: list[str]) -> list[Record | None]:
    """Returns the first record of each gallery attack, identified by label or spec in the order of the records."""
    records: dict[str, Record] = {}
    for record in evaluation.records:
        if record.attack != CLEAN:
            records.setdefault(record.attack, record)
    firsts = list(records.values())
    if len(firsts) == len(names):
        return [r if name in (r.label, r.attack) else None for name, r in zip(names, firsts, strict=True)]
    return [next((r for r in firsts if name in (r.label, r.attack)), None) for name in names]


def _example(run: Run, arrays: dict[str, np.ndarray], factors: list[float], i: int) -> dict[str, Any]:
    label, clean = int(arrays["label"][i]), arrays["clean"][i]

    def picture(image: np.ndarray, prediction: int, confidence: float) -> dict[str, Any]:
        name = class_name(run, int(prediction))
        right = bool(prediction == label)
        return {"source": data_uri(image), "prediction": name, "confidence": f"{100 * confidence:.0f}%", "right": right}

    attacked = [
        {
            "adversarial": picture(image, arrays["prediction"][a, i], arrays["confidence"][a, i]),
            "difference": data_uri(0.5 + factors[a] * (image - clean)),
        }
        for a, image in enumerate(arrays["adversarial"][:, i])
    ]
    own = picture(clean, arrays["clean_prediction"][i], arrays["clean_confidence"][i])
    return {"label": class_name(run, label), "clean": own, "attacked": attacked}
