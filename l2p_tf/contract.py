"""Findings about a model: whether it meets the requirements of a classifier, was adapted, or needs caution."""

from __future__ import annotations

import dataclasses
from typing import Any

ORIGIN, INPUT, OUTPUTS, RANGE, CLASSES = "origin", "input", "outputs", "input range", "classes"
NOISE, GRADIENT = "noise", "gradient"
"""Checks."""
RANGES = ("0..1", "0..255", "-1..1", "torch", "caffe")
"""Pixel ranges of models; `torch` and `caffe` use ImageNet's means, as named by keras.applications."""
FITS, MENDED, BEWARE = "fits", "mended", "beware"
"""Verdicts: nothing to do, adapted automatically, or a problem that only the model's author can fix."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
      check: the check, such as `outputs`.
      verdict: `fits`, `mended` or `beware`.
      text: the result, in one sentence.
    """

    check: str
    verdict: str
    text: str

    def as_json(self) -> dict[str, Any]:
        """Returns the finding as stored in manifests."""
        return dataclasses.asdict(self)
