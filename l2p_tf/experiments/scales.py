"""Scales of experiments: as published, or in miniature on data bundled with the package."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from l2p_tf.attacks.base import Attack
from l2p_tf.defenses.base import DerivedDefense
from l2p_tf.fitting.options import TrainOptions
from l2p_tf.options import Options, option
from l2p_tf.registry import Registry
from l2p_tf.types import Norm

_RADII = ("epsilon", "step_size", "std")
_STEPS = ("steps", "generations", "queries", "binary_search_steps", "draws", "population", "restarts", "target_classes")


@dataclasses.dataclass(frozen=True)
class Scale(Options):
    """Base of all scales: changes to trainings, attacks and flags; by default none."""

    @property
    def flags(self) -> list[str]:
        """Flags to append to those of an experiment's flag files, each `--name=value`."""
        return []

    def trainings(self, planned: Sequence[TrainOptions]) -> list[TrainOptions]:
        """Returns the scaled trainings of one flag file."""
        return list(planned)

    def attack(self, attack: Attack) -> Attack:
        """Returns the scaled attack."""
        return attack


SCALES: Registry[Scale] = Registry("scale", "l2p_tf.experiments")


@SCALES.register("paper")
@dataclasses.dataclass(frozen=True)
class Paper(Scale):
    """As published: nothing is changed. Most experiments take days on a GPU."""


