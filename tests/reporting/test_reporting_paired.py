"""Runs compared in pairs: the statistics, the tables, and what the summary makes of them."""

import csv
import dataclasses
import io
import itertools
import time

import numpy as np
import pytest
from scipy import stats

from l2p_tf import artifacts
from l2p_tf.reporting import paired, paired_table, words
from l2p_tf.reporting.comparison import compare
from l2p_tf.reporting.runs import find, gather
from l2p_tf.reporting.significance import difference_interval, holm, mcnemar, sign_flip
from support.judged import PGD, judged
from support.reports import ATTACKS, make_data, make_stage, make_train, of_correct, records_of

MINUS = "\N{MINUS SIGN}"


def runs_of(root):
    return gather(find([root]))


def groups(root):
    return paired.compared(runs_of(root)).groups


# The statistics.


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


# Runs.


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Four hundred images: a and b differ on 60, ten points apart; c is as good as b on other images."""
    root = tmp_path_factory.mktemp("paired") / "runs"
    data = make_data(root)
    right = np.arange(400) < 398
    b = np.arange(400) < 200
    a = b.copy()
    a[200:250], a[:10] = True, False
    c = np.roll(b, 6)
    for name, correct in (("b", b), ("a", a), ("c", c)):
        judged(root, data, name, [right], [[correct]])
    return root


def test_ten_points_on_four_hundred_images_are_found_and_a_shift_is_not(three):
    clean, pgd = groups(three)
    assert {pair.corrected for pair in clean.pairs} == {1.0}
    assert not any(pair.better for pair in clean.pairs)
    assert [member.subject.name for member in pgd.members] == ["a", "b", "c"]
    found = {(pair.first.subject.name, pair.second.subject.name): pair for pair in pgd.pairs}
    assert found["a", "b"].difference == pytest.approx(0.1)
    assert found["a", "b"].p == pytest.approx(stats.binomtest(10, 60).pvalue)
    assert found["a", "b"].better
    assert found["a", "b"].low > 0
    assert found["b", "c"].difference == 0
    assert (found["b", "c"].p, found["b", "c"].better) == (1.0, False)
    assert found["b", "c"].low < 0 < found["b", "c"].high
    # a and c differ on 44 and 4 images. The smallest of three p-values counts threefold, the next one twice.
    assert found["a", "c"].corrected == pytest.approx(3 * stats.binomtest(4, 48).pvalue)
    assert found["a", "b"].corrected == pytest.approx(2 * found["a", "b"].p)


def test_identical_models_are_never_told_apart(tmp_path):
    data = make_data(tmp_path)
    correct = np.random.default_rng(0).random(200) < 0.4
    for name in ("a", "b"):
        judged(tmp_path, data, name, [correct], [[correct]])
    assert [(pair.p, pair.difference, pair.better) for group in groups(tmp_path) for pair in group.pairs] == [
        (1.0, 0.0, False),
        (1.0, 0.0, False),
    ]


def test_repeats_are_averaged_over_before_the_test(tmp_path):
    data = make_data(tmp_path)
    rng = np.random.default_rng(5)
    plain, noisy = rng.random(40) < 0.7, rng.random((3, 40)) < 0.5
    judged(tmp_path, data, "plain", [plain], [[plain]])
    judged(tmp_path, data, "noisy", noisy, [noisy], randomized=True)
    pair = groups(tmp_path)[1].pairs[0]
    differences = 3 * plain.astype(int) - noisy.sum(0)
    assert pair.difference == pytest.approx(differences.mean() / 3)
    draws = np.random.default_rng(0).choice((-1, 1), (40_000, 40))
    simulated = np.mean(np.abs(draws @ differences) >= abs(differences.sum()))
    assert pair.p == pytest.approx(simulated, abs=0.006)
    assert [member.repeats for member in groups(tmp_path)[1].members] == [1, 3]


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
    fields = {"split": "validation"} if other == "split" else {}
    if other == "weights":
        train = make_train(tmp_path, data, "b", history=False)
        arrays = [of_correct(right), of_correct(right)]
        records = records_of("b", (ATTACKS[0], PGD), arrays)
        make_stage(tmp_path / "attack_b", "attack", {"train": train, "data": data}, records, arrays, checkpoint="last")
    else:
        judged(tmp_path, data, "b", [right], [[right]], attacks, index, **fields)
    found = paired.compared(runs_of(tmp_path))
    assert len(found.groups) == (other == "attack")
    assert all(group.record.attack == "clean" for group in found.groups)
    said = "which are not the same for all of: a and b."
    assert [note.endswith(said) for note in found.notes] == [True] * (other in ("index", "count", "data"))
    text = " ".join(words.paragraphs(compare(runs_of(tmp_path))))
    assert "better than" not in text.replace("Whether it is better than", "")


def test_the_same_test_images_count_as_such_whatever_split_the_rest(tmp_path):
    right = np.arange(60) < 40
    for seed in (1, 2):
        root = tmp_path / str(seed)
        make = {"info.json": "{}", "test_images.npy": "same", "train_images.npy": str(seed)}
        with artifacts.produce(root / "data", "data", {"seed": seed}) as work:
            for name, content in make.items():
                (work.path / name).write_text(content)
        judged(root, artifacts.read(root / "data"), f"run{seed}", [right], [[right]])
    assert len(groups(tmp_path)) == 2


def test_results_without_arrays_are_said_to_be_missing(tmp_path):
    data = make_data(tmp_path)
    for name in ("a", "b"):
        train = make_train(tmp_path, data, name)
        records = records_of(name, (ATTACKS[0], PGD), [of_correct([1] * 20)] * 2)
        make_stage(tmp_path / f"attack_{name}", "attack", {"train": train, "data": data}, records)
    table = compare(runs_of(tmp_path))
    assert table.paired.groups == ()
    assert "Not compared in pairs, as their results per image are not at hand: a and b." in table.notes


# Words and tables.


def test_the_summary_says_better_by_the_test_where_intervals_overlap(three):
    table = compare(runs_of(three))
    (paragraph,) = words.paragraphs(table)
    said = "under it a is best (60.0%), significantly better than b and c (paired test on the same images)."
    assert said in paragraph
    rows = {row.name: next(entry for key, entry in row.entries.items() if key[0] != "clean") for row in table.rows}
    assert rows["a"].summary.low > rows["b"].summary.accuracy
    figures = {figure.label: figure.note for figure in words.figures(table)}
    # On clean images all are alike.
    assert figures["Highest on clean images"].count("no significant difference from") == 1
    assert "no significant" not in figures["Highest under PGD-7"]


def test_the_summary_names_those_it_cannot_tell_apart(tmp_path):
    data = make_data(tmp_path)
    for name, count in (("low", 100), ("good", 200), ("same", 201)):
        right = np.arange(400) < count
        judged(tmp_path, data, name, [np.ones(400)], [[right]])
    (paragraph,) = words.paragraphs(compare(runs_of(tmp_path)))
    assert (
        "under it same is best (50.2%), significantly better than low, with no significant difference from good "
        "(paired test on the same images)."
    ) in paragraph


def test_overlapping_intervals_do_not_hide_a_difference(tmp_path):
    """Fifteen images of 300 that only one gets right: intervals overlap, and yet it is better."""
    data = make_data(tmp_path)
    for name, count in (("a", 165), ("b", 150)):
        judged(tmp_path, data, name, [np.ones(300)], [[np.arange(300) < count]])
    table = compare(runs_of(tmp_path))
    low, high = (next(e for k, e in row.entries.items() if k[0] != "clean").summary for row in reversed(table.rows))
    a, b = (high, low) if high.accuracy > low.accuracy else (low, high)
    assert b.high > a.low
    assert "a is best (55.0%), significantly better than b (paired test" in words.paragraphs(table)[0]


def test_the_table_is_a_matrix_below_the_diagonal(three):
    section = paired_table.section(paired.compared(runs_of(three)))
    pgd = section.tables[1]
    assert [head.label for head in pgd.columns] == ["Run", "Accuracy", "a", "b"]
    assert [[field.text for field in row] for row in pgd.rows] == [
        ["a", "60.0", "", ""],
        ["b", "50.0", "+10.0", ""],
        ["c", "50.0", "+10.0", "+0.0"],
    ]
    field = pgd.rows[1][2]
    assert field.below[1:] == ("p < 0.001", "better")
    assert (field.tone, pgd.rows[2][3].tone) == ("good", "unknown")
    assert pgd.rows[2][3].below[1:] == ("p = 1", "no significant difference")
    assert pgd.rows[2][3].below[0].startswith(MINUS)
    assert "n = 400" in pgd.caption
    lines = list(csv.DictReader(io.StringIO(section.to_csv())))
    assert len(lines) == 6
    line = next(x for x in lines if x["attack"] != "clean" and (x["first"], x["second"]) == ("a", "b"))
    assert (line["difference"], line["better"], line["count"]) == ("10.0", "a", "400")
    assert float(line["p_holm"]) == pytest.approx(2 * float(line["p"]), rel=1e-4)
    assert {x["better"] for x in lines if x["attack"] == "clean"} == {""}


def test_many_runs_are_set_beside_the_highest(tmp_path):
    data = make_data(tmp_path)
    for i in range(7):
        judged(tmp_path, data, f"run{i:02d}", [np.ones(50)], [[np.arange(50) < 20 + i]])
    section = paired_table.section(paired.compared(runs_of(tmp_path)))
    pgd = section.tables[1]
    assert [head.label for head in pgd.columns] == ["Run", "Accuracy", "run06"]
    assert len(pgd.rows) == 7
    assert pgd.caption.endswith("Each of 7 runs beside the highest; all pairs are in paired.csv.")
    assert len(section.lines) == 2 * 21
    # The page opens the hardest attack alone.
    assert section.opened == 1


def test_six_runs_are_a_matrix_that_is_not_folded(tmp_path):
    data = make_data(tmp_path)
    for i in range(6):
        judged(tmp_path, data, f"run{i:02d}", [np.ones(50)], [[np.arange(50) < 20 + i]])
    section = paired_table.section(paired.compared(runs_of(tmp_path)))
    assert len(section.tables[1].columns) == 2 + 5
    assert section.opened is None


def test_ten_runs_under_six_attacks_on_a_thousand_images_take_no_time(tmp_path):
    data = make_data(tmp_path)
    rng = np.random.default_rng(0)
    attacks = tuple((f"pgd(steps={i})", f"PGD-{i}", "linf", 0.1, i, 1) for i in range(1, 7))
    for i in range(10):
        repeats = 3 if i % 2 else 1
        right = rng.random((len(attacks), repeats, 1000)) < 0.5 + 0.01 * i
        judged(tmp_path, data, f"run{i}", np.ones((repeats, 1000)), right, attacks)
    runs = runs_of(tmp_path)
    begun = time.perf_counter()
    found = paired.compared(runs)
    seconds = time.perf_counter() - begun
    assert [len(group.pairs) for group in found.groups] == [45] * 7
    assert seconds < 2


def test_the_test_claims_too_much_no_more_often_than_it_says():
    """Two runs alike, three draws each: of 1,000 comparisons about one in twenty or fewer is called a difference."""
    rng = np.random.default_rng(2)
    chances = rng.beta(0.4, 0.4, (1000, 100))
    a, b = (rng.binomial(3, chances) for _ in range(2))
    assert np.mean([sign_flip(one) < paired.LEVEL for one in a - b]) < 0.065


def test_a_pair_is_found_by_either_order(three):
    found = paired.compared(runs_of(three))
    pair = found.groups[1].pairs[0]
    a, b = paired.who(pair.first.subject), paired.who(pair.second.subject)
    key = (found.groups[1].record.attack, "l2p_tf")
    assert found.between(key, a, b) is found.between(key, b, a) is pair
    assert found.between(key, a, a) is None
    assert found.between(("nothing", "l2p_tf"), a, b) is None
    assert dataclasses.replace(pair, corrected=0.05).better is False
