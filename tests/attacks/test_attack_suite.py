"""Each attack against what is known on paper."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from l2p_tf import inference
from l2p_tf.attacks import ATTACKS, iterative
from l2p_tf.attacks.apgd import checkpoints
from l2p_tf.attacks.base import MinimizationAttack
from l2p_tf.attacks.boundary import to_hyperplane
from l2p_tf.attacks.context import SELECTION_DRAWS
from l2p_tf.attacks.criterion import Criterion, pick_targets
from l2p_tf.attacks.few_pixel import painted
from l2p_tf.attacks.square import Square, bump
from l2p_tf.layers.noise import set_noise
from l2p_tf.types import Norm, UserError
from support.models import images_and_labels, linear, quick, smooth

NORMS = [Norm.LINF, Norm.L2]
LOGITS = np.array([[3.0, 1.0, 0.5, -2.0, 0.0], [0.0, 5.0, 2.0, 4.0, -1.0]], np.float32)
LABELS = np.array([0, 2], np.int32)
TARGETS = np.array([3, 1], np.int32)


def halfspace(seed=0, count=12, margin=0.4):
    """A two-class linear model, images inside the box, and their distances to its boundary in both norms."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(4, 4, 1, 2)).astype(np.float32)
    images = rng.uniform(0.4, 0.6, (count, 4, 4, 1)).astype(np.float32)
    w = weights[..., 0] - weights[..., 1]
    values = np.tensordot(images, w, 3)
    bias = float(margin - values.min())
    model = linear(weights, bias=[bias, 0.0])
    f = values + bias
    return model, images, w, f / np.abs(w).sum(), f / np.linalg.norm(w), f


# Losses and targets.


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


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["fgsm", "bim", "pgd", "mim", "apgd", "square", "spsa", "cw", "zoo", "few_pixel"])
def test_targeted_attacks_count_only_their_target(name, norm):
    model = smooth(seed=3)
    images, _ = images_and_labels(16)
    labels = inference.predict(model, images).argmax(-1)
    options = (
        {"epsilon": 3.0 if norm is Norm.L2 else 0.5, "norm": norm} if name not in ("cw", "zoo", "few_pixel") else {}
    )
    output = quick(name, target="next", **options)(model, images, labels, batch_size=8)
    classes = inference.predict(model, output.adversarial, batch_size=8).argmax(-1)
    np.testing.assert_array_equal(output.success, classes == (labels + 1) % 4)
    np.testing.assert_array_equal(output.wrong, classes != labels)
    if name in ("pgd", "apgd", "bim", "mim"):
        untargeted = quick(name, **options)(model, images, labels, batch_size=8)
        assert 0 < output.success.sum() <= untargeted.success.sum()


@pytest.mark.parametrize(
    ("spec", "label"),
    [
        ("fgsm", "FGSM"), ("fgsm(norm=l2, draws=10)", "FGM l2 EOT-10"), ("pgd(restarts=2)", "PGD-20 x2"),
        ("pgd(loss=margin, target=next)", "PGD-20 margin to next"), ("mim(norm=l2)", "MIM-20 l2"),
        ("apgd(loss=dlr, target_classes=9)", "APGD-T-100 dlr"), ("cw(kappa=5)", "C&W kappa 5"), ("zoo", "ZOO"),
        ("deepfool(norm=linf, epsilon=0.1)", "DeepFool linf within 0.1"), ("fab(target_classes=9)", "FAB-T"),
        ("square(norm=l2)", "Square-5000 l2"), ("square(loss=ce)", "Square-5000 ce"), ("spsa", "SPSA-100"),
        ("few_pixel(pixels=2)", "2 pixels"), ("few_pixel", "1 pixel"), ("noise(restarts=10)", "noise x10"),
        ("autoattack(norm=l2)", "AutoAttack l2"), ("autoattack(version=rand)", "AutoAttack rand"),
        ("worst_case(attacks=(pgd, square))", "worst of PGD-20, Square-5000"), ("gen_fgm", "FGM l2"),
    ],
)  # fmt: skip
def test_labels_are_short_and_tell_what_matters(spec, label):
    assert ATTACKS.parse(spec).label == label


# Fixed budget.


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
@pytest.mark.parametrize("norm", NORMS)
def test_apgd_finds_the_optimum_of_a_linear_model(norm, loss):
    model, images, w, *_ = halfspace(margin=3.0)
    output = ATTACKS.get("apgd")(epsilon=0.1, norm=norm, loss=loss, steps=50)(model, images, np.zeros(12, int))
    assert not output.success.any()
    assert set(output.gradients) == {51}
    direction = -np.sign(w) if norm is Norm.LINF else -w / np.linalg.norm(w)
    np.testing.assert_allclose(output.adversarial - images, np.broadcast_to(0.1 * direction, images.shape), atol=2e-3)


