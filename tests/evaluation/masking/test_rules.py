"""The rules of the checks for gradient masking, on hand-made arrays."""

import bisect
import dataclasses
import math

import numpy as np
import pytest

from l2p_tf.evaluation.masking import rules
from l2p_tf.evaluation.masking.record import FAIL, PASS, UNMEASURED, Share
from l2p_tf.evaluation.masking.rules import CHECKS, Trial


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


def test_the_sign_test_counts_the_images_that_only_one_attack_fools():
    strong, weak = np.array([1, 1, 0, 0, 0, 1], bool), np.array([1, 0, 1, 1, 1, 0], bool)
    assert rules.outdone(strong, weak) == pytest.approx((math.comb(5, 3) + 5 + 1) / 2**5)
    assert rules.outdone(weak, strong) == pytest.approx(1 - (5 + 1) / 2**5)
    assert rules.outdone(strong, strong) == 1.0


@pytest.mark.parametrize(("rule", "name"), [(rules.one_step, "one_step"), (rules.eot, "eot")])
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
    found = rules.eot(trial(20, label="single"), trial(70, first=10, label="averaged"))
    assert found.verdict == PASS
    assert [(share.label, share.hits) for share in found.shares] == [
        ("single", 20), ("averaged", 70), ("averaged alone", 60),
    ]  # fmt: skip
    assert "fool many more is no sign against the model" in CHECKS["eot"].expects


def test_a_black_box_must_not_win():
    # 8 of 8 alone; two tests share the level, and the sign test is the sharper.
    found = rules.black_box([trial(38)], trial(30))
    assert (found.verdict, found.p) == (FAIL, 2 / 2**8)
    assert [share.hits for share in found.shares] == [30, 38, 8]
    assert rules.black_box([trial(37)], trial(30)).verdict == PASS


def test_a_black_box_must_not_have_many_images_to_itself():
    # 40 of 1,000 alone are fewer than the 5% that two attacks may differ by, 60 are not, though PGD fools more in all.
    # What is above 5% by chance alone fails none: 70 of 1,000 are, one time in 290.
    for alone, verdict in ((40, PASS), (60, PASS), (69, PASS), (70, FAIL)):
        found = rules.black_box([trial(alone, 1000, first=500)], trial(500, 1000))
        assert found.verdict == verdict
        assert found.p == pytest.approx(min(1, 2 * tail(alone, 1000, 0.05)))


