"""The comparison of runs: what its rows and columns are, and the warnings and remarks beside it."""

import dataclasses

import pytest

from l2p_tf.reporting.format import pace, strength
from support.reports import (
    ATTACKS,
    CLEAN_ATTACK,
    DEEPFOOL,
    FAB,
    make_attack,
    make_data,
    make_records,
    make_runs,
    make_train,
    results_of,
    rows_of,
    section_of,
    texts_of,
)

PGD = ("pgd", "PGD-20", "linf", 8 / 255, 20, 1)
AUTO = ("autoattack", "AutoAttack", "linf", 8 / 255, 100, 1)


def warnings_of(records):
    return list(section_of(records, "comparison").warnings)


def test_cells_hold_accuracy_interval_spread_and_count(tmp_path):
    section = section_of(make_runs(tmp_path), "comparison")
    rows = {row[0][0]: row for row in texts_of(section.tables[0])}
    assert rows["none"][2] == ("25.0", "20.8\N{EN DASH}29.7", "n = 360")
    # What all rows have in common is in the caption.
    assert rows["learn2perturb"][1] == ("97.2 ± 0.4", "95.0\N{EN DASH}98.5", "n = 360, 2 repeats")
    assert "digits (8x8), test" in section.tables[0].caption
    assert len(section.figures) == 3 * 4
    assert ("learn2perturb", "fgsm", 86.3889, 0.3928) in rows_of(section, "run", "attack", "accuracy", "spread")
    # In the order in which they were trained, all within a second.
    assert list(dict.fromkeys(rows_of(section, "run"))) == ["none", "pgd", "learn2perturb"]


def test_best_and_last_weights_and_splits_are_rows_of_their_own(tmp_path):
    data = make_data(tmp_path)
    train = make_train(tmp_path, data)
    make_attack(tmp_path, train, data, make_records("pgd"))
    make_attack(tmp_path, train, data, make_records("pgd"), "last", checkpoint="last")
    make_attack(tmp_path, train, data, make_records("pgd", split="validation"), "validation")
    names = {row[0][0] for row in texts_of(section_of(tmp_path, "comparison").tables[0])}
    assert names == {
        "pgd (digits (8x8), test)", "pgd (last, digits (8x8), test)", "pgd (digits (8x8), validation)",
    }  # fmt: skip


@pytest.mark.parametrize("order", [("few", "many"), ("many", "few")])
def test_of_two_evaluations_that_on_the_most_images_is_shown(tmp_path, order):
    data = make_data(tmp_path)
    train = make_train(tmp_path, data)
    records = {"few": make_records("pgd", (9, 8, 7, 6), count=10), "many": make_records("pgd")}
    for name in order:
        make_attack(tmp_path, train, data, records[name], name)
    section = section_of(tmp_path, "comparison")
    assert set(rows_of(section, "count")) == {360}
    assert sum("judged more than once" in remark for remark in section.remarks) == 4
    assert "on the most images, with the most repeats (360 and 1)" in " ".join(section.remarks)


def test_columns_with_the_same_label_are_told_apart():
    attacks = [(f"pgd(epsilon={e})", "PGD-20", "linf", e, 20, 1) for e in (0.1, 0.2)]
    attacks.append(("pgd(epsilon=0.2, loss=dlr)", *attacks[1][1:]))
    columns = section_of(make_records("a", (9, 9, 9), attacks), "comparison").tables[0].columns
    assert [column.label for column in columns[1:]] == [
        "PGD-20, ε 0.1", "PGD-20, ε 0.2: pgd(epsilon=0.2)", "PGD-20, ε 0.2: pgd(epsilon=0.2, loss=dlr)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("attack", "fields", "allowed"),
    [
        (DEEPFOOL, {}, "smallest L2, 50 steps"),
        (FAB, {"restarts": 5}, "smallest L∞, 100 steps, 5 restarts"),
        (DEEPFOOL, {"draws": 10}, "smallest L2, 50 steps, EOT over 10 draws"),
        (("pixel", "1-pixel", "l0", 1.0, 75, 1), {}, "1 pixel, 75 steps"),
        (("pixel", "2-pixel", "l0", 2, 75, 1), {}, "2 pixels, 75 steps"),
        (PGD, {"backend": "cleverhans"}, "L∞, ε 8/255, 20 steps, CleverHans"),
        (PGD, {"backend": "a\nb"}, "L∞, ε 8/255, 20 steps, a b"),
        (("own", "Own", None, None, 3, 1), {}, "3 steps"),
        (CLEAN_ATTACK, {}, "unperturbed images"),
    ],
)
def test_what_an_attack_was_allowed(attack, fields, allowed):
    (record,) = make_records("a", (1,), (attack,))
    assert strength(dataclasses.replace(record, **fields)) == allowed


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.00025, "0.25 ms"), (0.0123, "12 ms"), (0.0099, "9.9 ms"), (0.0, "0 ms"), (1.26, "1.3 s")]
)
def test_pace_is_written_in_the_unit_it_needs(seconds, text):
    assert pace(seconds) == text


