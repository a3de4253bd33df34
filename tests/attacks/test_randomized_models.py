"""Attacks on models with noise: averages over draws, and none that one lucky draw decides."""

import numpy as np
import pytest
import tensorflow as tf

from l2p_tf import inference
from l2p_tf.attacks import ATTACKS
from l2p_tf.attacks.context import SELECTION_DRAWS
from l2p_tf.attacks.criterion import Criterion
from l2p_tf.attacks.gradient import loss_gradient
from l2p_tf.layers.noise import seed_states, set_noise
from support.models import images_and_labels, linear, smooth, watched


def test_eot_averages_real_draws():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(2, 2, 1, 3)).astype(np.float32)
    images, labels = rng.random((4, 2, 2, 1)).astype(np.float32), np.array([0, 1, 2, 0], np.int32)
    expected = None
    for sharing in ("example", "batch"):
        model = linear(weights, noise=1.0, sharing=sharing)
        gradients = []
        for draws in (1, 4000):
            run = tf.function(lambda x, y, m=model, d=draws: loss_gradient(m, x, Criterion(y), d)[0])
            gradients.append(np.stack([run(tf.constant(images), tf.constant(labels)) for _ in range(3)]))
        single, many = gradients
        # Draws differ, and their mean settles on the same expectation whichever way noise is drawn.
        assert single.std(0).min() > 0
        assert many.std(0).max() < 0.1 * single.std(0).max()
        expected = many.mean(0) if expected is None else expected
        np.testing.assert_allclose(many.mean(0), expected, atol=0.02)


def test_eot_counts_its_passes_and_tiles_only_independent_draws():
    images, labels = images_and_labels(8)
    for sharing, passes in (("example", 1), ("batch", 6)):
        model, calls = watched(smooth(noise=0.2, sharing=sharing))
        goal = Criterion(tf.constant(labels, tf.int32))
        loss_gradient(model, tf.constant(images), goal, 6)
        assert [shape[0] for shape, _ in calls] == [8 * 6 // passes] * passes
        assert set(ATTACKS.parse("fgsm(draws=6)")(model, images, labels).gradients) == {6}
        # Chunks that fit memory: 512 images a pass, in numbers that divide the draws.
        del calls[:]
        loss_gradient(model, tf.tile(images, [4, 1, 1, 1]), goal.tile(4), 24)
        assert [shape[0] for shape, _ in calls] == ([32 * 12] * 2 if passes == 1 else [32] * 24)


@pytest.mark.filterwarnings("ignore:The classifier's clean accuracy is no better than chance")
def test_on_a_randomized_model_one_lucky_draw_does_not_count():
    # The class hangs on the noise alone: whatever an attack picks, a fresh draw is a fair coin.
    weights = np.zeros((2, 2, 1, 2), np.float32)
    weights[0, 0, 0] = [1e3, -1e3]
    model = linear(weights, bias=[-500.0, 500.0], noise=5.0)
    images = np.full((400, 2, 2, 1), 0.5, np.float32)
    output = ATTACKS.parse("pgd(epsilon=0.01, steps=2, restarts=10)")(model, images, np.zeros(400, int))
    assert set(np.unique(output.success)) == {0.0, 1.0}
    assert abs(output.success.mean() - 0.5) < 4 * 0.5 / np.sqrt(400)
    shares = ATTACKS.parse("fgsm")(model, images[:50], np.zeros(50, int), score_draws=40).success
    assert abs(shares.mean() - 0.5) < 4 * 0.5 / np.sqrt(2000)
    set_noise(model, False)
    assert ATTACKS.parse("fgsm(epsilon=0.01)")(model, images, np.zeros(400, int)).success.mean() == 1.0


def test_prediction_averages_draws_and_leaves_seeds():
    model = smooth(noise=0.5)
    images, _ = images_and_labels(10)
    before = [np.array(state) for state in seed_states(model)]
    many = inference.predict(model, images, 1, draws=2000, batch_size=4)
    other = inference.predict(model, images, 2, draws=2000, batch_size=4)
    np.testing.assert_array_equal(before, seed_states(model))
    np.testing.assert_allclose(many.sum(-1), 1, atol=1e-4)
    single = np.abs(inference.predict(model, images, 1) - inference.predict(model, images, 2)).mean()
    assert np.abs(many - other).mean() < 0.1 * single


@pytest.mark.filterwarnings("ignore:The classifier's clean accuracy is no better than chance")
@pytest.mark.parametrize(
    "spec",
    [
        "autoattack(version=rand, steps=5, draws=2)",
        "worst_case(attacks=(pgd(steps=2, restarts=5), square(queries=10)))",
        "apgd(restarts=4, steps=3)",
    ],
)
def test_in_a_cascade_too_a_lucky_draw_does_not_count(spec):
    weights = np.zeros((2, 2, 1, 3), np.float32)
    weights[0, 0, 0] = [1e3, -1e3, 0]
    # The class hangs on the noise alone: whatever an attack picks, a fresh draw is a fair coin.
    model = linear(weights, bias=[-500.0, 500.0, -1e6], noise=5.0)
    images = np.full((300, 2, 2, 1), 0.5, np.float32)
    output = ATTACKS.parse(spec).replace(epsilon=0.01)(model, images, np.zeros(300, int))
    assert abs(output.success.mean() - 0.5) < 4 * 0.5 / np.sqrt(300)
    set_noise(model, False)
    assert ATTACKS.parse(spec).replace(epsilon=0.01)(model, images, np.zeros(300, int)).success.all()


def test_randomized_models_stop_nothing_early_and_look_before_they_choose():
    model = smooth(noise=0.3)
    images, labels = images_and_labels(8)
    once = ATTACKS.parse("pgd(steps=5)")(model, images, labels)
    assert set(once.gradients) == {5}
    # The images as they are are looked at first, and what was found where they are misclassified now and then.
    assert set(once.forwards) <= {5 + SELECTION_DRAWS, 5 + 2 * SELECTION_DRAWS}
    several = ATTACKS.parse("pgd(steps=5, restarts=2, draws=2)")(model, images, labels)
    assert several.gradients.max() == 20
    assert several.forwards.max() == 20 + 3 * SELECTION_DRAWS


@pytest.mark.parametrize(
    "spec",
    [
        "cw(steps=60, binary_search_steps=4, initial_const=1.0, learning_rate=0.05)",
        "deepfool(steps=30)",
        "fab(steps=20)",
        "hop_skip_jump(steps=10)",
        "zoo(steps=150, binary_search_steps=3, initial_const=1.0, learning_rate=0.05, coordinates=4)",
    ],
)
def test_lucky_draws_do_not_pass_for_small_perturbations(spec):
    # One draw in five is wrong on the clean image; the majority is from a distance of 0.25 on.
    weights = np.zeros((2, 2, 1, 2), np.float32)
    weights[0, 0, 0] = [1.0, -1.0]
    model = linear(weights, bias=[-0.25, 0.25], noise=0.3)
    images = np.full((40, 2, 2, 1), 0.5, np.float32)
    found = ATTACKS.parse(spec)(model, images, np.zeros(40, int), 3, score_draws=200)
    assert np.mean(found.success > 0.35) > 0.8
    assert np.median(found.l2) > 0.15
    assert (found.l2[found.success > 0.5] > 0.2).all()
