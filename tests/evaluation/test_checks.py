"""The checks for gradient masking: their rules on hand-made arrays, and on models that mask gradients or do not."""

import bisect
import contextlib
import dataclasses
import math

import keras
import numpy as np
import pytest

from l2p_tf.attacks import ATTACKS
from l2p_tf.attacks.pgd import PGD
from l2p_tf.evaluation import battery, masking, probe
from l2p_tf.evaluation.inspections import CHECKED, Inspection, read_inspection, write_inspection
from l2p_tf.evaluation.masking import CHECKS, FAIL, NOT_NEEDED, PASS, UNMEASURED, Finding, Share, Trial
from l2p_tf.layers.noise import NoiseLayer, is_randomized, without_noise
from l2p_tf.types import UserError
from support.models import linear


def trial(fooled, of=100, first=0, label="a"):
    """An attack that fools so many of the images, from the `first` on."""
    array = np.zeros(of, bool)
    array[first : first + fooled] = True
    return Trial(label, array)


def tail(hits, count, share):
    """P(X >= hits) of a binomial."""

    def log_chance(k):
        ways = math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        return ways + k * math.log(share) + (count - k) * math.log1p(-share)

    return math.fsum(math.exp(log_chance(k)) for k in range(hits, count + 1))


# The rules.


def test_the_sign_test_counts_the_images_that_only_one_attack_fools():
    strong, weak = np.array([1, 1, 0, 0, 0, 1], bool), np.array([1, 0, 1, 1, 1, 0], bool)
    assert masking.outdone(strong, weak) == pytest.approx((math.comb(5, 3) + 5 + 1) / 2**5)
    assert masking.outdone(weak, strong) == pytest.approx(1 - (5 + 1) / 2**5)
    assert masking.outdone(strong, strong) == 1.0


@pytest.mark.parametrize(("rule", "name"), [(masking.one_step, "one_step"), (masking.eot, "eot")])
def test_what_should_be_weaker_must_lead_beyond_chance_to_fail(rule, name):
    # Of the images that only one of them fools, the weaker has 6 of 6 and 7 of 7: 1/64 and 1/128.
    found = rule(trial(36), trial(30))
    assert (found.check, found.verdict, found.p) == (name, PASS, 1 / 64)
    found = rule(trial(37), trial(30))
    assert (found.verdict, found.p) == (FAIL, 1 / 128)
    assert [(share.hits, share.count) for share in found.shares][:2] == [(37, 100), (30, 100)]
    # As many more, but the stronger has images of its own too: 17 of 27.
    assert rule(trial(37), trial(30, first=20)).verdict == PASS
    assert rule(trial(30), trial(37)).p == 1.0


def test_what_averages_alone_find_is_told_and_fails_none():
    found = masking.eot(trial(20, label="single"), trial(70, first=10, label="averaged"))
    assert found.verdict == PASS
    assert [(share.label, share.hits) for share in found.shares] == [
        ("single", 20), ("averaged", 70), ("averaged alone", 60),
    ]  # fmt: skip
    assert "fool many more is no sign against the model" in CHECKS["eot"].expects


def test_a_black_box_must_not_win():
    # 8 of 8 alone; two tests share the level, and the sign test is the sharper.
    found = masking.black_box([trial(38)], trial(30))
    assert (found.verdict, found.p) == (FAIL, 2 / 2**8)
    assert [share.hits for share in found.shares] == [30, 38, 8]
    assert masking.black_box([trial(37)], trial(30)).verdict == PASS


def test_a_black_box_must_not_have_many_images_to_itself():
    # 40 of 1,000 alone are fewer than the 5% that two attacks may differ by, 60 are not, though PGD fools more in all.
    # What is above 5% by chance alone fails none: 70 of 1,000 are, one time in 290.
    for alone, verdict in ((40, PASS), (60, PASS), (69, PASS), (70, FAIL)):
        found = masking.black_box([trial(alone, 1000, first=500)], trial(500, 1000))
        assert found.verdict == verdict
        assert found.p == pytest.approx(min(1, 2 * tail(alone, 1000, 0.05)))


