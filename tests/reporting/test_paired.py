"""Runs compared in pairs: the statistics, the tables, and what the summary makes of them."""

import dataclasses
import itertools
import time

import numpy as np
import pytest
from scipy import stats

from l2p_tf import artifacts
from l2p_tf.reporting.pairs import LEVEL, pairs_of
from l2p_tf.reporting.stats import difference_interval, holm, mcnemar, sign_flip
from l2p_tf.reporting.summary import key_figures, paragraphs
from support.judged import PGD, judged
from support.reports import (
    ATTACKS,
    make_data,
    make_stage,
    make_train,
    of_correct,
    records_of,
    results_of,
    rows_of,
    section_of,
    texts_of,
)  # fmt: skip

MINUS = "\N{MINUS SIGN}"


def groups(root):
    return pairs_of(results_of(root)).groups


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),  # 2 of 2 ways.
        (5, 0, 2 / 32),
        (1, 5, 2 * (1 + 6) / 64),
        (3, 3, 1.0),
        (8, 2, 2 * (1 + 10 + 45) / 1024),
    ],
)
def test_mcnemars_test_is_that_counted_by_hand(first, second, p):
    assert mcnemar(first, second) == pytest.approx(p, rel=1e-12)
    assert mcnemar(second, first) == pytest.approx(p, rel=1e-12)
    differences = [1] * first + [-1] * second + [0] * 7
    assert sign_flip(differences) == pytest.approx(p, rel=1e-12)
    assert sign_flip([7 * value for value in differences]) == pytest.approx(p, rel=1e-12)


def test_mcnemars_test_agrees_with_the_binomial_test_for_many_counts_at_once():
    first, second = np.meshgrid(np.arange(0, 60, 7), np.arange(1, 300, 31))
    wanted = [stats.binomtest(int(a), int(a + b)).pvalue for a, b in zip(first.flat, second.flat, strict=True)]
    np.testing.assert_allclose(mcnemar(first, second).ravel(), wanted, rtol=1e-10)


def test_the_sign_flip_test_counts_all_ways_to_set_the_signs():
    rng = np.random.default_rng(3)
    for _ in range(20):
        differences = rng.integers(-3, 5, 9)
        signs = np.array(list(itertools.product((-1, 1), repeat=9)))
        wanted = np.mean(np.abs(signs @ np.abs(differences)) >= abs(differences.sum()))
        assert sign_flip(differences) == pytest.approx(wanted, abs=1e-12)
        assert sign_flip(-differences) == pytest.approx(wanted, abs=1e-12)


def test_the_sign_flip_test_of_many_images_is_near_the_normal_one_and_never_0():
    differences = np.random.default_rng(0).integers(-3, 4, 3000)
    differences[:60] = 3
    z = abs(differences.sum()) / np.sqrt((differences**2).sum())
    assert sign_flip(differences) == pytest.approx(2 * stats.norm.sf(z), rel=0.05)
    assert 0 < sign_flip(np.arange(1, 200)) < 1e-12
    assert sign_flip(np.zeros(9)) == 1


def test_the_test_claims_too_much_no_more_often_than_it_says():
    """Two runs alike, three draws each: of 1,000 comparisons about one in twenty or fewer is called a difference."""
    rng = np.random.default_rng(2)
    chances = rng.beta(0.4, 0.4, (1000, 100))
    a, b = (rng.binomial(3, chances) for _ in range(2))
    assert np.mean([sign_flip(one) < LEVEL for one in a - b]) < 0.065


def test_holm_corrects_as_by_hand():
    # Sorted: 0.01 x 4, 0.02 x 3, 0.03 x 2, 0.04 x 1, and none below one before it.
    np.testing.assert_allclose(holm([0.04, 0.01, 0.03, 0.02]), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.9, 0.8, 0.001]), [1.0, 1.0, 0.003])
    assert holm([0.2]) == [0.2]


