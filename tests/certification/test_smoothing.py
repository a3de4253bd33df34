"""Randomized smoothing, and the counts of draws, on a classifier whose true radius has a closed form."""

import keras
import numpy as np
import pytest
from scipy import stats

from l2p_tf.certification.base import ESTIMATION, PREDICTION, Certified
from l2p_tf.certification.counting import count_draws
from l2p_tf.certification.smoothing import Smoothing
from l2p_tf.layers.activation_noise import FixedNoise
from l2p_tf.layers.image import ChannelNormalization
from l2p_tf.layers.noise import seed_states
from l2p_tf.types import UserError
from support.halves import DIRECTION, SHAPE, allowed, at, distances, halves, switches, too_large

SIGMA = 0.25


@pytest.fixture(scope="module")
def plain():
    return halves(DIRECTION)


def test_smoothed_radii_are_too_large_as_seldom_as_promised(plain):
    true = distances(1000, 0.2 * SIGMA, 1.6 * SIGMA)
    images, certificate = at(true, DIRECTION), Smoothing(sigma=SIGMA, draws=300, selection_draws=50, alpha=0.05)
    found = certificate.certify(plain, images, 3, batch_size=1024)
    assert too_large(found, true) <= allowed(1000, 0.05)
    assert (found.prediction >= 0).mean() > 0.8
    # The test would notice: the estimate itself, from the same draws, is no bound, nor is one of twice the alpha.
    counts = certificate.count(plain, images, 300, 3, ESTIMATION, batch_size=1024)
    top = (true > 0).astype(int)
    estimate = Certified.of(top, SIGMA * stats.norm.ppf(counts.votes[np.arange(1000), top] / 300), *np.zeros((2, 1000)))
    assert too_large(estimate, true) > 400
    loose = certificate.replace(alpha=0.2).judge(plain, top, counts)
    assert too_large(loose, true) > allowed(1000, 0.05)


def test_smoothed_radii_are_close_to_the_truth(plain):
    true = distances(60, SIGMA, 2 * SIGMA)
    found = Smoothing(sigma=SIGMA).certify(plain, at(true, DIRECTION), batch_size=1024)
    np.testing.assert_array_equal(found.prediction, true > 0)
    assert 0.95 < np.mean(found.radius / np.abs(true)) < 1
    np.testing.assert_allclose(found.radius, SIGMA * stats.norm.ppf(found.lower), rtol=1e-5)
    np.testing.assert_allclose(found.lower + found.upper, 1, atol=1e-6)


def test_a_coin_flip_is_not_certified_and_not_predicted(plain):
    images = at(np.zeros(1000), DIRECTION)
    certificate = Smoothing(sigma=SIGMA, draws=200, selection_draws=20, alpha=0.05)
    found = certificate.certify(plain, images, batch_size=1024)
    assert (found.prediction >= 0).sum() <= allowed(1000, 0.05)
    assert (found.radius[found.prediction < 0] == 0).all()
    answered = certificate.predict(plain, images, batch_size=1024)
    assert answered.dtype == np.int32
    assert 0 < (answered >= 0).sum() <= allowed(1000, 0.05)


def test_predictions_are_wrong_as_seldom_as_promised(plain):
    certificate = Smoothing(sigma=SIGMA)
    near = np.full(1000, 0.05 * SIGMA)
    answered = certificate.predict(plain, at(near, DIRECTION), 1, draws=100, alpha=0.1, batch_size=2048)
    # At the boundary half of what is not abstained from is wrong, which is the worst case.
    assert (answered == 0).sum() <= allowed(1000, 0.05)
    assert (answered == -1).any()
    far = distances(50, SIGMA, 2 * SIGMA)
    np.testing.assert_array_equal(certificate.predict(plain, at(far, DIRECTION), draws=200), far > 0)
    votes = certificate.count(plain, at(near, DIRECTION), 100, 1, PREDICTION, batch_size=2048).votes
    likely = np.array([stats.binomtest(int(row.max()), 100).pvalue for row in votes]) <= 0.1
    np.testing.assert_array_equal(answered, np.where(likely, votes.argmax(-1), -1))