@pytest.mark.parametrize("count", [100, 300, 1000, 3000])
@pytest.mark.parametrize(("check", "tests"), [("black_box", 2), ("random_search", 1)])
def test_a_model_at_the_edge_fails_no_more_often_than_the_level(check, tests, count):
    """A blind attack that has just the allowed share to itself, each image by chance: the least number that fails."""
    rule, edge = getattr(masking, check), {"black_box": masking.SPARED, "random_search": masking.FOUND_BLINDLY}[check]
    white = trial(count // 2, count)

    def verdict(alone):
        blind = trial(alone, count, first=count // 2)
        return (rule([blind], white) if check == "black_box" else rule(blind, white)).verdict

    least = bisect.bisect_left(range(count // 2), True, key=lambda alone: verdict(alone) == FAIL)
    assert tail(least, count, edge) <= masking.LEVEL / tests < tail(least - 1, count, edge)


@pytest.mark.parametrize(("allowed", "chance"), [(0.05, 0.0), (0.05, 0.03), (0.05, 0.15), (0.01, 0.1)])
def test_with_chance_on_both_sides_the_edge_holds_too(allowed, chance):
    """All pairs of counts of 60 images: the first alone with `chance + allowed`, the second alone with `chance`."""
    count, failing = 60, 0.0
    for other in range(count + 1):
        tests = range(other, count - other + 1)
        least = bisect.bisect_left(tests, True, key=lambda only: masking.excess(only, other, count, allowed) <= 0.01)
        for only in tests[least:]:
            ways = math.comb(count, other) * math.comb(count - other, only)
            rest = 1 - 2 * chance - allowed
            failing += ways * chance**other * (chance + allowed) ** only * rest ** (count - other - only)
    assert failing <= masking.LEVEL


def test_a_lead_over_chance_is_weighed_as_by_hand():
    # None of ten fell by chance. That the second's share is above 1 - 0.001**(1/10) then has a chance of 0.001.
    highest = 1 - 0.001**0.1
    shares = np.linspace(0, min(highest, 0.45), 17)
    for only in (3, 6):
        by_hand = [
            sum(
                math.comb(10, o) * math.comb(10 - o, k) * p**o * (p + 0.1) ** k * (1 - 2 * p - 0.1) ** (10 - o - k)
                for o in range(11)
                for k in range(o + only, 11 - o)
            )
            for p in shares
        ]
        assert masking.excess(only, 0, 10, 0.1) == pytest.approx(0.001 + max(by_hand))
    assert masking.excess(1, 0, 10, 0.1) == 1.0
    # Far more than chance: as 30 of 100 against 2.
    assert masking.excess(30, 2, 100, 0.05) < 0.01


def test_what_stood_by_luck_is_not_held_against_a_randomized_model():
    # PGD's own images fool 60 of those left when asked again: the black box, with 60 too, has found nothing.
    white = trial(500, 1000)
    white = dataclasses.replace(white, randomized=True, again=white.fooled | trial(60, 1000, first=520).fooled)
    assert masking.black_box([trial(60, 1000, first=500)], white).verdict == PASS
    # Where nobody asked again, only who fools more is told.
    assert masking.black_box([trial(60, 1000, first=500)], dataclasses.replace(white, again=None)).p == 1.0


def test_each_of_several_sources_is_judged_at_its_part_of_the_level():
    found = masking.black_box([trial(10, label="from b"), trial(38, label="from c")], trial(30), "transfer")
    assert (found.check, found.verdict) == ("transfer", PASS)
    assert found.p == pytest.approx(4 / 2**8)
    labels = [share.label for share in found.shares]
    assert labels == ["a", "from b", "from b alone", "from c", "from c alone"]
    assert masking.black_box([trial(10), trial(39)], trial(30), "transfer").verdict == FAIL


def test_random_points_must_find_nothing():
    for alone, verdict in ((4, PASS), (5, FAIL)):
        found = masking.random_search(trial(alone, first=60), trial(50))
        assert found.verdict == verdict
        assert found.p == pytest.approx(tail(alone, 100, 0.01))
        assert [(share.hits, share.count) for share in found.shares] == [(alone, 50)]
    # The images that PGD fooled too are nothing that it missed.
    assert masking.random_search(trial(50), trial(50)).p == 1.0
    # 11 of 1,000 are more than 1%, as chance has it.
    assert masking.random_search(trial(11, 1000, first=600), trial(500, 1000)).verdict == PASS
    assert masking.random_search(trial(19, 1000, first=600), trial(500, 1000)).verdict == FAIL


def test_with_nothing_left_random_points_have_nothing_to_find():
    found = masking.random_search(trial(0), trial(100))
    assert (found.verdict, found.shares[0].count, found.shares[0].value) == (PASS, 0, 0.0)


def test_an_unbounded_attack_must_reach_nearly_all():
    for left, verdict in ((11, PASS), (12, FAIL)):
        found = masking.unbounded(trial(100 - left))
        assert found.verdict == verdict
        assert found.p == pytest.approx(tail(left, 100, 0.05))


def test_success_must_grow_with_the_budget():
    assert masking.budget([trial(5), trial(30), trial(100)]).verdict == PASS
    # Falls from one rung to the next.
    found = masking.budget([trial(5), trial(40), trial(30), trial(100)])
    assert found.verdict == FAIL
    assert found.p == pytest.approx(4 / 2**10)
    # Never rises, with many left.
    assert masking.budget([trial(30), trial(32), trial(33)]).verdict == FAIL
    # Never rises, as all have fallen at once.
    assert masking.budget([trial(98), trial(99), trial(99)]).verdict == PASS
    # Rises, though not to the end: that is for the unbounded attack.
    assert masking.budget([trial(30), trial(60)]).verdict == PASS


def test_the_loss_must_rise_along_the_gradient():
    up, random = np.ones(100), np.full(100, 0.5)
    assert masking.loss(up, up, random).verdict == PASS
    for fails in (
        (np.zeros(100), up, random),
        (up, random, up),
        (up, random, random),
        (np.full(100, np.nan), up, random),
    ):
        found = masking.loss(*fails)
        assert found.verdict == FAIL
        assert min(share.hits for share in found.shares) == 0
    most = np.where(np.arange(100) < 66, 1.0, -1.0)
    assert masking.loss(most, up, random).p == pytest.approx(2 * (1 - tail(67, 100, 0.75)))


def test_few_images_may_be_without_a_gradient():
    for lost, verdict in ((4, PASS), (5, FAIL)):
        found = masking.gradients(trial(lost).fooled)
        assert found.verdict == verdict
        assert found.p == pytest.approx(tail(lost, 100, 0.01))


@pytest.mark.parametrize("count", [0, 9])
def test_few_images_decide_nothing(count):
    one = trial(count, count)
    for found in (
        masking.one_step(one, trial(0, count)), masking.black_box([one], trial(0, count)), masking.unbounded(one),
        masking.random_search(one, trial(0, count)), masking.budget([one, trial(0, count)]),
        masking.gradients(one.fooled), masking.loss(*np.zeros((3, count))),
    ):  # fmt: skip
        assert (found.verdict, found.p) == (UNMEASURED, None)
        assert found.reason == f"only {count} images that the model gets right"


def test_shares_have_intervals():
    assert Share("x", 10, 40).value == 0.25
    assert Share("x", 10, 40).interval == pytest.approx((0.14187, 0.40194), abs=1e-5)
    assert Share("x", 0, 0).interval == (0.0, 1.0)


# Models.


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
    options = battery.CheckOptions(count=len(images), epsilon=epsilon, seed=3, **how)
    one = battery.Battery(model, options, images, labels, folder)
    return {finding.check: finding for finding in one.run()}, one


def failed(findings):
    return {name for name, finding in findings.items() if finding.verdict == FAIL}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return found_on(straight(), tmp_path_factory.mktemp("sound"))


def test_a_linear_model_passes_with_the_figures_of_the_closed_form(sound):
    found, _ = sound
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
    _, battery = sound
    around = battery.around
    np.testing.assert_allclose(around["stepped"], 0.1 * EPSILON * SLOPE, rtol=1e-3)
    assert not (around["zero"] | around["tiny"] | around["infinite"]).any()
    # PGD leaves an image as soon as it has fallen; where none falls it goes to the corner of the ball.
    stood = RADII > EPSILON
    np.testing.assert_allclose(around["attacked"][stood], EPSILON * SLOPE, rtol=1e-3)
    assert (around["strayed"] < around["stepped"]).all()


def test_another_radius_needs_no_new_trace(sound, tmp_path):
    _, battery = sound
    model = battery.model
    programs = vars(model)["_l2p_compiled"]
    before = len(programs)
    found_on(model, tmp_path, epsilon=0.9 * EPSILON)
    assert len(programs) == before
    assert all(program.traces == 1 for program in programs.values())


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
    where = probe.slopes(straight(scale=scale), IMAGES[sure], LABELS[sure], EPSILON)
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
    assert not np.any(entropy(LABELS[sure], straight(scale=scale)(IMAGES[sure])))
    assert not (where["zero"] | where["tiny"]).any()


def test_a_slope_below_the_last_bit_of_the_logits_is_no_slope():
    flat = linear(1e-9 * WEIGHTS, [1.0, 0.0])
    assert probe.slopes(flat, IMAGES, LABELS, 0.01)["tiny"].all()
    assert not probe.slopes(linear(1e-9 * WEIGHTS), IMAGES, LABELS, 0.01)["tiny"].any()


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
    assert masking.eot(single, averaged).verdict == FAIL


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
    assert masking.black_box([trials["square"]], trials["white"]).verdict == PASS
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


def test_lines_of_progress_tell_attacks_apart(tmp_path, monkeypatch):
    told = []

    def bar(line, total, unit):
        told.append(line)
        return contextlib.nullcontext(lambda *a, **k: None)

    monkeypatch.setattr(battery, "bar", bar)
    found_on(straight(), tmp_path)
    assert told[0] == "model: checks, clean"
    assert f"model: checks, PGD-20, ε {EPSILON:.4g}" in told
    assert len(set(told)) == len(told)


# What attacks do without a gradient.


def test_attacks_on_a_model_without_gradients_stay_where_they_start():
    found = ATTACKS.parse("fgsm(epsilon=0.1)")(wrapped(straight(), before=Quantized()), IMAGES, LABELS)
    np.testing.assert_array_equal(found.adversarial, IMAGES)


# Options and records.


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
        battery.CheckOptions(**options)


def test_radii_end_with_everything():
    assert battery.ladder(0.25) == {"half": 0.125, "same": 0.25, "double": 0.5, "free": 1.0}
    assert list(battery.ladder(0.5)) == ["half", "same", "free"]


@pytest.fixture
def inspection():
    findings = [Finding("one_step", FAIL, (Share("FGSM", 9, 10), Share("PGD-20", 1, 10)), 0.001)]
    findings += [masking.unmeasured("eot", "why")]
    return Inspection("a", "digits", "test", "linf", 0.1, False, 1, 1, 5, 12, 10, 1.5, tuple(findings))


def test_inspections_are_read_as_they_were_written(inspection, tmp_path):
    write_inspection(tmp_path, inspection)
    assert read_inspection(tmp_path) == inspection


@pytest.mark.parametrize(
    "change",
    [
        ("one_step", "two_step"), ('"fail"', '"so so"'), ('"count"', '"number"'), ("{", ""),
        ('"hits": 9', '"hits": 90'),
        ('"hits": 9', '"hits": -1'), ('"hits": 9', '"hits": "9"'), ('"hits": 9', '"hits": true'),
        ('"hits": 9', '"hits": 9.0'), ('"p": 0.001', '"p": 7'), ('"p": 0.001', '"p": NaN'),
        ('"p": 0.001', '"p": "0.001"'),
        ('"label": "FGSM"', '"label": 3'), ('"reason": "why"', '"reason": ["why"]'), ('"correct": 10', '"correct": 13'),
        ('"seed": 5', '"seed": null'), ('"randomized": false', '"randomized": 0'), ('"eot"', '"one_step"'),
        ('"epsilon": 0.1', '"epsilon": "8/255"'),
    ],
)  # fmt: skip
def test_damaged_inspections_are_told(inspection, tmp_path, change):
    write_inspection(tmp_path, inspection)
    file = tmp_path / CHECKED
    written = file.read_text("utf-8")
    assert change[0] in written
    file.write_text(written.replace(*change, 1), "utf-8")
    with pytest.raises(UserError, match=r"checks\.json' should hold the results of a checks stage"):
        read_inspection(tmp_path)
