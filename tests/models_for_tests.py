"""Classifiers small enough for closed forms."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

from l2p_tf.attacks import ATTACKS
from l2p_tf.layers.perturbation_injection import PerturbationInjection


def linear(weights, bias=None, noise=None, sharing="example"):
    """Logits W.x + b of images of shape `weights.shape[:-1]`; with `noise`, a feature map noise of that theta before."""
    weights = np.asarray(weights, np.float32)
    inputs = keras.Input(weights.shape[:-1], name="images")
    x = inputs
    if noise is not None:
        x = PerturbationInjection(initial=noise, minimum=0.0, sharing=sharing, seed=11, name="noise")(x)
    dense = keras.layers.Dense(weights.shape[-1], name="logits")
    model = keras.Model(inputs, dense(keras.layers.Flatten()(x)))
    dense.kernel.assign(weights.reshape(-1, weights.shape[-1]))
    dense.bias.assign(np.zeros(weights.shape[-1]) if bias is None else bias)
    return model


def smooth(shape=(6, 6, 1), classes=4, seed=0, noise=None, sharing="example"):
    """A small convolutional network without kinks."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(shape)
    x = keras.layers.Conv2D(6, 3, activation="tanh", padding="same", kernel_initializer="he_normal")(inputs)
    if noise is not None:
        x = PerturbationInjection(initial=noise, minimum=0.0, sharing=sharing, seed=12)(x)
    x = keras.layers.Conv2D(6, 3, strides=2, activation="tanh", kernel_initializer="he_normal")(x)
    return keras.Model(inputs, keras.layers.Dense(classes)(keras.layers.Flatten()(x)))


def images_and_labels(count, shape=(6, 6, 1), classes=4, seed=0):
    """Random images, some pixels exactly 0 and 1, and random labels."""
    rng = np.random.default_rng(seed)
    images = rng.uniform(-0.1, 1.1, (count, *shape)).clip(0, 1).astype(np.float32)
    return images, rng.integers(0, classes, count)


QUICK = {
    "steps": 5, "binary_search_steps": 3, "queries": 40, "population": 12, "generations": 3, "samples": 8,
    "coordinates": 8, "draws": 3, "target_classes": 2,
}  # fmt: skip


def quick(name, **options):
    """A registered attack that costs little: its options, but no more steps, draws and so on than tests need."""
    attack = ATTACKS.get(name)(**options)
    known = {f.name for f in dataclasses.fields(attack)} - set(options)
    few = {key: min(most, getattr(attack, key)) for key, most in QUICK.items() if key in known and getattr(attack, key)}
    if "initial_const" in known:
        few |= {"initial_const": 1.0, "learning_rate": 0.1}
    return attack.replace(**few)
