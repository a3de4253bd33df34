"""Norms of perturbations: projection onto a ball, steepest direction, random points, measured sizes."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from l2p_tf.attacks.randomness import standard_normal, uniform
from l2p_tf.types import Norm

_TINY = 1e-12


def project(delta: tf.Tensor, epsilon: tf.Tensor | float, norm: Norm) -> tf.Tensor:
    """The nearest point to `delta` (batch, ...) in the ball of radius `epsilon` around 0, per example."""
    if norm is Norm.LINF:
        return tf.clip_by_value(delta, -epsilon, epsilon)
    length = l2_norm(delta)
    return delta * tf.minimum(1.0, epsilon / tf.maximum(length, _TINY))


def steepest(gradient: tf.Tensor, norm: Norm) -> tf.Tensor:
    """The direction of unit norm along which the loss grows fastest; 0 where the gradient is 0."""
    if norm is Norm.LINF:
        return tf.sign(gradient)
    # Scaled by the largest entry first: squares of tiny gradients would underflow to zero.
    largest = tf.reduce_max(tf.abs(gradient), axis=_features(gradient), keepdims=True)
    scaled = tf.math.divide_no_nan(gradient, largest)
    return tf.math.divide_no_nan(scaled, l2_norm(scaled))


def random_in_ball(like: tf.Tensor, epsilon: tf.Tensor | float, norm: Norm, seed: tf.Tensor) -> tf.Tensor:
    """Points drawn uniformly from the ball of radius `epsilon`: float32, one for each of `like` (batch, ...)."""
    shape = [tf.shape(like)[0], *like.shape[1:]]
    if norm is Norm.LINF:
        return epsilon * (2.0 * uniform(shape, seed) - 1.0)
    direction = steepest(standard_normal(shape, seed), norm)
    size = int(np.prod(shape[1:]))
    sides = [shape[0]] + [1] * (len(shape) - 1)
    radius = uniform(sides, tf.random.fold_in(seed, 1, alg=tf.random.Algorithm.PHILOX)) ** (1.0 / size)
    return epsilon * radius * direction


def l2_norm(delta: tf.Tensor) -> tf.Tensor:
    """Euclidean norm per example, with the feature axes kept as 1."""
    return tf.sqrt(tf.reduce_sum(tf.square(delta), axis=_features(delta), keepdims=True))


def widest(delta: tf.Tensor, norm: Norm) -> tf.Tensor:
    """The norm per example, with the feature axes kept as 1."""
    return tf.reduce_max(tf.abs(delta), _features(delta), keepdims=True) if norm is Norm.LINF else l2_norm(delta)


def norms(delta: np.ndarray) -> dict[str, np.ndarray]:
    """Measured norms of perturbations (batch, ...): float32 `l0` (changed numbers), `l2` and `linf`, each (batch,)."""
    flat = delta.reshape(len(delta), -1)
    return {
        "l0": np.count_nonzero(flat, axis=1).astype(np.float32),
        "l2": np.linalg.norm(flat, axis=1).astype(np.float32),
        "linf": np.abs(flat).max(axis=1).astype(np.float32),
    }


def _features(x: tf.Tensor) -> list[int]:
    return list(range(1, len(x.shape)))
