"""Train, attack, judge, report and serve image classifiers that withstand adversarial perturbations."""

import importlib as _importlib
import sys as _sys
import typing as _typing

from l2p_tf import environment as _environment

__version__ = "0.1.0"

_environment.prepare()
if "keras" in _sys.modules:
    # Registers layers for `keras.models.load_model`, if Keras is loaded; loading it here would make every import slow.
    from l2p_tf import layers as _layers  # noqa: F401

if _typing.TYPE_CHECKING:
    from l2p_tf.api import evaluate, harden
    from l2p_tf.reporting.results import results

__all__ = ["__version__", "evaluate", "harden", "results"]
_HOMES = {"evaluate": "l2p_tf.api", "harden": "l2p_tf.api", "results": "l2p_tf.reporting.results"}


def __getattr__(name: str) -> _typing.Any:
    """Loads the public API on first use, because TensorFlow and pandas make an import slow."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
