"""What tests share: small models, artifacts made by hand, runs of stages."""

import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).parents[2]
"""The folder of the project."""

ENVIRONMENT = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
"""Of processes that import the package, and what tests share, as this one does."""
