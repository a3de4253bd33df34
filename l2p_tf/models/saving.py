"""Classifiers, and what is trained beside them, as `.keras` files, written whole and read in safe mode."""

from __future__ import annotations

import os
import pathlib
import zipfile

import keras

import l2p_tf.layers  # noqa: F401 - reading needs every layer class registered
from l2p_tf.environment import user_path
from l2p_tf.files import replacing
from l2p_tf.types import UserError


def save_classifier(classifier: keras.Model, path: pathlib.Path) -> None:
    """Writes a classifier as `.keras`, whole or not at all, and to the disk."""
    with replacing(path) as temporary:
        classifier.save(temporary)


def companion_path(path: pathlib.Path, name: str) -> pathlib.Path:
    """Where a network trained beside a saved classifier lies: `best.generator.keras` for `best.keras`."""
    return path.with_suffix(f".{name}.keras")


def load_classifier(path: str | os.PathLike[str]) -> keras.Model:
    """Opens a saved classifier. Nothing in the file is executed.

    Raises:
      UserError: it is missing, damaged, holds code, or does not map images to logits.
    """
    wanted = f"{str(path)!r} should be a classifier saved as .keras"
    model = _load(path, wanted)
    if len(model.inputs) != 1 or len(model.input_shape) != 4 or len(model.output_shape) != 2:
        raise UserError(
            f"{wanted}, from images (NHWC) to logits. Received: {model.input_shape} to {model.output_shape}"
        )
    return model


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


def _load(path: str | os.PathLike[str], wanted: str) -> keras.Model:
    try:
        return keras.models.load_model(user_path(path), compile=False, safe_mode=True)
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{wanted}: {(str(error).strip().splitlines() or [repr(error)])[0]}") from error
