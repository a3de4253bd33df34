"""Images of other shapes, other numbers of classes, networks of keras.applications, and what this toolkit served."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from l2p_tf.attacks import ATTACKS
from l2p_tf.contract import BEWARE, FITS, MENDED
from l2p_tf.data import ImageData, prepare
from l2p_tf.serving import SAVED_MODEL, export
from support import others_slow
from support.datasets import fake, noise
from support.foreign import assert_same, classifier_of, imported, made

layers = keras.layers


def network(shape, classes, before=(), end="linear"):
    """A network whose weights its seed decides."""
    keras.utils.set_random_seed(3)
    x = images = keras.Input(shape)
    for layer in before:
        x = layer(x)
    x = layers.Flatten()(layers.Conv2D(4, 3, activation="relu", bias_initializer="he_normal")(x))
    return keras.Model(images, layers.Dense(classes, activation=end)(x))


def labeled(model, folder, classes, count=300):
    """Images that a model is right on, as the data stage leaves them, and some of its test split."""
    images = noise(count, model.input_shape[1:])
    labels = model.predict(images / np.float32(255), verbose=0).argmax(-1)
    data = ImageData.open(prepare(fake(images, labels, classes), folder / "data").path)
    return data, data.sample("test", 40)[1:]


def assert_falls_alike(run, model, images, labels, epsilon):
    one, other = (
        ATTACKS.parse(f"pgd(epsilon={epsilon}, steps=4)")(m, images, labels, seed=1)
        for m in (classifier_of(run), model)
    )
    assert np.mean(one.success == other.success) >= 0.99
    assert 0.1 < other.success.mean() < 1.0


@pytest.mark.parametrize(("shape", "classes", "epsilon"), [((5, 9, 3), 1000, 0.02), ((7, 4, 1), 5, 0.08)])
def test_any_shape_and_number_of_classes(shape, classes, epsilon, tmp_path):
    plain = network(shape, classes)
    data, judged = labeled(plain, tmp_path, classes)
    run, found = imported(network(shape, classes, [layers.Rescaling(1 / 255)], "softmax"), data, tmp_path)
    assert "takes pixels in 0..255, as rescaling" in found["input range"].text
    assert_falls_alike(run, plain, *judged, epsilon)


@pytest.mark.parametrize("last", ["dense", "activation"])
def test_a_sigmoid_of_one_output_tells_two_classes(last, tmp_path):
    soft = network((6, 6, 1), 1, end="sigmoid")
    if last == "activation":
        plain = network((6, 6, 1), 1)
        soft = keras.Model(plain.input, layers.Activation("sigmoid")(plain.output))
    plain, (kernel, bias) = network((6, 6, 1), 2), soft.get_weights()[2:]
    plain.set_weights([*soft.get_weights()[:2], np.hstack([0 * kernel, kernel]), np.hstack([0 * bias, bias])])
    data, judged = labeled(plain, tmp_path, 2)
    run, found = imported(soft, data, tmp_path)
    assert found["outputs"].verdict == MENDED
    assert "sigmoid of one output" in found["outputs"].text
    assert_falls_alike(run, plain, *judged, 0.1)
    with pytest.warns(UserWarning, match="sigmoid of one output"):
        assert ATTACKS.parse("fgsm")(soft, *judged).success.mean() > 0


@pytest.mark.parametrize("weights", others_slow(["none", "file"], "file"))
def test_a_network_of_keras_applications(weights, tmp_path):
    keras.utils.set_random_seed(5)
    inner = keras.applications.MobileNet(weights=None, input_shape=(32, 32, 3), classes=4, classifier_activation=None)
    x = keras.Input((32, 32, 3))
    plain = keras.Model(x, inner(layers.Rescaling(2.0, -1.0)(x)))
    data, (images, _) = labeled(plain, tmp_path, 4, count=100)
    inner.save_weights(tmp_path / "a.weights.h5")
    source = "none" if weights == "none" else repr(str(tmp_path / "a.weights.h5"))
    run, found = imported(
        f"keras_application(name=MobileNet, weights={source})", data, tmp_path, seed=5, input_range="-1..1"
    )
    pixels = images / np.float32(255)
    np.testing.assert_allclose(classifier_of(run)(pixels), plain(pixels), rtol=1e-4, atol=1e-7)
    assert "takes pixels in -1..1, as --input_range says" in found["input range"].text


def test_what_was_served_comes_back(data, judged, tmp_path):
    (tmp_path / "first").mkdir()
    run, _ = imported(made(), data, tmp_path / "first")
    served = export(run, tmp_path / "export").path / SAVED_MODEL
    run, found = imported(served, data, tmp_path, output="probabilities")
    assert_same(classifier_of(run), judged, share=0.95)  # Where a softmax is rounded to 1 its gradient is 0.
    assert [name for name in ("0..1", "0..255", "-1..1") if f"in {name}" in found["input range"].text] == ["0..1"]
    assert found["outputs"].verdict == MENDED
    assert found["gradient"].verdict == FITS
    assert found["classes"].verdict != BEWARE
