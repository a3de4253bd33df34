"""Attacks of the Adversarial Robustness Toolbox (Nicolae et al. 2018)."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from types import ModuleType
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from l2p_tf.attacks.base import ATTACKS, AttackRunner
from l2p_tf.attacks.gradient import TILED_IMAGES
from l2p_tf.attacks.wrapped import AskedModel, WrappedAttack, library
from l2p_tf.types import UserError

_BALLS = {
    "l0": ("CarliniL0Method", "PixelAttack", "SaliencyMapMethod"),
    "l1": ("ElasticNet",),
    "l2": (
        "BoundaryAttack", "CarliniL2Method", "DeepFool", "NewtonFool", "SignOPTAttack", "SimBA",
        "VirtualAdversarialMethod", "ZooAttack",
    ),
    "linf": ("BasicIterativeMethod", "CarliniLInfMethod", "ThresholdAttack"),
}  # fmt: skip
"""Norm minimized by classes without an option for it."""
_PROBABILITIES = {"NewtonFool", "PixelAttack", "SimBA", "ThresholdAttack", "VirtualAdversarialMethod"}
"""Attacks that expect probabilities; all others expect logits."""
_UNIVERSAL = {"UniversalPerturbation", "TargetedUniversalPerturbation"}
_SINGLE = {"ShadowAttack", "SimBA"}
"""Attacks that take one image at a time."""
_SCALE = "scale"


@ATTACKS.register("art")
@dataclasses.dataclass(frozen=True)
class Art(WrappedAttack):
    """An attack of the Adversarial Robustness Toolbox by the name of its class: art(attack=HopSkipJump, max_iter=10).

    `epsilon` is ART's `eps`. Patch attacks make one patch for all images of a slice and paste it at a random place of
    each image; the additional option `scale` sets its size (a share of the image, 0.5 by default).
    """

    BACKEND: ClassVar[str] = "art"
    LIBRARY: ClassVar[str] = "ART"
    PACKAGE: ClassVar[str] = "adversarial-robustness-toolbox"
    MODULE: ClassVar[str] = "art.attacks.evasion"
    HIDDEN: ClassVar[frozenset[str]] = frozenset(
        {
            "estimator", "classifier", "batch_size", "targeted", "verbose", "summary_writer", "parallel_pool_size",
            "attacker_params",
        }
    )  # fmt: skip

    @classmethod
    def classes(cls, module: ModuleType) -> dict[str, type]:
        """Returns the attacks of `art.attacks.evasion` that support TensorFlow classifiers."""
        base = library("art.attacks.attack", cls.LIBRARY, cls.PACKAGE).EvasionAttack
        kind = library("art.estimators.classification", cls.LIBRARY, cls.PACKAGE).TensorFlowV2Classifier
        return {
            name: attack
            for name, attack in vars(module).items()
            if inspect.isclass(attack)
            and issubclass(attack, base)
            and "PyTorch" not in name
            and attack._estimator_requirements
            and all(issubclass(kind, needed) for needed in attack._estimator_requirements)
        }

    @functools.cached_property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """Parameters of the class's constructor, and `scale` for patch attacks."""
        known = dict(inspect.signature(self.kind).parameters)
        if hasattr(self.kind, "apply_patch"):
            known[_SCALE] = inspect.Parameter(_SCALE, inspect.Parameter.KEYWORD_ONLY, default=0.5)
        return known

    @functools.cached_property
    def norms(self) -> tuple[str, ...]:
        """Norms the class accepts or minimizes, the default first; empty if it has none."""
        if "norm" in self.parameters:
            usual = {np.inf: "linf", "inf": "linf", 2: "l2"}.get(self.parameters["norm"].default)
            return tuple(dict.fromkeys((usual, "linf", "l2", "l1"))) if usual else ()
        own = [norm for norm, names in _BALLS.items() if self.attack in names]
        return tuple(own)

    @property
    def hidden(self) -> frozenset[str]:
        """Also hides the norm and `eps`, unless the class measures `eps` in units of its own."""
        return self.HIDDEN | {"norm", "eps"} if self.norms else self.HIDDEN

    @property
    def is_bounded(self) -> bool:
        """Whether the class has an `eps`."""
        return "eps" in self.parameters

    def together(self, runner: AttackRunner, count: int) -> int:
        """All images for universal attacks, which make one perturbation for all of them."""
        universal = hasattr(self.kind, "apply_patch") or self.attack in _UNIVERSAL
        return count if universal else 1 if self.attack in _SINGLE else super().together(runner, count)

    def check(self, model: keras.Model) -> None:
        """Raises UserError if ART rejects the values of the options."""
        super().check(model)
        if None not in model.input_shape[1:]:
            with self.told():
                self._made(AskedModel(model), 1)

    def _made(self, asked: AskedModel, batch_size: int) -> Any:
        how = {key: value for key, value in self.given.items() if key != _SCALE}
        ours: dict[str, Any] = {"batch_size": batch_size, "targeted": self.targeted, "verbose": False}
        ours |= {"eps": self.radius, "attacker_params": {"verbose": False}}
        if "norm" in self.parameters and self.ball:
            ours["norm"] = {"linf": np.inf, "l2": 2, "l1": 1}[self.ball]
        if self.targeted and "targeted" not in self.parameters:
            raise UserError(f"`target` of ART's {self.attack} should be left out: it cannot be targeted.")
        ours = {key: value for key, value in ours.items() if key in self.parameters and value is not None}
        return self.kind(_estimator(asked, self.attack in _PROBABILITIES), **how, **ours)

    def find(self, runner: AttackRunner, asked: AskedModel, rows: np.ndarray) -> np.ndarray:
        """Runs ART's `generate` with one-hot labels or targets."""
        attack = self._made(asked, min(runner.batch_size, len(rows)))
        images, wanted = runner.images[rows], (runner.targets if self.targeted else runner.labels)[rows]
        adversarial = attack.generate(x=images, y=np.eye(runner.classes, dtype=np.float32)[wanted])
        if hasattr(attack, "apply_patch"):
            scale = self.given.get(_SCALE, self.parameters[_SCALE].default)
            adversarial = attack.apply_patch(images, scale=scale)
        return np.asarray(adversarial)


