"""Train, attack, judge, report and serve image classifiers that withstand adversarial perturbations."""

import sys as _sys

from l2p_tf import environment as _environment

__version__ = "0.1.0"

_environment.prepare()
if "keras" in _sys.modules:
    # Its layers are then known to `keras.models.load_model`; loading Keras for that would make every import slow.
    from l2p_tf import layers as _layers  # noqa: F401
