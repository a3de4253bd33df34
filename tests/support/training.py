"""Training steps taken one by one, and what is known of softmax regression by hand."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from scipy.special import softmax

from l2p_tf.defenses import DEFENSES
from l2p_tf.layers.noise import reseed
from l2p_tf.training.optimizers import MomentumSGD
from support.models import linear, precision, small, tiny

SHAPE, CLASSES = (3, 3, 1), 4
WEIGHTS = np.random.default_rng(3).normal(size=(*SHAPE, CLASSES))
"""Those of a softmax regression, `linear(WEIGHTS)`, on images of `SHAPE`."""
FLAT = WEIGHTS.reshape(-1, CLASSES)
"""The same as the kernel of its dense layer."""


def compiled(trainer, rate=0.1, decay=0.0, momentum=0.0):
    """The trainer, ready for its first step of gradient descent."""
    trainer.compile(MomentumSGD(rate, momentum=momentum, decay=decay, nesterov=momentum > 0))
    return trainer


def trainer_of(spec, model=None, rate=0.1):
    """The compiled trainer of a defense, by default for the softmax regression."""
    return compiled(DEFENSES.parse(spec).trainer(model or linear(WEIGHTS), 0, 100), rate)


def tiny_trainer(name, policy="float32"):
    """The compiled trainer of a defense and a tiny network, all of it on, always with the same noise."""
    options = small(name)
    with precision(policy):
        trainer = options.trainer(tiny(options), 0, 100)
    compiled(trainer).begin_epoch(30)
    reseed(trainer.classifier, tf.constant([1, 2]))
    return trainer


def step(trainer, images, labels, times=1, jit_compile=False):
    """Steps of a trainer on one batch; returns the logs of the last."""
    trainer.jit_compile = jit_compile
    trainer.make_train_function()
    batch = tf.constant(images), tf.constant(labels, tf.int32)
    for _ in range(times):
        logs = trainer.train_function(iter([batch]))
    return {name: float(value) for name, value in logs.items()}


def values(variables):
    """What variables hold now."""
    return [np.array(variable) for variable in variables]


def assert_same(found, expected):
    """Arrays or variables, equal to the bit."""
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def assert_close(found, expected, atol):
    """Arrays or variables that differ by no more than this."""
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


def changed(found, expected):
    """Which of the arrays or variables differ."""
    return [bool(np.any(np.asarray(a) != np.asarray(b))) for a, b in zip(found, expected, strict=True)]


def softmax_gradient(kernel, bias, images, labels):
    """The gradient of the mean cross-entropy of softmax regression in its kernel, its bias, and the images."""
    x = images.reshape(len(images), -1).astype(np.float64)
    error = (softmax(x @ kernel + bias, axis=1) - np.eye(kernel.shape[1])[labels]) / len(images)
    return x.T @ error, error.sum(0), (error @ kernel.T).reshape(images.shape)
