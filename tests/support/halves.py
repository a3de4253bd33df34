"""A classifier of two half spaces, whose true radii are distances, and how often certificates may be wrong."""

from __future__ import annotations

import keras
import numpy as np
from scipy import stats

from l2p_tf.layers.noise import noise_layers
from support.models import linear

SHAPE = (6, 6, 1)
DIRECTION = np.random.default_rng(5).uniform(-1, 1, 36)


def halves(direction, noise=None):
    """A classifier of two classes: 1 where the image, from the gray one, lies on the side of `direction`."""
    weights = np.stack([-direction, direction], -1).reshape(*SHAPE, 2)
    return linear(weights, np.array([1, -1]) * 0.5 * direction.sum(), noise=noise)


def at(distances, direction, seed=0):
    """Images at these distances from the boundary between the halves, spread along it."""
    rng = np.random.default_rng(seed)
    unit = direction / np.linalg.norm(direction)
    spread = rng.uniform(-0.1, 0.1, (len(distances), direction.size))
    spread -= np.outer(spread @ unit, unit)
    images = (0.5 + spread + np.outer(distances, unit)).reshape(-1, *SHAPE)
    assert images.min() >= 0
    assert images.max() <= 1
    return images.astype(np.float32)


def distances(count, low, high, seed=1):
    """So many signed distances, with absolute values from `low` to `high`."""
    rng = np.random.default_rng(seed)
    return rng.uniform(low, high, count) * rng.choice([-1, 1], count)


def too_large(found, true):
    """How many certificates are wrong, at signed distances `true`: another class, or too large a radius."""
    answered = found.prediction >= 0
    return int((answered & ((found.prediction != (true > 0)) | (found.radius > np.abs(true)))).sum())


def switches(model):
    """Which of its noise layers are on."""
    return [bool(keras.ops.convert_to_numpy(layer.active)) for layer in noise_layers(model)]


def allowed(count, alpha):
    """How many of so many may be wrong, before one doubts that each is wrong with probability `alpha` at most."""
    return stats.binom.ppf(0.999, count, alpha)
