"""What a report says of sweeps: curves by radius and size, robustness curves, methods at the same clean accuracy."""

import csv
import html
import io
import itertools
import re
import shutil

import numpy as np
import pytest

from l2p_tf import artifacts
from l2p_tf.reporting import (
    epsilons,
    families,
    kinds,
    lines,
    matched,
    matched_table,
    plots,
    power,
    report,
    robustness,
    sweep_table,
    sweeps,
    text,
    transfer,
)
from l2p_tf.reporting.comparison import compare
from l2p_tf.reporting.history import read_history
from l2p_tf.reporting.matched import Match
from l2p_tf.reporting.norms import Found, found_of
from l2p_tf.reporting.subjects import subjects
from l2p_tf.types import UserError
from support.pages import FRAMES, Outline, browse, lines_of, runs_of, texts_in
from support.reports import make_data, make_records, make_stage, make_train, write_history
from support.sweeps import (
    CLEAN,
    CW,
    FELL,
    NORMS,
    PGD,
    RIGHT,
    bounded_arrays,
    clean_arrays,
    fgm,
    first,
    make_family,
    make_kinds,
    make_ladder,
    make_run,
    make_sweep,
    make_swept,
    make_transferred,
    minimal_arrays,
    one_run,
)

FAB = ("fab(norm=linf)", "FAB linf", "linf", None, 100, 1)
PIXEL = ("pixel", "Pixel", "l0", None, 10, 1)
RHO = "\N{GREEK SMALL LETTER RHO}"


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    return make_sweep(tmp_path_factory.mktemp("swept") / "runs")


@pytest.fixture(scope="module")
def found(swept):
    return subjects(runs_of(swept))


@pytest.fixture(scope="module")
def made(swept):
    return report.make([swept], swept.parent / "report", "Sweep", match=(0.8, 0.7), match_tolerance=0.05)


# Accuracy against the size of the perturbation.


def test_the_power_curve_is_the_step_function_of_the_arrays(tmp_path):
    subject = one_run(tmp_path, (CLEAN, CW), [clean_arrays(), minimal_arrays()])
    (one,) = subject.minimal("l2")
    curve = power.power_of(found_of(one.evaluation, one.summary.records))
    assert (curve.count, curve.tried, curve.clean) == (10, 8, 0.8)
    shares = {0: 0.8, 0.05: 0.8, 0.1: 0.7, 0.15: 0.7, 0.2: 0.5, 0.3: 0.4, 0.45: 0.3, 0.6: 0.1, 100: 0.1}
    assert {r: curve.accuracy(r) for r in shares} == pytest.approx(shares)
    x, y = curve.steps(0.55)
    np.testing.assert_allclose(x, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.55], rtol=1e-6)
    np.testing.assert_allclose(y, [0.8, 0.8, 0.7, 0.5, 0.4, 0.3, 0.2])
    for radius in np.linspace(0.001, 0.549, 97):
        assert y[np.searchsorted(x, radius)] == pytest.approx(curve.accuracy(radius))


def test_repeats_are_pooled_each_with_its_own_clean_images(tmp_path):
    data = make_data(tmp_path)
    train = make_train(tmp_path, data, "run")
    rights, norms = ([1, 1, 0, 0], [1, 1, 1, 0]), ([0.1, 0.2, 0, 0], [0.3, 0.4, 0.5, 0])
    arrays = [clean_arrays(np.array(right, bool)) for right in rights]
    arrays += [minimal_arrays(norm, np.ones(4)) for norm in norms]
    records = make_records("run", (2,), (CLEAN,), count=4, repeats=2, randomized=True)
    records += make_records("run", (0,), (CW,), count=4, repeats=2, randomized=True)
    make_stage(tmp_path / "attack", "attack", {"train": train, "data": data}, records, arrays)
    (subject,) = subjects(runs_of(tmp_path))
    (one,) = subject.minimal("l2")
    curve = power.power_of(found_of(one.evaluation, one.summary.records))
    assert [curve.accuracy(r) for r in (0, 0.15, 0.25, 0.35, 0.45, 0.55)] == [k / 8 for k in (5, 4, 3, 2, 1, 0)]


def test_a_long_power_curve_is_thinned_and_never_says_too_much():
    norms = np.sort(np.random.default_rng(0).gamma(2, 0.2, 3000))
    curve = power.power_of(Found(4000, 3500, norms, norms))
    x, y = curve.steps(1.5)
    assert len(x) <= 152
    assert (x[0], x[-1], y[0]) == (0, 1.5, 3500 / 4000)
    for radius in np.linspace(0.01, 1.49, 50):
        drawn = y[np.searchsorted(x, radius)]
        assert curve.accuracy(radius) - 0.01 <= drawn <= curve.accuracy(radius)


def test_a_run_that_nothing_felled_has_a_level_curve(tmp_path):
    subject = one_run(tmp_path, (CLEAN, CW), [clean_arrays(), minimal_arrays(fell=np.zeros(10))])
    (plot,) = power.plots([subject])
    assert "1.0" in texts_in(plot)
    x, y = power.power_of(Found(10, 8, np.zeros(0), np.zeros(0))).steps(1.0)
    assert (x.tolist(), y.tolist()) == ([0, 1], [0.8, 0.8])


