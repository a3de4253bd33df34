import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from l2p_tf.inference import predict
from l2p_tf.layers.folding import predict_folded

SHAPE = (6, 6, 3)


def randomized(model, seed=0):
    """The model with weights that are all different; variances and scales away from 0."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(rng.uniform(0.5, 1.5, weight.shape) * rng.choice([1.0, weight.name == "moving_variance" or -1.0]))
    return model


def functional(*between):
    """Some layers on images, and a head of logits."""
    inputs = x = keras.Input(SHAPE)
    for layer in between:
        x = layer(x)
    head = x if len(x.shape) == 2 else layers.GlobalAveragePooling2D()(x)
    return randomized(keras.Model(inputs, layers.Dense(4)(head)))


def images(count=5):
    return tf.constant(np.random.default_rng(1).uniform(size=(count, *SHAPE)), tf.float32)


def traced(model):
    """The answer as a compiled function, and how often it runs a batch norm."""
    run = tf.function(lambda x: predict_folded(model, x), autograph=False)
    names = (op.name for op in run.get_concrete_function(images()).graph.get_operations())
    return run, len({name.partition("/batchnorm/")[0] for name in names if "/batchnorm/" in name})


def assert_same(model, run):
    """Same logits and same gradient of the images as the model by itself, and weights are read at every call."""
    for seed in (0, 2):
        randomized(model, seed)
        answers = []
        for ask in (run, lambda x: model(x, training=False)):
            with tf.GradientTape() as tape:
                x = images()
                tape.watch(x)
                logits = ask(x)
            answers += [(logits.numpy(), tape.gradient(logits, x).numpy())]
        for mine, its in zip(*answers, strict=True):
            np.testing.assert_allclose(mine, its, rtol=1e-4, atol=1e-5 * np.abs(its).max())


FOLDED = {
    "convolution": [layers.Conv2D(4, 3, 2, "same"), layers.BatchNormalization(), layers.ReLU()],
    "without bias": [layers.Conv2D(4, 3, use_bias=False), layers.BatchNormalization(epsilon=0.1)],
    "grouped": [layers.Conv2D(6, 3, groups=3), layers.BatchNormalization()],
    "dilated": [layers.Conv2D(4, 3, dilation_rate=2), layers.BatchNormalization(axis=3)],
    "depthwise": [layers.DepthwiseConv2D(3, 2, depth_multiplier=2), layers.BatchNormalization()],
    "dense": [layers.Flatten(), layers.Dense(5), layers.BatchNormalization(scale=False)],
    "neither scale nor shift": [layers.Conv2D(4, 3), layers.BatchNormalization(center=False, scale=False)],
}


@pytest.mark.parametrize("kind", FOLDED)
def test_batch_norm_folds_into_the_layer_before_it(kind):
    config = [layer.__class__.from_config(layer.get_config()) for layer in FOLDED[kind]]
    model = functional(*config)
    run, norms = traced(model)
    assert norms == 0
    assert_same(model, run)


def _read_twice():
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(3, 3, padding="same")(inputs)
    return inputs, layers.Add()([layers.BatchNormalization()(x), x])


def _called_twice():
    inputs = keras.Input(SHAPE)
    conv = layers.Conv2D(3, 3, padding="same")
    return inputs, layers.BatchNormalization()(conv(conv(inputs)))


def _norm_called_twice():
    inputs, norm = keras.Input(SHAPE), layers.BatchNormalization()
    return inputs, norm(layers.Conv2D(3, 3)(norm(layers.Conv2D(3, 3)(inputs))))


class Doubled(layers.Conv2D):
    def call(self, inputs):
        return 2.0 * super().call(inputs)


def _chain(*chain):
    inputs = x = keras.Input(SHAPE)
    for layer in chain:
        x = layer(x)
    return inputs, x


LEFT = {
    "output read twice": _read_twice,
    "layer called twice": _called_twice,
    "norm called twice": _norm_called_twice,
    "activation between": lambda: _chain(layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization()),
    "other axis": lambda: _chain(layers.Conv2D(4, 3), layers.BatchNormalization(axis=1)),
    "derived layer": lambda: _chain(Doubled(4, 3), layers.BatchNormalization()),
    "first of all": lambda: _chain(layers.BatchNormalization()),
    "dense on maps": lambda: _chain(layers.Dense(4), layers.BatchNormalization()),
}


@pytest.mark.parametrize("kind", LEFT)
def test_what_cannot_be_folded_is_left_alone(kind):
    inputs, x = LEFT[kind]()
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    run, norms = traced(model)
    assert norms == 1 + (kind == "norm called twice")
    assert_same(model, run)


def test_half_precision_is_left_alone():
    with_policy = {"dtype": "mixed_bfloat16"}
    model = functional(layers.Conv2D(4, 3, **with_policy), layers.BatchNormalization(**with_policy))
    run, norms = traced(model)
    assert norms == 1
    np.testing.assert_allclose(run(images()), model(images(), training=False), rtol=1e-2)


def test_models_within_models():
    block = keras.Sequential([keras.Input(SHAPE), layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU()])
    inputs = keras.Input((4, 4, 4))
    body = keras.Model(inputs, layers.BatchNormalization()(layers.DepthwiseConv2D(3)(inputs)))
    model = keras.Sequential([keras.Input(SHAPE), block, body, layers.Dropout(0.5), layers.Flatten(), layers.Dense(3)])
    run, norms = traced(model)
    assert norms == 0
    assert_same(model, run)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.pool = layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Flatten()

    def call(self, inputs, training=False):
        return self.pool(self.norm(self.conv(inputs), training=training))


class Derived(keras.Model):
    """A functional model whose call does more than its graph says."""

    def call(self, inputs, training=False):
        return 2.0 * super().call(inputs, training=training)


def test_subclassed_models_answer_as_they_are():
    subclassed = Subclassed()
    subclassed(images())
    inputs, x = _chain(layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Flatten())
    for model in (subclassed, Derived(inputs, x)):
        run, norms = traced(model)
        assert norms == 1
        assert_same(model, run)


def test_a_changed_weight_is_seen_by_predictions():
    model = functional(layers.Conv2D(4, 3), layers.BatchNormalization())
    before = predict(model, images().numpy())
    model.layers[2].moving_mean.assign_add([1.0, -2.0, 3.0, -4.0])
    after = predict(model, images().numpy())
    assert np.abs(after - before).max() > 1e-2
    np.testing.assert_allclose(after, tf.nn.softmax(model(images(), training=False)), rtol=1e-4, atol=1e-6)