def test_the_interval_of_a_difference_is_newcombes():
    def interval(both, first, second, none):
        a = np.repeat([1.0, 1, 0, 0], [both, first, second, none])
        b = np.repeat([1.0, 0, 1, 0], [both, first, second, none])
        return difference_interval(a.mean(), b.mean(), np.mean(a * b) - a.mean() * b.mean(), len(a))

    # Airway responsiveness before and after a transplantation, as printed for method 10 in textbooks of these tables.
    np.testing.assert_allclose(interval(1, 1, 7, 12), [-0.507, -0.026], atol=5e-4)
    # The other way round it is mirrored, and where the two never differ it has a width all the same.
    np.testing.assert_allclose(interval(1, 7, 1, 12), [0.026, 0.507], atol=5e-4)
    low, high = interval(200, 0, 0, 200)
    assert (low, high) == (pytest.approx(-high), pytest.approx(-low))
    assert 0.002 < high < 0.01
    # Independent answers: the usual interval of two unpaired shares.
    low, high = difference_interval(0.6, 0.5, 0.0, 1000)
    assert (low, high) == (pytest.approx(0.0565, abs=1e-3), pytest.approx(0.143, abs=1e-3))
    assert difference_interval(1.0, 1.0, 0.0, 50)[1] < 0.1


