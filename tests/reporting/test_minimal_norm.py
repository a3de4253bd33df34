"""Attacks that look for the smallest perturbation: its size, and the accuracy by the size that is allowed."""

import numpy as np
import pytest

from l2p_tf.reporting.examples import Perturbations, perturbations, read_arrays
from l2p_tf.reporting.sections.minimal_norm import Power, budgets_to
from l2p_tf.types import UserError
from support.pages import texts_in
from support.reports import (
    CLEAN_ATTACK,
    DEEPFOOL,
    make_data,
    make_minimal,
    make_records,
    make_stage,
    make_train,
    of_correct,
    records_of,
    results_of,
    rows_of,
    section_of,
    texts_of,
)
from support.sweeps import (
    CLEAN,
    CW,
    FELL,
    NORMS,
    PGD,
    RIGHT,
    bounded_arrays,
    clean_arrays,
    first,
    make_run,
    minimal_arrays,
    one_run,
)  # fmt: skip

FAB = ("fab(norm=linf)", "FAB linf", "linf", None, 100, 1)
PIXEL = ("pixel", "Pixel", "l0", None, 10, 1)
DASH = "\N{EN DASH}"


def curve_of(sizes):
    return Power(None, sizes.count, sizes.tried, np.sort(sizes.norms))


def of_attack(evaluated, attack="cw"):
    return perturbations(next(row for row in evaluated.rows if row.attack == attack).measured)


def repeated(root, rights, norms):
    """A randomized run in two repeats: which images are right when clean, and the norms that succeeded."""
    data = make_data(root)
    train = make_train(root, data, "run")
    count = len(rights[0])
    arrays = [clean_arrays(np.array(right, bool)) for right in rights]
    arrays += [minimal_arrays(norm, np.ones(count)) for norm in norms]
    records = make_records("run", (2,), (CLEAN,), count=count, repeats=2, randomized=True)
    records += make_records("run", (0,), (CW,), count=count, repeats=2, randomized=True)
    make_stage(root / "attack", "attack", {"train": train, "data": data}, records, arrays)
    (evaluated,) = results_of(root).evaluated
    return of_attack(evaluated)


def test_sizes_are_over_what_was_right_before_and_fell(tmp_path):
    (evaluated,) = results_of(make_minimal(tmp_path)).evaluated
    sizes = of_attack(evaluated, "deepfool")
    assert (sizes.tried, sizes.succeeded, sizes.rate) == (6, 5, 5 / 6)
    assert (sizes.mean, sizes.median, sizes.mean_linf) == (4.4, 3.0, pytest.approx(0.044))
    nothing = of_attack(evaluated, "fab(norm=linf)")
    assert (nothing.tried, nothing.succeeded, nothing.mean, nothing.median) == (6, 0, None, None)


def test_repeats_are_pooled_each_with_its_own_clean_images(tmp_path):
    rights, norms = ([1, 1, 0, 0], [1, 1, 1, 0]), ([0.1, 0.2, 0, 0], [0.3, 0.4, 0.5, 0])
    sizes = repeated(tmp_path, rights, norms)
    assert (sizes.tried, sizes.succeeded, sizes.mean, sizes.median) == (5, 5, pytest.approx(0.3), pytest.approx(0.3))
    accuracies = [curve_of(sizes).accuracy(r) for r in (0, 0.15, 0.25, 0.35, 0.45, 0.55)]
    assert accuracies == [k / 8 for k in (5, 4, 3, 2, 1, 0)]


def test_the_table_of_sizes(tmp_path):
    deepfool, fab = texts_of(section_of(make_minimal(tmp_path), "norms").tables[0])
    assert deepfool[1:] == [
        ("DeepFool", "smallest L2, 50 steps"), ("83.3", "5 of 6"), ("L2",), ("4.4",), ("3",), ("0.044", "11.2/255"),
    ]  # fmt: skip
    assert fab[2:] == [("0.0", "0 of 6"), ("L∞",), (DASH,), (DASH,), ("",)]


def test_where_nothing_was_right_before_nothing_is_divided(tmp_path):
    data = make_data(tmp_path)
    train = make_train(tmp_path, data)
    arrays = [of_correct([0, 0]), of_correct([0, 0])]
    records = records_of("pgd", (CLEAN_ATTACK, DEEPFOOL), arrays)
    make_stage(tmp_path / "attack", "attack", {"train": train, "data": data}, records, arrays)
    section = section_of(tmp_path, "norms")
    assert section.tables[0].rows[0][2].lines == (DASH, "0 of 0")
    assert rows_of(section, "success") == [None]


def test_bare_records_have_no_sizes():
    records = make_records("a", (9, 1), (CLEAN_ATTACK, DEEPFOOL))
    assert section_of(records, "norms") is section_of(records, "power") is None
    (row, *_) = results_of(records).attacks.itertuples()
    with pytest.raises(ValueError, match="bare records"):
        read_arrays(row.measured.evaluation, row.measured.first, "correct")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "No such file"),
        ({"success": np.zeros(8)}, "`l2` is not there"),
        (of_correct([1] * 3), r"`success` has shape \(3,\) .*not \(8,\)"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path, values, message):
    results = results_of(make_minimal(tmp_path))
    file = tmp_path / "attack" / "arrays" / "1.npz"
    file.unlink()
    if values is not None:
        np.savez(file, **values)
    with pytest.raises(UserError, match=rf"1\.npz' should hold the per-example arrays.*{message}"):
        section_of(results, "norms")


