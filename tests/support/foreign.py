"""Models as others make them, of Keras alone, and what they are compared with."""

from __future__ import annotations

import functools

import keras
import numpy as np
import tensorflow as tf

from l2p_tf import inference
from l2p_tf.attacks import ATTACKS
from l2p_tf.data import DATASETS
from l2p_tf.imported.options import ImportOptions
from l2p_tf.imported.run import contract_of, import_model
from l2p_tf.models.saving import load_classifier

SHAPE, CLASSES = (8, 8, 1), 10
layers = keras.layers


@functools.cache
def taught():
    """The weights of a small network that is right on most digits in [0, 1]."""
    source = DATASETS.parse("digits").open("", False)
    images = np.concatenate(list(source.train.batches())).astype(np.float32) / np.float32(255)
    keras.utils.set_random_seed(0)
    model = network()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images, source.train.labels, batch_size=32, epochs=4, verbose=0)
    return model.get_weights()


def body(x):
    """From images in [0, 1] to features."""
    x = layers.Conv2D(8, 3, padding="same", name="conv")(x)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="second")(x)
    return layers.Dropout(0.3, name="dropout")(layers.Flatten()(x))


def network(before=(), after=(), end="linear", units=CLASSES, dtype="float32"):
    """The network, untrained, from images to `units` outputs.

    Args:
      before: layers before it, such as a Rescaling.
      after: layers after it.
      end: activation of the last dense layer.
      units: outputs.
      dtype: of its input.
    """
    images = x = keras.Input(SHAPE, dtype=dtype)
    for layer in before:
        x = layer(x)
    x = layers.Dense(units, activation=end, name="dense")(body(x))
    for layer in after:
        x = layer(x)
    return keras.Model(images, x)


def made(*arguments, **how):
    """The same with the weights it was taught."""
    model = network(*arguments, **how)
    kept = iter(taught())
    for layer in model.layers:
        if layer.name in ("conv", "norm", "second", "dense"):
            layer.set_weights([next(kept) for _ in layer.weights])
    return model


PGD = "pgd(epsilon=0.1, steps=5)"


def fallen(model, images, labels):
    """Which images an attack succeeds on: float32 (count,)."""
    return ATTACKS.parse(PGD)(model, images, labels, seed=1).success


def imported(source, data, folder, **how):
    """The run made of a model, or of a file, and what was found out, by what was looked at."""
    path = source
    if isinstance(source, keras.Model):
        path = folder / "model.keras"
        source.save(path)
    run = import_model(ImportOptions(name="mine", model_file=str(path), **how), data, folder / "train")
    return run, {finding.check: finding for finding in contract_of(run)}


def classifier_of(run):
    """The classifier of a run."""
    return load_classifier(run.path / "best.keras")


def assert_same(model, judged, share=0.99):
    """The model answers and falls as the network as logits in [0, 1] does.

    Args:
      model: a classifier.
      judged: images, their labels, and which of them fall in that network.
      share: of the images on which success is the same.
    """
    images, labels, expected = judged
    pixels = images.astype(np.float32) / np.float32(255)
    answers, logits = model(pixels), made()(pixels)
    assert model.input_shape == (None, *SHAPE)
    assert answers.dtype == tf.float32
    np.testing.assert_allclose(inference.finite_softmax(answers), inference.finite_softmax(logits), atol=1e-3)
    assert np.mean(fallen(model, images, labels) == expected) >= share