def test_the_interval_covers_the_truth():
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        kind = rng.choice(4, 200, p=[0.5, 0.2, 0.1, 0.2])
        a, b = np.isin(kind, (0, 1)).astype(float), np.isin(kind, (0, 2)).astype(float)
        low, high = difference_interval(a.mean(), b.mean(), np.mean(a * b) - a.mean() * b.mean(), 200)
        held += low <= 0.1 <= high
    assert 0.92 < held / 400 < 0.99


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Four hundred images: a and b differ on 60, ten points apart; c is as good as b on other images."""
    root = tmp_path_factory.mktemp("paired") / "runs"
    data = make_data(root)
    right, b = np.arange(400) < 398, np.arange(400) < 200
    a = b.copy()
    a[200:250], a[:10] = True, False
    for name, correct in (("b", b), ("a", a), ("c", np.roll(b, 6))):
        judged(root, data, name, [right], [[correct]])
    return root


def test_ten_points_on_four_hundred_images_are_found_and_a_shift_is_not(three):
    clean, pgd = groups(three)
    assert {(pair.corrected, pair.better) for pair in clean.pairs} == {(1.0, False)}
    assert [member.name for member in pgd.members] == ["a", "b", "c"]
    pairs = {(pair.first.name, pair.second.name): pair for pair in pgd.pairs}
    assert pairs["a", "b"].difference == pytest.approx(0.1)
    assert pairs["a", "b"].p == pytest.approx(stats.binomtest(10, 60).pvalue)
    assert pairs["a", "b"].better
    assert pairs["a", "b"].low > 0
    assert (pairs["b", "c"].difference, pairs["b", "c"].p, pairs["b", "c"].better) == (0, 1.0, False)
    assert pairs["b", "c"].low < 0 < pairs["b", "c"].high
    # a and c differ on 44 and 4 images. The smallest of three p-values counts threefold, the next one twice.
    assert pairs["a", "c"].corrected == pytest.approx(3 * stats.binomtest(4, 48).pvalue)
    assert pairs["a", "b"].corrected == pytest.approx(2 * pairs["a", "b"].p)
    assert dataclasses.replace(pairs["a", "b"], corrected=LEVEL).better is False


def test_identical_models_are_never_told_apart(tmp_path):
    data = make_data(tmp_path)
    correct = np.random.default_rng(0).random(200) < 0.4
    for name in ("a", "b"):
        judged(tmp_path, data, name, [correct], [[correct]])
    pairs = [pair for group in groups(tmp_path) for pair in group.pairs]
    assert [(pair.p, pair.difference, pair.better) for pair in pairs] == [(1.0, 0.0, False)] * 2


def test_repeats_are_averaged_over_before_the_test(tmp_path):
    data = make_data(tmp_path)
    rng = np.random.default_rng(5)
    plain, noisy = rng.random(40) < 0.7, rng.random((3, 40)) < 0.5
    judged(tmp_path, data, "plain", [plain], [[plain]])
    judged(tmp_path, data, "noisy", noisy, [noisy], randomized=True)
    (pair,) = groups(tmp_path)[1].pairs
    differences = 3 * plain.astype(int) - noisy.sum(0)
    assert pair.difference == pytest.approx(differences.mean() / 3)
    draws = np.random.default_rng(0).choice((-1, 1), (40_000, 40))
    simulated = np.mean(np.abs(draws @ differences) >= abs(differences.sum()))
    assert pair.p == pytest.approx(simulated, abs=0.006)


def test_repeats_of_one_answer_are_a_single_evaluation(tmp_path):
    data = make_data(tmp_path)
    a, b = np.arange(50) < 30, np.arange(50) < 20
    judged(tmp_path, data, "once", [a], [[a]])
    judged(tmp_path, data, "thrice", [b] * 3, [[b] * 3])
    assert groups(tmp_path)[1].pairs[0].p == pytest.approx(2 / 2**10)


@pytest.mark.parametrize("other", ["index", "count", "data", "split", "attack", "weights"])
def test_runs_on_other_images_are_not_compared(tmp_path, other):
    data = make_data(tmp_path)
    right = np.arange(60) < 40
    judged(tmp_path, data, "a", [right], [[right]])
    if other == "data":
        data = make_data(tmp_path / "other", names=list("abcdefghij"))
    if other == "count":
        right = right[:50]
    attacks = (ATTACKS[1],) if other == "attack" else (PGD,)
    index = np.arange(len(right)) + 1 if other == "index" else None
    if other == "weights":
        train = make_train(tmp_path, data, "b", history=False)
        arrays = [of_correct(right), of_correct(right)]
        records = records_of("b", (ATTACKS[0], PGD), arrays)
        make_stage(tmp_path / "attack_b", "attack", {"train": train, "data": data}, records, arrays, checkpoint="last")
    else:
        fields = {"split": "validation"} if other == "split" else {}
        judged(tmp_path, data, "b", [right], [[right]], attacks, index, **fields)
    results = results_of(tmp_path)
    pairs = pairs_of(results)
    assert [group.row.attack for group in pairs.groups] == ["clean"] * (other == "attack")
    apart = [note.endswith("which are not the same for all of: a and b.") for note in pairs.notes]
    assert apart == [True] * (other in ("index", "count", "data"))
    assert "better than" not in " ".join(paragraphs(results))


def test_the_same_test_images_count_as_such_whatever_split_the_rest(tmp_path):
    right = np.arange(60) < 40
    for seed in (1, 2):
        root = tmp_path / str(seed)
        files = {"info.json": "{}", "test_images.npy": "same", "train_images.npy": str(seed)}
        with artifacts.produce(root / "data", "data", {"seed": seed}) as work:
            for name, content in files.items():
                (work.path / name).write_text(content)
        judged(root, artifacts.read(root / "data"), f"run{seed}", [right], [[right]])
    assert len(groups(tmp_path)) == 2


def test_results_without_arrays_are_said_to_be_missing(tmp_path):
    data = make_data(tmp_path)
    for name in ("a", "b"):
        train = make_train(tmp_path, data, name)
        records = records_of(name, (ATTACKS[0], PGD), [of_correct([1] * 20)] * 2)
        make_stage(tmp_path / f"attack_{name}", "attack", {"train": train, "data": data}, records)
    assert section_of(tmp_path, "paired").note == (
        "Not compared in pairs, as their results per image are not at hand: a and b."
    )


def test_the_summary_says_better_by_the_test_where_intervals_overlap(three, tmp_path):
    results = results_of(three)
    (paragraph,) = paragraphs(results)
    assert "under it a is best (60.0%), significantly better than b and c (paired test on the same" in paragraph
    figures = {figure.label: figure.note for figure in key_figures(results)}
    # On clean images all are alike.
    assert figures["Highest on clean images"].count("no significant difference from") == 1
    assert "no significant" not in figures["Highest under PGD-7"]
    # Fifteen images of 300 that only one gets right: intervals overlap, and yet it is better.
    data = make_data(tmp_path)
    for name, count in (("a", 165), ("b", 150)):
        judged(tmp_path, data, name, [np.ones(300)], [[np.arange(300) < count]])
    low, high = sorted(rows_of(section_of(tmp_path, "comparison"), "accuracy", "low", "high")[1::2])
    assert low[2] > high[1]
    assert "a is best (55.0%), significantly better than b (paired test" in paragraphs(results_of(tmp_path))[0]


def test_the_summary_names_those_it_cannot_tell_apart(tmp_path):
    data = make_data(tmp_path)
    for name, count in (("low", 100), ("good", 200), ("same", 201)):
        judged(tmp_path, data, name, [np.ones(400)], [[np.arange(400) < count]])
    assert (
        "under it same is best (50.2%), significantly better than low, with no significant difference from good "
        "(paired test on the same images)."
    ) in paragraphs(results_of(tmp_path))[0]


def test_the_table_is_a_matrix_below_the_diagonal(three):
    section = section_of(three, "paired")
    pgd = section.tables[1]
    assert [column.label for column in pgd.columns] == ["Run", "Accuracy", "a", "b"]
    assert [[cell.text for cell in row] for row in pgd.rows] == [
        ["a", "60.0", "", ""], ["b", "50.0", "+10.0", ""], ["c", "50.0", "+10.0", "+0.0"],
    ]  # fmt: skip
    better, level = pgd.rows[1][2], pgd.rows[2][3]
    assert (better.below[1:], better.tone) == (("p < 0.001", "better"), "good")
    assert (level.below[1:], level.tone) == (("p = 1", "no significant difference"), "unknown")
    assert level.below[0].startswith(MINUS)
    assert "n = 400" in pgd.caption
    figures = {row[:2]: row[2:] for row in rows_of(section, "first", "second", "attack", "difference", "better")[3:]}
    assert figures["a", "b"] == (PGD[0], 10, "a")
    assert rows_of(section, "better")[:3] == [None] * 3


@pytest.mark.parametrize(("runs", "columns", "opened"), [(6, 7, None), (7, 3, 1)])
def test_more_than_six_runs_are_set_beside_the_highest(tmp_path, runs, columns, opened):
    data = make_data(tmp_path)
    for i in range(runs):
        judged(tmp_path, data, f"run{i:02d}", [np.ones(50)], [[np.arange(50) < 20 + i]])
    section = section_of(tmp_path, "paired")
    assert (len(section.tables[1].columns), len(section.tables[1].rows)) == (columns, runs)
    # The page opens the hardest attack alone.
    assert section.opened == opened
    assert len(section.figures) == runs * (runs - 1)
    assert ("all pairs are in paired.csv" in section.tables[1].caption) is (runs > 6)


def test_ten_runs_under_six_attacks_on_a_thousand_images_take_no_time(tmp_path):
    data = make_data(tmp_path)
    rng = np.random.default_rng(0)
    attacks = tuple((f"pgd(steps={i})", f"PGD-{i}", "linf", 0.1, i, 1) for i in range(1, 7))
    for i in range(10):
        repeats = 3 if i % 2 else 1
        right = rng.random((len(attacks), repeats, 1000)) < 0.5 + 0.01 * i
        judged(tmp_path, data, f"run{i}", np.ones((repeats, 1000)), right, attacks)
    results = results_of(tmp_path)
    begun = time.perf_counter()
    pairs = pairs_of(results)
    seconds = time.perf_counter() - begun
    assert [len(group.pairs) for group in pairs.groups] == [45] * 7
    assert seconds < 2


def test_a_pair_is_found_by_either_order(three):
    pairs = pairs_of(results_of(three))
    pair = pairs.groups[1].pairs[0]
    a, b = pair.first.row, pair.second.row
    assert pairs.between(a, b) is pairs.between(b, a) is pair
    assert pairs.between(a, a) is None


def test_cells_of_pairs_name_both_ends_of_the_interval(three):
    assert texts_of(section_of(three, "paired").tables[1])[1][2][1].count(" to ") == 1