@SCALES.register("digits")
@dataclasses.dataclass(frozen=True)
class Digits(Scale):
    """In miniature on handwritten digits (8x8): small networks, few epochs, larger perturbations, shorter attacks."""

    epochs: int = option(
        10,
        "most epochs of a training, three times that for basic_net; drops of the rate, warm-up and so on move along",
        low=1,
    )
    limit: int = option(100, "test images", low=1)
    repeats: int = option(2, "evaluations of a randomized model", low=1)
    width: float = option(0.25, "factor of all networks' widths", above=0)
    points: int = option(3, "most values of each sweep: the first, the last and some between", low=1)
    linf: float = option(6.0, "factor of radii and steps in l_inf: 8/255 becomes 0.19", above=0)
    l2: float = option(1.5, "factor of radii and steps in l_2", above=0)
    c_l: float = option(0.04, "factor of the generator's penalty", above=0)
    steps: int = option(20, "most steps of an attack", low=1)

    @property
    def flags(self) -> list[str]:
        """The data, and the number of images to evaluate."""
        how = {"dataset": "digits", "validation_share": 0.1, "limit": self.limit, "repeats": self.repeats}
        how |= {"validation_limit": 100, "attack_batch_size": self.limit, "checks": 0}
        return [f"--{name}={value}" for name, value in how.items()]

    def trainings(self, planned: Sequence[TrainOptions]) -> list[TrainOptions]:
        """Returns fewer and shorter trainings of smaller networks."""
        return [self._training(options) for options in planned if self._kept(options, planned)]

    def attack(self, attack: Attack) -> Attack:
        """Returns the attack with larger radii and fewer steps."""
        changes = self._radii(attack)
        most = {"steps": self.steps, "generations": 10, "population": 40, "queries": 200, "binary_search_steps": 4,
                "draws": 5, "target_classes": 3, "restarts": 2}  # fmt: skip
        fields = vars(attack)
        changes |= {key: min(most[key], fields[key]) for key in _STEPS if fields.get(key) is not None}
        if "initial_const" in fields:  # Adam's original small steps would need a thousand iterations.
            changes |= {"initial_const": 0.1, "learning_rate": 0.1}
        return attack.replace(**changes)

    def _training(self, options: TrainOptions) -> TrainOptions:
        former: Any = options.model
        small = former.name == "basic_net"
        # It is already small, and learns more slowly.
        epochs = min(3 * self.epochs if small else self.epochs, options.epochs)
        share = epochs / options.epochs
        drops = sorted({max(1, round(share * drop)) for drop in options.drops} - {epochs})
        model: dict[str, Any] = {"width": former.width if small else self._narrow(options) * former.width}
        if former.name == "resnet_v1":
            # Deep networks are slow to trace: n blocks per stage are replaced by a single one, wider in proportion to
            # the parameters relative to 20 layers.
            blocks = (former.depth - 2) // 6
            model |= {"depth": 8, "width": model["width"] * math.sqrt(max(1.0, blocks / 3))}
        changes: dict[str, Any] = {
            "model": former.replace(**model),
            "defense": self._defense(options.defense, share),
            "validation_attack": self.attack(options.validation_attack).replace(steps=5),
            "rho_attack": options.rho_attack and self.attack(options.rho_attack),
            "epochs": epochs,
            "drops": tuple(drops),
            "batch_size": min(options.batch_size, 64),
            # Statistics of three channels do not fit.
            "mean": options.mean if len(options.mean) == 1 else (),
            "std": options.std if len(options.std) == 1 else (),
            "learning_rate": max(options.learning_rate, 3e-3) if options.optimizer == "adam" else 0.05,
            "ema": min(options.ema, 0.98),
            "early_stopping": min(options.early_stopping, epochs),
            "validate_every": max(1, epochs // (5 if small else 2)),
            "published": "",
            "sweep": {key: self._swept(options, key, value) for key, value in options.sweep.items()},
        }
        return dataclasses.replace(options, **changes)

    def _narrow(self, options: TrainOptions) -> float:
        """Returns the factor of a network's width; deep ones that start with 64 channels are halved again."""
        deep = options.model.name in ("resnet_v2", "vgg", "wide_resnet")  # type: ignore[attr-defined]
        return self.width / 2 if deep else self.width

    def _defense(self, defense: Any, share: float) -> Any:
        fields, changes = vars(defense), self._radii(defense)
        for key in ("warmup_epochs", "adversarial_epoch", "kl_epochs"):
            if fields.get(key):
                changes[key] = max(1, round(share * fields[key]))
        if "c_l" in fields:
            changes |= {"c_l": self.c_l * fields["c_l"], "margin": 0.1, "generator_rate": 2e-3}
            changes["generator_width"] = 0.25 * fields["generator_width"]
        if "l2_epsilon" in fields:
            changes |= {key: self.l2 * fields[key] for key in ("l2_epsilon", "l2_step_size")}
        for key in ("steps", "prediction_draws"):
            if fields.get(key):
                changes[key] = min(fields[key], 5)
        return defense.replace(**changes)

    def _radii(self, thing: Any) -> dict[str, Any]:
        fields = vars(thing)
        if not isinstance(thing, DerivedDefense) and "epsilon" not in fields:
            return {}
        factor = self.l2 if fields.get("norm") == Norm.L2 else self.linf
        return {key: factor * fields[key] for key in _RADII if fields.get(key) is not None}

    def _swept(self, options: TrainOptions, key: str, value: float | str) -> float | str:
        """Returns a swept value, scaled like its option."""
        name = key.removeprefix("defense.")
        if isinstance(value, str) or key == name:
            return self._narrow(options) * value if key == "model.width" and not isinstance(value, str) else value
        former, now = getattr(options.defense, name, None), getattr(self._defense(options.defense, 1.0), name, None)
        return value * now / former if isinstance(former, float) and isinstance(now, float) and former else value

    def _kept(self, options: TrainOptions, planned: Sequence[TrainOptions]) -> bool:
        """Whether each of its swept values is among the few to keep."""
        same = [other for other in planned if type(other.defense) is type(options.defense)]
        return all(value in self._few([other.sweep[key] for other in same if key in other.sweep]) for key, value in
                   options.sweep.items() if key != "train.seed")  # fmt: skip

    def _few(self, values: Sequence[float | str]) -> list[float | str]:
        distinct = list(dict.fromkeys(values))
        if len(distinct) <= self.points:
            return distinct
        last = len(distinct) - 1
        return [distinct[round(i * last / max(1, self.points - 1))] for i in range(self.points)]
