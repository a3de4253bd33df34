import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from l2p_tf import inference
from l2p_tf.attacks import ATTACKS
from l2p_tf.attacks.criterion import Criterion
from l2p_tf.attacks.gradient import loss_gradient
from l2p_tf.attacks.iterative import IterativeAttack
from l2p_tf.attacks.projection import l2_norm, norms, project, random_in_ball, steepest
from l2p_tf.layers.noise import seed_states, set_noise
from l2p_tf.types import Norm, UserError
from support import ENVIRONMENT
from support.models import images_and_labels, linear, quick, smooth

NORMS = [Norm.LINF, Norm.L2]
CLASSES = {name: ATTACKS.get(name) for name in ATTACKS.names()}
# Presets are other attacks with other defaults, and cascades run other attacks: the same graphs.
COMPILED = [
    name
    for name, cls in CLASSES.items()
    if issubclass(cls, IterativeAttack) and not any(o is not cls and issubclass(cls, o) for o in CLASSES.values())
]


def length(delta, norm):
    measured = norms(np.asarray(delta))
    return measured["linf"] if norm is Norm.LINF else measured["l2"]


@pytest.mark.parametrize("norm", NORMS)
def test_projection_in_on_and_outside_the_ball(norm):
    delta = np.random.default_rng(0).normal(size=(5, 3, 3, 2)).astype(np.float32)
    delta[4] = 0
    epsilon = 0.5
    on = np.asarray(project(delta, epsilon, norm))
    np.testing.assert_allclose(length(on, norm)[:4], epsilon, rtol=1e-5)
    np.testing.assert_array_equal(on[4], 0)
    np.testing.assert_allclose(project(on, epsilon, norm), on, rtol=1e-5)
    inside = on * 0.3
    np.testing.assert_array_equal(project(inside, epsilon, norm), inside)
    np.testing.assert_array_equal(project(delta, 0.0, norm), np.zeros_like(delta))
    if norm is Norm.L2:
        np.testing.assert_allclose(on[:4], delta[:4] * (epsilon / np.asarray(l2_norm(delta))[:4]), rtol=1e-5)
    else:
        np.testing.assert_array_equal(on, delta.clip(-epsilon, epsilon))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_steepest_direction_has_unit_norm_and_zero_stays_zero(norm, scale):
    gradient = np.random.default_rng(0).normal(size=(4, 3, 3, 1)).astype(np.float32) * np.float32(scale)
    gradient[3] = 0
    direction = np.asarray(steepest(gradient, norm))
    np.testing.assert_allclose(length(direction, norm)[:3], 1.0, rtol=1e-5)
    np.testing.assert_array_equal(direction[3], 0)


@pytest.mark.parametrize("norm", NORMS)
def test_random_points_fill_the_ball_evenly(norm):
    points = np.asarray(random_in_ball(tf.zeros((20000, 2, 1, 1)), 2.0, norm, tf.constant([1, 2])))
    radius = length(points, norm)
    assert radius.max() <= 2.0 + 1e-5
    # In two dimensions a share r^2 lies within r of the way, in either norm.
    for share in (0.25, 0.5, 0.9):
        assert np.mean(radius <= 2.0 * share) == pytest.approx(share**2, abs=0.015)
    np.testing.assert_allclose(points.mean(0), 0, atol=0.05)


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


@pytest.mark.parametrize("norm", NORMS)
def test_pgd_finds_the_optimum_of_a_linear_model(norm):
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(3, 3, 1, 2))
    weights[..., 1] = 0
    images = rng.uniform(0.4, 0.6, (30, 3, 3, 1)).astype(np.float32)
    # A bias so large (yet the softmax does not saturate) that no perturbation changes the class: PGD runs all steps.
    model = linear(weights, bias=[8.0, 0.0])
    attack = ATTACKS.get("pgd")(epsilon=0.1, step_size=0.1, norm=norm, steps=40)
    output = attack(model, images, np.zeros(30, int))
    direction = -np.sign(weights[..., 0]) if norm is Norm.LINF else -weights[..., 0] / np.linalg.norm(weights[..., 0])
    np.testing.assert_allclose(output.adversarial - images, np.broadcast_to(0.1 * direction, images.shape), atol=2e-3)
    assert not output.success.any()
    assert set(output.gradients) == {40}
    # Just beyond or short of the distance to the boundary, all or none fall.
    margin = 0.05 * (np.abs(weights).sum() if norm is Norm.LINF else np.linalg.norm(weights))
    near = images[:1]
    bias = margin - float(np.sum(weights[..., 0] * near[0]))
    near_model = linear(weights, bias=[bias, 0.0])
    for factor, falls in ((0.97, 0.0), (1.05, 1.0)):
        assert attack.replace(epsilon=0.05 * factor)(near_model, near, [0]).success[0] == falls


