"""Backward pass differentiable approximation: true answers, with the gradient of something smooth."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import l2p_tf
from l2p_tf import artifacts
from l2p_tf.attacks import ATTACKS
from l2p_tf.evaluation.options import EvaluationOptions
from l2p_tf.layers.surrogate import SURROGATES, SurrogateGradient
from l2p_tf.models.surrogates import with_surrogates
from l2p_tf.types import UserError
from support.models import images_and_labels, residual, smooth

SHAPE = (6, 6, 1)
LEVELS = 8


def rounding(inner, inside=True):
    """A classifier that rounds its images to few levels, by an operation of a network within it."""
    x = keras.Input(inner.input_shape[1:])
    rounded = keras.ops.round(x * LEVELS) / LEVELS
    if not inside:
        return keras.Model(x, inner(rounded))
    y = keras.Input(inner.input_shape[1:])
    return keras.Model(y, inner(keras.Model(x, rounded, name="squeeze")(y)))


def gradient(model, images):
    with tf.GradientTape() as tape:
        tape.watch(images)
        logits = model(images, training=False)
    return logits, tape.gradient(logits, images, unconnected_gradients="zero")


@pytest.mark.parametrize("inside", [True, False])
def test_the_answers_stay_and_the_gradient_passes(inside):
    inner = smooth()
    plain, images = rounding(inner, inside), tf.constant(images_and_labels(5)[0])
    made = with_surrogates(plain, " round* : identity ;")
    (answers, none), (same, passed) = gradient(plain, images), gradient(made, images)
    np.testing.assert_array_equal(answers, same)
    assert not np.any(none)
    _, expected = gradient(inner, tf.round(images * LEVELS) / LEVELS)
    np.testing.assert_allclose(passed, expected, rtol=1e-5, atol=1e-7)
    # The weights are the same, not copies.
    assert {id(v) for v in made.variables} == {id(v) for v in plain.variables}
    assert with_surrogates(plain, "") is plain


@pytest.mark.parametrize("name", SURROGATES)
def test_every_surrogate_has_its_own_gradient(name):
    x = keras.Input((4,))
    hard = keras.Model(x, keras.ops.where(x > 0, 1.0, 0.0 * x))
    made = keras.Model(x, SurrogateGradient(name)([hard(x), x]))
    again = keras.models.clone_model(made)
    values = tf.constant(np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32))
    up = tf.constant(np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(values)
        answers, smooth = made(values), SURROGATES[name](values)
    np.testing.assert_array_equal(answers, hard(values))
    np.testing.assert_array_equal(again(values), answers)
    np.testing.assert_allclose(tape.gradient(answers, values, up), tape.gradient(smooth, values, up), rtol=1e-6)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("rounding: identity", "should fit the name of a layer, of .*stem.*Received: 'rounding'"),
        ("stem", "should be names of layers with identity or sigmoid or softmax, .*Received: 'stem'"),
        ("stem: relu", "Received: 'stem: relu'"),
        (": identity", "Received: ': identity'"),
        ("stem: identity", r"'stem' makes float32 \(None, 8, 8, 8\) of \(None, 8, 8, 1\)"),
        ("sum: identity", r"'sum' makes float32 .* of \(None, 8, 8, 8\), \(None, 8, 8, 8\)"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(steps, message):
    with pytest.raises(UserError, match=message):
        with_surrogates(residual(), steps)


def test_options_are_read_before_anything_is_done():
    with pytest.raises(UserError, match="`bpda` should be names of layers"):
        EvaluationOptions(bpda="round: straight")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*has none, as after a cast", "ignore:The gradient of the model")
def test_a_model_that_rounds_its_images_falls_to_bpda_and_to_its_answers_alone(tmp_path):
    rng = np.random.default_rng(3)
    inner = smooth()
    images = rng.integers(0, 256, (60, *SHAPE), np.uint8)
    model = rounding(inner)
    labels = np.asarray(model(images.astype(np.float32) / 255)).argmax(-1)
    attacks = "pgd(epsilon=0.2, steps=20); hop_skip_jump(norm=linf, epsilon=0.2, steps=15)"
    file = tmp_path / "rounds.keras"
    model.save(file)

    def judged(**options):
        result = l2p_tf.evaluate(
            str(file), images, labels, attacks=attacks, checks=40, checks_epsilon=0.2, input_range="0..1",
            class_names="abcd", **options,
        )  # fmt: skip
        robust = {record.attack: record.correct / record.count for record in result.records.itertuples()}
        verdicts = dict(zip(result.checks.check, result.checks.verdict, strict=True))
        return [value for name, value in robust.items() if name != "clean"], verdicts

    (pgd, answers), masked = judged()
    (bpda, again), seen = judged(bpda="round*: identity", folder=tmp_path / "kept")
    for stage in ("attack", "checks"):
        assert artifacts.read(tmp_path / "kept" / "model" / stage, stage).options["bpda"] == "round*: identity"
    assert "bpda" not in EvaluationOptions().request()
    assert pgd > 0.8
    assert bpda < 0.1
    assert answers == pytest.approx(again, abs=0.05)
    assert answers < 0.4
    assert masked["gradients"] == masked["black_box"] == masked["unbounded"] == "fail"
    assert seen["gradients"] == seen["black_box"] == seen["unbounded"] == "pass"


class Squeeze(keras.layers.Layer):
    """Code of its own, without a gradient."""

    def call(self, x):
        return keras.ops.round(x * LEVELS) / LEVELS


@pytest.mark.filterwarnings("ignore:.*has none, as after a cast", "ignore:The gradient of the model")
def test_a_model_with_code_of_its_own_is_given_them_before():
    images, x = np.random.default_rng(3).integers(0, 256, (40, *SHAPE), np.uint8), keras.Input(SHAPE)
    model = keras.Model(x, smooth()(Squeeze(name="squeeze")(x)))
    labels = np.asarray(model(images.astype(np.float32) / 255)).argmax(-1)
    how = {"attacks": "pgd(epsilon=0.2)", "checks": 0, "input_range": "0..1", "class_names": "abcd"}
    with pytest.raises(UserError, match="of graph, logits. Received: 'squeeze'. A model with code of its own"):
        l2p_tf.evaluate(model, images, labels, bpda="squeeze: identity", **how)
    made = with_surrogates(model, "squeeze: identity")
    plain, smoothed = (l2p_tf.evaluate(one, images, labels, **how).records for one in (model, made))
    assert list(plain.correct / 40 > 0.75) == [True, True]
    assert list(smoothed.correct / 40 > 0.25) == [True, False]


def test_an_attack_takes_such_a_model_as_any():
    model, (images, _) = rounding(smooth()), images_and_labels(16)
    labels = np.asarray(model(images)).argmax(-1)
    found = ATTACKS.parse("pgd(epsilon=0.3)")(with_surrogates(model, "round*: identity"), images, labels)
    assert found.success.mean() > 0.8
    np.testing.assert_array_equal(np.asarray(model(found.adversarial)).argmax(-1) != labels, found.success)