def test_the_models_own_noise_gives_sigma_and_is_off_meanwhile():
    inputs = keras.Input(SHAPE)
    noise = FixedNoise(SIGMA, seed=1)
    inner = FixedNoise(50.0, seed=2)
    dense = keras.layers.Dense(2)
    x = ChannelNormalization([0.5], [0.5])(noise(inputs))
    model = keras.Model(inputs, dense(inner(keras.layers.Flatten()(x))))
    dense.kernel.assign(np.stack([-DIRECTION, DIRECTION], -1))
    inner.active.assign(False)
    true = distances(30, SIGMA, 2 * SIGMA)
    images, certificate = at(true, DIRECTION), Smoothing(draws=1000, alpha=0.01)
    before = [np.array(state) for state in seed_states(model)]
    found = certificate.certify(model, images)
    assert certificate.facts(model) == {"sigma": SIGMA, "draws": 1000, "confidence": 0.99}
    # Its noise on top of ours would shorten the radii by a factor of about sqrt(2).
    assert 0.85 < np.mean(found.radius / np.abs(true)) < 1.0
    assert switches(model) == [True, False]
    # With other noise on it is not the model's own answers that would be certified, so sigma has to be said.
    inner.active.assign(True)
    with pytest.raises(UserError, match="`sigma` of smoothing should be given"):
        certificate.check(model)
    certificate.replace(sigma=0.1).check(model)
    inner.active.assign(False)
    noise.distribution = "laplace"
    with pytest.raises(UserError, match="`sigma` of smoothing should be given"):
        certificate.check(model)
    noise.distribution = "normal"
    for state, former in zip(seed_states(model), before, strict=True):
        np.testing.assert_array_equal(np.array(state), former)
    with pytest.raises(RuntimeError, match="stop"):
        certificate.certify(model, images, progress=lambda share: (_ for _ in ()).throw(RuntimeError("stop")))
    assert switches(model) == [True, False]


@pytest.mark.parametrize(("draws", "batch_size"), [(1, 8), (37, 8), (37, 64), (333, 16), (8, 8)])
def test_every_draw_is_counted_for_its_own_image(plain, draws, batch_size):
    true = distances(7, 0.1, 0.3)
    images = at(true, DIRECTION)
    told = []
    counts = count_draws(plain, images, draws, 0, 0, batch_size=batch_size, progress=told.append)
    assert counts.votes.dtype == np.int64
    np.testing.assert_array_equal(counts.votes, draws * np.eye(2, dtype=int)[(true > 0).astype(int)])
    np.testing.assert_allclose(counts.softmax, draws * np.array(keras.ops.softmax(plain(images))), rtol=1e-5)
    assert sum(told) == 7 * draws
    noisy = count_draws(plain, images, draws, 0, 0, sigma=0.3, batch_size=batch_size)
    assert (noisy.votes.sum(-1) == draws).all()
    np.testing.assert_allclose(noisy.softmax.sum(-1), draws)


def test_draws_are_independent_between_passes_images_and_purposes(plain):
    images = at(np.zeros(300), DIRECTION)
    # 32 passes an image, in two compiled runs, and a rest.
    how = {"sigma": 0.2, "batch_size": 8}
    first, second = (count_draws(plain, images, 260, 5, purpose, **how).votes[:, 1] for purpose in (0, 1))
    for votes in (first, second):
        # The variance of the votes, were any draws used twice, would be larger.
        assert stats.chi2.ppf(0.001, 299) < 299 * votes.var(ddof=1) / 65 < stats.chi2.ppf(0.999, 299)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.2
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.2


def test_a_compiler_changes_nothing_but_rounding(plain):
    images = at(distances(4, 0.1, 0.3), DIRECTION)
    off, on = (
        count_draws(plain, images, 150, 1, 0, sigma=0.3, batch_size=64, jit_compile=jit) for jit in (False, True)
    )
    assert np.abs(off.votes - on.votes).max() <= 1
    np.testing.assert_allclose(off.softmax, on.softmax, rtol=1e-4)


def test_bad_images_are_named(plain):
    certificate = Smoothing(sigma=0.3, draws=10)
    with pytest.raises(UserError, match=r"should be finite and lie in \[0, 1\]"):
        certificate.certify(plain, np.full((1, *SHAPE), 2.0))
    with pytest.raises(UserError, match="`images` should be of shape"):
        certificate.predict(plain, np.zeros((1, 5, 5, 1)))
    with pytest.raises(UserError, match="`draws` should be at least 1. Received: 0"):
        certificate.predict(plain, np.zeros((1, *SHAPE)), draws=0)
