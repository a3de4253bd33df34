"""Balls of the norms: projections onto them, steps within them, points in them."""

import numpy as np
import pytest
import tensorflow as tf

from l2p_tf.attacks.projection import l2_norm, norms, project, random_in_ball, steepest
from l2p_tf.types import Norm


@pytest.mark.parametrize("norm", Norm)
def test_projection_in_on_and_outside_the_ball(norm):
    delta = np.random.default_rng(0).normal(size=(5, 3, 3, 2)).astype(np.float32)
    delta[4] = 0
    epsilon = 0.5
    on = np.asarray(project(delta, epsilon, norm))
    np.testing.assert_allclose(norms(on)[norm.value][:4], epsilon, rtol=1e-5)
    np.testing.assert_array_equal(on[4], 0)
    np.testing.assert_allclose(project(on, epsilon, norm), on, rtol=1e-5)
    inside = on * 0.3
    np.testing.assert_array_equal(project(inside, epsilon, norm), inside)
    np.testing.assert_array_equal(project(delta, 0.0, norm), np.zeros_like(delta))
    if norm is Norm.L2:
        np.testing.assert_allclose(on[:4], delta[:4] * (epsilon / np.asarray(l2_norm(delta))[:4]), rtol=1e-5)
    else:
        np.testing.assert_array_equal(on, delta.clip(-epsilon, epsilon))


@pytest.mark.parametrize("norm", Norm)
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_steepest_direction_has_unit_norm_and_zero_stays_zero(norm, scale):
    gradient = np.random.default_rng(0).normal(size=(4, 3, 3, 1)).astype(np.float32) * np.float32(scale)
    gradient[3] = 0
    direction = np.asarray(steepest(gradient, norm))
    np.testing.assert_allclose(norms(direction)[norm.value][:3], 1.0, rtol=1e-5)
    np.testing.assert_array_equal(direction[3], 0)


@pytest.mark.parametrize("norm", Norm)
def test_random_points_fill_the_ball_evenly(norm):
    points = np.asarray(random_in_ball(tf.zeros((20000, 2, 1, 1)), 2.0, norm, tf.constant([1, 2])))
    radius = norms(points)[norm.value]
    assert radius.max() <= 2.0 + 1e-5
    # In two dimensions a share r^2 lies within r of the way, in either norm.
    for share in (0.25, 0.5, 0.9):
        assert np.mean(radius <= 2.0 * share) == pytest.approx(share**2, abs=0.015)
    np.testing.assert_allclose(points.mean(0), 0, atol=0.05)
