"""What tests share: small models, artifacts made by hand, runs of stages."""

import os
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
"""The folder of the project."""

ENVIRONMENT = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
"""Of processes that import the package, and what tests share, as this one does."""


def others_slow(values, *fast):
    """Values of a parametrized test; all but `fast` are in the slow tier."""
    return [value if value in fast else pytest.param(value, marks=pytest.mark.slow) for value in values]
