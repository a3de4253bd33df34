import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from l2p_tf.defenses import DEFENSES
from l2p_tf.layers.leaky_relu import LeakyReLU
from l2p_tf.models import MODELS
from l2p_tf.models.base import trainable_parameters
from l2p_tf.models.perturbation_generator import build_generator
from l2p_tf.models.saving import load_classifier, save_classifier
from support.models import SHALLOW
from support.training import assert_same

# Learn2Perturb, Tables 1 and 2; noise parameters not counted.
PARAMETERS = {
    "resnet_v1(depth=20)": 269_722,
    "resnet_v1(depth=32)": 464_154,
    "resnet_v1(depth=44)": 658_586,
    "resnet_v1(depth=56)": 853_018,
    "resnet_v1(depth=20, width=1.5)": 605_026,
    "resnet_v1(depth=20, width=2)": 1_073_962,
    "resnet_v1(depth=20, width=4)": 4_286_026,
}


@pytest.mark.parametrize(("spec", "count"), PARAMETERS.items())
def test_parameters_are_the_papers(spec, count):
    assert trainable_parameters(MODELS.parse(spec).build((32, 32, 3), 10)) == count


def test_parameters_of_noise_are_one_for_each_activation_and_not_counted():
    model = MODELS.parse("resnet_v1(depth=20)").build((32, 32, 3), 10, DEFENSES.parse("learn2perturb").factory(0))
    assert trainable_parameters(model) == PARAMETERS["resnet_v1(depth=20)"]
    theta = sum(int(np.prod(v.shape)) for v in model.trainable_variables if v.name == "theta")
    assert theta == 4 * 32 * 32 * 16 + 3 * 16 * 16 * 32 + 3 * 8 * 8 * 64


# Parameters counted by hand, layer by layer: (kernel's side, channels in, channels out) of every convolution.


def convolutions(*layers):
    return sum(side * side * before * after for side, before, after in layers)


def chain(*channels):
    return [(3, a, b) for a, b in itertools.pairwise(channels)]


def dense(*units):
    return sum(a * b + b for a, b in itertools.pairwise(units))


def basic_net(classes, width, positions, channels):
    a, b, c, d = (round(n * width) for n in (6, 16, 120, 84))
    return convolutions((5, channels, a), (5, a, b)) + a + b + dense(positions * b, c, d, classes)


def all_conv(classes, width, channels):
    filters = [round(n * width) for n in (64, 128, 128, 256, 256, 512)] + [classes]
    return convolutions(*chain(channels, *filters)) + sum(filters)


VGG_LAYERS = {
    11: [64, 128, 256, 256, 512, 512, 512, 512],
    13: [64, 64, 128, 128, 256, 256, 512, 512, 512, 512],
    16: [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512],
    19: [64, 64, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512, 512, 512, 512, 512],
}


def vgg(classes, depth, width, channels):
    filters = [round(n * width) for n in VGG_LAYERS[depth]]
    return convolutions(*chain(channels, *filters)) + 2 * sum(filters) + dense(filters[-1], classes)


