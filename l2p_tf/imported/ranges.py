"""Determines the pixel range a model expects, from its layers and from its accuracy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from scipy import stats

from l2p_tf.contract import BEWARE, FITS, MENDED, RANGE, RANGES, Finding

_NEARLY = 0.05
"""Significance level for comparing accuracies on the same images."""
_CLEARLY = 0.1
"""Required share of the way from chance to perfect accuracy; untrained networks may come close to it."""


@dataclasses.dataclass(frozen=True)
class Decision:
    """A pixel range, and the reason.

    Attributes:
      name: the range.
      finding: evidence for it.
    """

    name: str
    finding: Finding


def decide(
    asked: str, right: Mapping[str, np.ndarray], told: tuple[str, str] | None, chance: float
) -> Decision:  # fmt: skip
    """Returns the requested range; or the one the layers imply, if no other is more accurate; or the most accurate.

    Args:
      asked: `auto`, or a range.
      right: by range, which labeled images the model classifies correctly; ranges that it rejects are missing.
      told: result of `told_by_layers`, or another documented range.
      chance: accuracy of guessing.
    """
    best = max(right, key=lambda name: right[name].mean()) if right else "0..1"
    # Among ranges that do not differ significantly, prefer the one the layers imply, then the first.
    likely = [name for name in RANGES if name in right and not _better(right[best], right[name])] or [best]
    name = asked if asked != "auto" else told[0] if told and told[0] in likely else likely[0]
    shares = ", ".join(f"{100 * hits.mean():.1f}% in {other}" for other, hits in right.items())
    count = len(next(iter(right.values()))) if right else 0
    text = f"The model takes pixels in {name}"
    text += (
        ", as --input_range says." if asked != "auto" else f", as {told[1]} tells." if told and told[0] == name else "."
    )
    text += f" It is right on {shares}, of {count} images." if right else " It answers in no range that was tried."
    hits = right.get(name)
    doubts = [other for other in right if other != name and hits is not None and not _better(hits, right[other])]
    verdict = FITS if name == "0..1" else MENDED
    if hits is None or hits.mean() < chance + _CLEARLY * (1 - chance):
        verdict, text = BEWARE, f"{text} That is hardly better than chance, and does not tell the range."
    elif asked == "auto" and doubts and not (told and told[0] == name):
        verdict, text = BEWARE, f"{text} They do not tell {name} from {', '.join(doubts)}; --input_range says it."
    return Decision(name, Finding(RANGE, verdict, text))


def _better(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether one is correct more often than the other on the same images, by a sign test."""
    won, lost = int((first & ~second).sum()), int((second & ~first).sum())
    return won > lost and stats.binomtest(won, won + lost, alternative="greater").pvalue < _NEARLY