def test_the_accuracy_at_round_norms_is_a_table(tmp_path):
    data = make_data(tmp_path)
    arrays = [clean_arrays(), minimal_arrays(), minimal_arrays(NORMS / 100)]
    make_run(tmp_path, data, "a", (CLEAN, CW, FAB), arrays)
    make_run(tmp_path, data, "b", (CLEAN, CW), [clean_arrays(), minimal_arrays(NORMS / 2)])
    section = power.section(runs_of(tmp_path))
    assert [(sheet.title, sheet.caption) for sheet in section.tables] == [
        ("C&W", "digits (8x8), test; n = 10."), ("FAB linf", "digits (8x8), test; n = 10."),
    ]  # fmt: skip
    cw, fab = section.tables
    labels = ["Run", "Clean", *(f"L2 \N{LESS-THAN OR EQUAL TO} 0.{k}" for k in range(1, 6))]
    assert [head.label for head in cw.columns] == labels
    rows = {row[0].text: [field.text for field in row[1:]] for row in cw.rows}
    assert rows["a"] == ["80.0", "70.0", "50.0", "40.0", "30.0", "20.0"]
    assert rows["b"] == ["80.0", "50.0", "30.0", "10.0", "10.0", "10.0"]
    assert [row[0].text for row in fab.rows] == ["a"]
    lines = lines_of(section)
    assert len(lines) == 2 * 6 + len(fab.columns) - 1
    assert {key: lines[2][key] for key in ("run", "attack", "norm", "budget", "accuracy", "low", "count")} == {
        "run": "a", "attack": "cw", "norm": "l2", "budget": "0.2", "accuracy": "50.0", "low": "23.6593", "count": "10",
    }  # fmt: skip
    assert (lines[0]["budget"], lines[0]["accuracy"]) == ("0.0", "80.0")


@pytest.mark.parametrize(
    ("right", "budgets"),
    [(1.5, [0.2, 0.4, 0.6, 0.8, 1, 1.2, 1.4]), (0.031, [0.005, 0.01, 0.015, 0.02, 0.025, 0.03]), (8, [*range(1, 9)])],
)
def test_budgets_are_round_and_within_the_plot(right, budgets):
    assert power.budgets_to(right) == budgets


def test_an_attack_on_other_images_is_another(tmp_path):
    data = make_data(tmp_path)
    make_run(tmp_path, data, "a", (CLEAN, CW), [clean_arrays(), minimal_arrays()])
    few = [clean_arrays(RIGHT[:5]), minimal_arrays(NORMS[:5], FELL[:5])]
    make_run(tmp_path, data, "b", (CLEAN, CW), few)
    section = power.section(runs_of(tmp_path))
    assert [(sheet.title, [row[0].text for row in sheet.rows]) for sheet in section.tables] == [
        ("C&W, n = 10", ["a"]), ("C&W, n = 5", ["b"]),
    ]  # fmt: skip
    assert len(power.plots(subjects(runs_of(tmp_path)))) == 2


def test_each_attack_of_smallest_l2_or_linf_norm_has_its_plot(tmp_path):
    attacks = (CLEAN, CW, FAB, PIXEL, PGD)
    arrays = [clean_arrays(), minimal_arrays(), minimal_arrays(), minimal_arrays(), bounded_arrays(first(3))]
    drawn = power.plots([one_run(tmp_path, attacks, arrays)])
    assert [plot.name for plot in drawn] == ["power-0", "power-1"]
    assert [plot.title for plot in drawn] == [
        "Accuracy against the L2 norm that C&W is allowed, digits (8x8), test",
        "Accuracy against the L∞ norm that FAB linf is allowed, digits (8x8), test",
    ]
    assert "run" in texts_in(drawn[0])


# Attacks at several radii.


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
    mine = families.family_of(record_of(fgm(0.1)))
    assert (families.family_of(record_of(other, **fields)) == mine) is same


def test_three_radii_make_a_ladder_in_their_order(tmp_path):
    (family,) = families.families([make_ladder(tmp_path)])
    (ladder,) = family.ladders
    assert ladder.epsilons == [0.1, 0.2, 0.3, 0.4]
    assert [one.summary.accuracy for one in ladder.steps] == [0.6, 0.5, 0.3, 0.2]


def test_of_two_settings_at_one_radius_the_stronger_counts(tmp_path):
    attacks = (CLEAN, fgm(0.1), fgm(0.2), fgm(0.3), fgm(0.2, "fgsm(epsilon=0.2, norm=l2, step_size=0.1)"))
    arrays = [clean_arrays(), *(bounded_arrays(first(right)) for right in (6, 5, 3, 4))]
    (family,) = families.families([one_run(tmp_path, attacks, arrays)])
    assert [one.summary.accuracy for one in family.ladders[0].steps] == [0.6, 0.4, 0.3]


def test_the_probability_of_the_right_class_falls_with_the_norm(tmp_path):
    subject = make_ladder(tmp_path, defense="generator(c_l=10)", defense_options={"c_l": 10.0})
    (ladder,) = families.families([subject])[0].ladders
    fall = epsilons.fall_of(ladder)
    np.testing.assert_allclose(fall.norms, [0, 0.1, 0.2, 0.3, 0.4], rtol=1e-6)
    np.testing.assert_allclose(fall.probabilities, [0.9, 0.7, 0.6, 0.5, 0.3], rtol=1e-6)
    assert fall.target == 10
    np.testing.assert_allclose(epsilons.gaussian(10, np.array([0, 0.1, 1])), [1, np.exp(-0.1), np.exp(-10)])
    # c_L is 1 / (2 sigma^2): at one sigma the target has fallen by the square root of e.
    assert epsilons.gaussian(10, np.array(np.sqrt(1 / 20))) == pytest.approx(np.exp(-0.5))
    accuracy, probability = epsilons.plots(runs_of(tmp_path))
    assert accuracy.title == "Accuracy under FGM l2 against its radius, digits (8x8), test"
    assert probability.title.startswith("Probability of the right class against the L2 norm of FGM l2")
    assert {"run", "target, c_L = 10", "mean probability"} <= set(texts_in(probability))
    assert "σ²" in epsilons.section(runs_of(tmp_path)).note


def test_only_generators_have_a_target(tmp_path):
    (ladder,) = families.families([make_ladder(tmp_path, defense="pgd", defense_options={"c_l": 10.0})])[0].ladders
    assert epsilons.fall_of(ladder).target is None
    assert not any("target" in shown for shown in texts_in(epsilons.plots(runs_of(tmp_path))[1]))
    assert "target" not in epsilons.section(runs_of(tmp_path)).note


@pytest.mark.parametrize(("penalty", "target"), [({}, 10), ({"penalty": "pixels"}, 10), ({"penalty": "raw"}, None)])
def test_a_penalty_on_the_raw_output_aims_at_no_norm(tmp_path, penalty, target):
    subject = make_ladder(tmp_path, defense_options={"c_l": 10.0, **penalty})
    assert epsilons.target_of(families.families([subject])[0].ladders[0]) == target


