"""Environment: Keras backend and oneDNN, chosen before both are loaded; package versions; user paths."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
import pathlib
import sys
from typing import Any

from l2p_tf.types import UserError

_BACKEND, _ONEDNN = "KERAS_BACKEND", "TF_ENABLE_ONEDNN_OPTS"
_PACKAGES = (
    "l2p_tf", "tensorflow", "keras", "tensorflow-datasets", "tensorflow-probability", "cleverhans", "numpy", "foolbox",
    "adversarial-robustness-toolbox",
)  # fmt: skip
STRATEGIES = ("auto", "one", "mirrored", "multi_worker")
"""`one` device; `mirrored`: all GPUs of this machine; `multi_worker`: those of all processes in TF_CONFIG."""


def prepare() -> None:
    """Selects TensorFlow as the backend of Keras and enables oneDNN, unless the user chose otherwise.

    TensorFlow disables oneDNN on x86 CPUs without AVX-512 VNNI, where its convolutions then take twice as long.
    """
    if "keras" not in sys.modules:
        # A keras.json in the home folder may select another.
        os.environ[_BACKEND] = os.environ.get(_BACKEND) or "tensorflow"
    if "tensorflow" not in sys.modules:
        os.environ.setdefault(_ONEDNN, "1")
    elif _ONEDNN not in os.environ and not onednn():
        logging.getLogger("l2p_tf").warning(
            "TensorFlow was loaded before l2p_tf, without oneDNN: set %s=1, or import l2p_tf first, for about twice "
            "the speed on this CPU.",
            _ONEDNN,
        )


def check_backend() -> None:
    """Raises UserError if Keras has, or would have, another backend than TensorFlow."""
    keras: Any = sys.modules.get("keras")
    backend = keras.backend.backend() if hasattr(keras, "backend") else os.environ.get(_BACKEND) or "tensorflow"
    if backend != "tensorflow":
        raise UserError(
            f"`{_BACKEND}` should be tensorflow, which this package computes with; unset it or set it so before Keras "
            f"is loaded. Received: {backend!r}"
        )


def onednn() -> bool | None:
    """Whether TensorFlow uses oneDNN; None if TensorFlow is not loaded."""
    if "tensorflow" not in sys.modules:
        return None
    from tensorflow.python.util import _pywrap_util_port  # TensorFlow exposes it nowhere else

    return bool(_pywrap_util_port.IsMklEnabled())


def user_path(path: str | os.PathLike[str]) -> pathlib.Path:
    """Converts a user's path, expanding `~` and `~NAME` at its start to the home folder.

    Raises:
      UserError: there is no such home, or the path contains a null byte.
    """
    if "\0" in str(path):
        raise UserError(f"A path should hold no null byte. Received: {str(path)!r}")
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"A path that begins with `~` should name a home folder. Received: {str(path)!r}") from error


def package_versions() -> dict[str, str]:
    """Returns the versions of the packages that affect results."""
    versions = {}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
