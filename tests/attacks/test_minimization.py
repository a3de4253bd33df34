"""Attacks of smallest norm against what is known on paper."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import optimize

from l2p_tf.attacks import ATTACKS
from l2p_tf.attacks.boundary import to_hyperplane
from l2p_tf.types import Norm
from support.models import halfspace, linear


@pytest.mark.parametrize("norm", Norm)
@pytest.mark.parametrize("seed", range(4))
def test_the_step_onto_a_hyperplane_is_the_smallest_in_the_box(norm, seed):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-0.2, 1.2, (6, 2, 3, 1)).clip(0, 1).astype(np.float32)
    gradient = rng.normal(size=x.shape).astype(np.float32)
    gradient[rng.random(x.shape) < 0.2] = 0.0
    difference = rng.normal(size=6).astype(np.float32) * 0.7
    step = np.asarray(to_hyperplane(tf.constant(x), tf.constant(gradient), tf.constant(difference), norm))
    assert np.all((x + step > -1e-6) & (x + step < 1 + 1e-6))
    for point, slope, value, found in zip(x, gradient, difference, step, strict=True):
        point, slope, found = point.ravel().astype(float), slope.ravel().astype(float), found.ravel()
        low, high = -point, 1 - point
        reach = (
            value + np.where(slope > 0, slope * low, slope * high).sum(),
            value + np.where(slope > 0, slope * high, slope * low).sum(),
        )
        if not reach[0] <= 0 <= reach[1]:
            corner = np.where(slope * np.sign(value) > 0, low, high) * (slope != 0)
            np.testing.assert_allclose(found, corner, atol=1e-5)
            continue
        assert value + slope @ found == pytest.approx(0, abs=2e-5)
        if norm is Norm.LINF:
            n = len(point)
            best = optimize.linprog(
                np.r_[np.zeros(n), 1],
                A_ub=np.block([[np.eye(n), -np.ones((n, 1))], [-np.eye(n), -np.ones((n, 1))]]),
                b_ub=np.zeros(2 * n),
                A_eq=np.r_[slope, 0][None],
                b_eq=[-value],
                bounds=[*zip(low, high, strict=True), (0, None)],
            ).fun
            assert np.abs(found).max() == pytest.approx(best, abs=1e-5)
        elif norm is Norm.L1:
            # Of up and down, both positive.
            bounds = [*((0, b) for b in high), *((0, -b) for b in low)]
            best = optimize.linprog(np.ones(12), A_eq=np.r_[slope, -slope][None], b_eq=[-value], bounds=bounds).fun
            assert np.abs(found).sum() == pytest.approx(best, abs=1e-5)
        else:
            inside = optimize.minimize(
                lambda d: d @ d, np.zeros(len(point)), jac=lambda d: 2 * d, bounds=[*zip(low, high, strict=True)],
                constraints={"type": "eq", "fun": lambda d, s=slope, v=value: v + s @ d, "jac": lambda d, s=slope: s},
            )  # fmt: skip
            assert np.linalg.norm(found) == pytest.approx(np.sqrt(inside.fun), abs=2e-4)


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
def test_deepfool_crosses_an_affine_boundary_in_one_step(norm):
    model, images, w, linf, l2, _ = halfspace()
    output = ATTACKS.get("deepfool")(norm=norm)(model, images, np.zeros(12, int))
    assert output.success.all()
    assert set(output.gradients) == {2}  # One step, and the look that finds it has crossed.
    if norm is Norm.L2:
        np.testing.assert_allclose(output.l2, 1.02 * (l2 + 1e-4), rtol=1e-3)
        direction = -w / np.linalg.norm(w)
    else:
        np.testing.assert_allclose(output.linf, 1.02 * (linf + 1e-4), rtol=1e-3)
        direction = -np.sign(w)
    unit = (output.adversarial - images) / (output.l2 if norm is Norm.L2 else output.linf)[:, None, None, None]
    np.testing.assert_allclose(unit, np.broadcast_to(direction, unit.shape), atol=1e-3)


def test_deepfool_heads_for_the_nearest_of_many_boundaries():
    rng = np.random.default_rng(5)
    weights = rng.normal(size=(3, 3, 1, 6)).astype(np.float32)
    images = rng.uniform(0.45, 0.55, (40, 3, 3, 1)).astype(np.float32)
    model = linear(weights)
    logits = np.asarray(model(images))
    labels = logits.argmax(1)
    flat, rows = weights.reshape(-1, 6), np.arange(40)
    gaps = logits[rows, labels][:, None] - logits
    steep = np.linalg.norm(flat[:, labels].T[:, None] - flat.T[None], axis=2)
    nearest = np.where(gaps > 0, gaps / np.maximum(steep, 1e-9), np.inf).min(1)
    output = ATTACKS.parse("deepfool")(model, images, labels)
    np.testing.assert_allclose(output.l2, 1.02 * (nearest + 1e-4), rtol=2e-3)
    # With fewer classes to compare the way may be longer, never shorter.
    few = ATTACKS.parse("deepfool(candidates=2)")(model, images, labels)
    assert np.all(few.l2 >= output.l2 - 1e-4)
    wrong = ATTACKS.parse("deepfool")(model, images, (labels + 1) % 6)
    np.testing.assert_array_equal(wrong.adversarial, images)
    assert wrong.success.all()


@pytest.mark.parametrize("kappa", [0.0, 0.5])
def test_carlini_wagner_comes_to_the_closed_form(kappa):
    model, images, w, _, _, f = halfspace()
    attack = ATTACKS.get("cw")(steps=300, binary_search_steps=8, learning_rate=0.01, initial_const=0.1, kappa=kappa)
    output = attack(model, images, np.zeros(12, int))
    assert output.success.all()
    distance = (f + kappa) / np.linalg.norm(w)
    assert np.all(output.l2 >= distance - 1e-4)
    np.testing.assert_allclose(output.l2, distance, rtol=0.03)
    logits = np.asarray(model(output.adversarial))
    assert np.all(logits[:, 1] - logits[:, 0] >= kappa)


def test_fab_comes_to_the_closed_form():
    model, images, w, linf, l2, f = halfspace()
    # In l1 pixel after pixel goes to its end, the steepest first.
    order = np.argsort(-np.abs(w).ravel())
    steep, room = np.abs(w).ravel()[order], np.where(w > 0, images, 1 - images).reshape(12, -1)[:, order]
    missing = np.maximum(f[:, None] - np.cumsum(steep * room, 1) + steep * room, 0)
    l1 = np.minimum(room, missing / steep).sum(1)
    for norm, distance in ((Norm.LINF, linf), (Norm.L2, l2), (Norm.L1, l1)):
        for classes in (0, 1):
            attack = ATTACKS.get("fab")(norm=norm, steps=40, target_classes=classes)
            output = attack(model, images, np.zeros(12, int))
            assert output.success.all()
            size = getattr(output, norm.value)
            assert np.all(size >= distance - 1e-5)
            np.testing.assert_allclose(size, distance, rtol=0.02)
            # A budget only decides what counts.
            middle = float(np.median(size))
            within = attack.replace(epsilon=middle)(model, images, np.zeros(12, int))
            np.testing.assert_array_equal(within.success, size <= middle * (1 + 1e-6))
            np.testing.assert_array_equal(within.adversarial[within.success == 0], images[within.success == 0])


def test_zoo_comes_near_the_closed_form_without_gradients():
    model, images, _, _, l2, _ = halfspace(count=6)
    attack = ATTACKS.parse("zoo(steps=150, coordinates=8, binary_search_steps=5, learning_rate=0.02)")
    output = attack(model, images, np.zeros(6, int))
    assert output.success.all()
    assert np.all(output.l2 >= l2 - 1e-4)
    assert np.all(output.l2 <= 1.15 * l2)
    assert not output.gradients.any()


@pytest.mark.parametrize("target", ["none", "next"])
@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
def test_hop_skip_jump_comes_to_the_closed_form_by_answers_alone(norm, target):
    model, images, _, linf, l2, _ = halfspace()
    distance = linf if norm is Norm.LINF else l2
    output = ATTACKS.get("hop_skip_jump")(norm=norm, steps=20, target=target)(model, images, np.zeros(12, int))
    assert output.success.all()
    assert not output.gradients.any()
    size = output.linf if norm is Norm.LINF else output.l2
    assert np.all(size >= distance - 1e-5)
    np.testing.assert_allclose(size, distance, rtol=0.01)


class Answers(keras.layers.Layer):
    """The class alone of what another layer answers, and no gradient."""

    def call(self, logits):
        return tf.stop_gradient(5.0 * tf.one_hot(tf.argmax(logits, -1), logits.shape[-1]) - 2.0)


@pytest.mark.filterwarnings("ignore:.*has none, as after a cast")
def test_hop_skip_jump_needs_no_scores():
    model, images, *_ = halfspace()
    hard = keras.Model(model.inputs, Answers()(model.output))
    attack = ATTACKS.parse("hop_skip_jump(steps=3)")
    outputs = [attack(classifier, images, np.zeros(12, int)) for classifier in (model, hard)]
    np.testing.assert_array_equal(*(output.adversarial for output in outputs))


def test_hop_skip_jump_keeps_to_its_budget_and_stops_within_epsilon():
    model, images, *_ = halfspace()
    attack, labels = ATTACKS.parse("hop_skip_jump(steps=10)"), np.zeros(12, int)
    whole = attack(model, images, labels)
    # Where to begin, the way to the boundary, the probes; beside them the first try and ten halvings a step, at least.
    probes = sum(int(100 * np.sqrt(t)) for t in range(1, 11))
    least = 1 + probes + 10 + 11 * math.ceil(math.log2(np.sqrt(16) / 0.01))
    assert whole.forwards.min() - 1 >= least - 1
    assert whole.forwards.max() - 1 <= least + 11 * 30
    # Probes twice as far away ask for a halving less at every one of eleven ends.
    farther = attack.replace(delta=0.02)(model, images, labels)
    assert abs(whole.forwards.mean() - farther.forwards.mean() - 11) < 4
    sizes = []
    for queries in (5, 60, 400, 1000):
        output = attack.replace(queries=queries)(model, images, labels)
        assert output.forwards.max() - 1 <= queries
        assert output.forwards.min() - 1 >= (0 if queries == 5 else queries - 12)
        sizes.append(np.where(output.success, output.l2, np.inf).mean())
    assert sizes == sorted(sizes, reverse=True)
    assert whole.l2.mean() < sizes[-1] < sizes[0]
    epsilon = float(np.median(whole.l2)) * 1.2
    within = attack.replace(epsilon=epsilon)(model, images, labels)
    np.testing.assert_array_equal(within.success, within.l2 > 0)
    assert within.l2.max() <= epsilon * (1 + 1e-6)
    assert within.success.mean() >= 0.5
    assert within.forwards[within.success == 1].mean() < 0.7 * whole.forwards.mean()


def test_hop_skip_jump_begins_at_another_image_where_noise_will_not_do():
    # All noise is of class 0, and only dark images are of class 1, very dark ones of class 2.
    weights = np.stack([np.zeros((6, 6, 1)), np.full((6, 6, 1), -1.0), np.full((6, 6, 1), -2.0)], -1)
    model = linear(weights, bias=[0.0, 0.2 * 36, 0.3 * 36])
    images = np.full((6, 6, 6, 1), 0.6, np.float32)
    attack = ATTACKS.parse("hop_skip_jump(steps=3, initial_samples=5)")
    assert not attack(model, images, np.zeros(6, int)).success.any()
    images[4], images[5] = 0.15, 0.05
    labels = np.array([0, 0, 0, 0, 1, 2])
    assert attack(model, images, labels).success.all()
    toward = attack.replace(target="least_likely")(model, images, labels)
    assert toward.success[:5].all()
    np.testing.assert_array_equal(toward.prediction[:4], 2)
