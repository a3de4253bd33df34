"""What is found out about a model: where it is as a classifier should be, what was mended, and what to beware of."""

from __future__ import annotations

import dataclasses
from typing import Any

ORIGIN, INPUT, OUTPUTS, RANGE, CLASSES = "origin", "input", "outputs", "input range", "classes"
NOISE, GRADIENT = "noise", "gradient"
"""What is looked at."""
RANGES = ("0..1", "0..255", "-1..1", "torch", "caffe")
"""What a model may take pixels in; `torch` and `caffe` are the means of ImageNet as keras.applications names them."""
FITS, MENDED, BEWARE = "fits", "mended", "beware"
"""What is found: nothing to do, something that was mended, something that no one can mend but its maker."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
      check: what, such as `outputs`.
      verdict: `fits`, `mended` or `beware`.
      text: what was found, in a sentence.
    """

    check: str
    verdict: str
    text: str

    def as_json(self) -> dict[str, Any]:
        """As manifests hold it."""
        return dataclasses.asdict(self)
