import pytest

from support.serving import exported


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """The export of a network without noise."""
    return exported(tmp_path_factory.mktemp("plain"), "none")
