"""Attacks within a radius against what is known on paper."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from l2p_tf.attacks import ATTACKS
from l2p_tf.attacks.apgd import checkpoints
from l2p_tf.attacks.criterion import Criterion, pick_targets
from l2p_tf.attacks.few_pixel import painted
from l2p_tf.attacks.sparse_ascent import rounds
from l2p_tf.attacks.square import Square, bump
from l2p_tf.types import Norm, UserError
from support.models import halfspace, linear


def test_fgsm_on_a_linear_model_is_the_closed_form():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(3, 3, 1, 2))
    model = linear(weights, bias=[0.1, -0.1])
    images, labels = rng.uniform(0.3, 0.7, (20, 3, 3, 1)).astype(np.float32), rng.integers(0, 2, 20)
    toward = np.where(
        labels[:, None, None, None] == 0, weights[..., 1] - weights[..., 0], weights[..., 0] - weights[..., 1]
    )
    output = ATTACKS.parse("fgsm(epsilon=0.1)")(model, images, labels)
    np.testing.assert_allclose(output.adversarial, images + 0.1 * np.sign(toward), atol=1e-6)
    output = ATTACKS.parse("fgsm(epsilon=0.1, norm=l2)")(model, images, labels)
    unit = toward / np.linalg.norm(toward.reshape(20, -1), axis=1)[:, None, None, None]
    np.testing.assert_allclose(output.adversarial, images + 0.1 * unit, atol=1e-6)
    np.testing.assert_allclose(output.l2, 0.1, rtol=1e-4)
    assert set(output.gradients) == {1}


def steepest_of(w, norm):
    """The point of the unit ball that is farthest along w."""
    if norm is Norm.LINF:
        return np.sign(w)
    return w / np.linalg.norm(w) if norm is Norm.L2 else np.sign(w) * (np.abs(w) == np.abs(w).max())


@pytest.mark.parametrize("norm", Norm)
def test_pgd_finds_the_optimum_of_a_linear_model(norm):
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(3, 3, 1, 2))
    weights[..., 1] = 0
    images = rng.uniform(0.4, 0.6, (30, 3, 3, 1)).astype(np.float32)
    # A bias so large (yet the softmax does not saturate) that no perturbation changes the class: PGD runs all steps.
    model = linear(weights, bias=[8.0, 0.0])
    attack = ATTACKS.get("pgd")(epsilon=0.1, step_size=0.1, norm=norm, steps=40)
    output = attack(model, images, np.zeros(30, int))
    direction = -steepest_of(weights[..., 0], norm)
    np.testing.assert_allclose(output.adversarial - images, np.broadcast_to(0.1 * direction, images.shape), atol=2e-3)
    assert not output.success.any()
    assert set(output.gradients) == {40}
    # Just beyond or short of the distance to the boundary, all or none fall.
    margin = 0.05 * np.sum(steepest_of(weights[..., 0], norm) * weights[..., 0])
    near = images[:1]
    bias = margin - float(np.sum(weights[..., 0] * near[0]))
    near_model = linear(weights, bias=[bias, 0.0])
    for factor, falls in ((0.97, 0.0), (1.05, 1.0)):
        assert attack.replace(epsilon=0.05 * factor)(near_model, near, [0]).success[0] == falls


LOGITS = np.array([[3.0, 1.0, 0.5, -2.0, 0.0], [0.0, 5.0, 2.0, 4.0, -1.0]], np.float32)

LABELS = np.array([0, 2], np.int32)

TARGETS = np.array([3, 1], np.int32)


def test_losses_are_those_of_the_papers():
    untargeted, targeted = Criterion(LABELS), Criterion(LABELS, TARGETS, targeted=True)
    log = LOGITS - np.log(np.exp(LOGITS).sum(1, keepdims=True))
    rows = np.arange(2)
    np.testing.assert_allclose(untargeted.loss("ce", LOGITS), -log[rows, LABELS], rtol=1e-5)
    np.testing.assert_allclose(targeted.loss("ce", LOGITS), log[rows, TARGETS], rtol=1e-5)
    np.testing.assert_allclose(untargeted.loss("margin", LOGITS), [1 - 3, 5 - 2], rtol=1e-6)
    np.testing.assert_allclose(targeted.loss("margin", LOGITS), [-2 - 3, 5 - 4], rtol=1e-6)
    np.testing.assert_allclose(untargeted.loss("dlr", LOGITS), [-(3 - 1) / (3 - 0.5), -(2 - 5) / (5 - 2)], rtol=1e-6)
    top = [3 - (0.5 + 0.0) / 2, 5 - (2 + 0) / 2]
    np.testing.assert_allclose(targeted.loss("dlr", LOGITS), [-(3 + 2) / top[0], -(2 - 5) / top[1]], rtol=1e-6)
    np.testing.assert_allclose(untargeted.loss("dlr", LOGITS * 7 + 2), untargeted.loss("dlr", LOGITS), rtol=1e-5)
    np.testing.assert_array_equal(untargeted.reached(LOGITS), [False, True])
    np.testing.assert_array_equal(targeted.reached(LOGITS), [False, True])
    np.testing.assert_array_equal(Criterion(LABELS, TARGETS).reached(LOGITS), [False, True])
    np.testing.assert_array_equal(targeted.tile(3).labels, np.tile(LABELS, 3))


def test_targets_are_picked_as_named():
    others = np.array([[2, 0, 3], [1, 3, 0]])
    labels = np.array([1, 2])
    np.testing.assert_array_equal(pick_targets("runner_up", others, labels, 0), [2, 1])
    np.testing.assert_array_equal(pick_targets("least_likely", others, labels, 0), [3, 0])
    np.testing.assert_array_equal(pick_targets("next", others, np.array([1, 3]), 0), [2, 0])
    drawn = np.stack([pick_targets("random", others, labels, seed) for seed in range(300)])
    assert not np.any(drawn == labels)
    assert {tuple(np.bincount(column, minlength=4) > 60) for column in drawn.T} == {
        (True, False, True, True),
        (True, True, False, True),
    }


def test_momentum_is_the_running_sum_of_normalized_gradients():
    # On a linear model the gradient of the margin is constant: momentum is n times it, and its sign never turns.
    model, images, w, _, _, _ = halfspace(margin=50.0)
    output = ATTACKS.parse("mim(epsilon=0.3, step_size=0.01, steps=3, loss=margin)")(model, images, np.zeros(12, int))
    np.testing.assert_allclose(
        output.adversarial - images, np.broadcast_to(-0.03 * np.sign(w), images.shape), atol=1e-6
    )

    # Where the gradient turns, decay decides. Two pixels, margin |x0 - 0.5| to first order by hand.
    inputs = keras.Input((1, 2, 1))
    value = keras.layers.Flatten()(inputs)
    logits = keras.layers.Dense(2, use_bias=False)(keras.layers.Activation("relu")(keras.layers.Dense(2)(value)))
    model = keras.Model(inputs, logits)
    first, second = (layer for layer in model.layers if isinstance(layer, keras.layers.Dense))
    # Hidden: relu(x0 - 0.5), relu(0.5 - x0); class 1 rises with both, three times as fast on the left.
    first.set_weights([np.array([[1.0, -1.0], [0.0, 0.0]]), np.array([-0.5, 0.5])])
    second.set_weights([np.array([[0.0, -1.0], [0.0, -3.0]])])
    image = np.array([[[[0.505], [0.2]]]], np.float32)
    steps = "epsilon=0.4, step_size=0.02, loss=margin"
    # First gradient: class 1 falls to the right, so left it goes, over the kink. There the gradient points back: with
    # decay 0 it returns, with decay 1 the two normalized gradients cancel and it stays.
    for decay, place in ((0.0, 0.505), (1.0, 0.485)):
        output = ATTACKS.parse(f"mim({steps}, steps=2, decay={decay})")(model, image, [0])
        np.testing.assert_allclose(output.adversarial[0, 0, :, 0], [place, 0.2], atol=1e-6)


def test_checkpoints_of_apgd_are_those_of_the_paper():
    windows = checkpoints(100)
    np.testing.assert_array_equal(np.flatnonzero(windows), [22, 41, 57, 70, 80, 87, 93, 99])
    np.testing.assert_array_equal(windows[windows > 0], [22, 19, 16, 13, 10, 7, 6, 6])
    assert np.flatnonzero(checkpoints(20)).tolist() == [5, 9, 12, 14, 16, 18, 19, 20]
    assert np.flatnonzero(checkpoints(1)).tolist() == [1]


@pytest.mark.parametrize("loss", ["ce", "margin"])
@pytest.mark.parametrize("norm", Norm)
def test_apgd_finds_the_optimum_of_a_linear_model(norm, loss):
    model, images, w, *_ = halfspace(margin=3.0)
    output = ATTACKS.get("apgd")(epsilon=0.1, norm=norm, loss=loss, steps=50)(model, images, np.zeros(12, int))
    assert not output.success.any()
    assert set(output.gradients) == {51}
    direction = -0.1 * steepest_of(w, norm)
    np.testing.assert_allclose(output.adversarial - images, np.broadcast_to(direction, images.shape), atol=2e-3)


@pytest.mark.parametrize("larger_radii", [False, True])
def test_apgd_in_l1_fills_the_pixels_that_matter_most_up_to_the_edge(larger_radii):
    model, images, w, *_ = halfspace(margin=30.0)
    attack = ATTACKS.get("apgd")(epsilon=3.0, norm="l1", loss="margin", larger_radii=larger_radii)
    output = attack(model, images, np.zeros(12, int))
    # The first ball of each is met with a gradient before the first step.
    assert set(output.gradients) == {103 if larger_radii else 101}
    order = np.argsort(-np.abs(w).ravel())
    room = np.where(w > 0, images, 1 - images).reshape(12, -1)[:, order]
    filled = np.clip(3.0 - (np.cumsum(room, 1) - room), 0, room)
    best = np.sum(filled * np.abs(w).ravel()[order], 1)
    gain = -np.tensordot(output.adversarial - images, w, 3)
    assert np.all(gain <= best + 1e-4)
    assert np.all(gain >= (0.98 if larger_radii else 0.85) * best)
    np.testing.assert_allclose(output.l1, 3.0, rtol=1e-5)


def test_pgd_in_l1_moves_no_pixel_out_of_its_range():
    model, images, w, *_ = halfspace(margin=30.0)
    attack = ATTACKS.parse("pgd(epsilon=4.0, step_size=1.0, steps=4, norm=l1, loss=margin, random_start=False)")
    output = attack(model, images, np.zeros(12, int))
    # One of sixteen moves at a time, as far as it can; then the next.
    moved = np.argsort(-np.abs(w).ravel())[:4]
    ends = np.where(w.ravel() > 0, 0.0, 1.0)
    np.testing.assert_allclose(output.adversarial.reshape(12, 16)[:, moved], np.tile(ends[moved], (12, 1)), atol=1e-6)
    np.testing.assert_array_equal(output.l0, 4)


def test_rounds_of_apgd_in_l1_are_those_of_the_paper():
    one, three = rounds(100, False), rounds(100, True)
    assert np.flatnonzero(one[:, 2]).tolist() == list(range(4, 101, 4))
    assert np.flatnonzero(one[:, 1]).tolist() == [0]
    # 30, 30 and 40 steps, each adapted.
    assert np.flatnonzero(three[:, 1]).tolist() == [0, 31, 62]
    np.testing.assert_array_equal(three[[0, 30, 31, 61, 62, 102], 0], [3, 3, 2, 2, 1, 1])
    assert three[:, 2].sum() == 100
    for steps in (1, 2, 3, 7):
        assert len(rounds(steps, True)) == steps + 3
    with pytest.raises(UserError, match="`larger_radii` should be False but with norm=l1. Received: norm=l2"):
        ATTACKS.parse("apgd(norm=l2, larger_radii=True)")


def test_squares_shrink_as_the_paper_says_and_keep_to_corners():
    attack = Square(queries=10000, p=0.8)
    sides = attack._sides(32, 32)
    areas = 0.8 / 2.0 ** np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    rounds = [0, 10, 11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001]
    np.testing.assert_array_equal(sides[rounds], np.rint(np.sqrt(areas * 1024)))
    for side in (3, 5, 8):
        for norm, order in ((Norm.L2, 2), (Norm.L1, 1)):
            shape = bump(side, norm)
            assert np.linalg.norm(shape.ravel(), order) == pytest.approx(1.0)
            assert np.all(shape[: side // 2] > 0)
            assert np.all(shape[side // 2 :] < 0)
    model, _, w, *_ = halfspace(margin=50.0)
    images = np.full((12, 4, 4, 1), 0.5, np.float32)
    output = ATTACKS.parse("square(epsilon=0.1, queries=400)")(model, images, np.zeros(12, int))
    np.testing.assert_allclose(np.abs(output.adversarial - 0.5), 0.1, atol=1e-6)
    # Nearly every sign is right after so many tries on so small an image.
    assert np.mean(np.sign(output.adversarial - 0.5) == -np.sign(w)) > 0.9
    far = ATTACKS.parse("square(epsilon=0.1, queries=400, norm=l2)")(model, images, np.zeros(12, int))
    np.testing.assert_allclose(far.l2, 0.1, rtol=1e-4)
    gain = -np.tensordot(far.adversarial - images, w, 3) / (0.1 * np.linalg.norm(w))
    assert gain.min() > 0.5
    sparse = ATTACKS.parse("square(epsilon=1.0, queries=400, norm=l1)")(model, images, np.zeros(12, int))
    assert sparse.l1.max() <= 1.0 + 1e-5
    best = 0.5 * np.sort(np.abs(w).ravel())[-2:].sum()
    gain = -np.tensordot(sparse.adversarial - images, w, 3) / best
    assert gain.min() > 0.5
    assert set(output.forwards) == {1 + 400}
    assert not output.gradients.any()


def test_spsa_climbs_a_linear_model():
    model, images, w, *_ = halfspace(margin=50.0)
    output = ATTACKS.parse("spsa(epsilon=0.05, steps=20, samples=64)")(model, images, np.zeros(12, int))
    assert np.mean(np.sign(output.adversarial - images) == -np.sign(w)) > 0.9
    assert set(output.forwards) == {1 + 20 * 129}


def test_painting_changes_the_pixels_it_names():
    images = tf.zeros([2, 3, 4, 3])
    genes = np.zeros((2, 1, 2, 5), np.float32)
    genes[:, 0, 0] = [0.0, 0.999, 0.1, 0.2, 0.3]
    genes[:, 0, 1] = [0.999, 0.5, 1.0, 1.0, 1.0]
    shown = np.asarray(painted(images, tf.constant(genes)))
    assert shown.shape == (2, 1, 3, 4, 3)
    np.testing.assert_allclose(shown[:, 0, 0, 3], [[0.1, 0.2, 0.3]] * 2)
    np.testing.assert_allclose(shown[:, 0, 2, 2], 1.0)
    assert np.count_nonzero(shown) == 2 * 2 * 3


def test_few_pixels_finds_the_pixel_that_matters():
    weights = np.full((6, 6, 1, 2), 0.01, np.float32)
    weights[..., 1] = 0.0
    weights[4, 1, 0, 0] = 3.0
    images = np.full((9, 6, 6, 1), 0.5, np.float32)
    # 1.5 + 0.175 + bias in favor; only that pixel, nearly black, turns it.
    model = linear(weights, bias=[-0.6, 0.0])
    with pytest.raises(
        UserError, match=r"`pixels` of few_pixel should be at most \d+, those of an image. Received: 1000"
    ):
        ATTACKS.parse("few_pixel(pixels=1000)")(model, images, np.zeros(9, int))
    output = ATTACKS.parse("few_pixel(population=60, generations=30)")(model, images, np.zeros(9, int), batch_size=4)
    assert output.success.all()
    changed = np.argwhere(np.any(output.adversarial != images, axis=-1))
    np.testing.assert_array_equal(changed[:, 1:], [[4, 1]] * 9)
    assert not output.gradients.any()
    assert output.forwards.max() <= 60 * 31
