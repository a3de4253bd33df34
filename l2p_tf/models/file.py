"""An existing network, from a file or a run, as an architecture, to continue training from its weights."""

from __future__ import annotations

import dataclasses
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any, Self

import keras

from l2p_tf.artifacts import digest_file
from l2p_tf.classifier import as_classifier
from l2p_tf.contract import RANGES
from l2p_tf.environment import user_path
from l2p_tf.layers.factory import LayerFactory
from l2p_tf.layers.networks import operations_of
from l2p_tf.layers.ranges import in_range, told_by_layers
from l2p_tf.layers.saved_model import SavedModelLayer
from l2p_tf.models.base import MODELS, Architecture
from l2p_tf.models.injection import injected
from l2p_tf.models.saving import load_any
from l2p_tf.options import option
from l2p_tf.types import UserError

_BEST = "best.keras"


@MODELS.register("file")
@dataclasses.dataclass(frozen=True)
class File(Architecture):
    """An existing Keras model with its weights: a .keras or .h5 file, or the folder of a run.

    It must be a functional or Sequential model from images to the classes of the data. A final softmax is removed. The
    model normalizes images itself: channel means and deviations of the data are not used. Frozen layers stay frozen.
    Other kinds of models must be imported first (`python -m stages.importer`), which determines their input and output;
    then give the resulting run here.

    A defense with noise on pixels or activations adds it inside the network, at `noise_after`. Noise on weights needs a
    network of this package.
    """

    path: str = option("", "the file, or the folder of a run, in quotes")
    input_range: str = option(
        "auto", "pixels the model expects; auto goes by its layers, and takes 0..1 where they tell nothing",
        choices=("auto", *RANGES),
    )  # fmt: skip
    noise_after: tuple[str, ...] = option(
        (), "names of layers, such as '*_add', after which a defense adds its noise; empty takes the first convolution "
        "and every residual sum, or where there are none every convolution"
    )  # fmt: skip

    @property
    def file(self) -> pathlib.Path:
        """The file; raises UserError if there is none."""
        wanted = "file: `path` should be a .keras or .h5 file, or the folder of a run"
        if not self.path:
            raise UserError(f"{wanted}: file(path='my.keras'). Received: ''")
        place = user_path(self.path)
        file = next((candidate for candidate in (place / "train" / _BEST, place / _BEST) if candidate.is_file()), place)
        if not file.is_file():
            raise UserError(f"{wanted}. Received: {self.path!r}, {'which holds none' if place.exists() else 'no file'}")
        return file

    def recorded(self) -> Self:
        """Keeps the last part of the path; the digest identifies the file."""
        return self.replace(path=user_path(self.path).absolute().name) if self.path else self

    def options(self) -> dict[str, Any]:
        """Returns the options, with the file's digest."""
        return {**super().options(), "digest": digest_file(self.file)}

    def build(
        self,
        image_shape: Sequence[int],
        classes: int,
        factory: LayerFactory | None = None,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
    ) -> keras.Model:
        """Returns the network of the file with a defense's noise in it; `mean` and `std` are not used.

        Raises:
          UserError: the file is missing, does not fit the images or classes, or cannot be trained.
        """
        del mean, std
        policy = keras.config.dtype_policy().name
        if policy != "float32":
            raise UserError(f"`precision` should be float32 with file: its layers have their own. Received: {policy!r}")
        factory = factory or LayerFactory()
        model = self._network(tuple(image_shape), classes)
        images = keras.Input(tuple(image_shape), name="images", dtype="float32")
        x = in_range(factory.pixels(images), self._range_of(model))
        logits = injected(model, factory, self.noise_after)(factory.normalized(x))
        return keras.Model(images, keras.layers.Activation("linear", dtype="float32", name="predictions")(logits))

    def features(self, x: keras.KerasTensor, factory: LayerFactory) -> keras.KerasTensor:
        """Raises UserError, because the network is built as a whole."""
        raise UserError("file: its network is built as a whole, by `build`.")

    def _network(self, shape: tuple[int, ...], classes: int) -> keras.Model:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            model = load_any(self.file)
            if not getattr(model, "inputs", None):
                raise UserError(f"{self.path!r} should be a functional or Sequential model, whose layers can be seen.")
            model = as_classifier(model)
        takes, gives = tuple(model.input_shape[1:]), model.output_shape[-1]
        if any(one not in (None, size) for one, size in zip(takes, shape, strict=True)) or gives != classes:
            raise UserError(
                f"{self.path!r} should take images of {'x'.join(map(str, shape))} and tell {classes} classes apart. It "
                f"takes {'x'.join(map(str, takes))}, and tells {gives}."
            )
        if any(isinstance(one, SavedModelLayer) for one in operations_of(model)):
            raise UserError(
                f"{self.path!r} should be made of Keras's layers. It holds a graph, which cannot be trained."
            )
        if not model.trainable_variables:
            raise UserError(f"{self.path!r} should have weights to train. It has none, or all its layers are frozen.")
        return model

    def _range_of(self, model: keras.Model) -> str:
        if self.input_range != "auto" or self.file != user_path(self.path):
            return self.input_range if self.input_range != "auto" else "0..1"  # Models of runs take [0, 1].
        known_range = told_by_layers(model)
        if known_range is None:
            warnings.warn(
                f"No layer of {self.path!r} tells which pixels it expects, so it gets them in [0, 1]; `input_range` of "
                "file says it.", stacklevel=2,
            )  # fmt: skip
        return known_range[0] if known_range else "0..1"