@pytest.mark.parametrize("count", [100, 300, 1000, 3000])
@pytest.mark.parametrize(("check", "tests"), [("black_box", 2), ("random_search", 1)])
def test_a_model_at_the_edge_fails_no_more_often_than_the_level(check, tests, count):
    """A blind attack that has just the allowed share to itself, each image by chance: the least number that fails."""
    rule, edge = getattr(rules, check), {"black_box": rules.SPARED, "random_search": rules.FOUND_BLINDLY}[check]
    white = trial(count // 2, count)

    def verdict(alone):
        blind = trial(alone, count, first=count // 2)
        return (rule([blind], white) if check == "black_box" else rule(blind, white)).verdict

    least = bisect.bisect_left(range(count // 2), True, key=lambda alone: verdict(alone) == FAIL)
    assert tail(least, count, edge) <= rules.LEVEL / tests < tail(least - 1, count, edge)


@pytest.mark.parametrize(("allowed", "chance"), [(0.05, 0.0), (0.05, 0.03), (0.05, 0.15), (0.01, 0.1)])
def test_with_chance_on_both_sides_the_edge_holds_too(allowed, chance):
    """All pairs of counts of 60 images: the first alone with `chance + allowed`, the second alone with `chance`."""
    count, failing = 60, 0.0
    for other in range(count + 1):
        tests = range(other, count - other + 1)
        least = bisect.bisect_left(tests, True, key=lambda only: rules.excess(only, other, count, allowed) <= 0.01)
        for only in tests[least:]:
            ways = math.comb(count, other) * math.comb(count - other, only)
            rest = 1 - 2 * chance - allowed
            failing += ways * chance**other * (chance + allowed) ** only * rest ** (count - other - only)
    assert failing <= rules.LEVEL


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
        assert rules.excess(only, 0, 10, 0.1) == pytest.approx(0.001 + max(by_hand))
    assert rules.excess(1, 0, 10, 0.1) == 1.0
    # Far more than chance: as 30 of 100 against 2.
    assert rules.excess(30, 2, 100, 0.05) < 0.01


def test_what_stood_by_luck_is_not_held_against_a_randomized_model():
    # PGD's own images fool 60 of those left when asked again: the black box, with 60 too, has found nothing.
    white = trial(500, 1000)
    white = dataclasses.replace(white, randomized=True, again=white.fooled | trial(60, 1000, first=520).fooled)
    assert rules.black_box([trial(60, 1000, first=500)], white).verdict == PASS
    # Where nobody asked again, only who fools more is told.
    assert rules.black_box([trial(60, 1000, first=500)], dataclasses.replace(white, again=None)).p == 1.0


def test_each_of_several_sources_is_judged_at_its_part_of_the_level():
    found = rules.black_box([trial(10, label="from b"), trial(38, label="from c")], trial(30), "transfer")
    assert (found.check, found.verdict) == ("transfer", PASS)
    assert found.p == pytest.approx(4 / 2**8)
    labels = [share.label for share in found.shares]
    assert labels == ["a", "from b", "from b alone", "from c", "from c alone"]
    assert rules.black_box([trial(10), trial(39)], trial(30), "transfer").verdict == FAIL


@pytest.mark.parametrize(
    ("check", "most", "share"), [("random_search", 4, 0.01), ("unbounded", 11, 0.05), ("gradients", 4, 0.01)]
)
def test_a_share_of_the_images_may_be_bad_and_chance_explains_some_more(check, most, share):
    def finding(bad):
        if check == "random_search":
            return rules.random_search(trial(bad, first=60), trial(50))
        return rules.unbounded(trial(100 - bad)) if check == "unbounded" else rules.gradients(trial(bad).fooled)

    assert [finding(bad).verdict for bad in (most, most + 1)] == [PASS, FAIL]
    assert [finding(bad).p for bad in (most, most + 1)] == pytest.approx(
        [tail(most, 100, share), tail(most + 1, 100, share)]
    )


def test_random_points_are_counted_of_what_was_left():
    assert [(share.hits, share.count) for share in rules.random_search(trial(4, first=60), trial(50)).shares] == [
        (4, 50)
    ]
    # The images that PGD fooled too are nothing that it missed.
    assert rules.random_search(trial(50), trial(50)).p == 1.0
    # 11 of 1,000 are more than 1%, as chance has it.
    assert rules.random_search(trial(11, 1000, first=600), trial(500, 1000)).verdict == PASS
    assert rules.random_search(trial(19, 1000, first=600), trial(500, 1000)).verdict == FAIL
    # Nothing is left.
    nothing = rules.random_search(trial(0), trial(100))
    assert (nothing.verdict, nothing.shares[0].count, nothing.shares[0].value) == (PASS, 0, 0.0)


def test_success_must_grow_with_the_budget():
    assert rules.budget([trial(5), trial(30), trial(100)]).verdict == PASS
    # Falls from one rung to the next.
    found = rules.budget([trial(5), trial(40), trial(30), trial(100)])
    assert found.verdict == FAIL
    assert found.p == pytest.approx(4 / 2**10)
    # Never rises, with many left.
    assert rules.budget([trial(30), trial(32), trial(33)]).verdict == FAIL
    # Never rises, as all have fallen at once.
    assert rules.budget([trial(98), trial(99), trial(99)]).verdict == PASS
    # Rises, though not to the end: that is for the unbounded attack.
    assert rules.budget([trial(30), trial(60)]).verdict == PASS


def test_the_loss_must_rise_along_the_gradient():
    up, random = np.ones(100), np.full(100, 0.5)
    assert rules.loss(up, up, random).verdict == PASS
    for fails in (
        (np.zeros(100), up, random),
        (up, random, up),
        (up, random, random),
        (np.full(100, np.nan), up, random),
    ):
        found = rules.loss(*fails)
        assert found.verdict == FAIL
        assert min(share.hits for share in found.shares) == 0
    most = np.where(np.arange(100) < 66, 1.0, -1.0)
    assert rules.loss(most, up, random).p == pytest.approx(2 * (1 - tail(67, 100, 0.75)))


@pytest.mark.parametrize("count", [0, 9])
def test_few_images_decide_nothing(count):
    one = trial(count, count)
    for found in (
        rules.one_step(one, trial(0, count)), rules.black_box([one], trial(0, count)), rules.unbounded(one),
        rules.random_search(one, trial(0, count)), rules.budget([one, trial(0, count)]),
        rules.gradients(one.fooled), rules.loss(*np.zeros((3, count))),
    ):  # fmt: skip
        assert (found.verdict, found.p) == (UNMEASURED, None)
        assert found.reason == f"only {count} images that the model gets right"


def test_shares_have_intervals():
    assert Share("x", 10, 40).value == 0.25
    assert Share("x", 10, 40).interval == pytest.approx((0.14187, 0.40194), abs=1e-5)
    assert Share("x", 0, 0).interval == (0.0, 1.0)
