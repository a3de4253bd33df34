"""PixelDP, and the bounds of proportions, against exact expectations."""

import dataclasses
import itertools

import keras
import numpy as np
import pytest
from scipy import special, stats

from l2p_tf.certification import bounds, pixeldp
from l2p_tf.certification.base import ESTIMATION, Certified
from l2p_tf.certification.pixeldp import PixelDP, largest_radius
from l2p_tf.certification.smoothing import Smoothing
from l2p_tf.layers.activation_noise import FixedNoise
from l2p_tf.layers.bounded_conv import BoundedConv
from l2p_tf.layers.image import ChannelNormalization
from l2p_tf.layers.noise import seed_states, set_noise
from l2p_tf.types import UserError
from support.halves import DIRECTION, SHAPE, allowed, at, distances, halves, switches, too_large


def private(steep=4.0, scale=1.0, noise=0.05, **options):
    """Normalization by `scale`, a bounded convolution, noise, and a linear readout of two classes.

    The noise spreads the difference of their logits by `steep`.
    """
    keras.utils.set_random_seed(0)
    inputs = keras.Input(SHAPE)
    conv = BoundedConv(3, 3, normalize=False, name="conv")
    x = FixedNoise(noise, seed=7, name="noise", **options)(conv(ChannelNormalization([0.5], [scale])(inputs)))
    dense = keras.layers.Dense(2, name="logits")
    model = keras.Model(inputs, dense(keras.layers.Flatten()(x)))
    readout = np.random.default_rng(0).normal(size=dense.kernel.shape[0])
    readout *= steep / (2 * (noise or 1.0) * np.linalg.norm(readout))
    dense.kernel.assign(np.stack([-readout, readout], -1))
    return model


def linearized(model):
    """Of `private`: the matrix from the pixels to the features, and the difference of the two readouts."""
    first = keras.Model(model.input, model.get_layer("conv").output)
    zero, basis = np.zeros((1, *SHAPE), np.float32), np.eye(36, dtype=np.float32).reshape(-1, *SHAPE)
    matrix = (np.array(first(basis)) - np.array(first(zero))).reshape(36, -1).T
    kernel = np.array(model.get_layer("logits").kernel)
    return matrix.astype(float), (kernel[:, 1] - kernel[:, 0]).astype(float)


def expectation(margin, spread, bound):
    """The probability of class 1, or its mean softmax, where the difference of the logits is normal."""
    if bound == "clopper_pearson":
        return stats.norm.cdf(margin / spread)
    nodes, weights = np.polynomial.hermite_e.hermegauss(150)
    return special.expit(margin[:, None] + spread * nodes) @ weights / weights.sum()


@pytest.mark.parametrize("bound", ["clopper_pearson", "hoeffding"])
def test_private_radii_are_too_large_as_seldom_as_promised(bound):
    model = private(scale=0.5)
    matrix, readout = linearized(model)
    slope, spread = matrix.T @ readout, 0.05 * np.linalg.norm(readout)
    # Distances at which the margin is one to two and a half of what the noise spreads it by.
    true = distances(400, 1.0, 2.5) * spread / np.linalg.norm(slope)
    images = at(true, slope)
    certificate = PixelDP(draws=400, selection_draws=50, alpha=0.1, bound=bound)
    found = certificate.certify(model, images, 2, batch_size=2048)
    assert (found.prediction >= 0).mean() > 0.5
    assert too_large(found, true) <= allowed(400, 0.1)
    # Sharper than the true radius, which is several times as large: what the exact expectations would certify.
    one = expectation(true * np.linalg.norm(slope), spread, bound)
    top, other = np.maximum(one, 1 - one), np.minimum(one, 1 - one)
    unit = 0.05 / (model.get_layer("conv").sensitivity / 0.5)
    exact = unit * largest_radius(top, other) * (1 + 1e-6)
    assert (exact < np.abs(true)).all()
    assert (found.radius > exact).sum() <= allowed(400, 0.1)
    right = found.prediction == (true > 0)
    assert (right & ((found.lower > top) | (found.upper < other))).sum() <= allowed(400, 0.1)
    # The test would notice: the estimates themselves, from the same draws, are no bounds.
    counts = certificate.count(model, images, 400, 2, ESTIMATION, batch_size=2048)
    share = certificate.scores(counts)[np.arange(400), (true > 0).astype(int)] / 400
    np.testing.assert_allclose(share.mean(), top.mean(), atol=0.005)
    assert (unit * largest_radius(share, 1 - share) > exact).sum() > allowed(400, 0.1)