def wide_resnet(classes, depth, width, channels):
    total, before = convolutions((3, channels, 16)), 16
    for filters in (round(n * width) for n in (16, 32, 64)):
        for block in range((depth - 4) // 6):
            total += 2 * before + 2 * filters + convolutions((3, before, filters), (3, filters, filters))
            # The first block of a stage changes the number of channels, or halves the sides.
            if block == 0 and (before != filters or filters > round(16 * width)):
                total += before * filters
            before = filters
    return total + 2 * before + dense(before, classes)


def resnet_v2_18(classes, width, channels):
    stages = [round(n * width) for n in (64, 128, 256, 512)]
    stem = stages[0]
    total = convolutions((3, channels, stem)) + 2 * stem + 2 * (2 * convolutions((3, stem, stem)) + 4 * stem)
    for before, filters in itertools.pairwise(stages):
        inner = [(3, filters, filters)] * 3
        total += convolutions((3, before, filters), *inner, (1, before, filters)) + 5 * 2 * filters
    return total + dense(stages[-1], classes)


COUNTED = [
    ("basic_net", (32, 32, 3), 10, 136_886, basic_net(10, 1, 64, 3)),
    ("basic_net(width=2)", (32, 32, 3), 100, None, basic_net(100, 2, 64, 3)),
    ("basic_net(width=0.5)", (9, 13, 1), 7, None, basic_net(7, 0.5, 3 * 4, 1)),
    ("all_conv", (32, 32, 3), 10, 2_334_730, all_conv(10, 1, 3)),
    ("all_conv", (32, 32, 3), 100, None, all_conv(100, 1, 3)),
    ("all_conv(width=0.25)", (9, 9, 1), 10, None, all_conv(10, 0.25, 1)),
    # What common code counts, which keeps the biases before the batch norms.
    ("vgg(depth=11)", (32, 32, 3), 10, 9_231_114 - sum(VGG_LAYERS[11]), vgg(10, 11, 1, 3)),
    ("vgg(depth=11)", (32, 32, 3), 100, None, vgg(100, 11, 1, 3)),
    ("vgg(depth=13, width=0.5)", (32, 32, 3), 10, None, vgg(10, 13, 0.5, 3)),
    ("vgg(depth=16)", (32, 32, 3), 10, 14_728_266 - sum(VGG_LAYERS[16]), vgg(10, 16, 1, 3)),
    ("vgg(depth=19, width=0.25)", (5, 8, 1), 10, None, vgg(10, 19, 0.25, 1)),
    ("wide_resnet", (32, 32, 3), 10, 36_479_194, wide_resnet(10, 28, 10, 3)),
    ("wide_resnet(depth=16, width=4)", (32, 32, 3), 100, None, wide_resnet(100, 16, 4, 3)),
    ("wide_resnet(depth=10, width=1)", (9, 9, 1), 10, None, wide_resnet(10, 10, 1, 1)),
    ("wide_resnet(depth=10, width=1.5)", (8, 8, 3), 10, None, wide_resnet(10, 10, 1.5, 3)),
    # The 2021 study's "wide ResNet-18" and its "wider 17M".
    ("resnet_v2(depth=18)", (32, 32, 3), 10, 11_173_962, resnet_v2_18(10, 1, 3)),
    ("resnet_v2(depth=18)", (32, 32, 3), 100, None, resnet_v2_18(100, 1, 3)),
    ("resnet_v2(depth=18, width=1.25)", (32, 32, 3), 10, 17_454_170, resnet_v2_18(10, 1.25, 3)),
]


@pytest.mark.parametrize(("spec", "shape", "classes", "known", "derived"), COUNTED)
def test_parameters_are_those_of_the_layers(spec, shape, classes, known, derived):
    if known is not None:
        assert derived == known
    assert trainable_parameters(MODELS.parse(spec).build(shape, classes)) == derived


@pytest.mark.parametrize("name", SHALLOW)
def test_sizes_of_images_and_capacity(name, tmp_path):
    small = MODELS.parse(SHALLOW[name])
    x = np.random.default_rng(0)
    for shape in [(1, 1, 1), (15, 9, 3)]:
        model = small.build(shape, 7)
        logits = np.asarray(model(x.random((3, *shape)).astype(np.float32)))
        assert logits.shape == (3, 7)
        assert logits.dtype == "float32"
        assert np.isfinite(logits).all()
    save_classifier(model, tmp_path / "m.keras")
    assert_same(model.weights, load_classifier(tmp_path / "m.keras").weights)
    assert [p.name for p in tmp_path.iterdir()] == ["m.keras"]
    counts = [trainable_parameters(small.replace(width=w).build((8, 8, 1), 3)) for w in (1e-6, 0.5, 1, 2)]
    assert counts == sorted(set(counts))
    assert counts[3] / counts[2] == pytest.approx(4, rel=0.15)


def test_all_conv_is_appendix_as():
    keras.utils.set_random_seed(0)
    model = MODELS.parse("all_conv").build((32, 32, 3), 10)
    kernels = [v for v in model.trainable_variables if v.name == "kernel"]
    assert [tuple(v.shape) for v in kernels] == [
        (3, 3, *pair) for pair in [(3, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 10)]
    ]
    for kernel in kernels:
        assert np.std(kernel) == pytest.approx(1 / np.sqrt(9 * kernel.shape[2]), rel=0.06)
    images = np.random.default_rng(0).random((2, 32, 32, 3)).astype(np.float32)
    maps = model.get_layer("maps")
    assert maps.output.shape == (None, 4, 4, 10)
    last = np.asarray(keras.Model(model.input, maps.output)(images))
    np.testing.assert_allclose(model(images), last.mean((1, 2)), atol=1e-5)
    # The slope of every activation, and what pooling keeps.
    activations = [layer for layer in model.layers if isinstance(layer, LeakyReLU)]
    assert len(activations) == 6
    for layer in activations:
        np.testing.assert_allclose(layer(np.float32([-2, 3])), [-0.4, 3], rtol=1e-6)
        x = tf.constant([-2.0, -1e-30, 0.0, 3.0])
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        np.testing.assert_allclose(tape.gradient(y, x, tf.fill([4], 2.0)), [0.4, 0.4, 0.4, 2.0], rtol=1e-6)
    pool = model.get_layer("block1_pool")
    odd = np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1)
    np.testing.assert_allclose(np.asarray(pool(odd)).reshape(2, 2), [[2, 3.5], [6.5, 8]])


