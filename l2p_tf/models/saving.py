"""Classifiers as `.keras` files, written whole and read in safe mode."""

from __future__ import annotations

import importlib
import os
import pathlib
import pkgutil
import zipfile

import keras

import l2p_tf.layers
from l2p_tf.types import UserError


def save_classifier(classifier: keras.Model, path: pathlib.Path) -> None:
    """Writes a classifier as `.keras`, whole or not at all."""
    temporary = path.with_name(f".{path.stem}.tmp.keras")
    try:
        classifier.save(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_classifier(path: str | os.PathLike[str]) -> keras.Model:
    """Opens a saved classifier. Nothing in the file is executed.

    Raises:
      UserError: it is missing, damaged, holds code, or does not map images to logits.
    """
    for module in pkgutil.iter_modules(l2p_tf.layers.__path__):
        # Reading needs every layer class registered.
        importlib.import_module(f"{l2p_tf.layers.__name__}.{module.name}")
    wanted = f"{str(path)!r} should be a classifier saved as .keras"
    try:
        model = keras.models.load_model(pathlib.Path(path), compile=False, safe_mode=True)
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{wanted}: {(str(error).strip().splitlines() or [repr(error)])[0]}") from error
    if len(model.inputs) != 1 or len(model.input_shape) != 4 or len(model.output_shape) != 2:
        raise UserError(
            f"{wanted}, from images (NHWC) to logits. Received: {model.input_shape} to {model.output_shape}"
        )
    return model
