"""What is kept of an attack that is not finished."""

import shutil

import numpy as np
import pytest

from l2p_tf.evaluation.chunked import Folder


@pytest.mark.parametrize("place", ["00-00-0000000", "01-00-0000040", "01-00-0000000+00-000"])
def test_a_part_is_only_taken_for_its_own(tmp_path, place):
    prefix, key = place[:14] if "+" in place else "", place[14:] if "+" in place else place
    kept = Folder(tmp_path, prefix)
    arrays = {"wrong": np.array([0.0, 1.0]), "seconds": np.array(1.5)}
    Folder(tmp_path).save("01-00-0000000", {"wrong": np.array([1.0, 1.0])})
    kept.save(key, arrays)
    found = kept.load(key)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
    # Another part, and arrays that are no part at all, under its name.
    shutil.copyfile(tmp_path / "01-00-0000000.npz", tmp_path / f"{place}.npz")
    assert kept.load(key) is None
    np.savez(tmp_path / f"{place}.npz", **arrays)
    assert kept.load(key) is None
