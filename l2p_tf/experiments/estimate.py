"""Rough estimates of the duration of trainings and attacks on this machine, from counts of multiplications."""

from __future__ import annotations

import functools
import math
import time

import keras
import numpy as np
import tensorflow as tf

from l2p_tf.attacks.base import Attack
from l2p_tf.attacks.pgd import PGD
from l2p_tf.defenses.base import AdversarialDefense, Defense, DerivedDefense
from l2p_tf.evaluation.options import EvaluationOptions
from l2p_tf.fitting.options import TrainOptions
from l2p_tf.layers.factory import LayerFactory
from l2p_tf.registry import spec_of

# Measured share of a large matrix product's rate that training steps and attacks reach (see the benchmarks).
_EFFICIENCY = 0.6
# Measured on two cores: constant cost of building, tracing and saving.
_TRAINING_SECONDS, _ATTACK_SECONDS = 20.0, 4.0
_FORWARD, _UPDATE = 1, 3


@functools.cache
def product_rate(size: int = 1024, repeats: int = 5) -> float:
    """Measures the rate of a float32 matrix product on this machine, in floating point operations per second."""
    rng = np.random.default_rng(0)
    a = tf.constant(rng.random((size, size), dtype=np.float32))
    product = tf.function(lambda x: tf.reduce_sum(tf.matmul(x, a)))
    float(product(a))
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        float(product(a))
        seconds.append(time.perf_counter() - begun)
    return 2 * size**3 / min(seconds)


def operations(model: keras.Model) -> float:
    """Counts floating point operations of one forward pass of one image, in convolutions and matrix products."""
    image = tf.TensorSpec((1, *model.input_shape[1:]), tf.float32)
    graph = tf.function(lambda x: model(x, training=False)).get_concrete_function(image).graph
    total = 0.0
    for op in graph.get_operations():
        if op.type not in ("Conv2D", "MatMul"):
            continue
        kernel = op.inputs[1].shape.as_list()
        inner = math.prod(kernel[:-1]) if op.type == "Conv2D" else kernel[1 if op.get_attr("transpose_b") else 0]
        total += 2.0 * math.prod(op.outputs[0].shape.as_list()) * inner
    return total


@functools.cache
def operations_of(model: str, shape: tuple[int, ...], classes: int) -> float:
    """As `operations`, for an architecture given by its spec."""
    from l2p_tf.defenses import DEFENSES
    from l2p_tf.models import MODELS

    return operations(MODELS.parse(model).build(shape, classes, DEFENSES.parse("none").factory(0)))


def passes(defense: Defense) -> float:
    """Returns the cost of a training step per image in forward passes; a backward pass counts as one or two."""
    if not isinstance(defense, AdversarialDefense) or not defense.adversarial_weight:
        return _UPDATE
    attack = defense.attack
    terms = (defense.clean_weight > 0) + 1
    phases = 2 if getattr(defense, "update", "") == "sequential" else 1
    if isinstance(attack, PGD):
        inner = attack.work
    elif hasattr(defense, "generator_width"):
        inner = 4.0 * _UPDATE * (1 + defense.generator_width)
    else:  # Several attacks at once.
        inner = 2.0 * getattr(defense, "steps", 1)
    return inner + phases * terms * _UPDATE


def training_seconds(options: TrainOptions, images: int, shape: tuple[int, ...], classes: int) -> float:
    """Estimates the duration of a training, without validation.

    Args:
      options: the training.
      images: number of training images.
      shape: shape of an image.
      classes: number of classes.
    """
    if isinstance(options.defense, DerivedDefense):
        return _ATTACK_SECONDS
    per_image = operations_of(spec_of(options.model), shape, classes) * passes(options.defense)
    return _TRAINING_SECONDS + per_image * images * options.epochs / (_EFFICIENCY * product_rate())


def attack_seconds(
    evaluation: EvaluationOptions, options: TrainOptions, images: int, shape: tuple[int, ...], classes: int
) -> float:
    """Estimates the maximum duration of all attacks of an evaluation, if no image is fooled early.

    Args:
      evaluation: attacks, images, repeats.
      options: training options of the attacked model.
      images: number of images in the split.
      shape: shape of an image.
      classes: number of classes.
    """
    count = min(images, evaluation.limit or images)
    noisy = type(options.defense.factory(0)) is not LayerFactory or isinstance(options.defense, DerivedDefense)
    repeats = evaluation.repeats if noisy else 1
    work = sum(_work(attack, classes) for attack in evaluation.attacks) + _FORWARD
    per_image = operations_of(spec_of(options.model), shape, classes) * (evaluation.prediction_draws or 1) * work
    return _ATTACK_SECONDS * len(evaluation.attacks) + per_image * count * repeats / (_EFFICIENCY * product_rate())


def _work(attack: Attack, classes: int) -> float:
    return sum(member.work * member.starts(classes) for member in attack.members())
