"""Classifiers, and what is trained beside them, as `.keras` files, written whole and read in safe mode."""

from __future__ import annotations

import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import h5py
import keras
import numpy as np

import l2p_tf.layers  # noqa: F401 - reading needs every layer class registered
from l2p_tf.classifier import as_classifier
from l2p_tf.environment import user_path
from l2p_tf.files import replacing
from l2p_tf.types import UserError

_WEIGHTS = "model.weights.h5"
_EXPANSION, _ALWAYS = 20, 2**20
"""How many times its size a file may unpack to, besides a megabyte that any may."""


def save_classifier(classifier: keras.Model, path: pathlib.Path) -> None:
    """Writes a classifier as `.keras`, whole or not at all, and to the disk."""
    with replacing(path) as temporary:
        classifier.save(temporary)


def auxiliary_path(path: pathlib.Path, name: str) -> pathlib.Path:
    """Where a network trained beside a saved classifier lies: `best.generator.keras` for `best.keras`."""
    return path.with_suffix(f".{name}.keras")


def load_classifier(path: str | os.PathLike[str]) -> keras.Model:
    """Opens a saved classifier, without the softmax it may end in.

    Nothing in the file is executed but, where it has a `SavedModelLayer`, operations of that graph.

    Raises:
      UserError: it is missing, damaged, holds code, or does not map images to logits.
    """
    wanted = f"{str(path)!r} should be a classifier saved as .keras"
    model = _load(path, wanted)
    if len(model.inputs) != 1 or len(model.input_shape) != 4 or len(model.output_shape) != 2:
        raise UserError(
            f"{wanted}, from images (NHWC) to logits. Received: {model.input_shape} to {model.output_shape}"
        )
    return as_classifier(model)


def load_generator(path: str | os.PathLike[str]) -> keras.Model:
    """Opens a saved perturbation generator. Nothing in the file is executed.

    Raises:
      UserError: it is missing, damaged, holds code, or does not map gradient, image and label to a perturbation.
    """
    wanted = f"{str(path)!r} should be a perturbation generator saved as .keras"
    model = _load(path, wanted)
    shapes = [tensor.shape for tensor in model.inputs]
    if len(shapes) != 3 or shapes[0] != shapes[1] or len(shapes[0]) != 4 or model.output_shape != shapes[0]:
        raise UserError(f"{wanted}, from gradient, image and label. Received: {shapes} to {model.output_shape}")
    return model


def load_any(path: str | os.PathLike[str], custom_objects: Mapping[str, Any] | None = None) -> keras.Model:
    """Opens any model saved as `.keras` or `.h5`, whatever it takes and gives.

    Args:
      path: the file.
      custom_objects: classes and functions that the model needs beyond Keras's own; code in the file, that of Lambda
        layers, is run then. None runs nothing.

    Raises:
      UserError: it is missing, damaged, or holds code or what is not known.
    """
    return _load(path, f"{str(path)!r} should be a Keras model", custom_objects)


def _load(path: str | os.PathLike[str], wanted: str, custom_objects: Mapping[str, Any] | None = None) -> keras.Model:
    file = pathlib.Path(user_path(path))
    try:
        (_check_h5 if file.suffix in (".h5", ".hdf5") else _check_size)(file)
        model = keras.models.load_model(file, custom_objects, compile=False, safe_mode=custom_objects is None)
        if not isinstance(model, keras.Model):
            raise TypeError(f"it holds a {type(model).__name__}, not a model")
        for variable in model.variables:
            value = keras.ops.convert_to_numpy(variable)
            if value.dtype.kind not in "biu" and not np.isfinite(value.astype(np.float32)).all():
                raise ValueError(f"the weights of {variable.path!r} should be finite")
    # On damage zip, HDF5 and Keras raise nearly anything: RuntimeError, RecursionError, zlib.error, MemoryError ...
    except Exception as error:
        raise UserError(f"{wanted}: {(str(error).strip().splitlines() or [repr(error)])[0]}") from error
    return model


def _check_h5(file: pathlib.Path) -> None:
    """ValueError where arrays of an HDF5 file promise far more than the file is."""
    sizes: list[int] = []
    with h5py.File(file) as weights:
        weights.visititems(lambda _, item: sizes.append(item.nbytes) if isinstance(item, h5py.Dataset) else None)
    if sum(sizes) > _EXPANSION * file.stat().st_size + _ALWAYS:
        raise ValueError(f"its weights would take {sum(sizes):,} bytes, more than {_EXPANSION} times its size")


def _check_size(file: pathlib.Path) -> None:
    """ValueError where a file would unpack to far more than it is: Keras compresses nothing, weights hardly shrink."""
    most = _EXPANSION * file.stat().st_size + _ALWAYS
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > most:
            raise ValueError(f"it would unpack to {unpacked:,} bytes, more than {_EXPANSION} times its size")
        if _WEIGHTS not in archive.namelist():
            raise ValueError(f"{_WEIGHTS} is not in it")
        sizes: list[int] = []
        with archive.open(_WEIGHTS) as stream, h5py.File(stream) as weights:
            weights.visititems(lambda _, item: sizes.append(item.nbytes) if isinstance(item, h5py.Dataset) else None)
        if sum(sizes) > most:
            raise ValueError(f"its weights would take {sum(sizes):,} bytes, more than {_EXPANSION} times its size")
