import pytest

from l2p_tf.data import DATASETS, ImageData, prepare


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits") / "data"
    prepare(DATASETS.parse("digits"), folder, limit_train=400)
    return ImageData.open(folder)
