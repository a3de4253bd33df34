"""Train, attack, judge, report and serve image classifiers that withstand adversarial perturbations."""

import os as _os
import sys as _sys
import typing as _typing

from l2p_tf import environment as _environment

__version__ = "0.1.0"

_environment.prepare()
if "keras" in _sys.modules:
    # Its layers are then known to `keras.models.load_model`; loading Keras for that would make every import slow.
    from l2p_tf import layers as _layers  # noqa: F401

if _typing.TYPE_CHECKING:
    from l2p_tf.reporting.results import Results as _Results


def results(*folders: str | _os.PathLike[str]) -> "_Results":
    """Everything finished in some folders, as pandas frames; see `l2p_tf.reporting.results`."""
    from l2p_tf.reporting.results import results as read  # pandas would make every import slow

    return read(*folders)