def test_the_power_curve_is_the_step_function_of_the_arrays(tmp_path):
    curve = curve_of(of_attack(one_run(tmp_path, (CLEAN, CW), [clean_arrays(), minimal_arrays()])))
    assert (curve.count, curve.tried) == (10, 8)
    shares = {0: 0.8, 0.05: 0.8, 0.1: 0.7, 0.15: 0.7, 0.2: 0.5, 0.3: 0.4, 0.45: 0.3, 0.6: 0.1, 100: 0.1}
    assert {r: curve.accuracy(r) for r in shares} == pytest.approx(shares)
    x, y = curve.steps(0.55)
    np.testing.assert_allclose(x, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.55], rtol=1e-6)
    np.testing.assert_allclose(y, [0.8, 0.8, 0.7, 0.5, 0.4, 0.3, 0.2])
    for radius in np.linspace(0.001, 0.549, 97):
        assert y[np.searchsorted(x, radius)] == pytest.approx(curve.accuracy(radius))


def test_a_long_power_curve_is_thinned_and_never_says_too_much():
    norms = np.sort(np.random.default_rng(0).gamma(2, 0.2, 3000))
    curve = curve_of(Perturbations(4000, 3500, norms, norms))
    x, y = curve.steps(1.5)
    assert len(x) <= 152
    assert (x[0], x[-1], y[0]) == (0, 1.5, 3500 / 4000)
    for radius in np.linspace(0.01, 1.49, 50):
        drawn = y[np.searchsorted(x, radius)]
        assert curve.accuracy(radius) - 0.01 <= drawn <= curve.accuracy(radius)


def test_a_run_that_nothing_felled_has_a_level_curve(tmp_path):
    one_run(tmp_path, (CLEAN, CW), [clean_arrays(), minimal_arrays(fell=np.zeros(10))])
    (plot,) = section_of(tmp_path, "power").plots
    assert "1.0" in texts_in(plot)
    x, y = curve_of(Perturbations(10, 8, np.zeros(0), np.zeros(0))).steps(1.0)
    assert (x.tolist(), y.tolist()) == ([0, 1], [0.8, 0.8])


def test_the_accuracy_at_round_norms(tmp_path):
    data = make_data(tmp_path)
    arrays = [clean_arrays(), minimal_arrays(), minimal_arrays(NORMS / 100)]
    make_run(tmp_path, data, "a", (CLEAN, CW, FAB), arrays)
    make_run(tmp_path, data, "b", (CLEAN, CW), [clean_arrays(), minimal_arrays(NORMS / 2)])
    section = section_of(tmp_path, "power")
    assert [table.title for table in section.tables] == ["C&W", "FAB linf"]
    figures = section.figures[section.figures.attack == "cw"]
    accuracies = {run: rows.accuracy.tolist() for run, rows in figures.groupby("run")}
    assert accuracies == {"a": [80, 70, 50, 40, 30, 20], "b": [80, 50, 30, 10, 10, 10]}
    assert figures.budget.tolist()[:6] == [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert figures.iloc[2].low == 23.6593


@pytest.mark.parametrize(
    ("right", "budgets"),
    [(1.5, [0.2, 0.4, 0.6, 0.8, 1, 1.2, 1.4]), (0.031, [0.005, 0.01, 0.015, 0.02, 0.025, 0.03]), (8, [*range(1, 9)])],
)
def test_budgets_are_round_and_within_the_plot(right, budgets):
    assert budgets_to(right) == budgets


def test_an_attack_on_other_images_is_another(tmp_path):
    data = make_data(tmp_path)
    make_run(tmp_path, data, "a", (CLEAN, CW), [clean_arrays(), minimal_arrays()])
    make_run(tmp_path, data, "b", (CLEAN, CW), [clean_arrays(RIGHT[:5]), minimal_arrays(NORMS[:5], FELL[:5])])
    section = section_of(tmp_path, "power")
    assert [(table.title, [row[0].text for row in table.rows]) for table in section.tables] == [
        ("C&W, n = 10", ["a"]), ("C&W, n = 5", ["b"]),
    ]  # fmt: skip
    assert len(section.plots) == 2


def test_each_attack_of_smallest_l2_or_linf_norm_has_its_plot(tmp_path):
    attacks = (CLEAN, CW, FAB, PIXEL, PGD)
    arrays = [clean_arrays(), minimal_arrays(), minimal_arrays(), minimal_arrays(), bounded_arrays(first(3))]
    one_run(tmp_path, attacks, arrays)
    plots = section_of(tmp_path, "power").plots
    assert {plot.name: plot.title for plot in plots} == {
        "power-0": "Accuracy against the L2 norm that C&W is allowed, digits (8x8), test",
        "power-1": "Accuracy against the L∞ norm that FAB linf is allowed, digits (8x8), test",
    }
    assert "run" in texts_in(plots[0])
