"""Models of every kind, imported: what they become answers and falls as the same network as logits in [0, 1]."""

from __future__ import annotations

import keras
import pytest

from l2p_tf import contract
from l2p_tf.layers.noise import is_randomized
from support import foreign
from support.foreign import assert_same, classifier_of, imported

layers = keras.layers


def normalization():
    layer = layers.Normalization(mean=100.0, variance=80.0**2)
    return [layer, layers.Rescaling(80 / 255, 100 / 255)]


KINDS = {
    "logits": (lambda: foreign.made(), "0..1", contract.FITS),
    "softmax": (lambda: foreign.made([layers.Rescaling(1 / 255)], end="softmax"), "0..255", contract.MENDED),
    "Softmax layer": (lambda: foreign.made(after=[layers.Softmax()]), "0..1", contract.MENDED),
    "softmax operation": (lambda: foreign.made(after=[keras.ops.softmax]), "0..1", contract.MENDED),
    "probabilities": (lambda: foreign.made(after=[tf_softmax()]), "0..1", contract.MENDED),
    "Normalization": (lambda: foreign.made(normalization()), "0..255", contract.FITS),
    "-1 to 1": (lambda: foreign.made([layers.Rescaling(0.5, 0.5)]), "-1..1", contract.FITS),
    "whole numbers": (lambda: foreign.made([layers.Rescaling(1 / 255)], dtype="uint8"), "0..255", contract.FITS),
}


def tf_softmax():
    """A softmax that only the answers tell of: two exponentials of one layer."""
    return lambda x: keras.ops.exp(x) / keras.ops.sum(keras.ops.exp(x), axis=-1, keepdims=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_keras_model_becomes_the_same_network_as_logits_in_0_to_1(kind, data, judged, tmp_path):
    make, taken, outputs = KINDS[kind]
    run, found = imported(make(), data, tmp_path)
    model = classifier_of(run)
    assert_same(model, judged)
    assert f"takes pixels in {taken}" in found["input range"].text
    assert found["outputs"].verdict == outputs, found["outputs"]
    assert ("input" in found) == (kind == "whole numbers")
    assert {found[check].verdict for check in ("classes", "noise", "gradient")} == {contract.FITS}
    assert not is_randomized(model)


def sequential():
    model = foreign.made([layers.Rescaling(1 / 255)], end="softmax")
    return keras.Sequential([keras.Input(foreign.SHAPE), *model.layers[1:]])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Of Keras, writing HDF5.
@pytest.mark.parametrize("kind", ["sequential", "h5", "saved_model"])
def test_other_kinds_of_models_too(kind, data, judged, tmp_path):
    source = sequential()
    if kind == "h5":
        source.save(tmp_path / "model.h5")
        source = tmp_path / "model.h5"
    elif kind == "saved_model":
        source.export(tmp_path / "saved", verbose=False)
        source = tmp_path / "saved"
    run, found = imported(source, data, tmp_path)
    assert_same(classifier_of(run), judged)
    assert "takes pixels in 0..255" in found["input range"].text
    assert found["outputs"].verdict == contract.MENDED
