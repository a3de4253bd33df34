"""What the tests of imports share."""

import pytest

from support import foreign
from support.trainings import digits


@pytest.fixture(scope="package")
def data(tmp_path_factory):
    """The digits."""
    return digits(tmp_path_factory.mktemp("data") / "data")


@pytest.fixture(scope="package")
def judged(data):
    """Images, their labels, and which of them fall in the network as it should be."""
    _, images, labels = data.sample("test", 100)
    return images, labels, foreign.fallen(foreign.made(), images, labels)