def test_targeted_attacks_say_how_often_they_hit():
    attacks = (CLEAN_ATTACK, PGD, ("pgd(target=next)", "PGD-20 next", "linf", 8 / 255, 20, 1))
    records = make_records("a", (350, 90, 100), attacks)
    records[2] = dataclasses.replace(records[2], reached=36)
    assert section_of(records, "comparison").remarks[1:] == (
        "PGD-20 next on a is targeted: it reached its target class on 36 of 360 images (10.0%). "
        "The accuracy is still the share classified correctly.",
    )
    records = [dataclasses.replace(r, reached=36 + r.repeat) for r in make_records("a", (100,), (PGD,), repeats=2)]
    assert "36.5 of 360 images (10.1%, mean of 2 repeats)" in section_of(records, "comparison").remarks[1]


def test_answers_that_are_no_numbers_are_warned_of():
    clean, pgd = make_records("a", (300, 90), (CLEAN_ATTACK, PGD))
    (warning,) = warnings_of([clean, dataclasses.replace(pgd, invalid=7)])
    assert warning.startswith("a answered 7 of 360 images (PGD-20) with numbers that are not finite")
    assert warnings_of([clean, pgd]) == []


def test_a_randomized_model_whose_noise_no_attack_averaged_is_warned_about():
    noisy = {"count": 200, "randomized": True}
    pixel, small = ("few_pixel", "1 pixel", "l0", 1.0, 10, 1), ("pgd(norm=l2)", "PGD-20", "l2", 0.5, 20, 1)
    records = [record for name in "abc" for record in make_records(name, (5,), (AUTO,), **noisy)]
    gradients, scores = warnings_of([*records, *make_records("blind", (5,), (pixel,), gradients=0, **noisy)])
    assert gradients.startswith("a, b and c are randomized, and no attack on them averaged its gradients over draws")
    assert gradients.endswith(
        "Put one with draws=10 or more among the --attacks of the attack stage, such as pgd(draws=10)."
    )
    assert scores.startswith("blind is randomized, and no attack on it averaged its scores")
    assert "such as few_pixel(draws=10)." in scores
    (warning,) = warnings_of(make_records("a", (5,), (small,), **noisy))
    assert "such as pgd(draws=10, norm=l2)." in warning
    (warning,) = warnings_of(make_records("a", (5,), (("pgd(norm=l1)", "PGD-20", "l1", 5.0, 20, 1),), **noisy))
    assert "such as pgd(draws=10, norm=l1)." in warning
    averaged = ("apgd(draws=20)", "APGD EOT-20", "linf", 8 / 255, 100, 20)
    assert warnings_of(make_records("a", (9, 9), (AUTO, averaged), **noisy)) == []
    assert warnings_of(make_records("a", (9, 9), (AUTO, PGD), count=200)) == []


def test_draws_of_an_answer_are_told():
    records = make_records("a", (9,), (PGD,), prediction_draws=16) + make_records("a", (9,), (ATTACKS[1],))
    assert "a: each answer averages 1 or 16 draws of the noise" in section_of(records, "comparison").remarks[-1]


def test_plain_results_have_no_further_sections():
    results = results_of(make_records("a"))
    for name in ("transfer", "norms", "power", "backends", "sweep", "matched", "certified", "classes", "training"):
        assert section_of(results, name) is None