def test_the_sensitivity_is_that_of_everything_before_the_noise():
    images = np.full((5, *SHAPE), 0.5, np.float32)
    # A gray image is 0 behind the normalization, so the draws, and the bounds, do not depend on the kernel.
    model = private()
    model.get_layer("logits").bias.assign([0.0, 8.0])
    certificate = PixelDP(draws=500)
    whole = certificate.certify(model, images)
    assert (whole.radius > 0).all()
    kernel = model.get_layer("conv").kernel
    kernel.assign(kernel / 2)
    halved = certificate.certify(model, images)
    np.testing.assert_array_equal(whole.lower, halved.lower)
    np.testing.assert_allclose(halved.radius, 2 * whole.radius, rtol=1e-5)
    narrow = private(scale=0.25)
    for name in ("conv", "logits"):
        narrow.get_layer(name).set_weights(model.get_layer(name).get_weights())
    np.testing.assert_allclose(certificate.certify(narrow, images).radius, halved.radius / 4, rtol=1e-5)
    np.testing.assert_allclose(
        narrow.get_layer("conv").sensitivity / 0.25, np.linalg.norm(linearized(narrow)[0], 2), rtol=0.2
    )
    assert narrow.get_layer("conv").sensitivity / 0.25 >= np.linalg.norm(linearized(narrow)[0], 2)


def test_the_largest_radius_is_what_a_search_finds():
    rng = np.random.default_rng(0)
    lower = np.concatenate([rng.uniform(0.3, 1, 40), [1.0, 1.0, 0.9999, 0.52]])
    upper = np.concatenate([lower[:40] * rng.uniform(0, 1, 40), [0.0, 1e-4, 1e-4, 0.48]])
    upper = np.minimum(upper, 1 - lower + 1e-9)
    delta, eps = np.geomspace(1e-8, 0.5, 2001)[:, None], np.linspace(1e-4, 1, 2000)
    size = eps / np.sqrt(2 * np.log(1.25 / delta))
    for low, up, found in zip(lower, upper, largest_radius(lower, upper), strict=True):
        holds = low > np.exp(2 * eps) * up + (1 + np.exp(eps)) * delta
        best = np.max(np.where(holds, size, 0.0))
        assert best * (1 - 2e-3) <= found <= best * 1.01 + 1e-4
        # The tight bound for normal noise (Cohen et al. 2019, theorem 1) is never passed.
        assert found <= (stats.norm.ppf(min(low, 1 - 1e-12)) - stats.norm.ppf(max(up, 1e-12))) / 2
    assert (largest_radius(np.array([0.5, 0.4, 0.0]), np.array([0.5, 0.5, 0.0])) == 0).all()


def test_the_mechanism_is_as_private_as_it_is_said_to_be():
    # The exact condition for normal noise (Balle and Wang 2018, theorem 8), at sensitivity 1.
    delta, eps = pixeldp._DELTAS[:, None], np.linspace(1e-3, 1, 500)
    sigma = np.sqrt(2 * np.log(1.25 / delta)) / eps
    exact = stats.norm.cdf(0.5 / sigma - eps * sigma) - np.exp(eps) * stats.norm.cdf(-0.5 / sigma - eps * sigma)
    assert (exact <= delta).all()


def test_many_classes_are_bounded_at_once():
    counts = dataclasses.make_dataclass("Counts", ["votes", "softmax", "draws"])
    votes = np.array([[80, 12, 5, 3], [40, 30, 20, 10], [0, 100, 0, 0]])
    model = private()
    found = PixelDP(alpha=0.1).judge(model, np.array([0, 0, 1]), counts(votes, votes.astype(float), 100))
    lower = bounds.clopper_pearson(np.array([80, 40, 100]), 100, 0.05)[0]
    upper = bounds.clopper_pearson(np.array([12, 30, 0]), 100, 0.05 / 3)[1]
    np.testing.assert_allclose(found.lower, lower, rtol=1e-6)
    np.testing.assert_allclose(found.upper, np.minimum(upper, 1 - lower), rtol=1e-6)
    assert found.prediction.tolist() == [0, -1, 1]
    assert found.radius[1] == 0


