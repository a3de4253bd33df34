import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from l2p_tf.layers.activation_noise import FixedNoise
from l2p_tf.layers.batch_norm import frozen_statistics
from l2p_tf.layers.bayesian import BayesianConv, BayesianDense
from l2p_tf.layers.bounded_conv import BoundedConv
from l2p_tf.layers.conv_norm import ConvNorm
from l2p_tf.layers.image import ChannelNormalization, PaddedSubsample
from l2p_tf.layers.noise import (
    draws_per_example,
    is_randomized,
    noise_layers,
    reseed,
    restore_seeds,
    seed_states,
    set_noise,
)
from l2p_tf.layers.parametric_noise import ParametricConv
from l2p_tf.layers.perturbation_injection import AtLeast, PerturbationInjection
from l2p_tf.layers.sampling import SAMPLERS, standard_normal, uniform
from l2p_tf.types import UserError

N = 1_000_000


def draw(name="normal", seed=(3, 4), count=N):
    return SAMPLERS[name]([count], tf.constant(seed)).numpy().astype(np.float64)


def test_normal_moments_and_shape():
    z = draw(count=4 * N)
    # Four standard errors of each sample moment of N(0, 1).
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10395 - 225)):
        assert abs(np.mean(z**power) - moment) < 4 * np.sqrt(variance / len(z))
    assert stats.kstest(z, "norm").pvalue > 1e-4


@pytest.mark.parametrize("sigmas", [1.0, 2.0, 3.0, 3.5, 4.0])
def test_normal_tails(sigmas):
    z = draw(count=8 * N, seed=(7, 7))
    for tail in (np.sum(z > sigmas), np.sum(z < -sigmas)):
        expected = stats.norm.sf(sigmas) * len(z)
        assert abs(tail - expected) < 4.5 * np.sqrt(expected)


def test_normal_numbers_are_independent():
    z = draw()
    half = len(z) // 2
    bound = 4.5 / np.sqrt(half)
    # Neighbors, the two numbers of one random word, and other lags; values, squares and signs.
    for lag in (1, 2, 3, 128, half, half - 1, half + 1):
        a, b = z[:-lag], z[lag:]
        scale = np.sqrt(half / len(a))
        assert abs(np.corrcoef(a, b)[0, 1]) < bound * scale
        assert abs(np.corrcoef(a**2, b**2)[0, 1]) < bound * scale
        assert abs(np.mean(np.sign(a) * np.sign(b))) < bound * scale
    # Pairs of one word lie evenly around the circle.
    angles = np.arctan2(z[:half], z[half:])
    assert stats.kstest(angles, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-4


def test_normal_draws_of_other_seeds_are_independent():
    draws = [draw(seed=seed, count=200_000) for seed in ((0, 0), (0, 1), (1, 0), (0, 2), (2**31 - 1, 5))]
    correlations = np.corrcoef(draws)
    assert np.abs(correlations - np.eye(5)).max() < 4.5 / np.sqrt(200_000)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3, 5), (0, 4)])
def test_normal_has_any_shape_in_every_mode(shape):
    seed = tf.constant([1, 2], tf.int64)
    eager = standard_normal(shape, seed)
    assert eager.shape == shape
    for jit in (False, True):
        compiled = tf.function(lambda: standard_normal(shape, seed), jit_compile=jit)()
        np.testing.assert_allclose(compiled, eager, atol=2e-5)
    dynamic = tf.function(lambda s: standard_normal(s, seed))(tf.constant(shape, tf.int32))
    np.testing.assert_allclose(dynamic, eager, atol=2e-6)


@pytest.mark.parametrize("sample", [standard_normal, uniform])
def test_graph_and_xla_draw_the_same(sample):
    draws = [tf.function(lambda s: sample([128, 17, 33], s), jit_compile=jit)(tf.constant([5, 6])) for jit in (0, 1)]
    np.testing.assert_allclose(draws[0], draws[1], atol=2e-5)


def test_uniform_is_uniform():
    u = uniform([N], tf.constant([1, 2])).numpy()
    assert u.min() >= 0
    assert u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 1e-4
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 4.5 / np.sqrt(N)


@pytest.mark.parametrize("name", [n for n in SAMPLERS if n != "normal"])
@pytest.mark.filterwarnings("ignore")
def test_other_noises_have_unit_variance(name):
    z = draw(name, count=200_000)
    assert abs(z.mean()) < 4.5 / np.sqrt(len(z))
    assert abs(z.var() - 1) < 0.03
    kurtosis = {"laplace": 6.0, "logistic": 4.2, "uniform": 1.8}[name]
    assert stats.kurtosis(z, fisher=False) == pytest.approx(kurtosis, rel=0.15)


def injection(inputs, **kwargs):
    layer = PerturbationInjection(seed=5, **kwargs)
    return layer, np.asarray(layer(inputs)) - inputs


def test_noise_per_example_and_per_batch():
    x = np.zeros((6, 8, 8, 4), np.float32)
    _, per_example = injection(x)
    assert len({d.tobytes() for d in per_example}) == 6
    _, per_batch = injection(x, sharing="batch")
    assert len({d.tobytes() for d in per_batch}) == 1


