"""Saves classifiers and auxiliary networks atomically as `.keras` files, and loads them in safe mode."""

from __future__ import annotations

import contextlib
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import IO, Any

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
"""Maximum ratio of unpacked size to file size, on top of one megabyte that is always allowed."""


def save_classifier(classifier: keras.Model, path: pathlib.Path) -> None:
    """Saves a classifier as `.keras` atomically, synced to disk."""
    with replacing(path) as temporary:
        classifier.save(temporary)


def auxiliary_path(path: pathlib.Path, name: str) -> pathlib.Path:
    """Path of a network trained along with a saved classifier: `best.generator.keras` for `best.keras`."""
    return path.with_suffix(f".{name}.keras")


def load_classifier(path: str | os.PathLike[str]) -> keras.Model:
    """Loads a saved classifier, without a final softmax.

    Nothing in the file is executed except, in a `SavedModelLayer`, operations of its graph.

    Raises:
      UserError: it is missing, damaged, contains code, or does not map images to logits.
    """
    wanted = f"{str(path)!r} should be a classifier saved as .keras"
    model = _load(path, wanted)
    if len(model.inputs) != 1 or len(model.input_shape) != 4 or len(model.output_shape) != 2:
        raise UserError(
            f"{wanted}, from images (NHWC) to logits. Received: {model.input_shape} to {model.output_shape}"
        )
    return as_classifier(model)


def load_generator(path: str | os.PathLike[str]) -> keras.Model:
    """Loads a saved perturbation generator. Nothing in the file is executed.

    Raises:
      UserError: it is missing, damaged, contains code, or does not map gradient, image and label to a perturbation.
    """
    wanted = f"{str(path)!r} should be a perturbation generator saved as .keras"
    model = _load(path, wanted)
    shapes = [tensor.shape for tensor in model.inputs]
    if len(shapes) != 3 or shapes[0] != shapes[1] or len(shapes[0]) != 4 or model.output_shape != shapes[0]:
        raise UserError(f"{wanted}, from gradient, image and label. Received: {shapes} to {model.output_shape}")
    return model


def load_any(path: str | os.PathLike[str], custom_objects: Mapping[str, Any] | None = None) -> keras.Model:
    """Loads any model saved as `.keras` or `.h5`, whatever its inputs and outputs.

    Args:
      path: the file.
      custom_objects: classes and functions that the model needs beyond Keras's own; code in the file, such as Lambda
      layers, is then executed. With None nothing is executed.

    Raises:
      UserError: it is missing, damaged, or contains code or unknown objects.
    """
    return _load(path, f"{str(path)!r} should be a Keras model", custom_objects)


def _load(path: str | os.PathLike[str], wanted: str, custom_objects: Mapping[str, Any] | None = None) -> keras.Model:
    file = pathlib.Path(user_path(path))
    try:
        _check(file)
        model = keras.models.load_model(file, custom_objects, compile=False, safe_mode=custom_objects is None)
        if not isinstance(model, keras.Model):
            raise TypeError(f"it holds a {type(model).__name__}, not a model")
        for variable in model.variables:
            value = keras.ops.convert_to_numpy(variable)
            if value.dtype.kind not in "biu" and not np.isfinite(value.astype(np.float32)).all():
                raise ValueError(f"the weights of {variable.path!r} should be finite")
    # On damage, zip, HDF5 and Keras raise almost anything: RuntimeError, RecursionError, zlib.error, MemoryError ...
    except Exception as error:
        raise UserError(f"{wanted}: {(str(error).strip().splitlines() or [repr(error)])[0]}") from error
    return model


def _check(file: pathlib.Path) -> None:
    """Raises ValueError if a file would unpack to far more than its size, or declares arrays that large.

    Keras compresses nothing.
    """
    most = _EXPANSION * file.stat().st_size + _ALWAYS
    with contextlib.ExitStack() as opened:
        weights: pathlib.Path | IO[bytes] = file
        if file.suffix not in (".h5", ".hdf5"):
            archive = opened.enter_context(zipfile.ZipFile(file))
            unpacked = sum(member.file_size for member in archive.infolist())
            if unpacked > most:
                raise ValueError(f"it would unpack to {unpacked:,} bytes, more than {_EXPANSION} times its size")
            if _WEIGHTS not in archive.namelist():
                raise ValueError(f"{_WEIGHTS} is not in it")
            weights = opened.enter_context(archive.open(_WEIGHTS))
        sizes: list[int] = []
        arrays = opened.enter_context(h5py.File(weights))
        arrays.visititems(lambda _, item: sizes.append(item.nbytes) if isinstance(item, h5py.Dataset) else None)
        if sum(sizes) > most:
            raise ValueError(f"its weights would take {sum(sizes):,} bytes, more than {_EXPANSION} times its size")