def test_arrays_without_probabilities_leave_that_plot_out(tmp_path):
    (ladder,) = families.families([make_ladder(tmp_path, probability=False)])[0].ladders
    assert epsilons.fall_of(ladder) is None
    assert len(epsilons.plots(runs_of(tmp_path))) == 1
    assert {line["probability"] for line in lines_of(epsilons.section(runs_of(tmp_path)))} == {""}


def test_the_table_by_radius_and_its_csv(tmp_path):
    make_ladder(tmp_path, defense_options={"c_l": 10.0})
    section = epsilons.section(runs_of(tmp_path))
    (sheet,) = section.tables
    assert (sheet.title, sheet.caption) == ("FGM l2", "L2, 1 step; digits (8x8), test.")
    assert [head.label for head in sheet.columns] == ["Run", "Clean", "ε 0.1", "ε 0.2", "ε 0.3", "ε 0.4"]
    assert [field.text for field in sheet.rows[0]] == ["run", "80.0", "60.0", "50.0", "30.0", "20.0"]
    lines = lines_of(section)
    assert [line["epsilon"] for line in lines] == ["0.1", "0.2", "0.3", "0.4"]
    shown = {key: lines[1][key] for key in ("run", "attack", "accuracy", "mean_l2", "probability", "count")}
    assert shown == {
        "run": "run", "attack": "fgsm(epsilon=0.2, norm=l2)", "accuracy": "50.0", "mean_l2": "0.2",
        "probability": "0.6", "count": "10",
    }  # fmt: skip
    assert float(lines[1]["target"]) == pytest.approx(np.exp(-0.4), rel=1e-5)


# Sweeps.


def series_of(found):
    return {one.label: one for one in sweeps.series(found)}


def test_a_curve_is_a_method_with_what_is_not_its_own(found):
    curves = series_of(found)
    assert list(curves) == ["fgsm", "generator, model.width=1", "generator, model.width=2"]
    assert [(one.along, one.values) for one in curves.values()] == [
        ("defense.epsilon", [0.02, 0.05, 0.1]),
        ("defense.c_l", [5, 50]),
        ("defense.c_l", [5, 50]),
    ]
    assert [subject.name for subject in curves["fgsm"].subjects] == ["f0.02", "f0.05", "f0.1"]
    assert [subject.name for subject in sweeps.unswept(found)] == ["plain", "vanilla"]


@pytest.mark.parametrize(
    ("swept", "along", "labels"),
    [
        ([{"model.width": 2}, {"model.width": 1}], "model.width", ["pgd"]),
        ([{"defense.epsilon": 0.1, "model.width": w} for w in (1, 2)], "model.width", ["pgd, epsilon=0.1"]),
        ([{"defense.epsilon": e, "train.seed": s} for e in (0.1, 0.2) for s in (1, 2, 3)], "defense.epsilon",
         ["pgd, train.seed=1", "pgd, train.seed=2", "pgd, train.seed=3"]),
        ([{"defense.norm": "l2"}, {"defense.norm": "linf"}], "defense.norm", ["pgd"]),
        ([{"defense.epsilon": 8 / 255}, {"defense.epsilon": 4 / 255}], "defense.epsilon", ["pgd"]),
        ([{"defense.a": a, "defense.b": b} for a in (1, 2, 3) for b in (1, 2)], "defense.a", ["pgd, b=1", "pgd, b=2"]),
    ],
)  # fmt: skip
def test_along_a_curve_runs_the_setting_of_the_defense(tmp_path, swept, along, labels):
    data = make_data(tmp_path)
    for i, sweep in enumerate(swept):
        make_run(tmp_path, data, f"r{i}", (CLEAN,), [clean_arrays()], defense="pgd(steps=3)", sweep=sweep)
    curves = series_of(subjects(runs_of(tmp_path)))
    assert list(curves) == labels
    assert {one.along for one in curves.values()} == {along}
    for one in curves.values():
        assert one.values == sorted(one.values)


@pytest.mark.parametrize(
    ("defense", "sweep", "method"),
    [
        ("pgd(epsilon=0.1, norm=l2, step_size=0.03)", {}, "pgd(norm=l2)"),
        ("pgd(epsilon=8/255)", {"defense.epsilon": 8 / 255}, "pgd"),
        ("mat(strategy=max, per=batch)", {"defense.strategy": "max"}, "mat(per=batch)"),
        ("generator(c_l=2, update=joint)", {"defense.c_l": 2}, "generator(update=joint)"),
    ],
)
def test_words_tell_methods_apart_and_numbers_runs_of_one(tmp_path, defense, sweep, method):
    subject = one_run(tmp_path, (CLEAN, CW), [clean_arrays(), minimal_arrays()], defense=defense, sweep=sweep)
    assert kinds.method_of(subject.run) == method
    assert kinds.labels([subject]) == {kinds.kind_of(subject): method}


def names_of(found):
    return [subject.name for subject in found]


def test_sweeps_of_one_method_along_different_settings_are_all_shown(tmp_path):
    widths = [("pgd", {"model.width": w}, {"model": f"resnet_v1(depth=8, width={w})"}) for w in (2, 4)]
    found = make_kinds(
        tmp_path,
        *((f"pgd(epsilon={e})", {"defense.epsilon": e}) for e in (0.1, 0.2, 0.3)),
        *((f"pgd(steps={k})", {"defense.steps": k}) for k in (2, 1)),
        *widths,
        ("pgd(epsilon=0.5)", {}),
    )  # fmt: skip
    assert sorted(names_of(sweeps.ordered(found))) == names_of(found)
    curves = sweeps.series(found)
    assert [(one.label, one.along, names_of(one.subjects)) for one in curves] == [
        ("pgd, by epsilon", "defense.epsilon", ["r0", "r1", "r2"]),
        ("pgd, by steps", "defense.steps", ["r4", "r3"]),
        ("pgd, by model.width", "model.width", ["r5", "r6"]),
    ]
    assert len(sweep_table.section(runs_of(tmp_path)).lines) == len(found)
    assert [plot.title.partition(", digits")[0] for plot in robustness.plots(runs_of(tmp_path))] == [
        f"Accuracy against {word} of pgd" for word in ("epsilon", "steps", "model.width")
    ]
    # What was swept along epsilon takes in the single run that has another epsilon.
    (comparison,) = matched.comparisons(runs_of(tmp_path), Match((0.8,)))
    assert sorted(pick.label for pick in comparison.picks) == sorted(one.label for one in curves)


