"""What the tests of trainings share."""

import pytest

from support import trainings


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A few digits to train on."""
    return trainings.digits(tmp_path_factory.mktemp("digits") / "data", limit_train=400)
