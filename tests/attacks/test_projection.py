"""Balls of the norms: projections onto them, steps within them, points in them."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import optimize

from l2p_tf.attacks.projection import norms, project, random_in_ball, steepest
from l2p_tf.types import Norm


@pytest.mark.parametrize("norm", Norm)
def test_projection_in_on_and_outside_the_ball(norm):
    delta = np.random.default_rng(0).normal(size=(5, 3, 3, 2)).astype(np.float32)
    delta[4] = 0
    # The middle of a box that is far.
    images, epsilon = np.full_like(delta, 0.5), 0.4
    on = np.asarray(project(images + delta, images, epsilon, norm)) - images
    np.testing.assert_allclose(norms(on)[norm.value][:4], epsilon, rtol=1e-5)
    np.testing.assert_array_equal(on[4], 0)
    np.testing.assert_allclose(project(images + on, images, epsilon, norm), images + on, rtol=1e-5)
    inside = images + on * 0.3
    np.testing.assert_array_equal(project(inside, images, epsilon, norm), images + (inside - images))
    np.testing.assert_array_equal(project(images + delta, images, 0.0, norm), images)
    if norm is Norm.L2:
        np.testing.assert_allclose(on[:4], delta[:4] * (epsilon / norms(delta)["l2"][:4, None, None, None]), atol=1e-7)
    elif norm is Norm.LINF:
        np.testing.assert_allclose(on, delta.clip(-epsilon, epsilon), atol=1e-7)
    far = np.asarray(project(images + 100 * delta, images, 17.0, norm))
    assert far.min() >= 0
    assert far.max() <= 1


@pytest.mark.parametrize("seed", range(4))
def test_the_projection_in_l1_is_the_nearest_point_of_ball_and_box(seed):
    rng = np.random.default_rng(seed)
    images = rng.uniform(-0.2, 1.2, (6, 2, 3, 1)).clip(0, 1).astype(np.float32)
    x = (images + rng.normal(size=images.shape) * rng.choice([0.2, 1.0, 30.0], (6, 1, 1, 1))).astype(np.float32)
    x[rng.random(x.shape) < 0.2] = 0.5
    epsilon = float(rng.choice([0.3, 1.0, 3.0]))
    found = np.asarray(project(x, images, epsilon, Norm.L1))
    for point, image, one in zip(x, images, found, strict=True):
        point, image = point.ravel().astype(float), image.ravel().astype(float)

        # As image + up - down, a quadratic program under one linear constraint.
        def away(z, image=image, point=point):
            return image + z[:6] - z[6:] - point

        z = optimize.minimize(
            lambda z, away=away: np.sum(away(z) ** 2),
            np.zeros(12),
            jac=lambda z, away=away: np.r_[2 * away(z), -2 * away(z)],
            bounds=[*((0, 1 - i) for i in image), *((0, i) for i in image)],
            constraints={"type": "ineq", "fun": lambda z: epsilon - z.sum(), "jac": lambda z: -np.ones(12)},
            options={"maxiter": 500, "ftol": 1e-14},
        ).x
        np.testing.assert_allclose(one.ravel(), image + z[:6] - z[6:], atol=2e-4)


def test_the_projection_in_l1_shrinks_all_by_one_threshold_on_large_images():
    rng = np.random.default_rng(7)
    images = rng.uniform(size=(5, 32, 32, 3)).astype(np.float32)
    x = images + rng.normal(size=images.shape).astype(np.float32) * np.float32(
        [[[[3]]], [[[1]]], [[[1e-2]]], [[[1e-3]]], [[[1e-5]]]]
    )
    found = np.asarray(project(x, images, 12.0, Norm.L1)).astype(np.float64)
    delta, kept = np.abs(x - images), np.abs(found - images)
    room = np.where(x > images, 1 - images, images)
    np.testing.assert_allclose(kept.sum((1, 2, 3))[:4], [12, 12, 12, np.minimum(delta, room)[3].sum()], rtol=2e-6)
    np.testing.assert_array_equal(found[3:], (images + (x - images))[3:].clip(0, 1))
    for one, free, most in zip(kept[:3], delta[:3], room[:3], strict=True):
        shrunk = (free - one)[(one > 1e-6) & (one < most - 1e-6)]
        threshold = np.median(shrunk)
        np.testing.assert_allclose(shrunk, threshold, atol=1e-6)
        assert free[one <= 1e-6].max() <= threshold + 2e-6
        assert np.all((free - most)[one >= most - 1e-6] >= threshold - 2e-6)


def test_a_step_in_l1_moves_the_numbers_of_the_largest_gradient():
    gradient = np.float32([[3, -5, 0.5, -0.1, 0], [0, 0, 0, 0, 0]]).reshape(2, 5, 1, 1)
    for moving, first in ((1, [0, -1, 0, 0, 0]), (2, [0.5, -0.5, 0, 0, 0]), (5, [0.25, -0.25, 0.25, -0.25, 0])):
        for many in (moving, tf.constant([moving, 1])):
            direction = np.asarray(steepest(tf.constant(gradient), Norm.L1, many))
            np.testing.assert_array_equal(direction.reshape(2, 5), [first, np.zeros(5)])


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
    # In two dimensions a share r^2 lies within r of the way, in any norm.
    for share in (0.25, 0.5, 0.9):
        assert np.mean(radius <= 2.0 * share) == pytest.approx(share**2, abs=0.015)
    np.testing.assert_allclose(points.mean(0), 0, atol=0.05)
