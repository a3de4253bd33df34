"""What is kept of an attack that is not finished."""

import shutil
import types
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from l2p_tf.evaluation import evaluate
from l2p_tf.evaluation.chunked import Folder
from support import damage
from support.disks import disk


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


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_part_is_told_and_done_again_or_is_what_it_was(tmp_path, data):
    kept, rng = Folder(tmp_path), np.random.default_rng(0)
    arrays = {"wrong": rng.random(7), "pictures": rng.random((2, 3, 3, 1), np.float32), "prediction": np.arange(7)}
    kept.save("01-00-0000000", arrays)
    file = tmp_path / "01-00-0000000.npz"
    file.write_bytes(damage.in_bytes(data.draw, file.read_bytes(), data.draw(st.sampled_from(["flip", "cut"]))))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = kept.load("01-00-0000000")
    if found is None:
        assert all("01-00-0000000.npz' is damaged" in str(one.message) for one in told)
        assert all("\n" not in str(one.message) for one in told)
    else:
        assert not told
        assert found.keys() == arrays.keys()
        for name, values in found.items():
            np.testing.assert_array_equal(values, arrays[name])


def test_no_part_is_no_damage(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Folder(tmp_path).load("01-00-0000000") is None


def test_images_that_do_not_fit_on_the_disk_are_an_error_and_no_crash(tmp_path):
    shape = (1000, 32, 32, 3)
    with disk(tmp_path / "disk", "1m") as small:
        owner = types.SimpleNamespace(folder=small.place, images=np.zeros(shape, np.uint8))
        job = types.SimpleNamespace(keeps="float32")
        with pytest.raises(OSError, match="No space left") as full, evaluate.Evaluation._kept(owner, job, "00-00"):
            raise AssertionError("It would have crashed here.")
        assert full.value.filename == str(small.place / "images" / "00-00.npy")