def test_bounds_are_those_of_scipy():
    for draws, alpha in itertools.product((1, 7, 300), (0.001, 0.05, 0.3)):
        hits = np.unique(np.linspace(0, draws, 12).astype(int))
        lower, upper = bounds.clopper_pearson(hits, draws, alpha)
        for k, low, up in zip(hits, lower, upper, strict=True):
            exact = stats.binomtest(int(k), draws).proportion_ci(1 - 2 * alpha, "exact")
            np.testing.assert_allclose([low, up], [exact.low, exact.high], rtol=1e-8)
    lower, upper = bounds.hoeffding(np.array([0.0, 30.5, 100.0]), 100, 0.05)
    width = np.sqrt(np.log(20) / 200)
    np.testing.assert_allclose(lower, [0, 0.305 - width, 1 - width])
    np.testing.assert_allclose(upper, [width, 0.305 + width, 1])


@pytest.mark.parametrize("certificate", [Smoothing(sigma=0.3, draws=90), PixelDP(draws=90, bound="hoeffding")])
def test_the_seed_decides_everything_and_the_model_stays_as_it_was(certificate):
    model = private(noise=0.3)
    images = np.random.default_rng(1).uniform(size=(5, *SHAPE))
    before = [np.array(state) for state in seed_states(model)]
    shares = []
    first, again = (certificate.certify(model, images, 4, batch_size=32, progress=shares.append) for _ in range(2))
    other = certificate.certify(model, images, 5, batch_size=32)
    for field in dataclasses.fields(Certified):
        a, b = getattr(first, field.name), getattr(again, field.name)
        np.testing.assert_array_equal(a, b)
        assert a.dtype == (np.int32 if field.name == "prediction" else np.float32)
        assert a.shape == (5,)
    assert (first.lower != other.lower).any()
    assert switches(model) == [True]
    for state, former in zip(seed_states(model), before, strict=True):
        np.testing.assert_array_equal(np.array(state), former)
    assert max(shares) == 1
    assert sorted(shares[: len(shares) // 2]) == shares[: len(shares) // 2]


def test_unfit_models_are_told_what_is_missing():
    def message(model):
        with pytest.raises(UserError, match="train with --defense=pixeldp") as error:
            PixelDP().check(model)
        return str(error.value)

    assert "no fixed noise right behind" in message(halves(DIRECTION))
    assert "no fixed noise right behind" in message(halves(DIRECTION, noise=0.2))
    assert "no fixed noise right behind" in message(keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten()]))
    assert "drawn per batch" in message(private(sharing="batch"))
    assert "laplace noise" in message(private(distribution="laplace"))
    assert "standard deviation 0," in message(private(noise=0.0))
    model = private()
    set_noise(model, False)
    assert "switched off" in message(model)

    def built(normalize=False, beside=False, more=False, dtype="float32"):
        inputs = keras.Input(SHAPE)
        features = BoundedConv(3, 3, normalize=normalize, dtype=dtype)(inputs)
        x = FixedNoise(0.5, dtype=dtype)(features)
        x = keras.layers.Concatenate()([x, features]) if beside else x
        x = FixedNoise(0.5)(x) if more else x
        return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))

    PixelDP().check(built())
    assert "batch norm" in message(built(normalize=True))
    # A way around the noise.
    assert "no fixed noise right behind" in message(built(beside=True))
    assert "2 layers with noise" in message(built(more=True))
    assert "computes in bfloat16, not float32" in message(built(dtype="mixed_bfloat16"))
    with pytest.raises(
        UserError, match=r"`sigma` of smoothing should be given, such as smoothing\(sigma=0.25\).* Received: None"
    ):
        Smoothing().certify(halves(DIRECTION), np.zeros((1, *SHAPE)))
