"""Attacks on classifiers with spikes, or without an answer to some images."""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from l2p_tf import inference
from l2p_tf.attacks import ATTACKS
from l2p_tf.evaluation.evaluate import Evaluation
from l2p_tf.evaluation.options import EvaluationOptions
from l2p_tf.evaluation.records import read_records
from l2p_tf.layers.perturbation_injection import PerturbationInjection
from support import others_slow

SHAPE = (4, 4, 1)
layers = keras.layers


def weights(classes=3, seed=1, scale=10.0):
    w = np.random.default_rng(seed).normal(size=(16, classes)).astype(np.float32) * scale
    return [w, -w.sum(0) / 2]


class Scaled(layers.Layer):
    """Each image over its standard deviation: 0 / 0 where it is of one color."""

    def call(self, x):
        mean, variance = tf.nn.moments(x, 1, keepdims=True)
        return (x - mean) / tf.sqrt(variance)


QUICK = (
    "fgsm", "pgd(steps=3)", "apgd(steps=3)", "mim(steps=3)", "cw(steps=5)", "deepfool", "fab(steps=3)", "spsa(steps=2)",
    "square(queries=5)", "few_pixel(population=8, generations=2)", "zoo(steps=3)", "noise",
    "hop_skip_jump(steps=3)",
    "autoattack(steps=3, queries=5, target_classes=1)",
    "worst_case(attacks=(pgd(steps=2), square(queries=4)))",
)  # fmt: skip


NONE = [3, 7]
"""The images to which `scaled` has no answer."""


@pytest.fixture(scope="module")
def scaled():
    """A model that has no answer to two images, all images, and labels that are right where there is one."""
    images = np.random.default_rng(0).random((24, *SHAPE), dtype=np.float32)
    images[NONE] = 0.5
    x = keras.Input(SHAPE)
    dense = layers.Dense(3)
    model = keras.Model(x, dense(Scaled()(layers.Flatten()(x))))
    dense.set_weights(weights(scale=1.0))
    labels = inference.predict(model, images).argmax(-1)
    labels[NONE] = [0, 1]
    return model, images, labels


@pytest.mark.parametrize("spec", QUICK)
@pytest.mark.filterwarnings("ignore:.*ascends the margin instead")
def test_an_answer_that_is_no_number_is_wrong_and_leaves_the_others_alone(spec, scaled):
    model, images, labels = scaled
    output = ATTACKS.parse(spec)(model, images, labels, seed=1)
    none, others = NONE, ~np.isin(np.arange(24), NONE)
    assert output.wrong[none].tolist() == output.success[none].tolist() == [1, 1]
    if spec != "noise":
        assert output.prediction[none].tolist() == [-1, -1]
        assert not output.probability[none].any()
    assert np.isfinite(output.adversarial).all()
    assert (output.prediction[others] >= 0).all()
    alone = ATTACKS.parse(spec)(model, images[others], labels[others], seed=1)
    # Of other places in the batch other random numbers come; without them nothing differs.
    assert abs(output.success[others].mean() - alone.success.mean()) < 0.2


def test_an_answer_that_is_no_number_is_no_vote(scaled):
    model, images, _ = scaled
    probabilities, votes = inference.predict_with_votes(model, images, draws=3)
    assert not votes[NONE].any()
    assert not probabilities[NONE].any()
    others = ~np.isin(np.arange(24), NONE)
    np.testing.assert_array_equal(inference.decided(votes)[others], probabilities[others].argmax(-1))


class Spikes(layers.Layer):
    """Class 1 near some points, class 0 elsewhere: what is wrong there becomes right by any step away."""

    def __init__(self, points):
        super().__init__()
        self.points = tf.constant(points)

    def call(self, x):
        near = tf.reduce_min(tf.reduce_max(tf.abs(x[:, None] - self.points), -1), -1)
        return tf.stack([0.0 * near, 1.0 - 40.0 * near, 0.0 * near - 1.0, 0.0 * near - 2.0], -1)


@pytest.fixture(scope="module", params=others_slow([None, 0.001], 0.001))
def spikes(request):
    """A classifier, with noise or without, and images of which the first half are among its spikes."""
    images = np.random.default_rng(0).random((24, *SHAPE), dtype=np.float32)
    x = keras.Input(SHAPE)
    flat = layers.Flatten()(x)
    if request.param is not None:
        flat = PerturbationInjection(initial=request.param, minimum=0.0, seed=3)(flat)
    return keras.Model(x, Spikes(images[:12].reshape(12, -1))(flat)), images


@pytest.mark.parametrize(
    "spec",
    [
        "fgsm(epsilon=0.1)", "pgd(epsilon=0.1)", "pgd(epsilon=0.1, restarts=3)", "apgd(epsilon=0.1, steps=10)",
        "mim(epsilon=0.1)", "square(epsilon=0.1, queries=50)", "spsa(epsilon=0.1, steps=5)", "noise(epsilon=0.1)",
        "pgd(epsilon=0.1, target=next)", "worst_case(epsilon=0.1, attacks=(pgd, square(queries=50)))",
        "autoattack(epsilon=0.1, steps=5, queries=20)", "autoattack(epsilon=0.1, version=rand, steps=5, draws=1)",
        "few_pixel(population=20, generations=3)",
    ],
)  # fmt: skip
def test_no_attack_makes_a_classifier_more_accurate(spec, spikes):
    model, images = spikes
    output = ATTACKS.parse(spec)(model, images, np.zeros(24, int), seed=1)
    assert (output.wrong[:12] > 0.5).all()


def test_an_evaluation_counts_answers_that_are_no_numbers(tmp_path, scaled):
    model, images, labels = scaled
    data = types.SimpleNamespace(
        select=lambda *_: (np.arange(24), images, labels), info=types.SimpleNamespace(name="made")
    )
    options = EvaluationOptions((ATTACKS.parse("pgd(steps=2)"),))
    clean, attacked = Evaluation(model, data, options, tmp_path, "mine").run()
    assert (clean.invalid, clean.correct, clean.count) == (2, 22, 24)
    assert attacked.invalid == 2
    assert attacked.correct <= 22
    assert read_records(tmp_path) == [clean, attacked]
