"""What a model is seen to do when it is asked about images: noise of any kind, and answers that are no classifier's."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from l2p_tf import inference
from l2p_tf.classifier import as_classifier
from l2p_tf.layers.noise import draws_per_example, has_other_noise, is_randomized
from l2p_tf.layers.perturbation_injection import PerturbationInjection
from support.training import assert_same, values

SHAPE = (4, 4, 1)
layers = keras.layers


@pytest.fixture
def images():
    return np.random.default_rng(0).random((24, *SHAPE), dtype=np.float32)


def finished(make):
    """A functional model on 4x4 images; `make` gets the flat images and gives the logits."""
    keras.utils.set_random_seed(0)
    x = keras.Input(SHAPE)
    return keras.Model(x, make(layers.Flatten()(x)))


class Rarely(layers.Layer):
    """Sets an image to zero with a probability of 1e-6, by random numbers of some source."""

    def __init__(self, source):
        super().__init__()
        self.source = source
        self.dropout, self.generator = layers.Dropout(1e-6), tf.random.Generator.from_seed(1)

    def call(self, x):
        if self.source == "dropout":
            return self.dropout(x, training=True)
        draw = {"keras": keras.random.uniform, "global": tf.random.uniform, "generator": self.generator.uniform}
        return tf.where(draw[self.source]([tf.shape(x)[0], 1]) < 1e-6, 0.0, x)


@pytest.mark.parametrize("shown", ["images", "black"])
@pytest.mark.parametrize("source", ["dropout", "keras", "global", "generator"])
def test_noise_that_hardly_ever_shows_is_noticed(source, shown, images):
    classifier = as_classifier(finished(lambda x: layers.Dense(3)(Rarely(source)(x))), images * (shown == "images"))
    assert is_randomized(classifier)


def test_layers_of_noise_that_are_off_at_prediction_are_no_noise(images):
    def ours(x):
        return layers.Dense(3)(layers.Dropout(0.5)(PerturbationInjection(initial=0.1, minimum=0.0)(x)))

    classifier = as_classifier(finished(ours), images)
    assert not has_other_noise(classifier)
    assert draws_per_example(classifier)


def test_noise_that_keras_switches_off_at_prediction_is_told(images):
    model = finished(lambda x: layers.Dense(3)(layers.Dropout(0.5)(x, training=True)))
    with pytest.warns(
        UserWarning, match="draws random numbers when it is called as it is, but not with training=False"
    ):
        classifier = as_classifier(model, images)
    assert not is_randomized(classifier)
    np.testing.assert_allclose(inference.predict(model, images), tf.nn.softmax(model.predict(images, verbose=0)), 1e-4)


def test_nothing_of_a_model_changes_while_it_is_asked(images):
    norm = layers.BatchNormalization()

    class Counting(layers.Layer):
        def build(self, shape):
            self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, x):
            self.count.assign(self.count + 1)
            return x

    counting = Counting()
    model = finished(lambda x: layers.Dense(3)(counting(norm(x, training=True))))
    former = values(model.variables)
    as_classifier(model, images)
    assert_same(former, model.variables)
