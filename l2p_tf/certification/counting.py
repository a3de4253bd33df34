"""Counts a classifier's predictions over many draws of noise per image: compiled, in full batches."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from l2p_tf import inference
from l2p_tf.attacks.randomness import standard_normal
from l2p_tf.classifier import is_answer
from l2p_tf.layers.noise import restore_seeds
from l2p_tf.loops import repeat

_PASSES = 16
"""Maximum number of passes per compiled run, which cannot be interrupted and reports no progress."""


@dataclasses.dataclass(frozen=True)
class Counts:
    """Sums over all draws.

    Attributes:
      votes: int64 (count, classes), number of draws that predicted each class; rows sum to `draws` minus the number of
      non-finite outputs.
      softmax: float64 (count, classes), sums of the softmax probabilities.
      draws: number of draws.
    """

    votes: np.ndarray
    softmax: np.ndarray
    draws: int


def count_draws(
    model: keras.Model,
    images: np.ndarray,
    draws: int,
    seed: int,
    purpose: int,
    *,
    sigma: float = 0.0,
    batch_size: int = 256,
    jit_compile: bool | None = None,
    progress: Callable[[int], Any] | None = None,
) -> Counts:
    """Classifies each image `draws` times.

    Args:
      model: the classifier; if its own noise is on, it must be drawn per example. Its generators' states are restored.
      images: float32 (count, height, width, channels).
      draws: draws per image, at least 1.
      seed: together with `purpose`, the image's position, the number of images and the batch size, it determines all
      draws.
      purpose: any integer; draws for different purposes are independent.
      sigma: standard deviation of normal noise added to the pixels, which are not clipped; 0 adds none.
      batch_size: rows per pass; each is one draw of one image.
      jit_compile: as in `inference.compiled`.
      progress: called with the number of draws just finished.
    """
    classes, replicas = int(model.output_shape[-1]), inference.replicas(model)
    size = max(replicas, batch_size // replicas * replicas)
    noisy = sigma > 0
    run = inference.compiled(model, ("count", noisy), functools.partial(_count, model, noisy), jit_compile)
    votes, softmax = np.zeros((2, len(images), classes))
    strength = tf.constant(sigma, tf.float32)

    def count(rows: np.ndarray, real: int, passes: int, *at: int) -> None:
        pair = tf.constant(inference.seed_pair(seed, purpose, *at))
        sums = run(tf.constant(images[rows]), (pair, tf.constant(passes), strength))
        for total, part in zip((votes, softmax), sums, strict=True):
            np.add.at(total, rows[:real], part[:real].numpy())
        if progress:
            progress(real * passes)

    # An image fills whole batches as long as its draws suffice; the remaining draws of all images share batches.
    full, rest = divmod(draws, size)
    for image in range(len(images)):
        for first in range(0, full, _PASSES):
            count(np.full(size, image), size, min(_PASSES, full - first), 0, image, first)
    remaining = np.repeat(np.arange(len(images)), rest)
    for number, (index, real) in enumerate(inference.batches(len(remaining), size, replicas)):
        count(remaining[index], real, 1, 1, number)
    return Counts(votes.round().astype(np.int64), softmax, draws)


def _count(
    model: keras.Model, noisy: bool, x: tf.Tensor, shared: tuple[tf.Tensor, tf.Tensor, tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Votes and summed softmax of each row over several passes; float64, which is exact here, (batch, classes)."""
    seed, passes, sigma = shared
    classes = int(model.output_shape[-1])
    shape = (x.shape[0] or tf.shape(x)[0], *x.shape[1:])
    former = inference.seed_noise(model, seed)

    def add_pass(i: tf.Tensor, votes: tf.Tensor, softmax: tf.Tensor) -> tuple[tf.Tensor, ...]:
        inputs = x
        if noisy:
            inputs += sigma * standard_normal(shape, tf.random.fold_in(seed, i, alg=tf.random.Algorithm.PHILOX))
        logits = tf.cast(model(inputs, training=False), tf.float64)
        votes += tf.one_hot(tf.where(is_answer(logits), tf.argmax(logits, -1), -1), classes, dtype=tf.float64)
        return i + 1, votes, softmax + inference.finite_softmax(logits)

    none = tf.zeros([shape[0], classes], tf.float64)
    _, votes, softmax = repeat(add_pass, (tf.constant(0), none, none), passes)
    restore_seeds(model, former)
    return votes, softmax
