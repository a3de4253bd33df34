"""Common corruptions, run alongside attacks although they search for nothing and corrupt every image."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from l2p_tf import inference
from l2p_tf.arrays import arrays_of
from l2p_tf.attacks.base import ATTACKS, Attack, SingleAttack
from l2p_tf.attacks.context import AttackOutput
from l2p_tf.attacks.corrupting import CORRUPTIONS, SEVERITIES, corrupted
from l2p_tf.attacks.projection import norms
from l2p_tf.options import option

_NOISE, _ANSWERS = 1, 2


@ATTACKS.register("corruption")
@dataclasses.dataclass(frozen=True)
class Corruption(Attack):
    """A common corruption (Hendrycks and Dietterich 2019), evaluated like an attack: corruption(kind=fog, severity=3).

    With the same seed the same images are corrupted alike, whatever the model.
    """

    kind: str = option("gaussian_noise", "what becomes of the images", choices=tuple(CORRUPTIONS))
    severity: int = option(3, "how much of it", low=1, high=SEVERITIES)

    @property
    def label(self) -> str:
        """Label such as `fog 3`."""
        return f"{self.kind.replace('_', ' ')} {self.severity}"

    def members(self) -> tuple[SingleAttack, ...]:
        """Returns no members, because nothing is searched for."""
        return ()

    def facts(self) -> dict[str, Any]:
        """A corruption has no ball and no steps."""
        return {**super().facts(), "steps": 0}

    def __call__(self, model: keras.Model, images: Any, labels: Any = None, seed: int = 0, **how: Any) -> AttackOutput:
        """Corrupts images and evaluates the model on them; arguments of a search are accepted and ignored."""
        images, labels = arrays_of(images, labels)
        model, images = inference.prepared(model, images)
        labels = inference.checked_labels(labels, len(images), int(model.output_shape[-1]))
        result = corrupted(images, self.kind, self.severity, int(inference.seed_pair(seed, _NOISE)[0]) % 2**31)
        asked = {key: how[key] for key in ("batch_size", "jit_compile") if key in how}
        return answered(
            model, result, images, labels, int(inference.seed_pair(seed, _ANSWERS)[0]), draws=how.get("score_draws", 1),
            samples_per_prediction=how.get("prediction_draws", 1), **asked,
        )  # fmt: skip


def corruptions(kinds: Sequence[str], severities: Sequence[int]) -> tuple[Corruption, ...]:
    """Returns every kind at every severity; the kind `all` stands for all of them.

    Raises:
      UserError: unknown kind or severity.
    """
    listed = dict.fromkeys(kind for name in kinds for kind in (CORRUPTIONS if name == "all" else [name]))
    return tuple(Corruption(kind=kind, severity=severity) for kind in listed for severity in severities)


def answered(
    model: keras.Model, found: np.ndarray, images: np.ndarray, labels: np.ndarray, seed: int, **how: Any
) -> AttackOutput:
    """Evaluates a model on images that were not found by a search.

    Args:
      model: the classifier.
      found: images to evaluate, float32 (count, height, width, channels) in [0, 1].
      images: the clean images, likewise.
      labels: int32 (count,).
      seed: seed of the noise.
      **how: options of `inference.predict_with_votes`: draws, batch size and so on.
    """
    probabilities, votes = inference.predict_with_votes(model, found, seed, **how)
    wrong = 1.0 - votes[np.arange(len(labels)), labels]
    return AttackOutput(
        adversarial=found,
        prediction=inference.decided(votes),
        probability=probabilities[np.arange(len(labels)), labels].astype(np.float32),
        success=wrong.astype(np.float32),
        wrong=wrong.astype(np.float32),
        target=labels,
        gradients=np.zeros(len(images), np.int32),
        forwards=np.full(len(images), how.get("samples_per_prediction", 1) * how.get("draws", 1), np.int32),
        confidence=probabilities.max(-1).clip(0, 1).astype(np.float32),
        brier=np.square(probabilities - np.eye(probabilities.shape[-1])[labels]).sum(-1).clip(0, 2).astype(np.float32),
        **norms(found - images),
    )
