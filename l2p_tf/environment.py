"""What the surroundings say: Keras backend and oneDNN, settled before both are loaded, versions, the home folder."""

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
"""`one` device; `mirrored`: all GPUs of this machine; `multi_worker`: those of all processes that TF_CONFIG names."""


def prepare() -> None:
    """Chooses TensorFlow as the backend of Keras and switches oneDNN on, where the user has not said otherwise.

    TensorFlow leaves oneDNN off on x86 CPUs without AVX-512 VNNI, where its convolutions then take twice as long.
    """
    if "keras" not in sys.modules:
        # A keras.json in the home folder may name another.
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
    """UserError where Keras has, or would have, another backend than TensorFlow."""
    keras: Any = sys.modules.get("keras")
    backend = keras.backend.backend() if hasattr(keras, "backend") else os.environ.get(_BACKEND) or "tensorflow"
    if backend != "tensorflow":
        raise UserError(
            f"`{_BACKEND}` should be tensorflow, which this package computes with; unset it or set it so before Keras "
            f"is loaded. Received: {backend!r}"
        )


def onednn() -> bool | None:
    """Whether TensorFlow computes with oneDNN; None where TensorFlow is not loaded."""
    if "tensorflow" not in sys.modules:
        return None
    from tensorflow.python.util import _pywrap_util_port  # TensorFlow tells it nowhere else

    return bool(_pywrap_util_port.IsMklEnabled())


def user_path(path: str | os.PathLike[str]) -> pathlib.Path:
    """A path as the user gave it, with `~` and `~NAME` at its beginning replaced by the home folder.

    Raises:
      UserError: there is no such home, or it holds a null byte, which no path can.
    """
    if "\0" in str(path):
        raise UserError(f"A path should hold no null byte. Received: {str(path)!r}")
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"A path that begins with `~` should name a home folder. Received: {str(path)!r}") from error


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide results."""
    versions = {}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
