"""Options of evaluations, from which the flags of the stages are derived."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from l2p_tf import artifacts
from l2p_tf.options import Options, StageOptions, option
from l2p_tf.radii import check_linf
from l2p_tf.types import UserError

if TYPE_CHECKING:
    from l2p_tf.attacks.base import Attack
else:
    Attack = Options  # Flags are defined before TensorFlow is loaded.


BACKENDS = ("l2p_tf", "cleverhans", "foolbox", "art")
"""Available implementations of attacks."""
_BPDA = (
    "Steps without a gradient, by patterns of the names of layers, and the function whose gradient attacks take for "
    "theirs: identity, sigmoid or softmax, as in 'round*: identity; jpeg: identity'."
)
_DRAWS = "Draws of the noise that one answer averages (mean of their softmax); the defense's own number when not given."


@dataclasses.dataclass(frozen=True)
class EvaluationOptions(StageOptions):
    """How a model is evaluated. Clean accuracy is always measured first.

    Attributes:
      slice_size: images between two saved parts of the work.
      jit_compile: compile with XLA; None decides by device.

    Raises:
      UserError: an invalid value.
    """

    attacks: tuple[Attack, ...] = option(
        "fgsm; pgd(steps=20)",
        "Attacks to run, separated by `;`, in the order of the tables; those done already stay. `help` lists all.",
        specs="l2p_tf.attacks:ATTACKS",
    )
    split: str = option("test", "Images to attack.", choices=("test", "validation"))
    limit: int | None = option(None, "Most images to attack, every class alike; all when not given.", low=1)
    repeats: int = option(3, "Evaluations of a randomized model, each with draws of its own.", low=1)
    batch_size: int = option(128, "Images per pass.", low=1, flag="attack_batch_size")
    slice_size: int = 512
    seed: int = option(0, "Decides everything random.", low=0)
    jit_compile: bool | None = None
    prediction_draws: int | None = option(None, _DRAWS, low=1)
    bpda: str = option("", _BPDA)

    save_images: str = option(
        "none",
        "Keep every adversarial image, of the same order as the results per image: float32 as the attack made them, or "
        "uint8 as they can be stored. stages.replay shows them to a served model.",
        choices=("none", "float32", "uint8"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_bpda(self.bpda)

    def inputs(self) -> dict[str, artifacts.Artifact]:
        """Artifacts the attacks need besides the classifier, by role."""
        return {role: artifact for attack in self.attacks for role, artifact in attack.inputs().items()}

    def resolved(self, trained: artifacts.Artifact) -> EvaluationOptions:
        """Fills in the defense's prediction draws if none are given."""
        draws = self.prediction_draws or int(trained.manifest["notes"].get("prediction_draws", 1))
        return dataclasses.replace(self, prediction_draws=draws)

    def request(self) -> dict[str, Any]:
        """JSON-compatible values that determine the results."""
        return {
            "attacks": [attack.spec for attack in self.attacks],
            "attacks_options": [attack.options() for attack in self.attacks],
            "backends": [attack.BACKEND for attack in self.attacks],
            # Omitted if unused, because finished evaluations were made without it.
            **({"bpda": self.bpda} if self.bpda else {}),
            **{
                key: getattr(self, key)
                for key in ("split", "limit", "repeats", "batch_size", "seed", "prediction_draws", "save_images")
            },
        }


@dataclasses.dataclass(frozen=True)
class CheckOptions(StageOptions):
    """How a model is checked for gradient masking.

    Attributes:
      slice_size: images between two saved parts of the work.
      jit_compile: compile with XLA; None decides by device.

    Raises:
      UserError: an invalid value.
    """

    count: int = option(
        100,
        "Images on which the signs of gradient masking are looked for, every class alike; 0: none.",
        flag="checks",
        low=0,
    )
    epsilon: float | None = option(
        None,
        "Linf radius of the checks; that of the run's own training, else 8/255, when not given.",
        above=0,
        flag="checks_epsilon",
    )
    split: str = option("test", "Images to attack.", choices=("test", "validation"))
    batch_size: int = option(128, "Images per pass.", low=1, flag="attack_batch_size")
    slice_size: int = 512
    seed: int = option(0, "Decides everything random.", low=0)
    jit_compile: bool | None = None
    prediction_draws: int | None = option(None, _DRAWS, low=1)
    bpda: str = option("", _BPDA)

    def __post_init__(self) -> None:
        from l2p_tf.evaluation.masking.rules import LEAST

        super().__post_init__()
        if self.count < LEAST:
            raise UserError(f"`checks` should be 0 for none, or at least {LEAST} images. Received: {self.count}")
        if self.epsilon is not None:
            if self.epsilon == 1:
                raise UserError(f"`checks_epsilon` should be above 0 and below 1. Received: {self.epsilon:g}")
            check_linf("checks_epsilon", self.epsilon)
        _check_bpda(self.bpda)


def _check_bpda(steps: str) -> None:
    """Raises UserError if the text is invalid. Parsing needs TensorFlow, so empty text skips it."""
    if steps:
        from l2p_tf.models.surrogates import parse_steps

        parse_steps(steps)