def test_what_is_ordered_is_a_permutation(tmp_path):
    values = (0.1, 0.2, "a")
    tried = [dict(zip(keys, chosen, strict=True))
             for keys in (("defense.a",), ("model.b",), ("train.seed",), ("defense.a", "train.seed"),
                          ("defense.a", "model.b"))
             for chosen in itertools.product(values[: 3 - len(keys) // 2], repeat=len(keys))]  # fmt: skip
    runs = [
        (f"{method}(steps={i % 2 + 1})", sweep) for i, sweep in enumerate([{}, *tried]) for method in ("pgd", "fgsm")
    ]
    found = make_kinds(tmp_path, *runs)
    assert sorted(names_of(sweeps.ordered(found))) == sorted(names_of(found))
    assert sorted(name for _, part in sweeps.panels(found) for name in names_of(part)) == sorted(names_of(found))


def test_a_curve_is_of_one_defense_one_model_one_data_and_one_number_of_images(tmp_path):
    other = make_data(tmp_path / "other", names=[f"class {i}" for i in range(10)])
    sweep = [{"defense.epsilon": e} for e in (0.1, 0.2)]
    told = [
        ("pgd(epsilon={}, steps=2)", {}),
        ("pgd(epsilon={})", {"model": "all_conv(width=0.5)"}),
        ("pgd(epsilon={})", {"model": "all_conv"}),
        ("pgd(epsilon={})", {"data": other}),
        ("pgd(epsilon={})", {"count": 5}),
        ("pgd(epsilon={}, norm=l2)", {}),
        ("pgd(epsilon={})", {}),
    ]
    runs = [(spec.format(s["defense.epsilon"]), s, dict(more)) for spec, more in told for s in sweep]
    found = make_kinds(tmp_path, *runs)
    plain = artifacts.read(tmp_path / "data").fingerprint[:8]
    curves = sweeps.series(found)
    assert {one.label for one in curves} == {
        f"pgd(steps=2), resnet_v1(depth=8), data {plain}, n = 10",
        f"pgd, all_conv(width=0.5), data {plain}, n = 10",
        f"pgd, all_conv, data {plain}, n = 10",
        f"pgd, resnet_v1(depth=8), data {other.fingerprint[:8]}, n = 10",
        f"pgd, resnet_v1(depth=8), data {plain}, n = 5",
        "pgd(norm=l2)",
        f"pgd, resnet_v1(depth=8), data {plain}, n = 10",
    }
    assert [len(one.subjects) for one in curves] == [2] * 7


def test_only_what_tells_kinds_apart_is_in_their_label(tmp_path):
    found = make_kinds(
        tmp_path,
        *((f"pgd(epsilon={e})", {"defense.epsilon": e}) for e in (0.1, 0.2)),
        *((f"pgd(epsilon={e}, steps=2, restarts=3)", {"defense.epsilon": e}) for e in (0.1, 0.2)),
        *((f"pgd(epsilon={e}, steps=4, restarts=3)", {"defense.epsilon": e}) for e in (0.1, 0.2)),
        ("pgd(epsilon=0.5, restarts=3, steps=4)", {}),
        ("pgd(epsilon=0.5, restarts=4)", {}),
        ("trades(steps=7)", {}),
    )  # fmt: skip
    assert {label: names_of(mine) for label, mine in kinds.by_label(found).items()} == {
        "pgd": ["r0", "r1"],
        "pgd(restarts=3, steps=2)": ["r2", "r3"],
        "pgd(restarts=3, steps=4)": ["r4", "r5", "r6"],
        "pgd(epsilon=0.5, restarts=4)": ["r7"],
        "trades": ["r8"],
    }
    section = sweep_table.section(runs_of(tmp_path))
    assert {line["run"]: line["method"] for line in lines_of(section)}["r6"] == "pgd(restarts=3, steps=4)"


def test_seeds_are_repeats_and_no_setting(tmp_path):
    data = make_data(tmp_path)
    for seed in range(3):
        make_swept(tmp_path, data, f"n{seed}", "none", {"train.seed": seed}, 8 - seed, 0.1 + seed)
    make_swept(tmp_path, data, "n", "none", {}, 5, 0.2)
    for e, seed in itertools.product((0.1, 0.2, 0.3), (0, 1, 2)):
        make_swept(tmp_path, data, f"p{e} {seed}", "pgd", {"defense.epsilon": e, "train.seed": seed}, 8 - seed, e)
    runs = runs_of(tmp_path)
    repeats, *others = sweeps.series(subjects(runs))
    assert (repeats.label, repeats.along, names_of(repeats.subjects)) == ("none", "", ["n0", "n1", "n2"])
    assert [one.label for one in others] == [f"pgd, train.seed={k}" for k in range(3)]
    titles = [plot.title for plot in robustness.plots(runs)]
    assert [title.partition(", digits")[0] for title in titles if "against clean" not in title] == [
        f"Accuracy against epsilon of pgd, train.seed={k}" for k in range(3)
    ]
    # In a comparison of methods the seed is no method.
    assert [pick.label for pick in matched.comparisons(runs, Match((0.8,)))[0].picks] == ["none", "pgd"]


def test_no_line_joins_repeats(swept, tmp_path, monkeypatch):
    data = make_data(tmp_path)
    for seed in range(2):
        make_swept(tmp_path, data, f"n{seed}", "none", {"train.seed": seed}, 8 - seed, 0.1 + seed)
    make_swept(tmp_path, data, "p", "pgd", {}, 7, 0.3)
    drawn = []
    monkeypatch.setattr(robustness, "plot_of", lambda *args, **_: drawn.append(args))
    robustness.plots(runs_of(tmp_path))
    ((_, title, curves, _),) = drawn
    assert title.startswith("Robustness under C&W")
    assert [(one.label, one.kind, len(one.x), one.texts) for one in curves] == [
        ("none", "points", 2, ()), ("p", "points", 1, ()),
    ]  # fmt: skip
    robustness.plots(runs_of(swept))
    kinds_of = {one.label: one.kind for one in drawn[1][2]}
    assert kinds_of["fgsm, by epsilon"] == "line"
    assert kinds_of["plain"] == "points"


def test_settings_are_written_as_they_were_given():
    pairs = [("defense.epsilon", 8 / 255), ("defense.c_l", 50.0), ("train.learning_rate", 1e-05), ("model.kind", "a b")]
    assert [kinds.setting(*pair) for pair in pairs] == [
        "epsilon=8/255", "c_l=50", "train.learning_rate=1e-05", "model.kind=a b",
    ]  # fmt: skip


def test_a_sweep_that_is_no_table_of_values_is_none(tmp_path):
    data = make_data(tmp_path)
    for i, sweep in enumerate(({}, None, "x", {"a": True})):
        make_run(tmp_path, data, f"r{i}", (CLEAN,), [clean_arrays()], sweep=sweep)
    make_run(tmp_path, data, "r4", (CLEAN,), [clean_arrays()])
    tried = {subject.name: kinds.swept(subject.run) for subject in subjects(runs_of(tmp_path))}
    assert tried == {"r0": {}, "r1": {}, "r2": {}, "r3": {"a": "True"}, "r4": {}}


def test_many_runs_are_drawn_method_by_method(tmp_path):
    data = make_data(tmp_path)
    for method, count in (("pgd", 11), ("fgsm", 2)):
        for i in range(count):
            sweep = {"defense.epsilon": 0.1 * (count - i)}
            arrays = [clean_arrays(), minimal_arrays()]
            make_run(tmp_path, data, f"{method}{i}", (CLEAN, CW), arrays, defense=method, sweep=sweep)
    found = subjects(runs_of(tmp_path))
    panels = dict(sweeps.panels(found))
    sizes = sorted((label, len(mine)) for label, mine in sweeps.panels(found))
    assert sizes == [("fgsm", 2), ("pgd", 2), ("pgd", 9)]
    assert [subject.name for subject in panels["fgsm"]] == ["fgsm1", "fgsm0"]
    drawn = power.plots(found)
    assert sorted(plot.title.rpartition(": ")[2] for plot in drawn) == ["fgsm", "pgd", "pgd"]


def test_a_point_is_clean_accuracy_and_mean_norm_of_the_successes(tmp_path):
    subject = one_run(tmp_path, (CLEAN, CW), [clean_arrays(), minimal_arrays()])
    clean, mean = robustness.point_of(subject, ("cw", "l2p_tf", 10))
    assert (clean, mean) == (0.8, pytest.approx(np.mean([0.1, 0.2, 0.2, 0.3, 0.4, 0.5, 0.6])))
    assert robustness.point_of(subject, ("other", "l2p_tf", 10)) is None
    assert robustness.point_of(subject, ("cw", "l2p_tf", 5)) is None
    nothing = one_run(tmp_path / "b", (CLEAN, CW), [clean_arrays(), minimal_arrays(fell=np.zeros(10))])
    assert robustness.point_of(nothing, ("cw", "l2p_tf", 10)) is None


def test_robustness_curves_have_their_values_beside_the_points(swept):
    drawn = {plot.name: plot for plot in robustness.plots(runs_of(swept))}
    plot = drawn["sweep-curve-0"]
    assert plot.title == (
        "Robustness curves under C&W: size of its perturbations against clean accuracy, digits (8x8), test"
    )
    shown = texts_in(plot)
    labels = {"fgsm, by epsilon", "generator, model.width=1, by c_l", "generator, model.width=2, by c_l"}
    assert labels | {"plain", "vanilla", "0.02", "0.05", "0.1", "5", "50"} <= set(shown)
    assert [name for name in drawn if "setting" in name] == ["sweep-setting-1", "sweep-setting-2", "sweep-setting-3"]
    titles = [plot.title for name, plot in drawn.items() if "setting" in name]
    assert titles == [
        "Accuracy against epsilon of fgsm, digits (8x8), test",
        "Accuracy against c_l of generator, model.width=1, digits (8x8), test",
        "Accuracy against c_l of generator, model.width=2, digits (8x8), test",
    ]
    assert {"clean", "PGD-20", "0.02", "0.05", "0.1", "epsilon"} <= set(texts_in(drawn["sweep-setting-1"]))


def test_many_robustness_curves_compare_methods_and_then_capacities(tmp_path):
    data = make_data(tmp_path)
    widths = {"pgd": (1, 2, 4), "fgsm": (1, 2), "trades": (8,)}
    for method, e, w in [(m, e, w) for m, mine in widths.items() for w in mine for e in (0.1, 0.2)]:
        sweep = {"defense.epsilon": e, "model.width": w}
        make_swept(tmp_path, data, f"{method} {e} {w}", method, sweep, 8 - w // 2, e)
    drawn = [plot for plot in robustness.plots(runs_of(tmp_path)) if "curve" in plot.name]
    by_epsilon = {plot: sum("by epsilon" in shown for shown in texts_in(plot)) for plot in drawn}
    assert {plot.title.rpartition(": ")[2]: count for plot, count in by_epsilon.items()} == {
        "model.width=1": 2, "model.width=2": 2, "fgsm": 2, "pgd": 3, "trades, model.width=8": 1,
    }  # fmt: skip


def test_another_setting_with_three_values_has_plots_of_its_own(tmp_path):
    data = make_data(tmp_path)
    for e, w in itertools.product((0.1, 0.2), (1, 2, 4)):
        make_swept(tmp_path, data, f"{e} {w}", "pgd", {"defense.epsilon": e, "model.width": w}, 8, 0.3)
    titles = [plot.title for plot in robustness.plots(runs_of(tmp_path)) if "setting" in plot.name]
    assert [title.partition(", digits")[0] for title in titles] == [
        *(f"Accuracy against epsilon of pgd, model.width={w}" for w in (1, 2, 4)),
        *(f"Accuracy against model.width of pgd, epsilon={e}" for e in (0.1, 0.2)),
    ]


def test_words_are_no_axis_and_many_attacks_are_thinned(tmp_path):
    data = make_data(tmp_path)
    attacks = [CLEAN, *(fgm(k / 10) for k in range(1, 10))]
    arrays = [clean_arrays(), *(bounded_arrays(first(9 - k)) for k in range(9))]
    for i, kind in enumerate(("l2", "linf")):
        sweep = {"defense.norm": kind, "train.learning_rate": 10.0**-i}
        make_run(tmp_path, data, f"r{i}", attacks, arrays, defense="pgd", sweep=sweep)
    assert robustness.plots(runs_of(tmp_path)) == []
    for i in range(2):
        sweep = {"train.learning_rate": 0.1 * 20**-i}
        make_run(tmp_path, data, f"s{i}", attacks, arrays, defense="none", sweep=sweep)
    (plot,) = robustness.plots(runs_of(tmp_path))
    shown = texts_in(plot)
    assert [label for label in shown if label.startswith("FGM")] == [f"FGM l2, ε 0.{k}" for k in (1, 3, 5, 7, 9)]
    assert {"0.005", "0.1"} <= set(shown)


def test_the_table_of_a_sweep(swept):
    section = sweep_table.section(runs_of(swept))
    (sheet,) = section.tables
    names = ["plain", "vanilla", "f0.02", "f0.05", "f0.1", "g5 1", "g50 1", "g5 2", "g50 2"]
    assert [row[0].text for row in sheet.rows] == names
    assert [head.label for head in sheet.columns] == [
        "Run", "Method", "Clean", "C&W", "Lowest", "Seconds", "Parameters",
    ]  # fmt: skip
    row = next(row for row in sheet.rows if row[0].text == "g50 2")
    assert row[1].lines == ("generator", "c_l=50", "model.width=2")
    assert row[2].text == "80.0"
    assert row[3].lines == ("0.8", "median 0.8", "success 100.0%")
    assert (row[4].text, *row[4].below[1:]) == ("40.0", "n = 10", "PGD-20", "L∞, ε 8/255, 20 steps")
    assert (row[5].text, row[6].text) == ("1.2", "78,330")
    lines = {line["run"]: line for line in lines_of(section)}
    keys = ("method", "defense.epsilon", "defense.c_l", "model.width", "clean", "lowest", "lowest_attack", "success/cw")
    assert [lines["f0.05"][key] for key in keys] == ["fgsm", "0.05", "", "", "70.0", "30.0", "pgd", "100.0"]
    assert [lines["g5 2"][key] for key in keys[:5]] == ["generator", "", "5.0", "2.0", "60.0"]
    assert lines["plain"]["defense.epsilon"] == ""
    assert (lines["f0.1"]["mean/cw"], lines["f0.1"]["median/cw"]) == ("0.3", "0.3")
    assert (lines["f0.1"]["seconds_per_epoch"], lines["f0.1"]["parameters"]) == ("1.2", "78330")


def test_weights_and_data_are_swept_apart(tmp_path):
    data = make_data(tmp_path)
    for i, checkpoint in enumerate(("best", "last")):
        sweep = {"defense.epsilon": i}
        arrays = [clean_arrays()]
        make_run(tmp_path, data, f"r{i}", (CLEAN,), arrays, checkpoint=checkpoint, defense="pgd", sweep=sweep)
    sheets = sweep_table.section(runs_of(tmp_path)).tables
    assert [sheet.title for sheet in sheets] == ["digits (8x8), test", "digits (8x8), test, last weights"]


# Methods at the same clean accuracy.


def picked(root, *wanted, tolerance=0.01):
    found = matched.comparisons(runs_of(root), Match(wanted, tolerance))
    return [[(pick.label, pick.subject.name, pick.within) for pick in one.picks] for one in found]


def test_of_each_method_the_nearest_run_is_picked(swept):
    (picks,) = picked(swept, 0.7)
    assert picks == [
        ("none", "plain", False),
        ("pgd", "vanilla", False),
        ("fgsm", "f0.05", True),
        ("generator, model.width=1", "g50 1", True),
        ("generator, model.width=2", "g5 2", False),
    ]
    (wide,) = picked(swept, 0.7, tolerance=0.1)
    assert all(within for *_, within in wide)
    assert len(picked(swept, 0.8, 0.6)) == 2


def test_without_a_wish_the_natural_training_is_matched(swept, tmp_path):
    (picks,) = picked(swept)
    assert ("none", "plain", True) in picks
    assert ("fgsm", "f0.02", True) in picks
    data = make_data(tmp_path)
    make_swept(tmp_path, data, "plain", "none", {}, 8, 0.1)
    assert picked(tmp_path) == []
    assert picked(tmp_path, 0.8) == [[("none", "plain", True)]]
    make_swept(tmp_path / "b", make_data(tmp_path / "b"), "f", "fgsm", {"defense.epsilon": 0.1}, 8, 0.1)
    assert picked(tmp_path / "b") == []


def test_runs_beside_the_sweep_count_for_their_method(tmp_path):
    data = make_data(tmp_path)
    make_swept(tmp_path, data, "alone", "pgd", {}, 7, 0.1)
    make_swept(tmp_path, data, "swept", "pgd", {"defense.epsilon": 0.1}, 6, 0.1)
    assert picked(tmp_path, 0.7) == [[("pgd", "alone", True)]]
    assert picked(tmp_path, 0.6) == [[("pgd", "swept", True)]]


@pytest.mark.parametrize("match", [{"match": (0.7, 0.0)}, {"match": (70,)}, {"match_tolerance": -0.1}])
def test_what_is_no_share_is_refused(swept, tmp_path, match):
    with pytest.raises(UserError, match="`match.*Received"):
        report.make([swept], tmp_path / "report", **match)
    assert not (tmp_path / "report").exists()


def test_the_table_of_matched_methods(swept):
    section = matched_table.section(runs_of(swept), Match((0.8, 0.7)))
    assert [sheet.title for sheet in section.tables] == ["Clean accuracy of 80%", "Clean accuracy of 70%"]
    assert "on the very images shown here" in section.note
    rows = section.tables[1].rows
    assert all(len(row) == len(section.tables[1].columns) for row in rows)
    assert rows[0][0].text == "none"
    assert rows[0][1].text == "none within 1.0 points; nearest plain at 80.0%"
    fgsm = [row for row in rows if row[0].text == "fgsm"]
    assert [row[1].text for row in fgsm] == ["C&W", "PGD-20", "Average"]
    assert fgsm[0][0].lines == ("fgsm", "f0.05", "epsilon=0.05")
    # C&W: nothing is left, all norms are 0.2; of the sources the run itself and what it is part of do not count.
    assert [field.text for field in fgsm[0][2:]] == ["0.0", "0.2", "0.2", "60.0", "70.0", "1.2"]
    assert [line.partition(" (")[0] for line in fgsm[0][5].below] == ["a: 50.0", "b: 70.0"]
    assert fgsm[0][5].below[1].endswith(f"(39.7{text.DASH}89.2), n = 10")
    # PGD fells the four of the seven right ones that it leaves wrong, each by a perturbation of norm 0.3.
    assert [field.text for field in fgsm[1][2:]] == ["30.0", "0.3", "0.3", text.DASH, "", ""]
    assert [field.text for field in fgsm[2][2:]] == ["15.0", "0.25", "0.25", "60.0", "", ""]


def test_the_csv_of_matched_methods(swept):
    lines = lines_of(matched_table.section(runs_of(swept), Match((0.7,), 0.02)))
    missing = [line for line in lines if line["within"] == "false"]
    assert {(line["method"], line["run"], line["clean"], line["attack"]) for line in missing} == {
        ("none", "plain", "80.0", ""), ("pgd", "vanilla", "60.0", ""), ("generator, model.width=2", "g5 2", "60.0", ""),
    }  # fmt: skip
    mine = [line for line in lines if line["method"] == "generator, model.width=1"]
    assert [line["attack"] for line in mine] == ["cw", "pgd", "average"]
    assert {line["swept"] for line in mine} == {"c_l=50; model.width=1"}
    assert [line["mean_l2"] for line in mine] == ["0.4", "0.3", "0.35"]
    assert (mine[0]["black_box"], mine[0]["sources"], mine[0]["wanted"]) == ("60.0", "a; b", "70.0")
    assert (mine[0]["tolerance"], mine[0]["succeeded"], mine[1]["succeeded"]) == ("2.0", "7", "3")


def test_a_single_source_is_named(tmp_path):
    data = make_data(tmp_path)
    train = make_swept(tmp_path, data, "plain", "none", {}, 8, 0.1)
    make_transferred(tmp_path, data, [train], (("a", 5),))
    row = matched_table.section(runs_of(tmp_path), Match((0.8,))).tables[0].rows[0]
    assert row[5].lines == ("50.0", f"23.7{text.DASH}76.3", "n = 10", "from a")


def test_examples_of_a_network_with_the_same_weights_are_not_black_box(tmp_path):
    runs = runs_of(make_family(tmp_path))
    lines = lines_of(transfer.section(runs))
    found = {(line["source"], line["target"]): line["relation"] for line in lines}
    # From the source, to it, and between those that come from one.
    for pair in (("a", "a1"), ("a1", "a"), ("a1", "a2"), ("a1 + b", "a"), ("a1 + b", "a2")):
        assert found[pair] == transfer.SHARED
    for pair in (("a", "b"), ("a1", "b"), ("x1", "a"), ("a1", "x1"), ("a1 + b", "c")):
        assert found[pair] == ""
    assert (found["a1", "a1"], found["a1 + b", "b"]) == (transfer.WHITE_BOX, transfer.PARTLY)
    assert {line["white_box"] for line in lines if line["relation"] == transfer.SHARED} == {"false"}
    known = {run.key: run for run in runs}
    sources = {
        subject.name: [one.source for one in matched.results_of(subject, known)[0].transferred]
        for subject in subjects(runs)
    }
    assert sources["a"] == ["b", "c", "x1"]
    assert sources["a2"] == ["b", "c", "x1"]
    assert sources["x1"] == ["a", "b", "c", "a1", "a2", "a1 + b"]


def test_sources_of_the_same_seed_and_architecture_are_named(tmp_path):
    runs = runs_of(make_family(tmp_path))
    note = matched_table.section(runs, Match((0.8,))).note
    # Compared are a of none, c of another architecture, and a1 of noise; b has another seed, and a1 the weights of a.
    assert note.endswith(
        " Of the sources of black-box examples, these share the seed and the architecture with the run, so that the "
        "two were not initialized independently: x1 with a and a1."
    )


def test_of_an_attack_at_many_radii_one_is_compared(tmp_path):
    make_ladder(tmp_path, sweep={"defense.c_l": 1})
    (run,) = runs_of(tmp_path)
    (subject,) = subjects([run])
    results = matched.results_of(subject, {})
    (kept,) = matched.in_few_radii([results])
    assert [one.measured.first.epsilon for one in kept] == [0.4, 8 / 255, 0.1]
    make_stage(
        tmp_path / "transfer", "transfer", {"train:run": run.train},
        [record for e in (0.1, 0.2) for record in make_records("run", (5,), (fgm(e),), count=10, source="other")],
        checkpoint="best",
    )  # fmt: skip
    (run,) = runs_of(tmp_path)
    results = matched.results_of(subjects([run])[0], {})
    (kept,) = matched.in_few_radii([results])
    assert [one.measured.first.epsilon for one in kept] == [0.2, 8 / 255, 0.1]


def test_matched_runs_have_a_power_curve_of_their_own(swept):
    drawn = matched.plots(runs_of(swept), Match((0.8, 0.7, 0.1)))
    assert [(plot.name, plot.title.rpartition(": ")[2]) for plot in drawn] == [
        ("matched-0-0", "runs at a clean accuracy of 80%"),
        ("matched-1-0", "runs at a clean accuracy of 70%"),
    ]
    assert {"f0.05", "g50 1"} <= set(texts_in(drawn[1]))
    assert not {"f0.02", "plain", "vanilla"} & set(texts_in(drawn[1]))


# Curves over a training.


def rho_history(path, success=(0.9, 1.0, 1.0)):
    write_history(path, 6, 0)
    rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))
    for i, row in enumerate(rows):
        row["validation_rho"] = "" if i % 2 else str(1 / (1 + i))
        row["validation_rho_success"] = "" if i % 2 else str(success[i // 2])
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return read_history(path)


def test_clean_accuracy_and_size_of_perturbations_over_a_training(tmp_path):
    drawn = plots.of_training(rho_history(tmp_path / "history.csv"), "x", "run", 4)
    assert [plot.name for plot in drawn] == ["x-loss", "x-accuracy", "x-rho"]
    shown = texts_in(drawn[2])
    assert {"clean accuracy", "attack's success", f"{RHO} of the successes", f"{RHO}, L2 norm", "best"} <= set(shown)
    always = plots.of_training(rho_history(tmp_path / "history.csv", (1, 1, 1)), "x", "run")[2]
    assert not {"attack's success", "best"} & set(texts_in(always))


def test_the_best_epoch_is_marked(tmp_path):
    write_history(tmp_path / "history.csv", 12, 0)
    history = read_history(tmp_path / "history.csv")
    for best, marked in ((3, True), (0, True), (11, True), (None, False), (40, False)):
        loss, accuracy = plots.of_training(history, "x", "run", best)
        assert ("best" in texts_in(accuracy)) is marked
        assert "best" not in texts_in(loss)


# The page and the other files.


def test_the_page_has_the_sections_in_their_order(made):
    page = (made.path / "report.html").read_text("utf-8")
    outline = Outline(page)
    names = [name for name in outline.ids if not re.search(r"-|main", name)]
    assert names[:8] == ["summary", "comparison", "paired", "sweep", "matched", "power", "norms", "transfer"]
    assert len(outline.ids) == len(set(outline.ids))
    assert all(b - a <= 1 for a, b in itertools.pairwise(outline.headings))
    outputs = set(artifacts.read(made.path).manifest["outputs"])
    assert {
        "sweep.csv",
        "matched.csv",
        "power.csv",
        "plots/sweep-curve-0.svg",
        "plots/matched-0-0.svg",
        "plots/power-0.svg",
    } <= outputs
    markdown = (made.path / "report.md").read_text("utf-8")
    assert "## Methods at the same clean accuracy" in markdown
    assert "c\\_l=50" in markdown


def test_trainings_of_a_sweep_are_folded(made):
    page = (made.path / "report.html").read_text("utf-8")
    part = page.partition('<h2 id="training">')[2].partition("</section>")[0]
    assert "<summary>Training of f0.05</summary>" in part
    assert part.count("<summary>") == 11


def test_another_match_is_another_report(made, swept):
    options = artifacts.read(made.path).options
    assert (options["match"], options["match_tolerance"]) == ([0.8, 0.7], 0.05)
    same = {"match": (0.8, 0.7), "match_tolerance": 0.05}
    assert not report.make([swept], made.path, "Sweep", **same).made
    with pytest.raises(UserError, match="--overwrite"):
        report.make([swept], made.path, "Sweep", match=(0.7,), match_tolerance=0.05)


def test_nothing_is_shown_where_nothing_was_swept(tmp_path):
    make_run(tmp_path, make_data(tmp_path), "run", (CLEAN, PGD), [clean_arrays(), bounded_arrays(first(3))])
    runs = runs_of(tmp_path)
    assert (sweep_table.section(runs), epsilons.section(runs)) == (None, None)
    assert matched_table.section(runs, Match()) is None
    assert robustness.plots(runs) + epsilons.plots(runs) + power.plots(subjects(runs)) == []
    assert [section.name for section in compare(runs).sections] == ["strength"]


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
def test_the_page_fits_every_screen(made, tmp_path):
    source = html.escape((made.path / "report.html").read_text("utf-8"))
    frames = "".join(f'<iframe width="{width}" height="800" srcdoc="{source}"></iframe>' for width in (1280, 390))
    (tmp_path / "frames.html").write_text(FRAMES.format(frames=frames), "utf-8")
    dom, messages = browse(tmp_path / "frames.html", tmp_path / "profile")
    assert len(messages) == 1
    widths = [pair.split("/") for pair in re.search('<pre id="widths">(.*?)</pre>', dom)[1].split()]
    assert all(int(scroll) <= int(inner) for scroll, inner in widths), widths


# Curves of any kind.


def test_neighbors_differ_in_color_dashes_and_marker():
    points = np.arange(3.0)
    curves = [lines.Curve(f"c{i}", points, points + i) for i in range(12)]
    plot = lines.plot_of("p", "title", curves, ("x", "y"))
    assert plot == lines.plot_of("p", "title", curves, ("x", "y"))
    styles = [(lines.COLORS[i % len(lines.COLORS)], lines.DASHES[i % len(lines.DASHES)]) for i in range(len(curves))]
    assert len(set(styles)) == len(curves)
    assert all(a[0] != b[0] and a[1] != b[1] for a, b in itertools.pairwise(styles))


def test_wide_settings_have_a_logarithmic_axis():
    narrow, wide = (
        texts_in(lines.plot_of("p", "t", [lines.Curve("c", np.array(x), np.ones(3))], ("x", "y"), ticks=x))
        for x in ([1.0, 2.0, 4.0], [1.0, 10.0, 100.0])
    )
    assert narrow[:3] == ["1", "2", "4"]
    assert wide[:3] == ["1", "10", "100"]
