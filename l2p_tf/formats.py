"""Exports for other runtimes, ONNX and LiteRT, of classifiers without noise, compared with the original when made.

Neither format has TensorFlow's stateless random operations (their converters refuse `StatelessRandomUniformFullIntV2`
and what turns bits into numbers), and a seed in a file would be known to whoever reads it. So no noise layer can go.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import pathlib
import warnings
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np

from l2p_tf.layers.noise import is_randomized, noise_known, noise_layers
from l2p_tf.types import UserError

SAVED_MODEL, ONNX, LITERT = "savedmodel", "onnx", "litert"
FORMATS = (SAVED_MODEL, ONNX, LITERT)
FILES = {ONNX: "model.onnx", LITERT: "model.tflite"}
OUTPUTS = ("logits", "probabilities")
TOLERANCE = 1e-4
"""Largest accepted difference from the original's outputs, relative to the largest output if that exceeds 1."""
_PACKAGES = {ONNX: ("tf2onnx", "onnx", "onnxruntime"), LITERT: ("ai_edge_litert",)}
_EXAMPLES = 16
_Run = Callable[[np.ndarray], dict[str, np.ndarray]]


def check(formats: Sequence[str], model: keras.Model | None = None) -> None:
    """Checks that files of these formats can be created.

    Raises:
      UserError: there is no such format, a package is missing, or the model has noise, which only a SavedModel holds.
    """
    unknown = [one for one in formats if one not in FORMATS]
    if unknown or not formats:
        raise UserError(f"`formats` should be some of {', '.join(FORMATS)}. Received: {', '.join(unknown) or 'none'}")
    for one in formats:
        for package in _PACKAGES.get(one, ()):
            try:
                importlib.import_module(package)
            except ImportError as error:
                raise UserError(
                    f"`formats` with {one} needs further packages: pip install '.[onnx]' ({error})"
                ) from error
    others = [one for one in formats if one != SAVED_MODEL]
    if others and model is not None and is_randomized(model):
        kinds = sorted({type(layer).__name__ for layer in noise_layers(model) if layer.is_on})
        raise UserError(
            f"`formats` of a model with noise should be {SAVED_MODEL} alone: {' and '.join(others)} cannot draw the "
            f"noise of {', '.join(kinds) or 'its layers'} for each request."
        )


def write(model: keras.Model, folder: pathlib.Path, kind: str) -> float:
    """Writes a classifier without noise as `FILES[kind]` and compares its outputs with the original's.

    The input is `images`, float32 (batch, height, width, channels) in [0, 1]; the outputs are `logits` and
    `probabilities`, float32 (batch, classes).

    Args:
      model: the classifier.
      folder: where the file goes.
      kind: `onnx` or `litert`.

    Returns:
      The largest difference, over random images, between its outputs and the model's.

    Raises:
      UserError: an output differs by more than `TOLERANCE`, or the format lacks an operation of the model.
    """
    file = folder / FILES[kind]
    with noise_known(False):
        image = keras.Input(model.input_shape[1:], name="images")
        logits = model(image, training=False)
        outputs = (logits, keras.ops.softmax(logits))
        whole = keras.Model(image, dict(zip(OUTPUTS, outputs, strict=True)))
        images = np.random.default_rng(0).random((_EXAMPLES, *model.input_shape[1:]), np.float32)
        wanted = {name: np.asarray(value) for name, value in whole(images).items()}
        try:
            with _quiet():
                whole.export(str(file), format=kind, verbose=False)
            run = _runtime(kind, file)
            found = [run(images), run(images[:1])]
        except OSError:
            raise
        except Exception as error:  # Converters and runtimes raise errors of many types for unsupported operations.
            said = " ".join(str(error).split())[:200]
            raise UserError(f"{kind} cannot hold this model: {type(error).__name__}: {said}") from error
    largest = 0.0
    for name, values in wanted.items():
        for answer in found:
            difference = float(np.abs(answer[name] - values[: len(answer[name])]).max())
            if not difference <= TOLERANCE * max(1.0, float(np.abs(values).max())):
                raise UserError(f"{str(file)!r} should answer as the model does; its {name} differ by {difference:g}.")
            largest = max(largest, difference)
    return largest


def _runtime(kind: str, file: pathlib.Path) -> _Run:
    if kind == ONNX:
        session = importlib.import_module("onnxruntime").InferenceSession(str(file))
        (given,) = (one.name for one in session.get_inputs())
        names = [one.name for one in session.get_outputs()]
        return lambda images: dict(zip(names, session.run(names, {given: images}), strict=True))
    interpreter = importlib.import_module("ai_edge_litert.interpreter").Interpreter(model_path=str(file))
    runner = interpreter.get_signature_runner()
    (given,) = runner.get_input_details()
    return lambda images: dict(runner(**{given: images}))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the converters' output and warnings."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
