"""Sweeps: which runs are of one kind, what a curve joins, what it is called, and the tables and plots of it."""

import itertools

import numpy as np
import pytest

from l2p_tf import artifacts
from l2p_tf.reporting.methods import method_of, setting, swept
from l2p_tf.reporting.plot import COLORS, DASHES, Curve, plot_of
from l2p_tf.reporting.sections.matched import comparisons_of
from l2p_tf.reporting.sections.sweep import point_of, robustness_curves
from l2p_tf.reporting.series import by_label, labels, ordered, panels, series, unswept
from support.pages import texts_in
from support.reports import make_data, results_of, rows_of, section_of, texts_of
from support.sweeps import (
    CLEAN,
    CW,
    bounded_arrays,
    clean_arrays,
    fgm,
    first,
    make_kinds,
    make_run,
    make_sweep,
    make_swept,
    minimal_arrays,
    one_run,
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_sweep(tmp_path_factory.mktemp("swept") / "runs")


def evaluated_in(folder):
    return results_of(folder).evaluated


def names_of(evaluated):
    return [one.name for one in evaluated]


def titles_in(folder, kind):
    """Titles of the plots of a kind in the sweep's section, without the data."""
    return [plot.title.partition(", digits")[0] for plot in section_of(folder, "sweep").plots if kind in plot.name]


def test_a_curve_is_a_method_with_what_is_not_its_own(root):
    curves = {one.label: one for one in series(evaluated_in(root))}
    assert list(curves) == ["fgsm", "generator, model.width=1", "generator, model.width=2"]
    assert [(one.along, one.values) for one in curves.values()] == [
        ("defense.epsilon", [0.02, 0.05, 0.1]), ("defense.c_l", [5, 50]), ("defense.c_l", [5, 50]),
    ]  # fmt: skip
    assert names_of(curves["fgsm"].runs) == ["f0.02", "f0.05", "f0.1"]
    assert names_of(unswept(evaluated_in(root))) == ["plain", "vanilla"]


@pytest.mark.parametrize(
    ("sweeps", "along", "names"),
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
def test_along_a_curve_runs_the_setting_of_the_defense(tmp_path, sweeps, along, names):
    curves = series(make_kinds(tmp_path, *(("pgd(steps=3)", sweep) for sweep in sweeps)))
    assert [one.label for one in curves] == names
    assert {one.along for one in curves} == {along}
    assert all(one.values == sorted(one.values) for one in curves)


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
    (one,) = make_kinds(tmp_path, (defense, sweep))
    assert method_of(one.run) == labels([one])[one] == method


def test_sweeps_of_one_method_along_different_settings_are_all_shown(tmp_path):
    widths = [("pgd", {"model.width": w}, {"model": f"resnet_v1(depth=8, width={w})"}) for w in (2, 4)]
    evaluated = make_kinds(
        tmp_path,
        *((f"pgd(epsilon={e})", {"defense.epsilon": e}) for e in (0.1, 0.2, 0.3)),
        *((f"pgd(steps={k})", {"defense.steps": k}) for k in (2, 1)),
        *widths,
        ("pgd(epsilon=0.5)", {}),
    )  # fmt: skip
    assert sorted(names_of(ordered(evaluated))) == names_of(evaluated)
    curves = series(evaluated)
    assert [(one.label, one.along, names_of(one.runs)) for one in curves] == [
        ("pgd, by epsilon", "defense.epsilon", ["r0", "r1", "r2"]),
        ("pgd, by steps", "defense.steps", ["r4", "r3"]),
        ("pgd, by model.width", "model.width", ["r5", "r6"]),
    ]
    section = section_of(tmp_path, "sweep")
    assert len(section.figures) == len(evaluated)
    assert titles_in(tmp_path, "") == [
        f"Accuracy against {word} of pgd" for word in ("epsilon", "steps", "model.width")
    ]
    # What was swept along epsilon takes in the single run that has another epsilon.
    ((_, picks),) = comparisons_of(results_of(tmp_path, (0.8,)))
    assert sorted(pick.label for pick in picks) == sorted(one.label for one in curves)


def test_what_is_ordered_is_a_permutation(tmp_path):
    values = (0.1, 0.2, "a")
    tried = [dict(zip(keys, chosen, strict=True))
             for keys in (("defense.a",), ("model.b",), ("train.seed",), ("defense.a", "train.seed"),
                          ("defense.a", "model.b"))
             for chosen in itertools.product(values[: 3 - len(keys) // 2], repeat=len(keys))]  # fmt: skip
    runs = [
        (f"{method}(steps={i % 2 + 1})", sweep) for i, sweep in enumerate([{}, *tried]) for method in ("pgd", "fgsm")
    ]
    evaluated = make_kinds(tmp_path, *runs)
    assert sorted(names_of(ordered(evaluated))) == sorted(names_of(evaluated))
    assert sorted(name for _, part in panels(evaluated) for name in names_of(part)) == sorted(names_of(evaluated))


def test_a_curve_is_of_one_defense_one_model_one_data_and_one_number_of_images(tmp_path):
    other = make_data(tmp_path / "other", names=[f"class {i}" for i in range(10)])
    kinds = [
        ("pgd(epsilon={}, steps=2)", {}),
        ("pgd(epsilon={})", {"model": "all_conv(width=0.5)"}),
        ("pgd(epsilon={})", {"model": "all_conv"}),
        ("pgd(epsilon={})", {"data": other}),
        ("pgd(epsilon={})", {"count": 5}),
        ("pgd(epsilon={}, norm=l2)", {}),
        ("pgd(epsilon={})", {}),
    ]
    runs = [(spec.format(e), {"defense.epsilon": e}, dict(more)) for spec, more in kinds for e in (0.1, 0.2)]
    curves = series(make_kinds(tmp_path, *runs))
    plain = artifacts.read(tmp_path / "data").fingerprint[:8]
    assert {one.label for one in curves} == {
        f"pgd(steps=2), resnet_v1(depth=8), data {plain}, n = 10",
        f"pgd, all_conv(width=0.5), data {plain}, n = 10",
        f"pgd, all_conv, data {plain}, n = 10",
        f"pgd, resnet_v1(depth=8), data {other.fingerprint[:8]}, n = 10",
        f"pgd, resnet_v1(depth=8), data {plain}, n = 5",
        "pgd(norm=l2)",
        f"pgd, resnet_v1(depth=8), data {plain}, n = 10",
    }
    assert [len(one.runs) for one in curves] == [2] * 7


def test_only_what_tells_kinds_apart_is_in_their_label(tmp_path):
    evaluated = make_kinds(
        tmp_path,
        *((f"pgd(epsilon={e})", {"defense.epsilon": e}) for e in (0.1, 0.2)),
        *((f"pgd(epsilon={e}, steps=2, restarts=3)", {"defense.epsilon": e}) for e in (0.1, 0.2)),
        *((f"pgd(epsilon={e}, steps=4, restarts=3)", {"defense.epsilon": e}) for e in (0.1, 0.2)),
        ("pgd(epsilon=0.5, restarts=3, steps=4)", {}),
        ("pgd(epsilon=0.5, restarts=4)", {}),
        ("trades(steps=7)", {}),
    )  # fmt: skip
    assert {label: names_of(runs) for label, runs in by_label(evaluated).items()} == {
        "pgd": ["r0", "r1"],
        "pgd(restarts=3, steps=2)": ["r2", "r3"],
        "pgd(restarts=3, steps=4)": ["r4", "r5", "r6"],
        "pgd(epsilon=0.5, restarts=4)": ["r7"],
        "trades": ["r8"],
    }
    assert dict(rows_of(section_of(tmp_path, "sweep"), "run", "method"))["r6"] == "pgd(restarts=3, steps=4)"


def test_seeds_are_repeats_and_no_setting(tmp_path):
    data = make_data(tmp_path)
    for seed in range(3):
        make_swept(tmp_path, data, f"n{seed}", "none", {"train.seed": seed}, 8 - seed, 0.1 + seed)
    make_swept(tmp_path, data, "n", "none", {}, 5, 0.2)
    for e, seed in itertools.product((0.1, 0.2, 0.3), (0, 1, 2)):
        make_swept(tmp_path, data, f"p{e} {seed}", "pgd", {"defense.epsilon": e, "train.seed": seed}, 8 - seed, e)
    results = results_of(tmp_path, (0.8,))
    repeats, *others = series(results.evaluated)
    assert (repeats.label, repeats.along, names_of(repeats.runs)) == ("none", "", ["n0", "n1", "n2"])
    assert [one.label for one in others] == [f"pgd, train.seed={k}" for k in range(3)]
    assert titles_in(tmp_path, "setting") == [f"Accuracy against epsilon of pgd, train.seed={k}" for k in range(3)]
    # In a comparison of methods the seed is no method.
    ((_, picks),) = comparisons_of(results)
    assert [pick.label for pick in picks] == ["none", "pgd"]


def test_settings_are_written_as_they_were_given(tmp_path):
    pairs = [("defense.epsilon", 8 / 255), ("defense.c_l", 50.0), ("train.learning_rate", 1e-05), ("model.kind", "a b")]
    assert [setting(*pair) for pair in pairs] == [
        "epsilon=8/255", "c_l=50", "train.learning_rate=1e-05", "model.kind=a b",
    ]  # fmt: skip
    evaluated = make_kinds(tmp_path, *(("pgd", sweep) for sweep in ({}, None, "x", {"a": True})))
    assert [swept(one.run) for one in evaluated] == [{}, {}, {}, {"a": "True"}]


def test_many_runs_are_drawn_method_by_method(tmp_path):
    data = make_data(tmp_path)
    for method, count in (("pgd", 11), ("fgsm", 2)):
        for i in range(count):
            sweep = {"defense.epsilon": 0.1 * (count - i)}
            arrays = [clean_arrays(), minimal_arrays()]
            make_run(tmp_path, data, f"{method}{i}", (CLEAN, CW), arrays, defense=method, sweep=sweep)
    parts = panels(evaluated_in(tmp_path))
    assert sorted((label, len(part)) for label, part in parts) == [("fgsm", 2), ("pgd, 1", 9), ("pgd, 2", 2)]
    assert names_of(dict(parts)["fgsm"]) == ["fgsm1", "fgsm0"]
    plots = section_of(tmp_path, "power").plots
    assert sorted(plot.title.rpartition(": ")[2] for plot in plots) == ["fgsm", "pgd, 1", "pgd, 2"]


def test_runs_of_many_methods_that_were_tried_once_share_plots(tmp_path):
    data = make_data(tmp_path)
    for i in range(11):
        arrays = [clean_arrays(), minimal_arrays()]
        make_run(tmp_path, data, f"r{i:02}", (CLEAN, CW), arrays, defense=f"d{i}")
    assert [(label, len(part)) for label, part in panels(evaluated_in(tmp_path))] == [
        ("single runs, 1", 9), ("single runs, 2", 2),
    ]  # fmt: skip


def test_a_point_is_clean_accuracy_and_mean_norm_of_the_successes(tmp_path):
    one = one_run(tmp_path, (CLEAN, CW), [clean_arrays(), minimal_arrays()])
    mean = np.mean([0.1, 0.2, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert point_of(one, ("cw", "l2p_tf", 10)) == (0.8, pytest.approx(mean))
    assert point_of(one, ("other", "l2p_tf", 10)) is None
    assert point_of(one, ("cw", "l2p_tf", 5)) is None
    nothing = one_run(tmp_path / "b", (CLEAN, CW), [clean_arrays(), minimal_arrays(fell=np.zeros(10))])
    assert point_of(nothing, ("cw", "l2p_tf", 10)) is None


def test_robustness_curves_join_a_sweep_and_no_repeats(root, tmp_path):
    evaluated = evaluated_in(root)
    curves = robustness_curves(("cw", "l2p_tf", 10), series(evaluated), unswept(evaluated))
    assert {curve.label: (curve.kind, curve.texts) for curve in curves} == {
        "fgsm, by epsilon": ("line", ("0.02", "0.05", "0.1")),
        "generator, model.width=1, by c_l": ("line", ("5", "50")),
        "generator, model.width=2, by c_l": ("line", ("5", "50")),
        "plain": ("points", ()),
        "vanilla": ("points", ()),
    }
    data = make_data(tmp_path)
    for seed in range(2):
        make_swept(tmp_path, data, f"n{seed}", "none", {"train.seed": seed}, 8 - seed, 0.1 + seed)
    evaluated = evaluated_in(tmp_path)
    (repeats,) = robustness_curves(("cw", "l2p_tf", 10), series(evaluated), [])
    assert (repeats.label, repeats.kind, len(repeats.x), repeats.texts) == ("none", "points", 2, ())


def test_the_plots_of_a_sweep(root):
    plots = {plot.name: plot for plot in section_of(root, "sweep").plots}
    assert plots["sweep-curve-0"].title == (
        "Robustness curves under C&W: size of its perturbations against clean accuracy, digits (8x8), test"
    )
    assert titles_in(root, "setting") == [
        "Accuracy against epsilon of fgsm",
        "Accuracy against c_l of generator, model.width=1",
        "Accuracy against c_l of generator, model.width=2",
    ]
    assert {"clean", "PGD-20", "0.02", "0.05", "0.1", "epsilon"} <= set(texts_in(plots["sweep-setting-1"]))
    # Where a point is, is said when it is pointed at.
    assert (
        "fgsm, by epsilon: \N{GREEK SMALL LETTER RHO}, mean L2 norm 0.2 at clean accuracy 70%, 0.05"
        in plots["sweep-curve-0"].svg
    )


def test_many_robustness_curves_compare_methods_and_then_capacities(tmp_path):
    data = make_data(tmp_path)
    widths = {"pgd": (1, 2, 4), "fgsm": (1, 2), "trades": (8,)}
    for method, e, w in [(m, e, w) for m, chosen in widths.items() for w in chosen for e in (0.1, 0.2)]:
        sweep = {"defense.epsilon": e, "model.width": w}
        make_swept(tmp_path, data, f"{method} {e} {w}", method, sweep, 8 - w // 2, e)
    plots = [plot for plot in section_of(tmp_path, "sweep").plots if "curve" in plot.name]
    counts = {plot.title.rpartition(": ")[2]: sum("by epsilon" in text for text in texts_in(plot)) for plot in plots}
    assert counts == {"model.width=1": 2, "model.width=2": 2, "fgsm": 2, "pgd": 3, "trades, model.width=8": 1}


def test_another_setting_with_three_values_has_plots_of_its_own(tmp_path):
    data = make_data(tmp_path)
    for e, w in itertools.product((0.1, 0.2), (1, 2, 4)):
        make_swept(tmp_path, data, f"{e} {w}", "pgd", {"defense.epsilon": e, "model.width": w}, 8, 0.3)
    assert titles_in(tmp_path, "setting") == [
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
    assert section_of(tmp_path, "sweep").plots == ()
    for i in range(2):
        sweep = {"train.learning_rate": 0.1 * 20**-i}
        make_run(tmp_path, data, f"s{i}", attacks, arrays, defense="none", sweep=sweep)
    (plot,) = section_of(tmp_path, "sweep").plots
    texts = texts_in(plot)
    assert [label for label in texts if label.startswith("FGM")] == [f"FGM l2, ε 0.{k}" for k in (1, 3, 5, 7, 9)]
    # Values that lie far apart are on a logarithmic axis, with ticks of their own.
    assert {"0.005", "0.1"} <= set(texts)


def test_the_table_of_a_sweep(root):
    section = section_of(root, "sweep")
    rows = {row[0][0]: row[1:] for row in texts_of(section.tables[0])}
    assert list(rows) == ["plain", "vanilla", "f0.02", "f0.05", "f0.1", "g5 1", "g50 1", "g5 2", "g50 2"]
    assert rows["g50 2"][:3] == [
        ("generator", "c_l=50", "model.width=2"), ("80.0", "49.0\N{EN DASH}94.3", "n = 10"),
        ("0.8", "median 0.8", "success 100.0%"),
    ]  # fmt: skip
    assert rows["g50 2"][3][2:] == ("n = 10", "PGD-20", "L∞, ε 8/255, 20 steps")
    keys = ("defense.epsilon", "defense.c_l", "model.width", "clean", "lowest", "lowest_attack", "mean/cw", "median/cw")
    figures = dict(zip(rows, rows_of(section, *keys), strict=True))
    assert figures["f0.05"] == (0.05, None, None, 70, 30, "pgd", 0.2, 0.2)
    assert figures["g5 2"][:4] == (None, 5, 2, 60)


def test_weights_and_data_are_swept_apart(tmp_path):
    data = make_data(tmp_path)
    for i, checkpoint in enumerate(("best", "last")):
        sweep = {"defense.epsilon": i}
        make_run(tmp_path, data, f"r{i}", (CLEAN,), [clean_arrays()], checkpoint=checkpoint, defense="pgd", sweep=sweep)
    titles = [table.title for table in section_of(tmp_path, "sweep").tables]
    assert titles == ["digits (8x8), test", "digits (8x8), test, last weights"]


def test_neighbors_differ_in_color_and_dashes():
    x = np.arange(3.0)
    curves = [Curve(f"c{i}", x, x + i) for i in range(12)]
    assert plot_of("p", "title", curves, ("x", "y")) == plot_of("p", "title", curves, ("x", "y"))
    styles = [(COLORS[i % len(COLORS)], DASHES[i % len(DASHES)]) for i in range(len(curves))]
    assert len(set(styles)) == len(curves)
    assert all(a[0] != b[0] and a[1] != b[1] for a, b in itertools.pairwise(styles))
