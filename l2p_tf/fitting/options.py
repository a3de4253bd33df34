"""What decides a training. The flags of the stages follow from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from l2p_tf import artifacts
from l2p_tf.files import check_name
from l2p_tf.options import Options, StageOptions, option
from l2p_tf.registry import spec_of
from l2p_tf.training.schedules import SCHEDULES, check_drops
from l2p_tf.types import UserError

if TYPE_CHECKING:
    from l2p_tf.attacks.base import Attack
    from l2p_tf.defenses.base import Defense
    from l2p_tf.models.base import Architecture
else:
    # The flags are known before TensorFlow is loaded, and so that `--help` answers at once.
    Attack = Defense = Architecture = Options

_ATTACKS = "l2p_tf.attacks:ATTACKS"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions(StageOptions):
    """What decides a training.

    Attributes:
      name: of the run, for reports and for its folder.
      defense: the defense.
      sweep: where the run is a point of a sweep, what is swept and its value here, such as {"defense.epsilon": 0.02}.

    Raises:
      UserError: a value is not accepted, or two do not go together.
    """

    name: str
    model: Architecture = option(
        "resnet_v1(depth=20)", "The architecture; `help` lists all with their options.", specs="l2p_tf.models:MODELS"
    )
    defense: Defense
    validation_attack: Attack = option(
        "pgd(steps=7, step_size=0.01)", "Measures robust validation accuracy.", specs=_ATTACKS
    )
    epochs: int = option(100, "Epochs of training; more than a finished one has continue it.", low=1)
    batch_size: int = option(128, "Images per training step, of all devices together.", low=1)
    optimizer: str = option("sgd", "SGD with Nesterov momentum, or Adam.", choices=("sgd", "adam"))
    learning_rate: float = option(0.1, "Learning rate at the start.", low=0)
    schedule: str = option(
        "drops",
        "How the learning rate changes: by --drops; by every step along half a cosine to 0; or in one cycle, up to "
        "--learning_rate in the first 40% of the training and down to 0.",
        choices=SCHEDULES,
    )
    drops: tuple[int, ...] = option((), "Epochs at which the learning rate is multiplied by --drop_factor.")
    drop_factor: float = option(0.1, "See --drops.", low=0, high=1)
    momentum: float = option(0.9, "Nesterov momentum of SGD.", low=0, high=1)
    weight_decay: float | None = option(
        None, "Coupled weight decay, never on the noise's parameters; 1e-4 for SGD, none for Adam.", low=0
    )
    augment: bool = option(True, "Crop and flip training images as the data set says.")
    mean: tuple[float, ...] = option((), "Channel means to subtract; empty takes the training images' own.")
    std: tuple[float, ...] = option((), "Channel standard deviations to divide by; empty likewise.")
    ema: float = option(
        0.0, "Decay, below 1, of the average of the weights that is judged and saved; 0: no average.", low=0, high=1
    )
    early_stopping: int = option(0, "Epochs after which a training without a better model ends; 0: never.", low=0)
    rho_attack: Attack | None = option(
        None, "Attack of smallest l2 norm run at each validation, for the curve of its mean.", specs=_ATTACKS
    )
    validate_every: int = option(1, "Epochs between validations.", low=1)
    validation_limit: int = option(1000, "Most validation images used; 0 for all.", low=0)
    precision: str = option(
        "float32",
        "What layers compute in, weights staying float32; mixed_float16 scales the loss, so that no gradient is lost.",
        choices=("float32", "mixed_bfloat16", "mixed_float16"),
    )
    sync_batch_norm: bool = option(
        False, "Replicas normalize by the statistics of the whole batch, not each by those of its part."
    )
    deterministic: bool = option(False, "The same bits on every run on this machine; slow on a CPU (one thread).")
    seed: int = option(0, "Decides everything random.", low=0)
    published: str = option("", "Published table row to show beside the measured numbers; `help` lists all.")
    sweep: Mapping[str, float | str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name(self.name)
        if self.ema == 1:
            raise UserError("`ema` should be below 1: at 1 the average never moves. Received: 1.0")
        if self.optimizer == "adam" and self.weight_decay:
            raise UserError(f"`weight_decay` should be 0 with optimizer adam. Received: {self.weight_decay}")
        check_drops(self.drops, self.epochs)
        if self.drops and self.schedule != "drops":
            raise UserError(f"`drops` should be given with schedule=drops alone. Received: {self.schedule!r}")
        if self.rho_attack is not None:
            from l2p_tf.attacks.base import MinimizationAttack

            facts = self.rho_attack.facts()
            minimal = isinstance(self.rho_attack, MinimizationAttack)
            if not minimal or facts["norm"] != "l2" or facts["epsilon"] is not None:
                raise UserError(
                    "`rho_attack` should look for the smallest l2 norm, whatever its size, such as cw or deepfool. "
                    f"Received: {self.rho_attack.spec!r}"
                )

    @property
    def decay(self) -> float:
        """The weight decay, resolved."""
        usual = 1e-4 if self.optimizer == "sgd" else 0.0
        return usual if self.weight_decay is None else self.weight_decay

    def inputs(self) -> dict[str, artifacts.Artifact]:
        """What the attacks of its validation need besides the classifier, by role."""
        attacks = [self.validation_attack, *([self.rho_attack] if self.rho_attack else [])]
        return {role: artifact for attack in attacks for role, artifact in attack.inputs().items()}

    def as_json(self) -> dict[str, Any]:
        """As manifests hold it; specs in their canonical form, with the resolved options beside them."""
        values: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Options):
                values[field.name] = spec_of(value)
                values[f"{field.name}_options"] = value.options()
            else:
                values[field.name] = list(value) if isinstance(value, tuple) else value
        return {**values, "weight_decay": self.decay, "sweep": dict(self.sweep)}
