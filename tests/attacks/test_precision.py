"""Attacks on models that compute in half precision: gradients neither vanish nor overflow, and they find as much."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from l2p_tf.attacks import ATTACKS, gradient
from l2p_tf.attacks.criterion import Criterion
from l2p_tf.attacks.gradient import answer, loss_gradient
from l2p_tf.attacks.tanh_space import gradient_image
from l2p_tf.evaluation.cleverhans import CleverHans
from l2p_tf.evaluation.masking.gradients import slopes
from l2p_tf.layers.folding import predict_folded
from support import others_slow
from support.models import COMPILED, images_and_labels, precision, quick, smooth

IMAGES = tf.constant(images_and_labels(16)[0])
HALF = "mixed_float16"


def confident(policy="float32", gain=40.0, **options):
    """A smooth network, after whose last layer everything is `gain` times as large; its answers are float32."""
    with precision(policy):
        model = smooth(**options)
    model.layers[-1].kernel.assign(gain * model.layers[-1].kernel)
    return keras.Model(model.inputs, keras.layers.Activation("linear", dtype="float32")(model.output))


LABELS = tf.argmax(confident()(IMAGES), -1, tf.int32)


def raw_gradient(model):
    """That of the cross-entropy as TensorFlow has it."""
    with tf.GradientTape() as tape:
        tape.watch(IMAGES)
        loss = tf.reduce_sum(Criterion(LABELS).loss("ce", predict_folded(model, IMAGES)))
    return np.asarray(tape.gradient(loss, IMAGES))


def apart(found, expected):
    """The largest difference between the directions of gradients of the same images, as vectors of length 1."""
    found, expected = (np.reshape(g, (len(g), -1)).astype(np.float64) for g in (found, expected))
    found, expected = (g / np.linalg.norm(g, axis=1, keepdims=True) for g in (found, expected))
    return np.linalg.norm(found - expected, axis=1).max()


@pytest.mark.parametrize("loss", ["ce", "margin", "dlr"])
def test_gradients_of_a_confident_model_are_not_lost(loss):
    single, half = confident(), confident(HALF)
    found, expected = (np.asarray(loss_gradient(m, IMAGES, Criterion(LABELS), loss=loss)[0]) for m in (half, single))
    assert apart(found, expected) < 0.02
    if loss == "ce":
        lost = ~np.any(raw_gradient(half), axis=(1, 2, 3))
        assert lost.sum() >= 4
        assert np.abs(expected[lost]).max((1, 2, 3)).min() < 1e-12
    else:
        np.testing.assert_allclose(found, expected, atol=0.01 * np.abs(expected).max())


@pytest.mark.parametrize("gain", [1e-3, 3000.0, 30000.0])
def test_nor_do_those_of_a_flat_or_steep_one_underflow_or_overflow(gain):
    found, expected = (
        loss_gradient(confident(policy, gain), IMAGES, Criterion(LABELS), loss="margin")[0]
        for policy in (HALF, "float32")
    )
    assert apart(found, expected) < 0.02
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())


def test_one_pass_gives_gradients_of_several_kinds():
    half = confident(HALF)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(IMAGES)
        logits = answer(half, IMAGES)
    np.testing.assert_array_equal(logits, predict_folded(half, IMAGES))
    for k in range(4):
        one = tf.GradientTape()
        with one:
            one.watch(IMAGES)
            wanted = confident()(IMAGES)[:, k]
        up = 1e-9 * tf.one_hot(tf.fill([16], k), 4)
        assert apart(tape.gradient(logits, IMAGES, up), one.gradient(wanted, IMAGES)) < 0.02
    # A model without gradient, and an answer that is no number, have none to scale.
    np.testing.assert_array_equal(tape.gradient(logits, IMAGES, tf.zeros_like(logits)), 0)
    assert not np.isfinite(tape.gradient(logits, IMAGES, tf.fill(logits.shape, np.nan))).any()


def test_what_else_takes_gradients_of_images():
    single, half = confident(), confident(HALF)
    assert apart(*(gradient_image(m, IMAGES, LABELS, "unit") for m in (half, single))) < 0.02
    signs = [slopes(m, IMAGES.numpy(), LABELS.numpy(), 0.1) for m in (half, single)]
    assert np.mean(signs[0]["direction"] == signs[1]["direction"]) > 0.99
    assert not signs[0]["zero"].any()
    theirs = CleverHans(ATTACKS.parse("fgsm(epsilon=0.1)"))
    outputs = [theirs(m, IMAGES.numpy(), LABELS.numpy()).adversarial for m in (half, single)]
    assert np.isclose(*outputs, atol=1e-5).mean() > 0.99


def test_with_noise_each_copy_of_an_image_is_scaled_by_itself():
    found, expected = (
        loss_gradient(confident(policy, noise=0.01), IMAGES, Criterion(LABELS), draws=4)[0]
        for policy in (HALF, "float32")
    )
    assert apart(found, expected) < 0.05


def attacked(name, policy, jit_compile=False):
    # Enough steps for those of smallest norm to arrive.
    attack = quick(name, **({"steps": 20} if name in ("deepfool", "cw") else {}))
    if name == "hop_skip_jump":
        attack = attack.replace(delta=0.03)  # Nearer probes than that bfloat16 does not tell apart.
    if getattr(attack, "epsilon", None) is not None:
        attack = attack.replace(epsilon=0.1)
    return attack(confident(policy), IMAGES, LABELS, seed=1, batch_size=16, jit_compile=jit_compile)


def assert_as_in_float32(name, policy, jit_compile=False):
    found, expected = attacked(name, policy, jit_compile), attacked(name, "float32")
    assert np.isfinite(found.adversarial).all()
    assert np.abs(found.adversarial - IMAGES).max() > 0
    assert abs(found.success.mean() - expected.success.mean()) <= 1 / 16
    if name == "hop_skip_jump":
        # Rounding sends it elsewhere along the boundary, but not much farther away.
        assert np.median(found.l2) == pytest.approx(np.median(expected.l2), rel=0.1)
    else:
        assert np.isclose(found.adversarial, expected.adversarial, atol=0.01).mean() > 0.9


@pytest.mark.parametrize("name", others_slow(COMPILED, "apgd", "cw", "fab", "pgd"))
def test_every_attack_finds_in_float16_what_it_finds_in_float32(name):
    assert_as_in_float32(name, HALF)


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "jit_compile"), [("mixed_bfloat16", False), ("mixed_bfloat16", True), (HALF, True)])
@pytest.mark.parametrize("name", COMPILED)
def test_every_attack_compiles_in_half_precision(name, policy, jit_compile):
    # Differences of answers are rounded in bfloat16.
    if name != "zoo" or policy == HALF:
        assert_as_in_float32(name, policy, jit_compile)


@pytest.mark.parametrize("name", ["pgd", "apgd"])
def test_without_the_scale_attacks_would_find_less(name, monkeypatch):
    expected = attacked(name, "float32").success.sum()
    assert attacked(name, HALF).success.sum() == expected
    monkeypatch.setattr(gradient, "answer", predict_folded)
    assert attacked(name, HALF).success.sum() < expected - 2
