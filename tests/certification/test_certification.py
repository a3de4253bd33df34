"""Certificates against classifiers whose true radius has a closed form."""

import dataclasses
import itertools
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from scipy import special, stats

from l2p_tf import artifacts
from l2p_tf.certification import bounds, pixeldp
from l2p_tf.certification import run as certification
from l2p_tf.certification.base import CERTIFICATES, ESTIMATION, PREDICTION, Certified
from l2p_tf.certification.counting import count_draws
from l2p_tf.certification.pixeldp import PixelDP, largest_radius
from l2p_tf.certification.records import COLUMNS, certified_accuracy, read_certificates, read_certified
from l2p_tf.certification.run import CertificationOptions, certify_artifact, fitting
from l2p_tf.certification.smoothing import Smoothing
from l2p_tf.certification.wiring import stem
from l2p_tf.data import DATASETS, ImageData, prepare
from l2p_tf.defenses import DEFENSES
from l2p_tf.layers.activation_noise import FixedNoise
from l2p_tf.layers.bounded_conv import BoundedConv
from l2p_tf.layers.image import ChannelNormalization
from l2p_tf.layers.noise import noise_layers, seed_states, set_noise
from l2p_tf.models import MODELS
from l2p_tf.models.saving import load_classifier, save_classifier
from l2p_tf.types import UserError
from support.models import linear

SHAPE = (6, 6, 1)
SIGMA = 0.25


def halves(direction, noise=None):
    """A classifier of two classes: 1 where the image, from the gray one, lies on the side of `direction`."""
    weights = np.stack([-direction, direction], -1).reshape(*SHAPE, 2)
    return linear(weights, np.array([1, -1]) * 0.5 * direction.sum(), noise=noise)


def at(distances, direction, seed=0):
    """Images at these distances from the boundary between the halves, spread along it."""
    rng = np.random.default_rng(seed)
    unit = direction / np.linalg.norm(direction)
    spread = rng.uniform(-0.1, 0.1, (len(distances), direction.size))
    spread -= np.outer(spread @ unit, unit)
    images = (0.5 + spread + np.outer(distances, unit)).reshape(-1, *SHAPE)
    assert images.min() >= 0
    assert images.max() <= 1
    return images.astype(np.float32)


def distances(count, low, high, seed=1):
    rng = np.random.default_rng(seed)
    return rng.uniform(low, high, count) * rng.choice([-1, 1], count)


DIRECTION = np.random.default_rng(5).uniform(-1, 1, 36)


def too_large(found, true):
    """How many certificates are wrong, at signed distances `true`: another class, or too large a radius."""
    answered = found.prediction >= 0
    return int((answered & ((found.prediction != (true > 0)) | (found.radius > np.abs(true)))).sum())


def switches(model):
    return [bool(keras.ops.convert_to_numpy(layer.active)) for layer in noise_layers(model)]


def allowed(count, alpha):
    """How many of so many may be wrong, before one doubts that each is wrong with probability `alpha` at most."""
    return stats.binom.ppf(0.999, count, alpha)


# Smoothing.


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
    answered = certificate.predict(plain, at(near, DIRECTION), 1, draws=100, alpha=0.1)
    # At the boundary half of what is not abstained from is wrong, which is the worst case.
    assert (answered == 0).sum() <= allowed(1000, 0.05)
    assert (answered == -1).any()
    far = distances(50, SIGMA, 2 * SIGMA)
    np.testing.assert_array_equal(certificate.predict(plain, at(far, DIRECTION), draws=200), far > 0)
    votes = certificate.count(plain, at(near, DIRECTION), 100, 1, PREDICTION).votes
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


# PixelDP.


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
    found = certificate.certify(model, images, 2, batch_size=128)
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
    counts = certificate.count(model, images, 400, 2, ESTIMATION, batch_size=128)
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


# Bounds, draws and seeds.


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


# What fits what.


def test_certificates_fit_the_defenses_of_their_names(tmp_path):
    architecture = MODELS.parse("resnet_v1(depth=8, width=0.0625)")
    for name, std in (("smoothing", 0.25), ("pixeldp", DEFENSES.parse("pixeldp").std)):
        built = architecture.build((8, 8, 1), 4, DEFENSES.parse(name).factory(0), [0.4], [0.3])
        save_classifier(built, tmp_path / "it.keras")
        model = load_classifier(tmp_path / "it.keras")
        certificate = CERTIFICATES.parse(name)
        assert certificate.noise(model) == pytest.approx(std)
        other = CERTIFICATES.parse({"smoothing": "pixeldp", "pixeldp": "smoothing"}[name])
        with pytest.raises(UserError, match="Received"):
            other.check(model)
        assert certificate.replace(draws=20, selection_draws=10).certify(
            model, np.zeros((1, 8, 8, 1))
        ).radius.shape == (1,)
    assert [layer.name for layer in stem(model)][:3] == ["normalization", "stem", "stem_noise"]


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


