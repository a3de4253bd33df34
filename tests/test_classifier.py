"""The gate: what models of other kinds are taken for, and what is mended or refused."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from l2p_tf import inference
from l2p_tf.attacks import ATTACKS
from l2p_tf.classifier import as_classifier
from l2p_tf.layers.noise import draws_per_example, is_randomized
from l2p_tf.layers.perturbation_injection import PerturbationInjection
from l2p_tf.models.saving import load_classifier
from l2p_tf.types import UserError
from support.models import linear

SHAPE = (4, 4, 1)
layers = keras.layers


@pytest.fixture
def images():
    return np.random.default_rng(0).random((24, *SHAPE), dtype=np.float32)


def weights(classes=3, seed=1, scale=10.0):
    w = np.random.default_rng(seed).normal(size=(16, classes)).astype(np.float32) * scale
    return [w, -w.sum(0) / 2]


def plain():
    return linear(weights()[0].reshape(*SHAPE, 3), bias=weights()[1])


def finished(make, input_dtype="float32"):
    """A functional model on 4x4 images; `make` gets the flat images and gives the outputs."""
    x = keras.Input(SHAPE, dtype=input_dtype)
    model = keras.Model(x, make(layers.Flatten()(x)))
    for layer in model._flatten_layers():
        if isinstance(layer, layers.Dense):
            layer.set_weights(weights(layer.units))
    return model


def sequential(*last):
    model = keras.Sequential([keras.Input(SHAPE), layers.Flatten(), *last])
    model.layers[1].set_weights(weights())
    return model


class Subclassed(keras.Model):
    def __init__(self, activation=None, name=None):
        super().__init__(name=name)
        self.flat, self.dense = layers.Flatten(), layers.Dense(3, activation=activation)

    def call(self, inputs, training=False):
        assert not training
        return self.dense(self.flat(inputs))


def subclassed(activation=None):
    model = Subclassed(activation)
    model(np.zeros((1, *SHAPE)))
    model.dense.set_weights(weights())
    return model


SOFTMAXES = {
    "activation": lambda: finished(layers.Dense(3, activation="softmax")),
    "layer": lambda: finished(lambda x: layers.Softmax()(layers.Dense(3)(x))),
    "activation layer": lambda: finished(lambda x: layers.Activation("softmax")(layers.Dense(3)(x))),
    "operation": lambda: finished(lambda x: keras.ops.softmax(layers.Dense(3)(x))),
    "cast": lambda: finished(
        lambda x: layers.Activation("linear", dtype="float32")(layers.Dense(3, activation="softmax")(x))
    ),
    "sequential": lambda: sequential(layers.Dense(3, activation="softmax")),
    "nested": lambda: finished(keras.Sequential([layers.Dense(3), layers.Softmax()])),
}


@pytest.mark.parametrize("kind", SOFTMAXES)
def test_a_softmax_at_the_end_is_taken_off(kind, images):
    model = SOFTMAXES[kind]()
    before = np.asarray(model(images))
    with pytest.warns(UserWarning, match="ends in a softmax, which was taken off"):
        logits = as_classifier(model, images)
    np.testing.assert_allclose(logits(images), plain()(images), rtol=1e-5, atol=1e-4)
    # The model itself answers as before, its weights are shared, and it is not asked a second time.
    np.testing.assert_array_equal(model(images), before)
    assert as_classifier(model, images) is logits
    assert as_classifier(logits, images) is logits
    for variable in model.trainable_variables:
        variable.assign(tf.zeros(variable.shape))
    np.testing.assert_array_equal(logits(images), np.zeros((24, 3)))


SPECS = ("cw(steps=40, binary_search_steps=3, epsilon=0.3)", "deepfool(epsilon=0.3)", "apgd(loss=dlr, epsilon=0.05)")


@pytest.mark.filterwarnings("ignore:The model .* (ends in a softmax|answers probabilities)")
def test_with_a_softmax_a_network_falls_as_easily(images):
    model, taken_off, by_logarithm = plain(), SOFTMAXES["activation"](), subclassed("softmax")
    labels = inference.predict(model, images).argmax(-1)
    for spec in SPECS:
        expected, *found = (
            ATTACKS.parse(spec)(m, images, labels, seed=1).success for m in (model, taken_off, by_logarithm)
        )
        assert expected.mean() > 0
        np.testing.assert_array_equal(expected, found[0])
        # Where a logarithm has to do, probabilities that were rounded to 0 or 1 have no gradient.
        assert np.mean(expected == found[1]) >= 0.8, spec
    for soft in (taken_off, by_logarithm):
        np.testing.assert_allclose(inference.predict(soft, images), soft(images), atol=1e-5)


def test_a_classifier_is_taken_as_it_is_and_its_seeds_are_left_alone(images):
    model = linear(np.ones((*SHAPE, 3)), noise=0.1)
    state = np.array(model.get_layer("noise").seed_generator.state)
    assert as_classifier(model, images) is model
    np.testing.assert_array_equal(model.get_layer("noise").seed_generator.state, state)
    assert is_randomized(model)
    assert draws_per_example(model)
    by_chance = linear(np.zeros((*SHAPE, 4)), bias=[0.25] * 4)  # Logits that sum to one.
    cast = keras.Model(by_chance.input, layers.Activation("linear", dtype="float32")(by_chance.output))
    for model in (by_chance, cast):
        assert as_classifier(model, images) is model


@keras.saving.register_keras_serializable("tests")
class TensorFlowNoise(layers.Layer):
    """Noise of the user's own, which no seed generator of Keras's makes."""

    def call(self, x):
        return x + tf.random.normal(tf.shape(x), stddev=0.5)


class AlwaysDropout(layers.Dropout):
    def call(self, inputs, training=None):
        return super().call(inputs, training=True)


class AlwaysNoise(layers.GaussianNoise):
    def call(self, inputs, training=None):
        return super().call(inputs, training=True)


NOISES = {"own": TensorFlowNoise, "dropout": lambda: AlwaysDropout(0.5), "gaussian": lambda: AlwaysNoise(0.3)}


@pytest.mark.parametrize("kind", NOISES)
def test_noise_of_any_kind_makes_a_model_randomized(kind, images):
    # Both classes are as likely on average, so an attack of no budget succeeds on half of all fresh draws.
    model = finished(lambda x: layers.Dense(3)(NOISES[kind]()(x)))
    labels = inference.predict(model, images, draws=30).argmax(-1)
    classifier = as_classifier(model, images)
    assert is_randomized(classifier)
    assert not draws_per_example(classifier)
    error = np.mean([np.asarray(model(images)).argmax(-1) != labels for _ in range(200)])
    for spec in ("pgd(epsilon=0, steps=4, restarts=4)", "deepfool(epsilon=0, steps=2)", "noise(epsilon=0, restarts=6)"):
        output = ATTACKS.parse(spec)(model, images, labels, seed=1, score_draws=200)
        assert abs(output.success.mean() - error) < 0.05, spec
    if kind != "own":
        # Keras's own layers are seeded too.
        first, again = (ATTACKS.parse("pgd(steps=2)")(model, images, labels, seed=5) for _ in range(2))
        np.testing.assert_array_equal(first.adversarial, again.adversarial)


def test_of_both_kinds_of_noise_the_less_independent_counts(images):
    def both(x):
        return layers.Dense(3)(TensorFlowNoise()(PerturbationInjection(initial=0.1, minimum=0.0)(x)))

    classifier = as_classifier(finished(both), images)
    assert is_randomized(classifier)
    assert not draws_per_example(classifier)


def test_a_subclassed_model_takes_images_of_any_size():
    class Pooled(keras.Model):
        def __init__(self):
            super().__init__()
            self.pool, self.dense = layers.GlobalMaxPooling2D(), layers.Dense(3)

        def call(self, x):
            return self.dense(self.pool(x))

    model, rng = Pooled(), np.random.default_rng(0)
    model(np.zeros((1, 2, 2, 1)))
    model.dense.set_weights([np.array([[1.0, -1.0, 0.5]]), np.zeros(3)])
    for shape in ((4, 4, 1), (9, 5, 1)):
        # The radius is beyond the diagonal of the smaller images.
        epsilon = 0.9 * np.sqrt(np.prod(shape))
        images = rng.random((3, *shape), dtype=np.float32)
        output = ATTACKS.parse(f"pgd(norm=l2, epsilon={epsilon}, steps=2)")(model, images, np.zeros(3, int))
        assert output.adversarial.shape == (3, *shape)


class Rounded(layers.Layer):
    """Knows the images by whole numbers: there is no gradient, not even one of 0."""

    def call(self, x):
        return tf.cast(tf.cast(4.0 * x, tf.int32), tf.float32)


@pytest.mark.parametrize("spec", ["pgd(steps=2)", "deepfool(steps=2)", "fab(steps=2)", "cw(steps=2)"])
def test_without_a_gradient_an_attack_finds_nothing_new(spec, images):
    model = finished(lambda x: layers.Dense(3)(Rounded()(x)))
    with pytest.warns(UserWarning, match="is missing: what the model computes from the pixels has none"):
        labels = inference.predict(model, images).argmax(-1)
    labels[:5] = (labels[:5] + 1) % 3
    output = ATTACKS.parse(spec)(model, images, labels)
    np.testing.assert_array_equal(output.success[:5], 1)
    assert np.isfinite(output.adversarial).all()


def test_a_softmax_that_no_layer_tells_of_is_seen_and_other_numbers_in_0_to_1_are_told(images):
    model = finished(lambda x: keras.ops.sigmoid(layers.Dense(3)(x)))
    with pytest.warns(UserWarning, match=r"numbers in \[0, 1\] that do not sum to 1, which are taken for logits"):
        assert as_classifier(model, images) is model


def test_a_model_that_was_asked_is_saved_as_ever(tmp_path, images):
    model = sequential(layers.Dense(3, activation="softmax"))
    with pytest.warns(UserWarning, match="ends in a softmax"):
        inference.predict(model, images)
    for path in (tmp_path / "a.weights.h5", tmp_path / "a.keras"):
        model.save_weights(path) if path.suffix == ".h5" else model.save(path)
    weights_loaded = sequential(layers.Dense(3, activation="softmax"))
    weights_loaded.layers[-1].kernel.assign(tf.zeros((16, 3)))
    weights_loaded.load_weights(tmp_path / "a.weights.h5")
    for again in (weights_loaded, keras.models.load_model(tmp_path / "a.keras")):
        np.testing.assert_array_equal(again(images), model(images))


def test_a_subclassed_model_works_once_it_is_built(images):
    model = subclassed()
    labels = np.asarray(model(images)).argmax(-1)
    found, expected = (ATTACKS.parse("pgd(steps=3)")(m, images, labels, seed=2) for m in (model, plain()))
    np.testing.assert_allclose(found.adversarial, expected.adversarial, atol=1e-6)
    with pytest.raises(UserError, match="has no weights yet: call it on a batch of images"):
        as_classifier(Subclassed(name="raw"), images)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64", "float16"])
def test_answers_of_any_precision_become_float32_logits(policy, images):
    keras.config.set_dtype_policy(policy)
    try:
        model = finished(layers.Dense(3))
    finally:
        keras.config.set_dtype_policy("float32")
    labels = np.asarray(model(images)).argmax(-1)
    classifier = as_classifier(model, images)
    assert classifier(images).dtype == tf.float32
    for spec in ("pgd(epsilon=0.05, steps=3)", "deepfool(epsilon=0.3)"):
        output = ATTACKS.parse(spec)(model, images, labels)
        assert np.isfinite(output.adversarial).all()
        assert output.success.mean() > 0.3


def test_a_model_for_images_of_any_size_is_compiled_for_each():
    x = keras.Input((None, None, 1))
    model = keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, padding="same")(x))))
    for shape, jit in itertools.product([(8, 8, 1), (6, 10, 1), (8, 8, 1)], (False, True)):
        images = np.random.default_rng(0).random((5, *shape), dtype=np.float32)
        labels = inference.predict(model, images, jit_compile=jit).argmax(-1)
        output = ATTACKS.parse("pgd(epsilon=0.1, steps=2)")(model, images, labels, jit_compile=jit)
        assert output.adversarial.shape == images.shape
    assert max(run.traces for run in vars(model)["_l2p_compiled"].values()) == 1


def fixed_batch():
    x = keras.Input(batch_shape=(7, *SHAPE))
    return keras.Model(x, layers.Dense(3)(keras.ops.reshape(x, (7, 16))))


def two_inputs():
    x, y = keras.Input(SHAPE), keras.Input((2,), name="side")
    return keras.Model([x, y], layers.Dense(3)(layers.Concatenate()([layers.Flatten()(x), y])))


def flat():
    x = keras.Input((16,))
    return keras.Model(x, layers.Dense(3)(x))


class Centered(layers.Layer):
    def call(self, x):
        return x - tf.reduce_mean(x, 0)


class OnlyEagerly(layers.Layer):
    def call(self, x):
        return tf.constant(np.sqrt(np.asarray(x)))

    def compute_output_shape(self, shape):
        return shape


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: finished(layers.Dense(3, activation="sigmoid")), "It ends in a sigmoid"),
        (lambda: finished(lambda x: layers.Dense(3)(Centered()(x))), "should answer each image by itself"),
        (lambda: finished(lambda x: layers.Dense(3)(OnlyEagerly()(x))), "compiled for any number of them: [A-Z]"),
        (lambda: lambda images: images, r"should be a keras.Model. Received: function"),
        (lambda: finished(layers.Dense(3), "uint8"), r"should take float images in \[0, 1\].* It takes: uint8"),
        (two_inputs, r"should take images alone; .* Received: 2 inputs \(.*side\)"),
        (flat, r"put a Reshape or Flatten layer before it. It takes: \(16,\)"),
        (fixed_batch, r"cannot answer images of shape \(8, 4, 4, 1\)"),
        (lambda: finished(lambda x: [layers.Dense(3)(x), layers.Dense(2)(x)]), "should have one output.* 2 outputs"),
        (
            lambda: finished(lambda x: {"logits": layers.Dense(3)(x), "side": layers.Dense(2)(x)}),
            "should have one output.*It has: logits, side",
        ),
        (lambda: finished(lambda x: layers.Reshape((3, 1))(layers.Dense(3)(x))), r"answers: \(8, 3, 1\)"),
        (lambda: finished(layers.Dense(1)), r"at least 2 classes. For 8 images it answers: \(8, 1\)"),
        (lambda: linear(np.zeros((5, 4, 1, 3))), r"of shape \(count, 5, 4, 1\). Received: \(24, 4, 4, 1\)"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_line(make, message, images):
    for ask in (
        lambda model: ATTACKS.parse("fgsm")(model, images, np.zeros(24, int)),
        lambda model: inference.predict(model, images),
    ):
        with pytest.raises(UserError, match=message) as error:
            ask(make())
        assert "\n" not in str(error.value)
        assert "\x1b" not in str(error.value)


def test_one_output_in_a_list_or_a_dictionary_is_taken(images):
    for wrap in (lambda y: [y], lambda y: {"logits": y}):
        model = finished(lambda x, wrap=wrap: wrap(layers.Dense(3)(x)))
        np.testing.assert_allclose(as_classifier(model, images)(images), plain()(images), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("wrap", [lambda x: [x], lambda x: {x.name: x}])
def test_one_input_in_a_list_or_a_dictionary_is_taken(wrap, images):
    flat = finished(layers.Dense(3))
    model = keras.Model(wrap(flat.inputs[0]), flat.outputs[0])
    # Keras warns of other structures than a model was made with, and warnings are errors.
    output = ATTACKS.parse("pgd(norm=l2, epsilon=0.5, steps=2)")(model, images, np.zeros(24, int))
    assert output.adversarial.shape == images.shape
    assert as_classifier(model).input_shape == (None, *SHAPE)


@pytest.mark.parametrize("values", [[[1, 2], [3]], "abc", None])
def test_what_is_no_array_is_named(values, images):
    for given in ({"images": values, "labels": [0]}, {"images": images[:1], "labels": values}):
        with pytest.raises(UserError, match="`(images|labels)` should be"):
            ATTACKS.parse("fgsm")(plain(), **given)


def test_the_largest_logit_decides_where_a_softmax_rounds():
    model = linear(np.zeros((*SHAPE, 3)), bias=[0.0, 200.0, 200.00002])
    assert inference.predict_with_votes(model, np.zeros((2, *SHAPE), np.float32))[1].argmax(-1).tolist() == [2, 2]


def test_uint8_and_pixels_a_last_bit_outside_are_taken():
    whole = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), dtype=np.uint8)
    np.testing.assert_array_equal(inference.checked_images(whole), whole.astype(np.float32) / np.float32(255))
    edge = np.full((1, *SHAPE), np.nextafter(np.float32(1), np.float32(2)))
    assert inference.checked_images(edge).max() == 1.0
    assert inference.checked_images(-1e-7 * edge).min() == 0.0
    for bad in (1.00001, -1e-5, np.nan, np.inf):
        with pytest.raises(UserError, match=r"should be finite and lie in \[0, 1\]"):
            inference.checked_images(np.full((1, *SHAPE), bad, np.float32))


def test_accuracy_no_better_than_chance_is_told():
    # A network that wants 0..255: on [0, 1] it sees nearly black images, whatever they show.
    rng = np.random.default_rng(0)
    images, labels = rng.random((100, *SHAPE), dtype=np.float32), rng.integers(0, 3, 100)
    inner = linear(weights()[0].reshape(*SHAPE, 3) / 255, bias=weights()[1] + [0, 1000.0, 0])
    with pytest.warns(UserWarning, match="no better than chance. Usual reasons: it was trained on another range"):
        ATTACKS.parse("fgsm")(inner, images, labels)
    model = plain()
    labels = inference.predict(model, images).argmax(-1)
    ATTACKS.parse("fgsm")(model, images, labels)
    # Where another range is right, it is told.
    inner = linear(weights()[0].reshape(*SHAPE, 3) / 2, bias=weights()[1] + weights()[0].sum(0) / 2)
    with pytest.warns(UserWarning, match="no better than chance.* With pixels in -1..1 it is right on 100%"):
        ATTACKS.parse("fgsm")(inner, images, labels)


def test_a_saved_classifier_is_opened_without_its_softmax(tmp_path, images):
    model = SOFTMAXES["activation"]()
    model.save(tmp_path / "soft.keras")
    with pytest.warns(UserWarning, match="ends in a softmax"):
        logits = load_classifier(tmp_path / "soft.keras")
    np.testing.assert_allclose(logits(images), plain()(images), rtol=1e-5, atol=1e-4)
