"""Attacks at several radii: which make a curve, and how accuracy and probability fall along it."""

import numpy as np
import pytest

from l2p_tf.reporting.sections.radii import attack_family, curves_of, fall_of, gaussian
from support.pages import texts_in
from support.reports import make_records, results_of, rows_of, section_of, texts_of
from support.sweeps import CLEAN, bounded_arrays, clean_arrays, fgm, first, make_ladder, one_run


def curve_in(root):
    ((curve,),) = (curves.values() for curves in curves_of(results_of(root)))
    return curve


def record_of(attack, **fields):
    (record,) = make_records("a", (1,), (attack,), **fields)
    return record


@pytest.mark.parametrize(
    ("other", "fields", "same"),
    [
        (fgm(0.2), {}, True),
        (fgm(0.2, "fgsm(epsilon=0.2, norm=l2, step_size=0.1)"), {}, True),
        (fgm(0.5, "fgsm(norm=l2)"), {}, True),
        (fgm(0.2, "fgsm(epsilon=0.2, norm=l2, loss=margin)"), {}, False),
        (fgm(0.2, "bim(epsilon=0.2, norm=l2)"), {}, False),
        (("fgsm(epsilon=0.2, norm=l2)", "FGM l2", "linf", 0.2, 1, 1), {}, False),
        (("fgsm(epsilon=0.2, norm=l2)", "FGM l2", "l2", 0.2, 2, 1), {}, False),
        (("fgsm(epsilon=0.2, norm=l2)", "FGM l2", "l2", 0.2, 1, 5), {}, False),
        (fgm(0.2), {"restarts": 2}, False),
        (fgm(0.2), {"backend": "cleverhans"}, False),
        (fgm(0.2), {"prediction_draws": 10}, True),
        (fgm(0.2, "not a spec("), {}, False),
    ],
)
def test_a_family_is_all_but_the_radius(other, fields, same):
    assert (attack_family(record_of(other, **fields)) == attack_family(record_of(fgm(0.1)))) is same


def test_three_radii_make_a_curve_in_their_order(tmp_path):
    make_ladder(tmp_path)
    rows = curve_in(tmp_path).rows
    assert [(row.epsilon, row.accuracy) for row in rows] == [(0.1, 0.6), (0.2, 0.5), (0.3, 0.3), (0.4, 0.2)]


def test_of_two_settings_at_one_radius_the_stronger_counts(tmp_path):
    attacks = (CLEAN, fgm(0.1), fgm(0.2), fgm(0.3), fgm(0.2, "fgsm(epsilon=0.2, norm=l2, step_size=0.1)"))
    arrays = [clean_arrays(), *(bounded_arrays(first(right)) for right in (6, 5, 3, 4))]
    one_run(tmp_path, attacks, arrays)
    assert [row.accuracy for row in curve_in(tmp_path).rows] == [0.6, 0.4, 0.3]


def test_the_probability_of_the_right_class_falls_with_the_norm(tmp_path):
    make_ladder(tmp_path, defense="generator(c_l=10)", defense_options={"c_l": 10.0})
    curve = curve_in(tmp_path)
    norms, probabilities = fall_of(curve)
    np.testing.assert_allclose(norms, [0, 0.1, 0.2, 0.3, 0.4], rtol=1e-6)
    np.testing.assert_allclose(probabilities, [0.9, 0.7, 0.6, 0.5, 0.3], rtol=1e-6)
    assert curve.target == 10
    np.testing.assert_allclose(gaussian(10, np.array([0, 0.1, 1])), [1, np.exp(-0.1), np.exp(-10)])
    # c_L is 1 / (2 sigma^2): at one sigma the target has fallen by the square root of e.
    assert gaussian(10, np.sqrt(1 / 20)) == pytest.approx(np.exp(-0.5))
    section = section_of(tmp_path, "epsilons")
    accuracy, probability = section.plots
    assert accuracy.title == "Accuracy under FGM l2 against its radius, digits (8x8), test"
    assert probability.title.startswith("Probability of the right class against the L2 norm of FGM l2")
    assert {"run", "target, c_L = 10", "mean probability"} <= set(texts_in(probability))
    assert "σ²" in section.note


@pytest.mark.parametrize(
    ("defense", "options", "target"),
    [
        ("generator", {}, 10),
        ("generator", {"penalty": "pixels"}, 10),
        ("generator", {"penalty": "raw"}, None),
        ("pgd", {}, None),
    ],
)
def test_only_generators_with_a_penalty_on_pixels_have_a_target(tmp_path, defense, options, target):
    make_ladder(tmp_path, defense=defense, defense_options={"c_l": 10.0, **options})
    assert curve_in(tmp_path).target == target
    section = section_of(tmp_path, "epsilons")
    assert ("target" in section.note) is any("target" in text for text in texts_in(section.plots[1])) is bool(target)


def test_arrays_without_probabilities_leave_that_plot_out(tmp_path):
    make_ladder(tmp_path, probability=False)
    assert fall_of(curve_in(tmp_path)) is None
    section = section_of(tmp_path, "epsilons")
    assert len(section.plots) == 1
    assert set(rows_of(section, "probability")) == {None}


def test_the_table_by_radius_and_its_figures(tmp_path):
    make_ladder(tmp_path, defense_options={"c_l": 10.0})
    section = section_of(tmp_path, "epsilons")
    (table,) = section.tables
    assert (table.title, table.caption) == ("FGM l2", "L2, 1 step; digits (8x8), test.")
    assert [column.label for column in table.columns] == ["Run", "Clean", "ε 0.1", "ε 0.2", "ε 0.3", "ε 0.4"]
    assert [lines[0] for lines in texts_of(table)[0]] == ["run", "80.0", "60.0", "50.0", "30.0", "20.0"]
    rows = rows_of(section, "epsilon", "accuracy", "mean_l2", "probability", "target")
    assert rows[1] == (0.2, 50, 0.2, 0.6, pytest.approx(np.exp(-0.4), rel=1e-5))
