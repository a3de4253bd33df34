"""Which range of pixels a model expects: what its layers tell, and where it is right."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from scipy import stats

from l2p_tf.contract import BEWARE, FITS, MENDED, RANGE, RANGES, Finding

_NEARLY = 0.05
"""The level at which an accuracy is told from another on the same images."""
_CLEARLY = 0.1
"""Share of the way from guessing to knowing all: networks that were not trained may come near it."""


@dataclasses.dataclass(frozen=True)
class Decision:
    """A range, and why.

    Attributes:
      name: the range.
      finding: what speaks for it.
    """

    name: str
    finding: Finding


def decide(
    asked: str, right: Mapping[str, np.ndarray], told: tuple[str, str] | None, chance: float
) -> Decision:  # fmt: skip
    """The range that is asked for, or the one that layers tell, where no other is better, or the best by a test.

    Args:
      asked: `auto`, or a range.
      right: by range, which of some labeled images the model gets right; ranges that it refuses are left out.
      told: what `told_by_layers` found, or another's word for it.
      chance: the accuracy of guessing.
    """
    best = max(right, key=lambda name: right[name].mean()) if right else "0..1"
    # Of those that are not told apart the one that layers tell, then the first.
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


def _better(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether one is right more often than the other on the same images, by a sign test."""
    won, lost = int((one & ~other).sum()), int((other & ~one).sum())
    return won > lost and stats.binomtest(won, won + lost, alternative="greater").pvalue < _NEARLY