def test_squares_shrink_as_the_paper_says_and_keep_to_corners():
    attack = Square(queries=10000, p=0.8)
    sides = attack._sides(32, 32)
    areas = 0.8 / 2.0 ** np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    rounds = [0, 10, 11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001]
    np.testing.assert_array_equal(sides[rounds], np.rint(np.sqrt(areas * 1024)))
    for side in (3, 5, 8):
        shape = bump(side)
        assert np.linalg.norm(shape) == pytest.approx(1.0)
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
    assert set(output.forwards) == {1 + 400}
    assert not output.gradients.any()


def test_spsa_climbs_a_linear_model():
    model, images, w, *_ = halfspace(margin=50.0)
    output = ATTACKS.parse("spsa(epsilon=0.05, steps=20, samples=64)")(model, images, np.zeros(12, int))
    assert np.mean(np.sign(output.adversarial - images) == -np.sign(w)) > 0.9
    assert set(output.forwards) == {1 + 20 * 129}


# Smallest norm.


@pytest.mark.parametrize("norm", NORMS)
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
        else:
            inside = optimize.minimize(
                lambda d: d @ d, np.zeros(len(point)), jac=lambda d: 2 * d, bounds=[*zip(low, high, strict=True)],
                constraints={"type": "eq", "fun": lambda d, s=slope, v=value: v + s @ d, "jac": lambda d, s=slope: s},
            )  # fmt: skip
            assert np.linalg.norm(found) == pytest.approx(np.sqrt(inside.fun), abs=2e-4)


@pytest.mark.parametrize("norm", NORMS)
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
    model, images, _, linf, l2, _ = halfspace()
    for norm, distance in ((Norm.LINF, linf), (Norm.L2, l2)):
        for classes in (0, 1):
            attack = ATTACKS.get("fab")(norm=norm, steps=40, target_classes=classes)
            output = attack(model, images, np.zeros(12, int))
            assert output.success.all()
            size = output.linf if norm is Norm.LINF else output.l2
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


@pytest.mark.parametrize(
    "name", [name for name in ATTACKS.names() if issubclass(ATTACKS.get(name), MinimizationAttack)]
)
def test_what_is_wrong_already_needs_no_perturbation(name):
    model, images, *_ = halfspace()
    labels = np.arange(12) % 2
    output = quick(name)(model, images, labels, batch_size=8)
    np.testing.assert_array_equal(output.l2[labels == 1], 0)
    assert output.success[labels == 1].all()
    assert not output.gradients[labels == 1].any()
    zero = quick(name, epsilon=0.0)(model, images, labels)
    np.testing.assert_array_equal(zero.success, labels)


# Few pixels.


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


# Cascades.


def test_the_worst_case_is_the_union_and_pays_only_for_the_standing():
    model = smooth(seed=2)
    images, _ = images_and_labels(64)
    labels = inference.predict(model, images).argmax(-1)
    specs = ("fgsm", "pgd(steps=5)", "square(queries=30)")
    budget = {"epsilon": 0.05, "norm": Norm.LINF}
    alone = [ATTACKS.parse(spec).replace(**budget)(model, images, labels, batch_size=16) for spec in specs]
    worst = ATTACKS.get("worst_case")(attacks=specs, **budget)(model, images, labels, batch_size=16)
    assert 0 < worst.success.mean() < 1
    assert np.all(worst.success >= np.max([output.success for output in alone[:2]], axis=0))
    by_first = alone[0].success == 1
    assert set(worst.gradients[by_first]) == {1}
    # One look at the images as they are comes first.
    assert set(worst.forwards[by_first]) == {2}
    robust = worst.success == 0
    assert set(worst.gradients[robust]) == {6}
    assert set(worst.forwards[robust]) == {37}


def test_autoattack_is_its_members():
    standard = ATTACKS.parse("autoattack(epsilon=0.1, norm=l2)").members()
    assert [member.spec for member in standard] == [
        "apgd(epsilon=0.1, norm=l2)",
        "apgd(epsilon=0.1, norm=l2, loss=dlr, target_classes=9)",
        "fab(epsilon=0.1, norm=l2, target_classes=9)",
        "square(epsilon=0.1, norm=l2)",
    ]
    assert [member.starts(10) for member in standard] == [1, 9, 9, 1]
    assert [member.starts(5) for member in standard] == [1, 4, 4, 1]
    facts = ATTACKS.parse("autoattack(norm=l2)").facts()
    assert facts == {"norm": "l2", "epsilon": 8 / 255, "steps": 100, "restarts": 9, "draws": 1}
    rand = ATTACKS.parse("autoattack(version=rand)").members()
    assert [member.spec for member in rand] == ["apgd(draws=20)", "apgd(loss=dlr, draws=20)"]


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ("l2p_fgsm", {"epsilon": 8 / 255, "norm": Norm.LINF}),
        ("l2p_pgd", {"epsilon": 8 / 255, "steps": 7, "step_size": 0.01, "random_start": True}),
        ("l2p_eot", {"epsilon": 8 / 255, "steps": 7, "step_size": 0.01, "draws": 80}),
        ("l2p_cw(kappa=5)", {"learning_rate": 5e-4, "steps": 1000, "binary_search_steps": 9, "initial_const": 1e-3,
                             "kappa": 5.0}),
        ("few_pixel(pixels=2)", {"population": 400, "generations": 75, "pixels": 2}),
        ("gen_fgm", {"epsilon": 0.5, "norm": Norm.L2}),
        ("gen_mim", {"epsilon": 0.5, "norm": Norm.L2, "steps": 100}),
        ("gen_deepfool", {"steps": 100, "norm": Norm.L2}),
        ("gen_cw", {"steps": 100}),
        ("autoattack", {"version": "standard", "epsilon": 8 / 255, "steps": 100, "queries": 5000}),
    ],
)  # fmt: skip
def test_presets_are_the_papers_settings(spec, options):
    attack = ATTACKS.parse(spec)
    assert {key: getattr(attack, key) for key in options} == options
    assert ATTACKS.parse(attack.spec) == attack


@pytest.mark.filterwarnings("ignore:The classifier's clean accuracy is no better than chance")
@pytest.mark.parametrize(
    "spec",
    [
        "autoattack(version=rand, steps=5, draws=2)",
        "worst_case(attacks=(pgd(steps=2, restarts=5), square(queries=10)))",
        "apgd(restarts=4, steps=3)",
    ],
)
def test_in_a_cascade_too_a_lucky_draw_does_not_count(spec):
    weights = np.zeros((2, 2, 1, 3), np.float32)
    weights[0, 0, 0] = [1e3, -1e3, 0]
    # The class hangs on the noise alone: whatever an attack picks, a fresh draw is a fair coin.
    model = linear(weights, bias=[-500.0, 500.0, -1e6], noise=5.0)
    images = np.full((300, 2, 2, 1), 0.5, np.float32)
    output = ATTACKS.parse(spec).replace(epsilon=0.01)(model, images, np.zeros(300, int))
    assert abs(output.success.mean() - 0.5) < 4 * 0.5 / np.sqrt(300)
    set_noise(model, False)
    assert ATTACKS.parse(spec).replace(epsilon=0.01)(model, images, np.zeros(300, int)).success.all()


# How the loop is run.


@given(st.integers(1, 700), st.sampled_from([1, 8, 100, 128]), st.sampled_from([1, 2, 3]))
@settings(deadline=None)
def test_batches_cover_everything_once_with_little_padding(count, batch_size, replicas):
    parts = list(inference.batches(count, max(batch_size, replicas), replicas))
    seen = np.concatenate([index[:real] for index, real in parts])
    np.testing.assert_array_equal(seen, np.arange(count))
    sizes = [len(index) for index, _ in parts]
    assert all(size % replicas == 0 and size <= max(batch_size, replicas) for size in sizes)
    assert sum(sizes) <= max(count * 4 / 3, count + 8 * replicas)


def test_survivors_are_packed_together(monkeypatch):
    # Half of the images lie so near the boundary that they fall in the first steps, the others out of reach.
    model, images, _, _, _, f = halfspace(count=64, margin=0.01)
    images[1::2], images[::2] = images[f.argmin()].copy(), images[f.argmax()].copy()
    near, labels = np.arange(64) % 2, np.zeros(64, int)
    sizes = []
    plain = iterative._Start._chunk

    def chunk(self, state, index, real, batch, first, last):
        sizes.append((first, len(index), real))
        return plain(self, state, index, real, batch, first, last)

    monkeypatch.setattr(iterative._Start, "_chunk", chunk)
    output = ATTACKS.parse("pgd(epsilon=0.01, steps=20)")(model, images, labels, batch_size=16)
    np.testing.assert_array_equal(output.success, near)
    assert sizes == [(0, 16, 16)] * 4 + [(10, 16, 16)] * 2
    assert output.gradients[near == 1].max() < 10
    assert set(output.gradients[near == 0]) == {20}


class Memory(dict):
    def load(self, key):
        return self.get(key)

    def save(self, key, arrays):
        self[key] = {name: np.array(value) for name, value in arrays.items()}


@pytest.mark.parametrize("name", ["pgd", "cw", "autoattack", "few_pixel"])
@pytest.mark.parametrize("noise", [None, 0.2])
def test_a_stopped_attack_goes_on_where_it_was(monkeypatch, name, noise):
    monkeypatch.setattr(iterative, "_SAVE_SECONDS", 0.0)
    monkeypatch.setattr(iterative, "_WORTH_SAVING_SECONDS", 0.0)
    monkeypatch.setattr(ATTACKS.get(name), "CHUNK", 2, raising=False)
    model = smooth(noise=noise)
    images, labels = images_and_labels(20)
    attack = quick(name)
    whole = attack(model, images, labels, seed=1, batch_size=8)
    ran = itertools.count()
    limit = [10**9]
    plain = iterative._Start._chunk

    def chunk(self, *arguments):
        if next(ran) >= limit[0]:
            raise KeyboardInterrupt
        return plain(self, *arguments)

    monkeypatch.setattr(iterative._Start, "_chunk", chunk)
    attack(model, images, labels, seed=1, batch_size=8)
    needed = next(ran)
    memory, runs = Memory(), 0
    for limit[0] in (3, 4, 5, 10**9):
        ran = itertools.count()
        try:
            resumed = attack(model, images, labels, seed=1, batch_size=8, store=memory)
        except KeyboardInterrupt:
            runs += limit[0]
        else:
            runs += next(ran)
            break
    assert runs == needed
    for field in ("adversarial", "success", "gradients", "forwards"):
        np.testing.assert_array_equal(getattr(resumed, field), getattr(whole, field))


def test_randomized_models_stop_nothing_early_and_look_before_they_choose():
    model = smooth(noise=0.3)
    images, labels = images_and_labels(8)
    once = ATTACKS.parse("pgd(steps=5)")(model, images, labels)
    assert set(once.gradients) == {5}
    # The images as they are are looked at first, and what was found where they are misclassified now and then.
    assert set(once.forwards) <= {5 + SELECTION_DRAWS, 5 + 2 * SELECTION_DRAWS}
    several = ATTACKS.parse("pgd(steps=5, restarts=2, draws=2)")(model, images, labels)
    assert several.gradients.max() == 20
    assert several.forwards.max() == 20 + 3 * SELECTION_DRAWS


@pytest.mark.parametrize(
    "spec",
    [
        "cw(steps=60, binary_search_steps=4, initial_const=1.0, learning_rate=0.05)",
        "deepfool(steps=30)",
        "fab(steps=20)",
        "zoo(steps=150, binary_search_steps=3, initial_const=1.0, learning_rate=0.05, coordinates=4)",
    ],
)
def test_lucky_draws_do_not_pass_for_small_perturbations(spec):
    # One draw in five is wrong on the clean image; the majority is from a distance of 0.25 on.
    weights = np.zeros((2, 2, 1, 2), np.float32)
    weights[0, 0, 0] = [1.0, -1.0]
    model = linear(weights, bias=[-0.25, 0.25], noise=0.3)
    images = np.full((40, 2, 2, 1), 0.5, np.float32)
    found = ATTACKS.parse(spec)(model, images, np.zeros(40, int), 3, score_draws=200)
    assert np.mean(found.success > 0.35) > 0.8
    assert np.median(found.l2) > 0.15
    assert (found.l2[found.success > 0.5] > 0.2).all()


@pytest.mark.filterwarnings("ignore:The classifier's clean accuracy is no better than chance")
def test_memory_stays_flat(tmp_path):
    import psutil

    model = smooth()
    images, labels = images_and_labels(256)
    attack = ATTACKS.parse("pgd(steps=10, restarts=2, epsilon=0.01)")
    for _ in range(3):
        attack(model, images, labels, batch_size=32)
    before = psutil.Process().memory_info().rss
    for seed in range(40):
        attack(model, images, labels, seed=seed, batch_size=32)
    assert psutil.Process().memory_info().rss - before < 30 * 2**20
