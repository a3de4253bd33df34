"""Saved networks that were damaged, or made to do harm: loaded as they were, or refused in a line naming the file."""

import io
import json
import time
import tracemalloc
import zipfile

import h5py
import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2p_tf.defenses import DEFENSES
from l2p_tf.models.saving import load_classifier, save_classifier
from l2p_tf.types import UserError
from support import damage
from support.models import tiny

WEIGHTS = "model.weights.h5"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A saved network with noise, and what is in its file."""
    path = tmp_path_factory.mktemp("saved") / "best.keras"
    save_classifier(tiny(DEFENSES.parse("learn2perturb")), path)
    with zipfile.ZipFile(path) as archive:
        return path, {name: archive.read(name) for name in archive.namelist()}


def rewritten(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def refused(path, message):
    with pytest.raises(UserError, match=rf"{path.name}' should be a classifier saved as \.keras: {message}") as told:
        load_classifier(path)
    assert len(str(told.value).splitlines()) == 1


def test_what_is_no_classifier_is_refused(saved, tmp_path):
    path = tmp_path / "a.keras"
    refused(path, "")
    path.write_bytes(b"not a zip")
    refused(path, "")
    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save(path)
    with pytest.raises(UserError, match=r"should be a classifier saved as \.keras, from images"):
        load_classifier(path)
    path.write_bytes(saved[0].read_bytes()[: saved[0].stat().st_size // 2])
    refused(path, "")


@pytest.mark.filterwarnings("ignore")
def test_code_in_a_file_is_not_run(tmp_path):
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.Lambda(lambda x: x * 2)(inputs)
    keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x))).save(tmp_path / "m.keras")
    refused(tmp_path / "m.keras", "")


def check_damage(saved, tmp_path, examples):
    _, members = saved
    model = load_classifier(saved[0])
    path = tmp_path / "damaged.keras"

    @settings(max_examples=examples)
    @given(st.data())
    def check(data):
        name = data.draw(st.sampled_from(["config.json", WEIGHTS, ""]))
        if name:
            change = damage.in_json if name == "config.json" else damage.in_bytes
            rewritten(path, {**members, name: change(data.draw, members[name])})
        else:
            path.write_bytes(
                damage.in_bytes(data.draw, saved[0].read_bytes(), data.draw(st.sampled_from(["flip", "cut"])))
            )
        try:
            found = load_classifier(path)
        except UserError as error:
            assert str(path) in str(error)  # noqa: PT017
            assert len(str(error).splitlines()) == 1  # noqa: PT017
        else:
            assert all(np.isfinite(keras.ops.convert_to_numpy(v)).all() for v in found.weights)
            if not name:  # Bytes that the archive has no sum of: names, times.
                for one, other in zip(found.weights, model.weights, strict=True):
                    np.testing.assert_array_equal(one, other)

    check()


def test_damage_is_noticed_or_does_not_matter(saved, tmp_path):
    check_damage(saved, tmp_path, 12)


@pytest.mark.slow
def test_much_damage_is_noticed_or_does_not_matter(saved, tmp_path):
    check_damage(saved, tmp_path, 400)


def test_a_bomb_is_not_unpacked(saved, tmp_path):
    _, members = saved
    path = rewritten(tmp_path / "a.keras", {**members, WEIGHTS: bytes(2**28)}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    begun = time.monotonic()
    refused(path, "it would unpack to 268,.* bytes, more than 20 times its size")
    assert time.monotonic() - begun < 1
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    # A compressed file of real weights is none.
    assert load_classifier(rewritten(tmp_path / "b.keras", members, zipfile.ZIP_DEFLATED)).output_shape == (None, 4)


def test_weights_that_only_promise_are_not_allocated(saved, tmp_path):
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file.create_dataset("layers/dense/vars/0", shape=(2**17, 2**17), dtype="f4", chunks=(1024, 1024))
    assert len(stream.getvalue()) < 10_000
    refused(rewritten(tmp_path / "a.keras", {**saved[1], WEIGHTS: stream.getvalue()}), "its weights would take 68,7")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_named(saved, tmp_path, value):
    model = load_classifier(saved[0])
    kernel = next(w for w in model.weights if w.path.endswith("kernel"))
    changed = keras.ops.convert_to_numpy(kernel).copy()
    changed.flat[0] = value
    kernel.assign(changed)
    save_classifier(model, tmp_path / "a.keras")
    refused(tmp_path / "a.keras", f"the weights of '{kernel.path}' should be finite")


def test_damaged_weights_and_deep_settings_are_told(saved, tmp_path):
    _, members = saved
    refused(rewritten(tmp_path / "a.keras", {**members, WEIGHTS: members[WEIGHTS][:-1000]}), "")
    refused(rewritten(tmp_path / "a.keras", {**members, "config.json": "[" * 100_000}), "")
    refused(rewritten(tmp_path / "a.keras", {n: m for n, m in members.items() if n != WEIGHTS}), f"{WEIGHTS} is not in")
    layer = keras.saving.serialize_keras_object(keras.layers.Dense(3))
    refused(rewritten(tmp_path / "a.keras", {**members, "config.json": json.dumps(layer)}), "")