def test_bad_images_are_named(plain):
    certificate = Smoothing(sigma=0.3, draws=10)
    with pytest.raises(UserError, match=r"should be finite and lie in \[0, 1\]"):
        certificate.certify(plain, np.full((1, *SHAPE), 2.0))
    with pytest.raises(UserError, match="`images` should be of shape"):
        certificate.predict(plain, np.zeros((1, 5, 5, 1)))
    with pytest.raises(UserError, match="`draws` should be at least 1. Received: 0"):
        certificate.predict(plain, np.zeros((1, *SHAPE)), draws=0)


def test_names_and_labels():
    assert CERTIFICATES.names() == ["pixeldp", "smoothing"]
    for spec, label in (("smoothing(sigma=0.25)", "smoothing 0.25"), ("pixeldp(draws=50)", "PixelDP"),
                        ("pixeldp(bound=hoeffding)", "PixelDP softmax"), ("smoothing", "smoothing")):  # fmt: skip
        certificate = CERTIFICATES.parse(spec)
        assert certificate.spec == spec
        assert certificate.label == label
        assert certificate.confidence == 1 - certificate.alpha


# The artifact and the stages.


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run directory with data and one model that every certificate fits, as if it had been trained."""
    folder = tmp_path_factory.mktemp("runs")
    prepare(DATASETS.parse("digits"), folder / "data", limit_train=50, limit_test=90)
    data = ImageData.open(folder / "data")
    keras.utils.set_random_seed(1)
    inputs = keras.Input(data.info.image_shape)
    x = FixedNoise(0.1, seed=3)(BoundedConv(4, 3, normalize=False)(ChannelNormalization([0.5], [1.0])(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(x)))
    with artifacts.produce(folder / "run" / "train", "train", {"name": "run"}, {"data": data.artifact}) as work:
        save_classifier(model, work.path / "best.keras")
    return folder, artifacts.read(folder / "run" / "train"), data


OPTIONS = CertificationOptions(
    tuple(CERTIFICATES.parse_list("smoothing(sigma=0.05, draws=150); pixeldp(draws=150)")),
    limit=70,
    batch_size=64,
    seed=3,
)


def test_an_interrupted_certification_goes_on_to_the_same_arrays(made, tmp_path, monkeypatch):
    _, trained, data = made
    whole = certify_artifact(OPTIONS, trained, data, tmp_path / "whole")
    calls = []
    certify = Smoothing.certify

    def failing(self, model, images, *arguments, **how):
        calls.append(len(images))
        if len(calls) == 3:
            raise RuntimeError("power cut")
        return certify(self, model, images, *arguments, **how)

    monkeypatch.setattr(Smoothing, "certify", failing)
    with pytest.raises(RuntimeError, match="power cut"):
        certify_artifact(OPTIONS, trained, data, tmp_path / "cut")
    assert not (tmp_path / "cut").exists()
    again = certify_artifact(OPTIONS, trained, data, tmp_path / "cut")
    assert calls == [32, 32, 6, 6]
    assert [dataclasses.replace(r, seconds=0) for r in again] == [dataclasses.replace(r, seconds=0) for r in whole]
    for record in whole:
        one, other = (read_certified(tmp_path / name, record) for name in ("whole", "cut"))
        for name in COLUMNS:
            np.testing.assert_array_equal(one[name], other[name])
    left = {p.relative_to(tmp_path / "cut").as_posix() for p in (tmp_path / "cut").rglob("*") if p.is_file()}
    assert left == {"manifest.json", "certificates.json", "arrays/00.npz", "arrays/01.npz"}
    # Done is done; other options are not the same work.
    assert certify_artifact(OPTIONS, trained, data, tmp_path / "cut") == again
    assert len(calls) == 4
    with pytest.raises(UserError, match="Pass --overwrite"):
        certify_artifact(dataclasses.replace(OPTIONS, seed=4), trained, data, tmp_path / "cut")


def test_records_say_what_the_arrays_hold(made, tmp_path):
    _, trained, data = made
    records = certify_artifact(OPTIONS, trained, data, tmp_path / "certify")
    assert read_certificates(tmp_path / "certify") == records
    assert [(r.label, r.sigma, r.draws, r.confidence) for r in records] == [
        ("smoothing 0.05", 0.05, 150, 0.999), ("PixelDP", 0.1, 150, 0.95),
    ]  # fmt: skip
    for record in records:
        arrays = read_certified(tmp_path / "certify", record)
        kinds = {"index": np.int64, "label": np.int32, "prediction": np.int32}
        assert {name: array.dtype for name, array in arrays.items()} == {
            name: np.dtype(kinds.get(name, np.float32)) for name in COLUMNS
        }
        np.testing.assert_array_equal(arrays["label"], data.split("test")[1][arrays["index"]])
        assert record.count == 70
        assert record.correct == (arrays["prediction"] == arrays["label"]).sum()
        assert record.abstained == (arrays["prediction"] == -1).sum()
        assert ((arrays["radius"] == 0) == (arrays["prediction"] == -1)).all()
        assert (record.model, record.dataset, record.split, record.seed) == ("run", "digits", "test", 3)
    (tmp_path / "certify" / "certificates.json").write_text("{}")
    with pytest.raises(UserError, match="should hold the results of a certify stage"):
        read_certificates(tmp_path / "certify")
    (tmp_path / "certify" / "arrays" / "00.npz").write_bytes(b"")
    with pytest.raises(UserError, match="should hold the per-example arrays"):
        read_certified(tmp_path / "certify", records[0])


def test_certified_accuracy_counts_all_examples():
    label, prediction, radius = [0, 1, 2, 2], [0, 1, -1, 1], [0.5, 0.2, 0.0, 0.9]
    for least, share in ((0.0, 0.5), (0.2, 0.5), (0.3, 0.25), (0.5, 0.25), (0.6, 0.0)):
        assert certified_accuracy(label, prediction, radius, least) == share


def test_reading_records_imports_no_tensorflow():
    program = "import sys, l2p_tf.certification.records; assert not {'tensorflow', 'keras'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_certificates_that_fit_are_told_from_the_others(made, monkeypatch):
    _, trained, _ = made
    kept, reasons = fitting(CERTIFICATES.parse_list("smoothing; pixeldp"), trained)
    assert [certificate.spec for certificate in kept] == ["pixeldp"]
    assert len(reasons) == 1
    assert "`sigma` of smoothing should be given" in reasons[0]
    monkeypatch.setattr(certification, "load_classifier", lambda path: halves(DIRECTION))
    assert fitting([PixelDP()], trained)[0] == []


@pytest.fixture
def flags():
    """Sets flags as a command line does, and puts them back."""
    from stages import settings

    saved = {name: (settings.FLAGS[name].value, settings.FLAGS[name].present) for name in settings.FLAGS}
    yield lambda *arguments: settings.FLAGS(["test", *arguments])
    for name, (value, present) in saved.items():
        settings.FLAGS[name].value, settings.FLAGS[name].present = value, present
        settings.FLAGS[name].using_default_value = not present


def test_the_stages_certify(made, flags, capsys, monkeypatch):
    from stages import attack, calls, pipeline

    folder, trained, data = made
    common = [f"--run_dir={folder}", "--name=run", "--limit=20"]
    flags(*common, "--certify=smoothing(sigma=0.1, draws=60); pixeldp(draws=60)")
    attack.main([])
    shown = capsys.readouterr().out
    assert "Certified accuracy in percent" in shown
    assert "smoothing 0.1" in shown
    assert "n = 20" in shown
    assert "0.25" in shown
    assert len(json.loads((folder / "run" / "certify" / "certificates.json").read_text())["certificates"]) == 2
    assert not (folder / "run" / "attack").exists()
    attack.main([])
    assert "certified (up to date)" in capsys.readouterr().out
    flags(*common, "--certify=smoothing; pixeldp(draws=60)", "--overwrite")
    with pytest.raises(UserError, match="`sigma` of smoothing should be given"):
        attack.main([])
    records = calls.certify("run", trained, data, fitting_only=True)
    assert [record.label for record in records] == ["PixelDP"]
    assert "run: not certified: `sigma` of smoothing should be given" in capsys.readouterr().out
    flags(*common, "--certify=smoothing")
    assert calls.certify("run", trained, data, fitting_only=True) == []
    # Told before the first training.
    monkeypatch.setattr(calls, "train", lambda *_: pytest.fail("trained"))
    monkeypatch.setattr(calls, "data", lambda: pytest.fail("prepared"))
    flags("--certify=magic", "--defense=none", f"--run_dir={folder}")
    with pytest.raises(UserError, match="Unknown certificate 'magic'"):
        pipeline.main([])
    flags("--certify=help")
    attack.main([])
    assert "pixeldp: PixelDP: noise behind" in capsys.readouterr().out