def test_a_block_of_the_wide_resnet_is_pre_activated():
    model = MODELS.parse("wide_resnet(depth=10, width=1)").build((5, 5, 2), 3)
    images = np.random.default_rng(0).random((2, 5, 5, 2)).astype(np.float32)
    names = ["stem", "stage1_block1_sum", "stage2_block1_sum"]
    x, first, second = (np.asarray(keras.Model(model.input, model.get_layer(n).output)(images)) for n in names)
    normalized = float(1 / np.sqrt(1 + 1e-5))  # What a fresh batch norm is at prediction.

    def conv(x, name, strides=1):
        kernel = np.asarray(model.get_layer(name).kernel)
        pad = kernel.shape[0] // 2
        return keras.ops.conv(np.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)]), kernel, strides)

    def branch(x, name, strides=1):
        hidden = np.asarray(conv(x, f"{name}_conv1", strides)) * normalized
        return conv(np.maximum(hidden, 0), f"{name}_conv2")

    active = np.maximum(x * normalized, 0)
    # The first block changes no shape: its input passes as it is. The second projects the activated input.
    np.testing.assert_allclose(first, x + branch(active, "stage1_block1"), atol=1e-4)
    active = np.maximum(first * normalized, 0)
    projected = conv(active, "stage2_block1_shortcut", 2)
    np.testing.assert_allclose(second, projected + branch(active, "stage2_block1", 2), atol=1e-4)


@pytest.mark.parametrize("name", [*SHALLOW, "generator"])
def test_networks_do_not_follow_the_layout_of_keras_json(name):
    def answers():
        keras.utils.set_random_seed(0)
        if name == "generator":
            model = build_generator((7, 5, 2), 3, width=0.1)
        else:
            model = MODELS.parse(SHALLOW[name]).build((7, 5, 2), 3)
        rng = np.random.default_rng(0)
        given = [rng.random((2, *x.shape[1:]), dtype=np.float32) for x in model.inputs]
        return model.count_params(), np.asarray(model(given if len(given) > 1 else given[0]))

    usual = answers()
    former = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        other = answers()
    finally:
        keras.config.set_image_data_format(former)
    assert usual[0] == other[0]
    np.testing.assert_array_equal(usual[1], other[1])