@pytest.mark.parametrize("sharing", ["example", "batch"])
def test_noise_has_theta_as_its_standard_deviation_elementwise(sharing):
    x = np.zeros((1 if sharing == "batch" else 500, 4, 4, 2), np.float32)
    layer = PerturbationInjection(sharing=sharing, seed=1)
    layer.build(x.shape)
    theta = np.random.default_rng(0).uniform(0.05, 2.0, layer.theta.shape).astype(np.float32)
    layer.theta.assign(theta)
    run = tf.function(layer, autograph=False)
    draws = np.concatenate([run(x) for _ in range(2000 if sharing == "batch" else 4)])
    np.testing.assert_allclose(draws.std(0) / theta, 1.0, atol=5 / np.sqrt(2 * len(draws)))
    np.testing.assert_allclose(draws.mean(0) / theta, 0.0, atol=5 / np.sqrt(len(draws)))
    # Elements are independent of each other.
    flat = draws.reshape(len(draws), -1)
    assert np.abs(np.corrcoef(flat.T) - np.eye(flat.shape[1])).max() < 5 / np.sqrt(len(draws))


def test_inactive_noise_is_the_identity_to_the_bit():
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    layer, noise = injection(x)
    assert np.abs(noise).min() > 0
    layer.active.assign(False)
    for jit in (False, True):
        np.testing.assert_array_equal(tf.function(layer, jit_compile=jit)(x), x)


@pytest.mark.parametrize(
    ("granularity", "shape"), [("element", (4, 5, 3)), ("channel", (1, 1, 3)), ("layer", (1, 1, 1))]
)
def test_granularity(granularity, shape):
    layer, _ = injection(np.zeros((2, 4, 5, 3), np.float32), granularity=granularity)
    assert layer.theta.shape == shape


def test_theta_gradient_is_the_sum_of_noise_times_gradient():
    x = np.zeros((5, 3, 3, 2), np.float32)
    for sharing in ("example", "batch"):
        layer, _ = injection(x, sharing=sharing)
        weight = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
        with tf.GradientTape() as tape:
            y = layer(x)
            loss = tf.reduce_sum(y * weight)
        expected = np.sum(weight * (np.asarray(y) / 0.25), axis=0)
        np.testing.assert_allclose(tape.gradient(loss, layer.theta.value), expected, rtol=1e-4, atol=1e-5)


def test_theta_is_projected_after_an_update():
    layer, _ = injection(np.zeros((1, 2, 2, 1), np.float32), initial=0.02)
    optimizer = keras.optimizers.SGD(1.0)
    gradient = np.array([0.0, 0.005, 0.015, -1.0], np.float32).reshape(2, 2, 1)
    optimizer.apply([gradient], [layer.theta])
    np.testing.assert_allclose(np.asarray(layer.theta).ravel(), [0.02, 0.015, 0.01, 1.02], rtol=1e-6)
    assert AtLeast.from_config(AtLeast(0.5).get_config()).minimum == 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PerturbationInjection(distribution="cauchy"), "normal, laplace.*'cauchy'"),
        (lambda: PerturbationInjection(sharing="all"), "example, batch.*'all'"),
        (lambda: PerturbationInjection(granularity="pixel"), "'pixel'"),
        (lambda: PerturbationInjection(initial=0.001), "`minimum`"),
        (lambda: FixedNoise(-1), "`std` should be at least 0. Received: -1"),
        (lambda: BayesianDense(units=2, prior_std=0.0), "`prior_std` should be above 0. Received: 0"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make()


def noisy_model():
    inputs = keras.Input((4, 4, 2))
    x = PerturbationInjection(seed=1, name="first")(inputs)
    x = ConvNorm(3, name="conv")(x)
    x = PerturbationInjection(seed=2, sharing="batch", name="second")(x)
    return keras.Model(inputs, x)


def test_a_whole_models_noise(tmp_path):
    model = noisy_model()
    x = np.random.default_rng(0).random((3, 4, 4, 2)).astype(np.float32)
    assert [layer.name for layer in noise_layers(model)] == ["first", "second"]
    assert is_randomized(model)
    assert not draws_per_example(model)
    before = [np.array(s) for s in seed_states(model)]
    former = reseed(model, tf.constant([1, 2]))
    a = np.asarray(model(x))
    reseed(model, tf.constant([1, 2]))
    np.testing.assert_array_equal(model(x), a)
    assert np.abs(np.asarray(model(x)) - a).max() > 0
    restore_seeds(model, former)
    np.testing.assert_array_equal(before, seed_states(model))
    set_noise(model, False)
    assert not is_randomized(model)
    np.testing.assert_array_equal(model(x), model(x))
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras", safe_mode=True)
    assert not is_randomized(again)
    np.testing.assert_array_equal(model(x), again(x))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy):
    layers = (PerturbationInjection(dtype=policy), ConvNorm(3, dtype=policy), PaddedSubsample(4, 2, dtype=policy))
    for layer in layers:
        for training in (False, True):
            how = {"training": training} if isinstance(layer, ConvNorm) else {}
            y = layer(np.ones((2, 4, 4, 2), np.float32), **how)
            assert y.dtype == policy.removeprefix("mixed_")
        assert all(v.dtype == "float32" for v in layer.trainable_variables)


@pytest.mark.parametrize(
    ("kernel", "strides", "size"), [(3, 1, 5), (3, 2, 5), (3, 2, 6), (1, 2, 6), (5, 1, 7), (1, 1, 3)]
)
def test_conv_norm_is_convolution_then_batch_norm(kernel, strides, size):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, size, size, 3)).astype(np.float32)
    layer = ConvNorm(5, kernel, strides)
    layer.build(x.shape)
    layer.gamma.assign(rng.uniform(0.5, 2, 5))
    layer.beta.assign(rng.normal(size=5))
    layer.moving_mean.assign(rng.normal(size=5))
    layer.moving_variance.assign(rng.uniform(0.5, 2, 5))
    pad = kernel // 2
    padded = np.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
    y = tf.nn.conv2d(padded, layer.kernel.value, strides, "VALID").numpy().astype(np.float64)
    gamma, beta = np.asarray(layer.gamma), np.asarray(layer.beta)
    mean, variance = np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)
    expected = (y - mean) / np.sqrt(variance + 1e-5) * gamma + beta
    np.testing.assert_allclose(layer(x, training=False), expected, rtol=1e-4, atol=1e-4)
    assert layer.compute_output_shape(x.shape) == expected.shape
    with frozen_statistics(keras.Sequential([layer])):
        frozen = layer(x, training=True)
    np.testing.assert_array_equal(layer.moving_mean, mean)
    np.testing.assert_array_equal(layer.moving_variance, variance)
    expected = (y - y.mean((0, 1, 2))) / np.sqrt(y.var((0, 1, 2)) + 1e-5) * gamma + beta
    trained = layer(x, training=True)
    np.testing.assert_allclose(trained, expected, rtol=2e-4, atol=2e-4)
    np.testing.assert_array_equal(trained, frozen)
    count = y.size / 5
    unbiased = y.var((0, 1, 2)) * count / (count - 1)
    np.testing.assert_allclose(layer.moving_mean, 0.9 * mean + 0.1 * y.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, 0.9 * variance + 0.1 * unbiased, rtol=1e-4)


def test_conv_with_bias_and_initial_scale():
    layer = ConvNorm(400, 3, normalize=False)
    y = layer(np.zeros((1, 4, 4, 64), np.float32))
    layer.bias.assign_add(np.ones(400))
    np.testing.assert_array_equal(y + 1, layer(np.zeros((1, 4, 4, 64), np.float32)))
    # He-normal by fan-out in networks with batch norm, 1/sqrt(fan-in) in those without.
    assert np.asarray(layer.kernel).std() == pytest.approx(np.sqrt(1 / (9 * 64)), rel=0.02)
    for options in ({}, {"normalize": False, "bias": False}):
        layer = ConvNorm(400, 3, **options)
        layer.build((1, 4, 4, 64))
        assert np.asarray(layer.kernel).std() == pytest.approx(np.sqrt(2 / (9 * 400)), rel=0.02)


@pytest.mark.parametrize("kind", [ConvNorm, ParametricConv, BayesianConv, BoundedConv])
@pytest.mark.parametrize("strides", [1, 2])
def test_conv_with_neither_bias_nor_batch_norm(kind, strides):
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(np.float32)
    layer = kind(filters=5, strides=strides, normalize=False, bias=False)
    layer = kind.from_config(layer.get_config())
    layer.build(x.shape)
    if kind in (ParametricConv, BayesianConv):
        layer.active.assign(False)
        assert layer.random_names == ["kernel"]
    assert not {"bias", "gamma", "beta"} & {v.name for v in layer.weights}
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    expected = tf.nn.conv2d(padded, layer.kernel.value, strides, "VALID")
    np.testing.assert_allclose(layer(x, training=False), expected, atol=1e-5)
    np.testing.assert_array_equal(layer(x, training=True), layer(x, training=False))


def test_normalization_and_shortcut():
    x = np.random.default_rng(0).random((2, 5, 5, 3)).astype(np.float32)
    mean, std = [0.1, 0.2, 0.3], [0.5, 1.0, 2.0]
    np.testing.assert_allclose(ChannelNormalization(mean, std)(x), (x - mean) / std, rtol=1e-5, atol=1e-6)
    y = np.asarray(PaddedSubsample(8, 2)(x))
    assert y.shape == (2, 3, 3, 8) == PaddedSubsample(8, 2).compute_output_shape(x.shape)
    np.testing.assert_array_equal(y[..., 2:5], x[:, ::2, ::2])
    assert not y[..., :2].any()
    assert not y[..., 5:].any()


def test_what_is_known_of_a_shape_is_known_of_the_noise():
    found = []
    tf.function(lambda x: found.append(standard_normal(tf.shape(x), tf.constant([1, 2])))).get_concrete_function(
        tf.TensorSpec([None, 4, 3])
    )
    assert found[0].shape.as_list() == [None, 4, 3]