def _estimator(asked: AskedModel, probabilities: bool) -> Any:
    class Estimator(library("art.estimators.classification", "ART", Art.PACKAGE).TensorFlowV2Classifier):
        """ART's classifier, without its calls to APIs that Keras 3 removed, and with bounded batch sizes."""

        def predict(self, x: Any, batch_size: int = 128, training_mode: bool = False, **kwargs: Any) -> np.ndarray:
            del batch_size, training_mode, kwargs
            parts = np.split(np.asarray(x), range(TILED_IMAGES, len(x), TILED_IMAGES))
            return np.concatenate([self.model(part).numpy() for part in parts])

        def compute_loss(self, x: Any, y: Any, reduction: str = "none", **kwargs: Any) -> np.ndarray:
            del kwargs
            labels = np.eye(self.nb_classes)[y] if np.ndim(y) == 1 else y
            losses = self.loss_object.each(labels, self.model(x)).numpy()
            return {"none": losses, "mean": losses.mean(), "sum": losses.sum()}[reduction]

    def model(x: Any, training: bool = False) -> tf.Tensor:
        logits = asked(x, training)
        return tf.nn.softmax(logits) if probabilities else logits

    shape, classes = tuple(asked.model.input_shape[1:]), int(asked.model.output_shape[-1])
    return Estimator(
        model=model, nb_classes=classes, input_shape=shape, loss_object=_CrossEntropy(probabilities),
        clip_values=(0.0, 1.0),
    )  # fmt: skip


class _CrossEntropy:
    """Cross-entropy summed over images, so that each image gets its own gradient."""

    def __init__(self, probabilities: bool) -> None:
        self.probabilities = probabilities

    def each(self, labels: Any, answers: tf.Tensor) -> tf.Tensor:
        """Losses (batch,)."""
        logits = tf.math.log(tf.maximum(answers, 1e-30)) if self.probabilities else answers
        return tf.nn.softmax_cross_entropy_with_logits(tf.cast(labels, tf.float32), logits)

    def __call__(self, labels: Any, answers: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(self.each(labels, answers))
