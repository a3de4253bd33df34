"""The checks for gradient masking on models that mask gradients or do not."""

import contextlib

import keras
import numpy as np
import pytest

from l2p_tf.attacks import ATTACKS
from l2p_tf.attacks.pgd import PGD
from l2p_tf.evaluation.masking import battery, gradients, rules
from l2p_tf.evaluation.masking.record import FAIL, NOT_NEEDED, PASS, UNMEASURED
from l2p_tf.evaluation.masking.rules import CHECKS, Trial
from l2p_tf.evaluation.options import CheckOptions
from l2p_tf.layers.noise import NoiseLayer, is_randomized, without_noise
from l2p_tf.types import UserError
from support.models import linear


class Quantized(keras.layers.Layer):
    """Rounds its input: no gradient passes."""

    def call(self, x):
        return keras.ops.round(16 * x) / 16


class Misleading(NoiseLayer):
    """Lets every value pass, and one gradient in four reversed and a million times as large."""

    def call(self, x):
        bad = keras.random.uniform((keras.ops.shape(x)[0], 1), seed=self.seed_generator) < 0.25
        factor = keras.ops.where(bad, -1e6, 1.0)
        return x + (factor - 1.0) * (x - keras.ops.stop_gradient(x))


RNG = np.random.default_rng(5)
WEIGHTS = RNG.normal(size=(4, 4, 1, 2)).astype(np.float32)
IMAGES = RNG.uniform(0.35, 0.65, (60, 4, 4, 1)).astype(np.float32)
SLOPE = np.abs(WEIGHTS[..., 0] - WEIGHTS[..., 1]).sum()
GAP = IMAGES.reshape(60, -1) @ (WEIGHTS[..., 0] - WEIGHTS[..., 1]).reshape(-1)
BIAS = -float(np.median(GAP))
LABELS = np.where(GAP + BIAS > 0, 0, 1)
RADII = np.abs(GAP + BIAS) / SLOPE
"""The l_inf distance of each image from the boundary, which no pixel's range limits up to 0.35."""

EPSILON = float(np.quantile(RADII, 0.5))


def straight(scale=1.0, **how):
    return linear(scale * WEIGHTS, [scale * BIAS, 0.0], **how)


def wrapped(model, before=None, after=None):
    images = keras.Input(model.input_shape[1:])
    x = model(before(images) if before else images)
    return keras.Model(images, after(x) if after else x)


def found_on(model, folder, images=IMAGES, labels=LABELS, epsilon=EPSILON, **how):
    options = CheckOptions(count=len(images), epsilon=epsilon, seed=3, **how)
    one = battery.Battery(model, options, images, labels, folder)
    return {finding.check: finding for finding in one.run()}, one


