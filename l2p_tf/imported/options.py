"""Options of imports, from which the flags of the stages are derived."""

from __future__ import annotations

import dataclasses

from l2p_tf.contract import RANGES
from l2p_tf.files import check_name
from l2p_tf.options import StageOptions, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportOptions(StageOptions):
    """Which model is imported, and what is known about it.

    Attributes:
      name: name of the run.

    Raises:
      UserError: an invalid value.
    """

    name: str
    model_file: str = option(
        "",
        "A model trained elsewhere: a .keras or .h5 file, the folder of a SavedModel, keras_application(name=..., "
        "weights=none), or a preset that Keras can load (hf://..., kaggle://...).",
    )
    input_range: str = option(
        "auto",
        "Pixels the model expects; auto looks at its layers and tries them all on labeled images.",
        choices=("auto", *RANGES),
    )
    output: str = option("", "Of several outputs the one that is meant, by name or number.")
    class_map: tuple[int, ...] = option(
        (), "For each class of the data, in order, the number of the model's output; empty: the same.", low=0
    )
    custom_objects: str = option(
        "", "A Python file with the model's own classes and functions. Its code is run, and that in the model."
    )
    seed: int = option(0, "Decides everything random.", low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name(self.name)
