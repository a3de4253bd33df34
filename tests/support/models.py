"""Classifiers small enough for closed forms."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import pathlib
import shutil
import tempfile
from typing import ClassVar

import keras
import numpy as np

from l2p_tf import artifacts
from l2p_tf.attacks import ATTACKS
from l2p_tf.attacks.iterative import IterativeAttack
from l2p_tf.defenses import DEFENSES, DerivedDefense
from l2p_tf.layers.perturbation_injection import PerturbationInjection
from l2p_tf.models.base import MODELS, Architecture
from l2p_tf.models.perturbation_generator import build_generator
from l2p_tf.models.saving import auxiliary_path, save_classifier
from l2p_tf.types import Norm

PEERS = {"foolbox", "art"}
"""Attacks of other libraries, which may not be installed, and by names of their own."""

TRAINED = [name for name in DEFENSES.names() if not issubclass(DEFENSES.get(name), DerivedDefense)]
"""The defenses that train a network of their own."""

_ATTACKS = {name: cls for name in ATTACKS.names() if (cls := ATTACKS.get(name)).BACKEND == "l2p_tf"}
del _ATTACKS["corruption"]  # It searches for nothing.
OWN = [n for n, cls in _ATTACKS.items() if not any(o is not cls and issubclass(cls, o) for o in _ATTACKS.values())]
"""The attacks of this package that are not others with other defaults."""
COMPILED = [name for name in OWN if issubclass(_ATTACKS[name], IterativeAttack)]
"""Those of them with a graph of their own: sequences run other attacks."""


def norms_of(name):
    """The norms that a registered attack takes."""
    norm = next(field for field in dataclasses.fields(ATTACKS.get(name)) if field.name == "norm")
    return [Norm(value) for value in norm.metadata["choices"] or Norm]


SHALLOW = {
    "all_conv": "all_conv(width=0.0625)",
    "basic_net": "basic_net(width=0.5)",
    "resnet_v1": "resnet_v1(depth=8, width=0.25)",
    "resnet_v2": "resnet_v2(depth=10, width=0.0625)",
    "vgg": "vgg(depth=11, width=0.0625)",
    "wide_resnet": "wide_resnet(depth=10, width=0.5)",
}
"""Every architecture there is by name, as small as it comes: all that is registered but a model in a file."""
assert {*SHALLOW, "file"} == set(MODELS.names())


def residual(shape=(8, 8, 1), classes=4, end="linear"):
    """A small network of Keras's layers alone, with a batch norm, a residual sum and a network within it."""
    layers = keras.layers
    inside = x = keras.Input((*shape[:2], 8))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="inner_conv")(x)
    block = keras.Model(inside, layers.BatchNormalization(momentum=0.5, name="inner_norm")(x), name="block")
    images = keras.Input(shape)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(images)
    x = layers.ReLU()(layers.Add(name="sum")([x, block(x)]))
    return keras.Model(images, layers.Dense(classes, activation=end, name="last")(layers.GlobalAveragePooling2D()(x)))


@dataclasses.dataclass(frozen=True)
class Tiny(Architecture):
    """Every kind of layer a factory makes, once: enough for what a defense does to a network."""

    name: ClassVar[str] = "tiny"

    def features(self, x, factory):
        x = keras.layers.ReLU()(factory.output(factory.conv(x, 4, 3, "stem"), "stem_output"))
        # The activation between lets the bias make a difference.
        x = keras.layers.ReLU()(factory.conv(x, 6, 3, "conv", strides=2, normalize=False))
        x = factory.norm(x, "norm")
        return keras.layers.GlobalAveragePooling2D()(factory.output(x, "output"))


@contextlib.contextmanager
def precision(policy):
    """Within it Keras's layers follow another dtype policy."""
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy("float32")


def tiny(defense, shape=(6, 6, 1), classes=4, seed=0):
    """A `Tiny` network of a defense's layers."""
    keras.utils.set_random_seed(seed)
    return Tiny().build(shape, classes, defense.factory(seed), mean=(0.5,), std=(0.25,))


def small(name):
    """A registered defense that is whole from the first epoch, and attacks in few steps."""
    defense = DEFENSES.get(name)()
    # At the rates of the tests Adam would throw the generator's images to black and white in one step.
    few = {"steps": 2, "warmup_epochs": 0, "adversarial_epoch": 0, "generator_width": 0.1, "generator_rate": 0.001}
    known = {f.name for f in dataclasses.fields(defense)}
    return defense.replace(**{key: value for key, value in few.items() if key in known})


def linear(weights, bias=None, noise=None, sharing="example"):
    """Logits W.x + b of images of shape `weights.shape[:-1]`; with `noise`, feature map noise of that theta before."""
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


def watched(model):
    """The model itself, and a list to which each later call adds the shape of its images and `training`."""
    calls, plain = [], type(model).call

    class Watched(type(model)):
        def call(self, inputs, training=None, mask=None):
            calls.append((tuple(inputs.shape), training))
            return plain(self, inputs, training=training, mask=mask)

    model.__class__ = Watched
    return model, calls


def halfspace(seed=0, count=12, margin=0.4):
    """A two-class linear model, images inside the box, and their distances to its boundary in both norms."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(4, 4, 1, 2)).astype(np.float32)
    images = rng.uniform(0.4, 0.6, (count, 4, 4, 1)).astype(np.float32)
    w = weights[..., 0] - weights[..., 1]
    values = np.tensordot(images, w, 3)
    bias = float(margin - values.min())
    f = values + bias
    return linear(weights, bias=[bias, 0.0]), images, w, f / np.abs(w).sum(), f / np.linalg.norm(w), f


def images_and_labels(count, shape=(6, 6, 1), classes=4, seed=0):
    """Random images, some pixels exactly 0 and 1, and random labels."""
    rng = np.random.default_rng(seed)
    images = rng.uniform(-0.1, 1.1, (count, *shape)).clip(0, 1).astype(np.float32)
    return images, rng.integers(0, classes, count)


QUICK = {
    "steps": 5, "binary_search_steps": 3, "queries": 40, "population": 12, "generations": 3, "samples": 8,
    "coordinates": 8, "draws": 3, "target_classes": 2, "initial_evaluations": 20, "initial_samples": 5,
}  # fmt: skip


def quick(name, shape=(6, 6, 1), classes=4, **options):
    """A registered attack that costs little: its options, but no more steps, draws and so on than tests need.

    Shape and classes are for the one attack that holds a network of its own.
    """
    if name == "generator":
        options = {"run": str(generator_run(shape, classes)), **options}
    attack = ATTACKS.get(name)(**options)
    known = {f.name for f in dataclasses.fields(attack)} - set(options)
    few = {key: min(most, getattr(attack, key)) for key, most in QUICK.items() if key in known and getattr(attack, key)}
    if "initial_const" in known:
        few |= {"initial_const": 1.0, "learning_rate": 0.1}
    return attack.replace(**few)


@functools.cache
def generator_run(shape, classes):
    """A folder with the artifact of a training whose generator is as it was born, but with a last layer that acts."""
    folder = pathlib.Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    keras.utils.set_random_seed(7)
    generator = build_generator(shape, classes, width=0.1)
    generator.layers[-1].kernel.assign(20 * generator.layers[-1].kernel)
    spec = {
        "name": "made",
        "defense": "generator",
        "defense_options": {"gradient": "unit", "margin": 1e-6},
        "model": "none",
    }
    with artifacts.produce(folder / "made" / "train", "train", spec) as work:
        for checkpoint in ("best", "last"):
            save_classifier(generator, auxiliary_path(work.path / f"{checkpoint}.keras", "generator"))
    return folder / "made"
