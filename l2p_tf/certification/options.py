"""Options of certifications, from which the flags of the stages are derived."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from l2p_tf.options import Options, StageOptions, option

if TYPE_CHECKING:
    from l2p_tf.certification.base import Certificate
else:
    Certificate = Options  # Flags are defined before TensorFlow is loaded.


@dataclasses.dataclass(frozen=True)
class CertificationOptions(StageOptions):
    """How a model is certified.

    Attributes:
      jit_compile: compile with XLA; None decides by device.

    Raises:
      UserError: an invalid value.
    """

    certificates: tuple[Certificate, ...] = option(
        (),
        "Certificates of robustness to compute, separated by `;`. `help` lists all.",
        flag="certify",
        specs="l2p_tf.certification.base:CERTIFICATES",
    )
    split: str = option("test", "Images to attack.", choices=("test", "validation"))
    limit: int | None = option(None, "Most images to attack, every class alike; all when not given.", low=1)
    batch_size: int = option(128, "Images per pass.", low=1, flag="attack_batch_size")
    seed: int = option(0, "Decides everything random.", low=0)
    jit_compile: bool | None = None

    def request(self) -> dict[str, Any]:
        """JSON-compatible values that determine the results."""
        return {
            "certificates": [certificate.spec for certificate in self.certificates],
            "certificates_options": [certificate.options() for certificate in self.certificates],
            **{key: getattr(self, key) for key in ("split", "limit", "batch_size", "seed")},
        }