def budgets(name):
    """Options that bound an attack, each with the norm and radius they stand for."""
    attack = ATTACKS.get(name)
    fields = {f.name for f in dataclasses.fields(attack)}
    if "norm" in fields:
        return [({"epsilon": 0.3, "norm": norm}, norm, 0.3) for norm in NORMS]
    if "epsilon" in fields:
        return [({"epsilon": 0.9}, Norm.L2, 0.9)]
    return [({"pixels": 2}, "pixels", 2)]


BUDGETS = [(name, *budget) for name in ATTACKS.names() for budget in budgets(name)]


@pytest.mark.parametrize(("name", "options", "norm", "radius"), BUDGETS)
def test_every_attack_stays_in_the_ball_and_in_range(name, options, norm, radius):
    model = smooth()
    attack = quick(name, **options)
    for count in (1, 13):
        images, labels = images_and_labels(count)
        output = attack(model, images, labels, batch_size=8)
        assert output.adversarial.shape == images.shape
        assert output.adversarial.dtype == np.float32
        assert output.adversarial.min() >= 0
        assert output.adversarial.max() <= 1
        delta = output.adversarial - images
        assert size_of(delta, norm).max() <= radius * (1 + 1e-5)
        for key, value in norms(delta).items():
            np.testing.assert_array_equal(getattr(output, key), value)
        prediction = inference.predict(model, output.adversarial, batch_size=8).argmax(-1)
        np.testing.assert_array_equal(output.prediction, prediction)
        np.testing.assert_array_equal(output.success, prediction != labels)
        np.testing.assert_array_equal(output.wrong, output.success)
    if norm != "pixels":
        zero = attack.replace(epsilon=0.0)(model, images, labels, batch_size=8)
        np.testing.assert_array_equal(zero.adversarial, images)


def size_of(delta, norm):
    return np.any(delta != 0, axis=-1).sum((1, 2)) if norm == "pixels" else length(delta, norm)


@pytest.mark.parametrize(("shape", "classes"), [((5, 7, 3), 100), ((4, 4, 1), 2)])
@pytest.mark.parametrize("name", ATTACKS.names())
def test_every_attack_takes_any_shape_any_number_of_classes_and_batches_of_one_class(name, shape, classes):
    model = smooth(shape, classes)
    images, _ = images_and_labels(6, shape, classes)
    labels = np.full(6, classes - 1)
    attack = quick(name, shape, classes)
    if classes == 2 and name in ("worst_case", "autoattack"):
        # The difference of logits ratio needs three.
        with pytest.warns(UserWarning, match="needs more classes than 2; it ascends the margin instead"):
            output = attack(model, images, labels, batch_size=4)
    else:
        output = attack(model, images, labels, batch_size=4)
    assert output.adversarial.shape == images.shape
    assert np.isfinite(output.adversarial).all()


@pytest.mark.parametrize("name", ATTACKS.names())
def test_every_attack_bears_a_model_without_gradient(name):
    model = linear(np.zeros((4, 4, 1, 5)), bias=[1.0, 0, 0, 0, 0])
    images, _ = images_and_labels(5, (4, 4, 1))
    output = quick(name, (4, 4, 1), 5)(model, images, np.array([0, 0, 0, 1, 2]), batch_size=4)
    assert np.isfinite(output.adversarial).all()
    np.testing.assert_array_equal(output.success, [0, 0, 0, 1, 1])


@pytest.mark.parametrize("name", ATTACKS.names())
@pytest.mark.parametrize("noise", [None, 0.3])
def test_every_attack_repeats_by_its_seed_alone_and_is_compiled_once(name, noise):
    model = smooth(noise=noise)
    images, labels = images_and_labels(16)
    attack = quick(name)
    before = [np.array(state) for state in seed_states(model)]
    first = attack(model, images, labels, seed=3, batch_size=8)
    np.testing.assert_array_equal(before, seed_states(model))
    model(images)
    attack(model, images[::-1], labels, seed=4, batch_size=8)
    again = attack(model, images, labels, seed=3, batch_size=8)
    for field in ("adversarial", "prediction", "success", "gradients", "forwards"):
        np.testing.assert_array_equal(getattr(first, field), getattr(again, field))
    if "epsilon" in {f.name for f in dataclasses.fields(attack)}:
        attack.replace(epsilon=0.2)(model, images, labels, batch_size=8)
    kernel = model.layers[-1].kernel
    kernel.assign(-np.asarray(kernel))
    changed = attack(model, images, labels, seed=3, batch_size=8)
    if name != "noise":
        assert np.abs(changed.adversarial - first.adversarial).max() > 0
    counts = {key: run.traces for key, run in vars(model)["_l2p_compiled"].items()}
    assert set(counts.values()) == {1}, counts


@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize("noise", [0.3, pytest.param(None, marks=pytest.mark.slow)])
def test_eager_graph_and_xla_agree(name, noise):
    images, labels = images_and_labels(8)
    attack = quick(name, **({"epsilon": 0.05} if name in ("fgsm", "pgd", "bim") else {}))
    outputs = [attack(smooth(noise=noise), images, labels, seed=1, jit_compile=jit) for jit in (False, True)]
    tf.config.run_functions_eagerly(True)
    try:
        outputs.append(attack(smooth(noise=noise), images, labels, seed=1, jit_compile=False))
    finally:
        tf.config.run_functions_eagerly(False)
    for other in outputs[1:]:
        close = np.isclose(other.adversarial, outputs[0].adversarial, atol=1e-4)
        # Selection on draws, and steps along signs, amplify the last bits of the noise.
        assert close.mean() > (0.999 if noise is None else 0.9)
        np.testing.assert_array_equal(other.success, outputs[0].success)


@pytest.mark.slow
def test_two_replicas_agree_with_one_device():
    done = subprocess.run(
        [sys.executable, "-m", "support.replicas", *COMPILED, "worst_case"], env=ENVIRONMENT,
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == {*COMPILED, "worst_case"}
    for name, (agree, difference, own_noise) in found.items():
        assert agree == 1.0, name
        assert difference < 1e-4, name
        assert own_noise, name


@pytest.mark.parametrize("name", ATTACKS.names())
def test_models_are_called_at_prediction(name):
    model = smooth()
    seen = []
    plain = type(model).call

    class Watched(type(model)):
        def call(self, inputs, training=None, mask=None):
            seen.append(training)
            return plain(self, inputs, training=training, mask=mask)

    model.__class__ = Watched
    images, labels = images_and_labels(4)
    quick(name)(model, images, labels)
    assert seen
    assert not any(seen)


def test_restarts_only_add_what_fell_and_cost_only_the_standing():
    model = smooth(seed=2)
    images, _ = images_and_labels(64)
    labels = inference.predict(model, images).argmax(-1)
    attack = ATTACKS.get("pgd")(epsilon=0.04, steps=3, restarts=1)
    once = attack(model, images, labels, seed=5, batch_size=16)
    many = attack.replace(restarts=6)(model, images, labels, seed=5, batch_size=16)
    assert 0 < once.success.mean() < 1
    assert np.all(many.success >= once.success)
    fell = once.success == 1
    np.testing.assert_array_equal(many.gradients[fell], once.gradients[fell])
    assert many.gradients[many.success == 0].min() == 18


def test_eot_averages_real_draws():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(2, 2, 1, 3)).astype(np.float32)
    images, labels = rng.random((4, 2, 2, 1)).astype(np.float32), np.array([0, 1, 2, 0], np.int32)
    expected = None
    for sharing in ("example", "batch"):
        model = linear(weights, noise=1.0, sharing=sharing)
        gradients = []
        for draws in (1, 4000):
            run = tf.function(lambda x, y, m=model, d=draws: loss_gradient(m, x, Criterion(y), d)[0])
            gradients.append(np.stack([run(tf.constant(images), tf.constant(labels)) for _ in range(3)]))
        single, many = gradients
        # Draws differ, and their mean settles on the same expectation whichever way noise is drawn.
        assert single.std(0).min() > 0
        assert many.std(0).max() < 0.1 * single.std(0).max()
        expected = many.mean(0) if expected is None else expected
        np.testing.assert_allclose(many.mean(0), expected, atol=0.02)


def test_eot_counts_its_passes_and_tiles_only_independent_draws():
    images, labels = images_and_labels(8)
    for sharing, passes in (("example", 1), ("batch", 6)):
        model = smooth(noise=0.2, sharing=sharing)
        shapes = []
        plain = type(model).call

        class Watched(type(model)):
            def call(self, inputs, training=None, mask=None, shapes=shapes, plain=plain):
                shapes.append(inputs.shape[0])
                return plain(self, inputs, training=training, mask=mask)

        model.__class__ = Watched
        goal = Criterion(tf.constant(labels, tf.int32))
        loss_gradient(model, tf.constant(images), goal, 6)
        assert shapes == [8 * 6 // passes] * passes
        assert set(ATTACKS.parse("fgsm(draws=6)")(model, images, labels).gradients) == {6}
        # Chunks that fit memory: 512 images a pass, in numbers that divide the draws.
        del shapes[:]
        loss_gradient(model, tf.constant(images), goal, 96)
        assert shapes == ([8 * 48] * 2 if passes == 1 else [8] * 96)


@pytest.mark.filterwarnings("ignore:The classifier's clean accuracy is no better than chance")
def test_on_a_randomized_model_one_lucky_draw_does_not_count():
    # The class hangs on the noise alone: whatever an attack picks, a fresh draw is a fair coin.
    weights = np.zeros((2, 2, 1, 2), np.float32)
    weights[0, 0, 0] = [1e3, -1e3]
    model = linear(weights, bias=[-500.0, 500.0], noise=5.0)
    images = np.full((400, 2, 2, 1), 0.5, np.float32)
    output = ATTACKS.parse("pgd(epsilon=0.01, steps=2, restarts=10)")(model, images, np.zeros(400, int))
    assert set(np.unique(output.success)) == {0.0, 1.0}
    assert abs(output.success.mean() - 0.5) < 4 * 0.5 / np.sqrt(400)
    shares = ATTACKS.parse("fgsm")(model, images[:50], np.zeros(50, int), score_draws=40).success
    assert abs(shares.mean() - 0.5) < 4 * 0.5 / np.sqrt(2000)
    set_noise(model, False)
    assert ATTACKS.parse("fgsm(epsilon=0.01)")(model, images, np.zeros(400, int)).success.mean() == 1.0


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 5, 5, 1)), [0, 1], r"shape \(count, 6, 6, 1\). Received: \(2, 5, 5, 1\)"),
        (np.zeros((0, 6, 6, 1)), [], "Received: \\(0, 6, 6, 1\\)"),
        (np.full((2, 6, 6, 1), 1.5), [0, 1], r"in \[0, 1\]. Received: values from 1.5 to 1.5"),
        (np.full((2, 6, 6, 1), np.nan), [0, 1], r"in \[0, 1\]"),
        (np.zeros((2, 6, 6, 1), int), [0, 1], "Received: int64"),
        (np.zeros((2, 6, 6, 1)), [0, 4], "from 0 to 3. Received: labels from 0 to 4"),
        (np.zeros((2, 6, 6, 1)), [-1, 0], "Received: labels from -1 to 0"),
        (np.zeros((2, 6, 6, 1)), [0, 1, 1], r"of shape \(2,\), one for each image. Received: int64 \(3,\)"),
        (np.zeros((2, 6, 6, 1)), [0.0, 1.0], "Received: float64"),
    ],
)
def test_bad_input_is_refused(images, labels, message):
    with pytest.raises(UserError, match=message):
        ATTACKS.parse("fgsm")(smooth(), images, labels)


def test_uint8_images_are_taken():
    model = smooth()
    images = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 1), np.uint8)
    a = ATTACKS.parse("fgsm")(model, images, [0, 1, 2, 3])
    b = ATTACKS.parse("fgsm")(model, images.astype(np.float32) / 255, [0, 1, 2, 3])
    np.testing.assert_array_equal(a.adversarial, b.adversarial)


class Told(list):
    def __call__(self, share, left):
        self.append((share, left))


def test_progress_ends_at_the_whole():
    images, labels = images_and_labels(37)
    for spec in ("fgsm", "pgd(epsilon=0.02, steps=2, restarts=3)"):
        for noise in (None, 0.2):
            moved = Told()
            ATTACKS.parse(spec)(smooth(noise=noise), images, labels, batch_size=8, progress=moved)
            assert moved[-1][0] == pytest.approx(1.0)
            assert [share for share, _ in moved] == sorted(share for share, _ in moved)
            assert all(0 <= left <= 37 for _, left in moved)


def test_prediction_averages_draws_and_leaves_seeds():
    model = smooth(noise=0.5)
    images, _ = images_and_labels(10)
    before = [np.array(state) for state in seed_states(model)]
    many = inference.predict(model, images, 1, draws=2000, batch_size=4)
    other = inference.predict(model, images, 2, draws=2000, batch_size=4)
    np.testing.assert_array_equal(before, seed_states(model))
    np.testing.assert_allclose(many.sum(-1), 1, atol=1e-4)
    single = np.abs(inference.predict(model, images, 1) - inference.predict(model, images, 2)).mean()
    assert np.abs(many - other).mean() < 0.1 * single
