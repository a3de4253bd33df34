"""Trainings on one device and on two replicas; prints, as JSON, how far they are apart. A program of the tests."""

import json
import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import contextlib
import importlib
import itertools

import keras
import numpy as np
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
from l2p_tf.defenses import DEFENSES  # noqa: E402
from l2p_tf.devices import mirrored  # noqa: E402
from l2p_tf.layers.batch_norm import synchronize  # noqa: E402
from l2p_tf.models import MODELS  # noqa: E402
from l2p_tf.training import replicas  # noqa: E402
from l2p_tf.training.optimizers import MomentumSGD  # noqa: E402
from l2p_tf.training.phases import generators_of  # noqa: E402
from stages import common  # noqa: E402
from support.models import precision  # noqa: E402

STEPS = 20
"""Of each training, 2 an epoch, the second of them on fewer images."""
IMAGES = np.random.default_rng(0).uniform(size=(13, 8, 8, 1)).astype(np.float32)
LABELS = np.arange(13) % 4
WEIGHTS = np.linspace(0.5, 1.5, 13).astype(np.float32)


def plain() -> keras.Model:
    """A convolutional network without batch norm and noise."""
    return keras.Sequential([
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(8, 3, activation="relu", kernel_regularizer="l2"),
        keras.layers.Flatten(),
        keras.layers.Dense(4),
    ])  # fmt: skip


def trained(strategy, spec: str, network: str, weighted: bool, average: bool, policy: str):
    """A trainer after its steps, and the logs of its epochs and of its evaluation."""
    keras.utils.set_random_seed(1)
    with strategy.scope() if strategy else contextlib.nullcontext(), precision(policy):
        defense = DEFENSES.parse(spec)
        if network:
            model = MODELS.parse(network).build((8, 8, 1), 4, defense.factory(0), mean=(0.5,), std=(0.3,))
            synchronize(model)
        else:
            model = plain()
        trainer = defense.trainer(model, 0, 13)
        if average:
            trainer.keep_averages(0.9)
        trainer.compile(MomentumSGD(0.05, decay=1e-3))
    weights = WEIGHTS if weighted else None
    how = {"batch_size": 8, "verbose": 0, "shuffle": False, "sample_weight": weights}
    history = trainer.fit(IMAGES, LABELS, epochs=STEPS // 2, **how).history
    judged = trainer.evaluate(IMAGES, LABELS, batch_size=8, verbose=0, sample_weight=weights, return_dict=True)
    logs = [*history.values(), *([value] for name, value in judged.items() if not np.isnan(value))]
    # Means to which nothing was added yet are no numbers.
    return trainer, np.nan_to_num(np.concatenate([np.asarray(log, np.float64) for log in logs]), nan=-1.0)


def apart(a, b) -> float:
    """The largest difference between two lists of variables or arrays."""
    return max(float(np.max(np.abs(np.asarray(x, np.float64) - np.asarray(y)))) for x, y in zip(a, b, strict=True))


def compare(
    spec: str, network: str = "", weighted: bool = False, average: bool = False, policy: str = "float32"
) -> dict[str, float]:
    """How far one device and two replicas are apart: in all weights, in losses and accuracies, in answers."""
    (one, logs), (two, shared) = (trained(s, spec, network, weighted, average, policy) for s in (None, mirrored()))
    return {
        "weights": apart(numbers(one), numbers(two)),
        "logs": apart([logs], [shared]),
        "answers": apart([one.predict(IMAGES, verbose=0)], [two.predict(IMAGES, verbose=0)]),
    }


def numbers(trainer):
    """All numbers that a training moves."""
    networks = [trainer.classifier, *trainer.auxiliary_models.values()]
    found = [w for network in networks for w in network.weights if w.dtype == "float32"]
    return [*found, *trainer.averages]


def overflow() -> dict[str, list[float]]:
    """What a step in float16 leaves on each of two replicas where the first one's gradients overflow."""
    with mirrored().scope(), precision("mixed_float16"):
        trainer = DEFENSES.parse("none").trainer(plain(), 0, 8)
        trainer.compile(keras.optimizers.Adam(0.01))
    kernel, scale = trainer.classifier.trainable_variables[0], trainer.loss_scale.scale
    found: dict[str, list[float]] = {"kernel": [], "scale": [], "iterations": []}
    # The second one's images have no weight: its gradients are 0.
    for start, weights in ((2.0**60, [1.0] * 4 + [0.0] * 4), (2.0**10, [1.0] * 8)):
        before = kernel.numpy()
        scale.assign(start)
        trainer.train_on_batch(IMAGES[:8], LABELS[:8], sample_weight=np.array(weights))
        local = mirrored().experimental_local_results
        found["kernel"] += [apart([value], [before]) for value in local(kernel.value)]
        found["scale"] += [float(value) for value in local(scale.value)]
        found["iterations"] += [float(value) for value in local(trainer.optimizer.iterations.value)]
    return found


def noise() -> dict[str, list[float]]:
    """Moments of what two replicas drew in two steps, and how it is correlated."""
    strategy = mirrored()
    with strategy.scope():
        model = MODELS.parse("resnet_v1(depth=8)").build(
            (8, 8, 1), 4, DEFENSES.parse("learn2perturb(theta_initial=0.4)").factory(0), mean=(0.5,), std=(1,)
        )
        layer = next(layer for layer in model.layers if layer.name.endswith("_output"))
        drawn = tf.Variable(tf.zeros((64, *layer.output.shape[1:])))

    def step(images):
        drawn.assign(layer(tf.zeros((images.shape[0], *layer.output.shape[1:]))))

    images, found = tf.constant(np.repeat(IMAGES[:1], 128, 0)), []
    run = tf.function(lambda: replicas.run(strategy, step, images, generators_of(model)), autograph=False)
    for _ in range(2):
        run()
        found += [value.numpy().ravel() for value in strategy.experimental_local_results(drawn)]
    pairs = itertools.combinations(found, 2)
    return {
        "std": [float(values.std()) for values in found],
        "mean": [float(values.mean()) for values in found],
        "correlation": [float(np.corrcoef(pair)[0, 1]) for pair in pairs],
    }


def stage() -> None:
    """Runs the stage that the first argument names, on both devices."""
    name = sys.argv.pop(1)
    common.run(importlib.import_module(f"stages.{name}").main)


APART = {"noise": noise, "overflow": overflow}
"""What is no comparison of two trainings."""


def main() -> None:
    print(json.dumps([APART[spec[0]]() if spec[0] in APART else compare(*spec) for spec in json.loads(sys.argv[1])]))