def failed(findings):
    return {name for name, finding in findings.items() if finding.verdict == FAIL}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The checks on a linear model, and the lines of progress."""
    told = []

    def bar(line, total, unit):
        told.append(line)
        return contextlib.nullcontext(lambda *a, **k: None)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(battery, "bar", bar)
        return *found_on(straight(), tmp_path_factory.mktemp("sound")), told


def test_lines_of_progress_tell_attacks_apart(sound):
    *_, told = sound
    assert told[0] == "model: checks, clean"
    assert f"model: checks, PGD-20, ε {EPSILON:.4g}" in told
    assert len(set(told)) == len(told)


def test_a_linear_model_passes_with_the_figures_of_the_closed_form(sound):
    found, *_ = sound
    assert list(found) == list(CHECKS)
    assert {name for name, f in found.items() if f.verdict == PASS} == {*CHECKS} - {"transfer", "eot"}
    assert found["eot"].verdict == NOT_NEEDED
    assert found["transfer"].verdict == UNMEASURED
    within = [int((radius > RADII).sum()) for radius in (EPSILON / 2, EPSILON)]
    assert [share.hits for share in found["one_step"].shares] == [within[1], within[1]] == [30, 30]
    assert [share.hits for share in found["budget"].shares][:2] == within
    assert [share.hits for share in found["budget"].shares][-1] == found["unbounded"].shares[0].hits == 60
    white, square, alone = (share.hits for share in found["black_box"].shares)
    assert (white, alone) == (30, 0)
    assert 15 < square <= 30
    assert [(share.hits, share.count) for share in found["random_search"].shares] == [(0, 30)]


def test_the_loss_of_a_linear_model_rises_as_its_slope_says(sound):
    _, battery, _ = sound
    around = battery.around
    np.testing.assert_allclose(around["stepped"], 0.1 * EPSILON * SLOPE, rtol=1e-3)
    assert not (around["zero"] | around["tiny"] | around["infinite"]).any()
    # PGD leaves an image as soon as it has fallen; where none falls it goes to the corner of the ball.
    stood = RADII > EPSILON
    np.testing.assert_allclose(around["attacked"][stood], EPSILON * SLOPE, rtol=1e-3)
    assert (around["strayed"] < around["stepped"]).all()


def test_another_radius_needs_no_new_trace(sound, tmp_path):
    _, battery, _ = sound
    model = battery.model
    programs = vars(model)["_l2p_compiled"]
    before = len(programs)
    found_on(model, tmp_path, epsilon=0.9 * EPSILON)
    assert len(programs) == before
    assert all(program.traces == 1 for program in programs.values())


@pytest.mark.filterwarnings("ignore:The gradient of the model")
def test_a_model_that_rounds_its_images_fails(tmp_path):
    found, battery = found_on(wrapped(straight(), before=Quantized()), tmp_path)
    assert failed(found) >= {"black_box", "unbounded", "gradients", "loss"}
    assert battery.around["zero"].all()
    assert found["gradients"].shares[0].hits == int(battery.right.sum())


def test_a_saturated_softmax_fails_and_a_confident_one_does_not(tmp_path):
    found, battery = found_on(straight(scale=1e5), tmp_path)
    assert failed(found) >= {"black_box", "unbounded", "gradients", "loss"}
    # The gradient of the margin is as good as ever.
    assert not battery.around["tiny"].any()
    # Where the cross-entropy is rounded to 0, from about 17 on, its gradient still has a direction.
    scale = 60 / np.abs(GAP + BIAS).max()
    gaps = scale * np.abs(GAP + BIAS)
    sure = gaps > 20
    assert sure.sum() > 20
    where = gradients.slopes(straight(scale=scale), IMAGES[sure], LABELS[sure], EPSILON)
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
    assert not np.any(entropy(LABELS[sure], straight(scale=scale)(IMAGES[sure])))
    assert not (where["zero"] | where["tiny"]).any()


def test_a_slope_below_the_last_bit_of_the_logits_is_no_slope():
    flat = linear(1e-9 * WEIGHTS, [1.0, 0.0])
    assert gradients.slopes(flat, IMAGES, LABELS, 0.01)["tiny"].all()
    assert not gradients.slopes(linear(1e-9 * WEIGHTS), IMAGES, LABELS, 0.01)["tiny"].any()


@pytest.mark.filterwarnings("ignore:The gradient of the model")
def test_gradients_that_are_not_finite_fail_and_nothing_follows_them(tmp_path):
    class Root(keras.layers.Layer):
        def call(self, x):
            return keras.ops.sqrt(keras.ops.square(x))

    images = IMAGES.copy()
    images[:30, 0, 0] = 0.0
    labels = np.asarray(straight()(images)).argmax(-1)
    found, battery = found_on(wrapped(straight(), before=Root()), tmp_path, images, labels)
    assert failed(found) == {"gradients"}
    assert battery.around["infinite"].sum() == 30
    reasons = {finding.reason for finding in found.values() if finding.verdict == UNMEASURED}
    assert reasons == {"gradients are not finite", ""}


def test_a_randomized_model_passes(tmp_path):
    found, battery = found_on(straight(noise=0.02), tmp_path)
    assert {name for name, finding in found.items() if finding.verdict == PASS} == {*CHECKS} - {"transfer"}
    assert [share.label for share in found["eot"].shares] == ["PGD-20", "PGD-20 EOT-4", "PGD-20 EOT-4 alone"]
    assert found["one_step"].shares[1] == found["eot"].shares[1]
    assert (battery.randomized, battery.draws) == (True, 4)
    # Asked again, PGD's images are not all what they were: the draws are others.
    white = battery.trials["white"]
    assert 0 < (white.again != white.fooled).sum() < 15


def test_a_randomized_model_that_misleads_averages_fails():
    model = wrapped(straight(), after=Misleading(seed=4))
    single, averaged = (
        Trial(attack.label, attack(model, IMAGES, LABELS, seed=1).wrong > 0.5)
        for attack in (PGD(epsilon=1.5 * EPSILON), PGD(epsilon=1.5 * EPSILON, draws=4))
    )
    assert single.share.hits > averaged.share.hits + 10
    assert rules.eot(single, averaged).verdict == FAIL


class Loud(NoiseLayer):
    """Noise on the logits."""

    def call(self, x):
        noise = keras.random.normal(keras.ops.shape(x), seed=self.seed_generator)
        return x + keras.ops.where(self.active, 3.0, 0.0) * noise


class Borrowed(keras.layers.Layer):
    """The logits of one model with the gradient of another."""

    def __init__(self, model, other):
        super().__init__()
        self.model, self.other = model, other

    def call(self, x):
        other = self.other(x)
        return keras.ops.stop_gradient(self.model(x) - other) + other


def test_noise_does_not_hide_borrowed_gradients_from_a_black_box(tmp_path):
    # The other model's gradient moves one row of pixels of four, and noise drowns what scores tell of the others.
    astray = np.zeros_like(WEIGHTS)
    astray[0] = WEIGHTS[0]
    images = keras.Input(IMAGES.shape[1:])
    model = keras.Model(images, Loud(seed=4)(Borrowed(straight(scale=6.0), linear(astray))(images)))
    found, battery = found_on(model, tmp_path, epsilon=3 * EPSILON, prediction_draws=50)
    assert found["black_box"].verdict == FAIL
    trials = battery.trials
    assert rules.black_box([trials["square"]], trials["white"]).verdict == PASS
    assert [share.label for share in found["black_box"].shares][3:] == [
        "Square-500 without noise", "Square-500 without noise alone",
    ]  # fmt: skip
    # The noise is as it was.
    assert is_randomized(model)
    # What the quiet search found is scored on the model as it is: not all falls that fell without noise.
    (_, rows, values), *_ = [done for done in battery.done if done[0] and done[0].quiet]
    assert 0 < values["wrong"].sum() < len(rows)
    np.testing.assert_array_equal(values["wrong"] > 0, values["prediction"] != battery.labels[rows])


def test_noise_is_on_again_whatever_happens():
    model = straight(noise=0.02)
    with pytest.raises(KeyboardInterrupt), without_noise(model):
        assert not is_randomized(model)
        raise KeyboardInterrupt
    assert is_randomized(model)


@pytest.mark.filterwarnings("ignore:The gradient of the model")
def test_attacks_on_a_model_without_gradients_stay_where_they_start():
    found = ATTACKS.parse("fgsm(epsilon=0.1)")(wrapped(straight(), before=Quantized()), IMAGES, LABELS)
    np.testing.assert_array_equal(found.adversarial, IMAGES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 9}, "`checks` should be 0 for none, or at least 10 images. Received: 9"),
        ({"epsilon": 0.0}, "`checks_epsilon` should be above 0. Received: 0"),
        ({"epsilon": 1.0}, "`checks_epsilon` should be above 0 and below 1. Received: 1"),
    ],
)
def test_bad_options_are_told(options, message):
    with pytest.raises(UserError, match=message):
        CheckOptions(**options)


def test_radii_end_with_everything():
    assert battery.ladder(0.25) == {"half": 0.125, "same": 0.25, "double": 0.5, "free": 1.0}
    assert list(battery.ladder(0.5)) == ["half", "same", "free"]
