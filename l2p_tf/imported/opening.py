"""Opens external models: Keras files, SavedModels, networks of keras.applications, presets."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import pathlib
import re
import sys
import tempfile
import types
import warnings
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from l2p_tf.artifacts import digest_file
from l2p_tf.classifier import check_inputs
from l2p_tf.contract import BEWARE, ORIGIN, Finding
from l2p_tf.environment import user_path
from l2p_tf.layers import saved_model
from l2p_tf.layers.networks import as_functional
from l2p_tf.models.saving import load_any
from l2p_tf.options import Options, option
from l2p_tf.registry import parse_spec
from l2p_tf.types import UserError

_APPLICATION = "keras_application"
_PRESETS = ("hf://", "kaggle://")
_CODE = re.compile("Lambda|lambda|Could not locate|custom object|Unknown (layer|object)|registered", re.IGNORECASE)
_KEYS = "`--model_file` should be a .keras or .h5 file, a SavedModel's folder, keras_application(name=...), or a preset"


@dataclasses.dataclass(frozen=True)
class Opened:
    """An external model, unchanged.

    Attributes:
      model: maps images to any output.
      label: name of its source.
      digest: digest of its source.
      told: documented pixel range, and where it is documented; None if unknown.
      has_code: its layers exist only in this process.
      findings: findings about its origin.
      has_one_output: whether the requested output is already selected.
    """

    model: keras.Model
    label: str
    digest: str
    told: tuple[str, str] | None = None
    has_code: bool = False
    findings: tuple[Finding, ...] = ()
    has_one_output: bool = False


@dataclasses.dataclass(frozen=True)
class Application(Options):
    """A network of keras.applications."""

    name: str = option("", "of the network, such as MobileNetV2")
    weights: str | None = option(None, "none for random ones, imagenet, or a file of weights")
    classes: int | None = option(None, "outputs; those of the data by default", low=2)


def open_model(
    source: str, shape: tuple[int, ...], classes: int, output: str = "", custom_objects: str = "", seed: int = 0
) -> Opened:
    """Opens a model. Without `custom_objects`, only operations of a SavedModel's graph are run.

    Args:
      source: a path, a spec or a preset, as in `--model_file`.
      shape: (height, width, channels) of its input images.
      classes: number of classes of the data.
      output: name of a SavedModel's output.
      custom_objects: a Python file with its classes and functions.
      seed: seed of random weights.

    Raises:
      UserError: it cannot be opened; the message says why.
    """
    source = source.strip()
    if not source:
        raise UserError(f"{_KEYS}. It is not given.")
    if source.startswith(_APPLICATION):
        return _application(source, shape, classes, seed)
    if source.startswith(_PRESETS):
        return _preset(source)
    path = user_path(source)
    if (path / "saved_model.pb").is_file():
        return _saved_model(path, shape, output)
    if path.suffix not in (".keras", ".h5", ".hdf5") or not path.is_file():
        received = "no such file" if not path.exists() else "a folder" if path.is_dir() else f"a {path.suffix} file"
        raise UserError(f"{_KEYS}. Received: {source!r}, {received}")
    return _file(path, custom_objects)


def in_memory(model: keras.Model) -> Opened:
    """Wraps a model created in this process.

    Raises:
      UserError: it has no weights yet.
    """
    if not isinstance(model, keras.Model):
        raise UserError(f"`model` should be a keras.Model, or the path of one. Received: {type(model).__name__}")
    check_inputs(model, None)
    with quietly():
        text = f"{type(model).__qualname__} {model.get_config()}"
    for number, layer in enumerate(model._flatten_layers()):
        # Keras numbers names globally, so they differ between identical models.
        text = text.replace(f"'{layer.name}'", f"'{number}'")
    digest = hashlib.sha256(text.encode())
    for variable in model.weights:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).tobytes())
    # A functional copy, so that the caller's Sequential model is not changed.
    return Opened(as_functional(model), "a model in memory", digest.hexdigest(), has_code=_has_code(model))


def _has_code(model: keras.Model) -> bool:
    """Whether a model needs its own code, because Keras cannot load it in safe mode without."""
    kinds = {type(layer) for layer in model._flatten_layers()}
    if keras.layers.Lambda in kinds or any(kind.__module__.split(".")[0] not in ("keras", "l2p_tf") for kind in kinds):
        return True
    with tempfile.TemporaryDirectory() as folder, quietly():
        try:
            model.save(pathlib.Path(folder) / "model.keras")
            load_any(pathlib.Path(folder) / "model.keras")
        except Exception:  # For example functions without a registered name.
            return True
    return False


def _file(path: pathlib.Path, custom_objects: str) -> Opened:
    own: dict[str, Any] | None = None
    findings: tuple[Finding, ...] = ()
    digest = digest_file(path)
    if custom_objects:
        module = user_path(custom_objects)
        own = _objects_of(module)
        text = f"It needed the code of {module.name}, which was run; what it computes was kept as a TensorFlow graph."
        findings, digest = (Finding(ORIGIN, BEWARE, text),), f"{digest} {digest_file(module)}"
    try:
        model = load_any(path, own)
    except UserError as error:
        hint = ""
        if "TFSMLayer" in str(error):
            # Keras's own message suggests running whatever the file names.
            raise UserError(
                f"{str(path)!r} holds a TFSMLayer, which reads a SavedModel from elsewhere: import that one's folder."
            ) from error
        if _CODE.search(str(error)) and not custom_objects:
            hint = "; --custom_objects=FILE.py names a file with its classes and functions, whose code is then run"
        raise UserError(f"{error}{hint}") from error
    return Opened(model, path.name, digest, has_code=bool(custom_objects), findings=findings)


def _objects_of(path: pathlib.Path) -> dict[str, Any]:
    """Returns the public classes and functions defined in a Python file; executes its code."""
    wanted = f"`--custom_objects` should be a Python file with classes and functions. Received: {str(path)!r}"
    spec = importlib.util.spec_from_file_location(f"custom_objects_{path.stem}", path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise UserError(wanted)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserError(f"{wanted}: {type(error).__name__}: {' '.join(str(error).split())}") from error
    kinds = (type, types.FunctionType)
    return {
        name: value for name, value in vars(module).items() if isinstance(value, kinds) and not name.startswith("_")
    }


def _saved_model(folder: pathlib.Path, shape: tuple[int, ...], output: str) -> Opened:
    loaded = saved_model.load(folder)
    names = [name for name in loaded.signatures if name != "__saved_model_init_op"]
    signature = "serving_default" if "serving_default" in names or len(names) != 1 else names[0]
    function = saved_model.signature_of(loaded, signature)
    outputs = list(function.structured_outputs)
    name = _choice(output, outputs)
    layer = saved_model.SavedModelLayer.open(folder, signature, name, name="saved_model")
    images = keras.Input(shape, name="images", dtype="float32")
    (spec,) = function.structured_input_signature[1].values()
    if not spec.dtype.is_floating:
        raise UserError(
            f"The SavedModel {str(folder)!r} should take float images: whole numbers and text have no gradient. "
            f"It takes: {spec.dtype.name}"
        )
    if spec.shape.rank is not None and not spec.shape.is_compatible_with((None, *shape)):
        raise UserError(f"The SavedModel {str(folder)!r} takes {spec.shape}, the data has images of {shape}.")
    model = keras.Model(images, layer(images), name="saved_model_classifier")
    return Opened(model, folder.name, layer.digest, has_one_output=True)


def _choice(output: str, outputs: list[str]) -> str:
    name = outputs[int(output)] if output.isdecimal() and int(output) < len(outputs) else output
    name = outputs[0] if not name and len(outputs) == 1 else name
    if name not in outputs:
        raise UserError(f"`--output` should be one of the model's outputs: {', '.join(outputs)}. Received: {output!r}")
    return name


def pick(answer: Any, names: list[str], output: str) -> Any:
    """Selects one of several outputs.

    Args:
      answer: the outputs: a single one, or several in a list, a tuple or a dictionary.
      names: names of those in a list; empty if they have none.
      output: name or number of the requested output; empty if there is only one.

    Raises:
      UserError: there is no such output, or there are several and none was requested.
    """
    if isinstance(answer, dict):
        return answer[_choice(output, list(answer))]
    if not isinstance(answer, list | tuple):
        if output:
            _choice(output, names or ["0"])
        return answer
    names = names or [str(number) for number in range(len(answer))]
    return answer[names.index(_choice(output, names))]


def _application(source: str, shape: tuple[int, ...], classes: int, seed: int) -> Opened:
    values = parse_spec(source, "model")[1]
    known = inspect.signature(Application).parameters
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UserError(f"{_APPLICATION} has no option {unknown[0]!r}. Its options: {', '.join(known)}.")
    values["weights"] = None if values.get("weights") in (None, "none") else values["weights"]
    asked = Application(**values)
    make: Any = getattr(keras.applications, asked.name, None)
    if not callable(make):
        names = sorted(name for name, value in vars(keras.applications).items() if callable(value))
        raise UserError(f"`name` of {_APPLICATION} should be one of {', '.join(names)}. Received: {asked.name!r}")
    imagenet = asked.weights == "imagenet"
    keras.utils.set_random_seed(seed)
    try:
        model = make(
            weights="imagenet" if imagenet else None, input_shape=tuple(shape), classifier_activation=None,
            classes=asked.classes or (1000 if imagenet else classes),
        )  # fmt: skip
        file = None if asked.weights is None or imagenet else user_path(asked.weights)
        if file is not None:
            model.load_weights(file)
    except Exception as error:
        # Keras raises ValueError and OSError, h5py almost anything.
        raise UserError(f"{source} cannot be made: {' '.join(str(error).split())[:300]}") from error
    if file is not None:
        digest, kind = digest_file(file), file.name
    else:
        digest = f"Keras {keras.__version__}" if imagenet else f"seed {seed}"
        kind = "imagenet" if imagenet else "random weights"
    name = _range_of(make)
    known_range = (name, f"keras.applications of {asked.name}") if name else None
    return Opened(model, f"{_APPLICATION}({asked.name}, {kind})", f"{asked.name} {digest}", known_range)


def _range_of(make: Any) -> str | None:
    """Determines the range a network of keras.applications expects, from its preprocessing of a white image."""
    module = importlib.import_module(make.__module__)
    white = float(np.max(module.preprocess_input(np.full((1, 2, 2, 3), 255.0, np.float32))))
    return {255: "0..255", 1: "-1..1"}.get(round(white), "torch" if white < 10 else "caffe")


def _preset(source: str) -> Opened:
    try:
        with contextlib.suppress(ImportError):
            hub = importlib.import_module("keras_hub")
            return Opened(hub.models.ImageClassifier.from_preset(source), source, source, has_code=True)
        if not source.startswith(_PRESETS[0]):
            raise UserError(f"{source!r} needs keras_hub: pip install keras-hub")
        return Opened(keras.models.load_model(source, compile=False, safe_mode=True), source, source)
    except UserError:
        raise
    except Exception as error:  # Networks, hubs and their packages may raise anything.
        raise UserError(f"Keras cannot load {source!r}: {' '.join(str(error).split())[:300]}") from error


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Suppresses warnings of Keras and of the model checks, because an import reports its findings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield
