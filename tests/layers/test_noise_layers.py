import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from l2p_tf.layers.activation_noise import FixedNoise
from l2p_tf.layers.batch_norm import BatchNorm
from l2p_tf.layers.bayesian import BayesianConv, BayesianDense, BayesianNorm
from l2p_tf.layers.bounded_conv import BoundedConv, UnitOperatorNorm, operator_norm_bound
from l2p_tf.layers.conv_norm import ConvNorm
from l2p_tf.layers.noise import PER_BATCH, noise_layers, noise_parameters
from l2p_tf.layers.parametric_noise import ParametricConv, ParametricDense, ParametricNoise
from l2p_tf.layers.sampling import SAMPLERS

RNG = np.random.default_rng(0)
IMAGE = (6, 6, 3)


def moments(draws, mean, std):
    """Mean, standard deviation and independence of many draws of an array, elementwise; `std` above 0."""
    n = len(draws)
    shape = draws.shape[1:]
    np.testing.assert_allclose((draws.mean(0) - mean) / std, np.zeros(shape), atol=5.5 / np.sqrt(n))
    np.testing.assert_allclose(draws.std(0) / std, np.ones(shape), atol=5.5 / np.sqrt(2 * n))
    flat = draws.reshape(n, -1)[:, :40]
    assert np.abs(np.corrcoef(flat.T) - np.eye(flat.shape[1])).max() < 5.5 / np.sqrt(n)


def draws_of(draw, count):
    """So many draws of an array, in one compiled loop."""
    each = tf.function(lambda: tf.map_fn(lambda _: draw(), tf.range(count), fn_output_signature=tf.float32))
    return np.asarray(each())


@pytest.mark.parametrize("distribution", SAMPLERS)
@pytest.mark.filterwarnings("ignore")
def test_fixed_noise_has_its_std(distribution):
    x = RNG.random((4000, *IMAGE)).astype(np.float32)
    layer = FixedNoise(0.3, distribution=distribution, seed=1)
    noise = np.asarray(layer(x)) - x
    if distribution == "normal":
        moments(noise, 0.0, 0.3)
        assert stats.kstest(noise.ravel()[:20_000] / 0.3, "norm").pvalue > 1e-4
    assert noise.std() == pytest.approx(0.3, rel=0.01)
    assert noise_parameters(keras.Sequential([layer])) == []
    shared = FixedNoise(0.3, distribution=distribution, sharing="batch", seed=1)
    noise = np.asarray(shared(x)) - x
    np.testing.assert_allclose(noise, np.broadcast_to(noise[:1], noise.shape), atol=1e-6)


@pytest.mark.parametrize("sharing", ["example", "batch"])
@pytest.mark.parametrize("granularity", ["layer", "channel", "element"])
def test_parametric_noise_has_alpha_times_each_examples_std(sharing, granularity):
    layer = ParametricNoise(granularity=granularity, sharing=sharing, seed=2)
    x = RNG.normal(size=(3, *IMAGE)).astype(np.float32) * np.array([0.5, 1.0, 4.0], np.float32)[:, None, None, None]
    layer.build(x.shape)
    assert layer.alpha.shape == {"layer": (1, 1, 1), "channel": (1, 1, 3), "element": IMAGE}[granularity]
    alpha = RNG.uniform(0.2, 2.0, layer.alpha.shape).astype(np.float32)
    layer.alpha.assign(alpha)
    draws = draws_of(lambda: layer(x), 3000)
    moments(draws[:, 1], x[1], np.broadcast_to(alpha * x[1].std(), IMAGE))
    ratio = (draws[:, 2] - x[2]).std() / (draws[:, 0] - x[0]).std()
    assert ratio == pytest.approx(x[2].std() / x[0].std(), rel=0.02)
    together = np.corrcoef((draws[:, 0] - x[0]).ravel(), (draws[:, 1] - x[1]).ravel())[0, 1]
    assert together > 0.99 if sharing == "batch" else abs(together) < 0.02


def test_parametric_noise_passes_gradients_to_alpha_and_none_through_the_std():
    layer = ParametricNoise(seed=3)
    x = tf.constant(RNG.normal(size=(4, *IMAGE)), tf.float32)
    weight = RNG.normal(size=(4, *IMAGE)).astype(np.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        loss = tf.reduce_sum(y * weight)
    at_x, at_alpha = tape.gradient(loss, [x, layer.alpha.value])
    np.testing.assert_array_equal(at_x, weight)
    noise = (np.asarray(y) - np.asarray(x)) / 0.25
    np.testing.assert_allclose(np.asarray(at_alpha).ravel(), [(weight * noise).sum()], rtol=1e-4)


def conv_and_dense(conv, dense, **options):
    """Both kinds of layer, built, with their weights' names and values."""
    first, second = conv(filters=5, kernel_size=3, seed=4, **options), dense(units=6, seed=5, **options)
    first.build((None, *IMAGE))
    second.build((None, 7))
    return first, second


@pytest.mark.parametrize(
    ("granularity", "shapes"),
    [("layer", [(1, 1, 1, 1), (1, 1)]), ("channel", [(1, 1, 1, 5), (1, 6)]), ("element", [(3, 3, 3, 5), (7, 6)])],
)
def test_parametric_weights(granularity, shapes):
    for layer, shape in zip(
        conv_and_dense(ParametricConv, ParametricDense, granularity=granularity), shapes, strict=True
    ):
        assert layer.alpha.shape == shape
        np.testing.assert_array_equal(layer.alpha, np.full(shape, 0.25))
        alpha = RNG.uniform(0.2, 2.0, shape).astype(np.float32)
        layer.alpha.assign(alpha)
        kernel = np.asarray(layer.kernel)
        draws = draws_of(lambda layer=layer: layer.drawn("kernel"), 3000)
        moments(draws, kernel, np.broadcast_to(alpha * kernel.std(), kernel.shape))
        others = ("gamma", "beta") if isinstance(layer, ConvNorm) else ("bias",)
        for name in others:
            np.testing.assert_array_equal(layer.drawn(name), getattr(layer, name))
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(layer.drawn("kernel"))
        # Through the mean alone: std passes none.
        np.testing.assert_array_equal(tape.gradient(total, layer.kernel.value), np.ones(kernel.shape))


def test_bayesian_weights():
    norm = BayesianNorm(seed=6)
    norm.build((None, *IMAGE))
    biased = BayesianConv(filters=4, kernel_size=1, normalize=False, seed=7)
    biased.build((None, *IMAGE))
    for layer in (*conv_and_dense(BayesianConv, BayesianDense, initial_std=0.3), norm, biased):
        wanted = {v.name for v in layer.trainable_variables if not v.name.endswith("log_std")}
        assert set(layer.random_names) == wanted
        assert len(layer.noise_parameters) == len(wanted)
        for name in layer.random_names:
            mean = np.asarray(getattr(layer, name))
            log_std = getattr(layer, f"{name}_log_std")
            np.testing.assert_allclose(np.exp(log_std), layer.initial_std, rtol=1e-6)
            std = RNG.uniform(0.05, 0.5, mean.shape).astype(np.float32)
            log_std.assign(np.log(std))
            moments(draws_of(lambda layer=layer, name=name: layer.drawn(name), 800), mean, std)


def test_the_kl_is_that_of_monte_carlo_and_sums_all_weights():
    layer = BayesianDense(units=4, prior_std=0.4, initial_std=0.2, seed=8)
    layer.build((None, 5))
    layer.kernel.assign(RNG.normal(size=(5, 4)) * 0.3)
    layer.bias.assign(RNG.normal(size=4))
    layer.kernel_log_std.assign(np.log(RNG.uniform(0.1, 0.8, (5, 4))))
    mean = np.concatenate([np.asarray(layer.kernel).ravel(), np.asarray(layer.bias)])
    std = np.exp(np.concatenate([np.asarray(layer.kernel_log_std).ravel(), np.asarray(layer.bias_log_std)]))
    w = mean + std * np.random.default_rng(1).normal(size=(100_000, len(mean)))
    samples = (stats.norm.logpdf(w, mean, std) - stats.norm.logpdf(w, 0, 0.4)).sum(1)
    kl = float(layer.kl())
    assert abs(samples.mean() - kl) < 4.5 * samples.std() / np.sqrt(len(samples))
    by_hand = np.sum(np.log(0.4 / std) + (std**2 + mean**2) / (2 * 0.4**2) - 0.5)
    assert kl == pytest.approx(by_hand, rel=1e-5)
    layer.kernel.assign(np.zeros((5, 4)))
    layer.bias.assign(np.zeros(4))
    for log_std in layer.noise_parameters:
        log_std.assign(np.full(log_std.shape, np.log(0.4)))
    assert float(layer.kl()) == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("normalize", [True, False])
def test_weight_noise_is_one_draw_a_pass_and_off_it_is_the_plain_layer_to_the_bit(normalize):
    x = np.repeat(RNG.random((1, *IMAGE)).astype(np.float32), 3, 0)
    plain = ConvNorm(5, normalize=normalize)
    plain.build(x.shape)
    for kind in (ParametricConv, BayesianConv):
        layer = kind(filters=5, normalize=normalize, seed=9)
        layer.build(x.shape)
        names = ["kernel", *(("gamma", "beta", "moving_mean", "moving_variance") if normalize else ("bias",))]
        for name in names:
            getattr(layer, name).assign(getattr(plain, name))
        assert layer.draws_per == PER_BATCH
        first, second = np.asarray(layer(x)), np.asarray(layer(x))
        assert np.abs(first - second).max() > 0.01
        np.testing.assert_allclose(first, np.broadcast_to(first[:1], first.shape), atol=1e-6)
        layer.active.assign(False)
        for training in (False, True):
            np.testing.assert_array_equal(layer(x, training=training), plain(x, training=training))
            np.testing.assert_array_equal(layer(x, training=training), layer(x, training=training))
            for name in names:
                getattr(layer, name).assign(getattr(plain, name))
        assert noise_layers(keras.Sequential([layer])) == [layer]


def test_batch_norm_is_that_of_keras():
    x = RNG.normal(2.0, 3.0, (40, *IMAGE)).astype(np.float32)
    ours, theirs = BatchNorm(), keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
    for _ in range(3):
        np.testing.assert_allclose(ours(x, training=True), theirs(x, training=True), atol=2e-5)
    np.testing.assert_allclose(ours.moving_mean, theirs.moving_mean, rtol=1e-5)
    # Ours is the unbiased variance, as in PyTorch.
    count = 40 * 36
    expected = (np.asarray(theirs.moving_variance) - 0.9**3) * count / (count - 1) + 0.9**3
    np.testing.assert_allclose(ours.moving_variance, expected, rtol=1e-4)
    theirs.moving_variance.assign(ours.moving_variance)
    np.testing.assert_allclose(ours(x, training=False), theirs(x, training=False), atol=2e-5)


@pytest.mark.parametrize(
    ("sides", "channels", "filters", "size", "strides"),
    [((8, 8), 3, 16, 3, 1), ((7, 9), 1, 4, 3, 1), ((8, 8), 3, 2, 5, 1), ((9, 9), 3, 8, 3, 2), ((8, 8), 2, 6, 1, 1)],
)
def test_the_operator_norm_is_bounded_and_held(sides, channels, filters, size, strides):
    layer = BoundedConv(filters, size, strides, normalize=False)
    layer.build((None, *sides, channels))
    assert layer.sensitivity <= 1.0

    def true_norm():
        """The largest singular value of the whole map."""
        count = sides[0] * sides[1] * channels
        unit = np.eye(count, dtype=np.float32).reshape(count, *sides, channels)
        return np.linalg.svd(np.asarray(layer(unit) - layer.bias).reshape(count, -1), compute_uv=False)[0]

    layer.kernel.assign(RNG.normal(size=layer.kernel.shape))
    bound = layer.sensitivity
    assert true_norm() <= bound * (1 + 1e-5)
    if strides == 1:
        assert true_norm() >= 0.8 * bound
    # An optimizer's step ends within the bound, and a kernel within it is left alone.
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.apply([RNG.normal(size=layer.kernel.shape).astype(np.float32)], [layer.kernel])
    assert 0.999 < layer.sensitivity <= 1.0
    assert true_norm() <= 1.0 + 1e-5
    small = np.asarray(layer.kernel) * 0.5
    np.testing.assert_array_equal(UnitOperatorNorm(sides)(small), small)
    assert operator_norm_bound(small, sides) == pytest.approx(0.5, rel=1e-3)
    assert UnitOperatorNorm.from_config(UnitOperatorNorm(sides).get_config()).sides == sides
