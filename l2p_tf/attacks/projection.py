"""Norms of perturbations: projection onto a ball, steepest direction, random points, measured norms."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from l2p_tf.attacks.randomness import standard_normal, uniform
from l2p_tf.loops import repeat
from l2p_tf.types import Norm

_TINY = 1e-12
_HALVINGS = 24
"""As many as float32 has digits."""


def project(x: tf.Tensor, images: tf.Tensor, epsilon: tf.Tensor | float, norm: Norm) -> tf.Tensor:
    """Projects points (batch, ...) onto the ball of radius `epsilon` around their images, and onto [0, 1].

    In l_inf and l_1 the result is the nearest point of the intersection; in l_2 it is the ball's nearest point,
    clipped.
    """
    delta = x - images
    if norm is Norm.LINF:
        delta = tf.clip_by_value(delta, -epsilon, epsilon)
    elif norm is Norm.L2:
        delta *= tf.minimum(1.0, epsilon / tf.maximum(l2_norm(delta), _TINY))
    else:
        delta = _within_l1(delta, images, epsilon)
    return tf.clip_by_value(images + delta, 0.0, 1.0)


def _within_l1(delta: tf.Tensor, images: tf.Tensor, epsilon: tf.Tensor | float) -> tf.Tensor:
    """Returns the point nearest to `delta` with l1 norm of at most `epsilon` that keeps the images in [0, 1].

    Every entry shrinks by one threshold, to no less than 0, and is capped at its room up to 0 or 1 (Croce and Hein
    2021, Proposition 2.1). Bisection finds which entries are free; the threshold then follows exactly.
    """
    axes, size = _features(delta), tf.abs(delta)
    room = tf.where(delta > 0.0, 1.0 - images, images)

    def left(threshold: tf.Tensor) -> tf.Tensor:
        return tf.minimum(tf.maximum(size - threshold, 0.0), room)

    def total(numbers: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(numbers, axes, keepdims=True)

    def halve(low: tf.Tensor, high: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        middle = (low + high) / 2.0
        over = total(left(middle)) > epsilon
        return tf.where(over, middle, low), tf.where(over, high, middle)

    largest = tf.reduce_max(size, axes, keepdims=True)
    low, high = repeat(halve, (tf.zeros_like(largest), largest), _HALVINGS)
    full = size - low >= room
    free = ~full & (size > low)
    count, spare = total(tf.cast(free, tf.float32)), total(tf.where(full, room, tf.where(free, size, 0.0))) - epsilon
    threshold = tf.where(count > 0.0, tf.clip_by_value(tf.math.divide_no_nan(spare, count), low, high), high)
    return tf.sign(delta) * left(tf.where(total(left(0.0)) > epsilon, threshold, 0.0))


def steepest(gradient: tf.Tensor, norm: Norm, moving: tf.Tensor | int = 1) -> tf.Tensor:
    """Returns the unit-norm direction along which the loss grows fastest; 0 where the gradient is 0.

    Args:
      gradient: (batch, ...).
      norm: norm of the direction.
      moving: in l_1, how many entries, those of the largest gradient, move alike: for all, or int32 (batch,) for each
      example. A single one is fastest at first, but soon at 0 or 1 (Tramer and Boneh 2019).
    """
    if norm is Norm.LINF:
        return tf.sign(gradient)
    # Divide by the largest entry first: squares of tiny gradients would underflow.
    largest = tf.reduce_max(tf.abs(gradient), axis=_features(gradient), keepdims=True)
    scaled = tf.math.divide_no_nan(gradient, largest)
    if norm is Norm.L2:
        return tf.math.divide_no_nan(scaled, l2_norm(scaled))
    count = int(np.prod(gradient.shape[1:]))
    most = moving if isinstance(moving, int) else count
    sizes = tf.math.top_k(tf.abs(tf.reshape(gradient, [-1, count])), most).values
    least = sizes[:, -1] if isinstance(moving, int) else tf.gather(sizes, moving - 1, batch_dims=1)
    direction = tf.where(tf.abs(gradient) >= tf.reshape(least, tf.shape(largest)), tf.sign(gradient), 0.0)
    return tf.math.divide_no_nan(direction, length(direction, Norm.L1))


def random_in_ball(like: tf.Tensor, epsilon: tf.Tensor | float, norm: Norm, seed: tf.Tensor) -> tf.Tensor:
    """Draws uniform points of the ball of radius `epsilon`: float32, one for each of `like` (batch, ...)."""
    shape = [tf.shape(like)[0], *like.shape[1:]]
    if norm is Norm.LINF:
        return epsilon * (2.0 * uniform(shape, seed) - 1.0)
    if norm is Norm.L2:
        direction = steepest(standard_normal(shape, seed), norm)
    else:
        # Laplace variates divided by their l1 norm are uniform on its sphere.
        signed = 2.0 * uniform(shape, seed) - 1.0
        laplace = -tf.sign(signed) * tf.math.log(tf.maximum(1.0 - tf.abs(signed), _TINY))
        direction = tf.math.divide_no_nan(laplace, length(laplace, norm))
    size = int(np.prod(shape[1:]))
    sides = [shape[0]] + [1] * (len(shape) - 1)
    radius = uniform(sides, tf.random.fold_in(seed, 1, alg=tf.random.Algorithm.PHILOX)) ** (1.0 / size)
    return epsilon * radius * direction


def l2_norm(delta: tf.Tensor) -> tf.Tensor:
    """Euclidean norm per example, with the feature axes kept as 1."""
    return tf.sqrt(tf.reduce_sum(tf.square(delta), axis=_features(delta), keepdims=True))


def length(delta: tf.Tensor, norm: Norm) -> tf.Tensor:
    """Norm per example, with the feature axes kept as 1."""
    if norm is Norm.LINF:
        return tf.reduce_max(tf.abs(delta), _features(delta), keepdims=True)
    return l2_norm(delta) if norm is Norm.L2 else tf.reduce_sum(tf.abs(delta), _features(delta), keepdims=True)


def norms(delta: np.ndarray) -> dict[str, np.ndarray]:
    """Norms of perturbations (batch, ...): float32 `l0` (changed entries), `l1`, `l2` and `linf`, each (batch,)."""
    flat = delta.reshape(len(delta), -1)
    return {
        "l0": np.count_nonzero(flat, axis=1).astype(np.float32),
        "l1": np.abs(flat).sum(axis=1, dtype=np.float64).astype(np.float32),
        "l2": np.linalg.norm(flat, axis=1).astype(np.float32),
        "linf": np.abs(flat).max(axis=1).astype(np.float32),
    }


def _features(x: tf.Tensor) -> list[int]:
    return list(range(1, len(x.shape)))
