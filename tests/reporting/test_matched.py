"""Methods at the same clean accuracy: which run of each is picked, and what it is compared by."""

import pytest

from l2p_tf.reporting import report
from l2p_tf.reporting.format import DASH
from l2p_tf.reporting.sections.matched import at_one_radius, attacks_on, comparisons_of
from l2p_tf.types import UserError
from support.pages import texts_in
from support.reports import make_data, make_records, make_stage, results_of, rows_of, section_of, texts_of
from support.sweeps import fgm, make_family, make_ladder, make_sweep, make_swept, make_transferred


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_sweep(tmp_path_factory.mktemp("swept") / "runs")


def picked(folder, *wanted, tolerance=0.01):
    comparisons = comparisons_of(results_of(folder, wanted, tolerance))
    return [[(pick.label, pick.evaluated.name, pick.within) for pick in picks] for _, picks in comparisons]


def test_of_each_method_the_nearest_run_is_picked(root):
    (picks,) = picked(root, 0.7)
    assert picks == [
        ("none", "plain", False),
        ("pgd", "vanilla", False),
        ("fgsm", "f0.05", True),
        ("generator, model.width=1", "g50 1", True),
        ("generator, model.width=2", "g5 2", False),
    ]
    (wide,) = picked(root, 0.7, tolerance=0.1)
    assert all(within for *_, within in wide)
    assert len(picked(root, 0.8, 0.6)) == 2


def test_without_a_wish_the_natural_training_is_matched(root, tmp_path):
    (picks,) = picked(root)
    assert {("none", "plain", True), ("fgsm", "f0.02", True)} <= set(picks)
    make_swept(tmp_path, make_data(tmp_path), "plain", "none", {}, 8, 0.1)
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
def test_what_is_no_share_is_refused(root, tmp_path, match):
    with pytest.raises(UserError, match="`match.*Received"):
        report.make([root], tmp_path / "report", **match)
    assert not (tmp_path / "report").exists()


def test_the_table_of_matched_methods(root):
    section = section_of(root, "matched", (0.8, 0.7))
    assert [table.title for table in section.tables] == ["Clean accuracy of 80%", "Clean accuracy of 70%"]
    rows = texts_of(section.tables[1])
    assert rows[0][:2] == [("none",), ("none within 1.0 points; nearest plain at 80.0%",)]
    cw, pgd, average = [row for row in rows if row[0][0] == "fgsm"]
    assert cw[0] == ("fgsm", "f0.05", "epsilon=0.05")
    # C&W: nothing is left, all norms are 0.2; of the sources the run itself and what it is part of do not count.
    assert [lines[0] for lines in cw[1:]] == ["C&W", "0.0", "0.2", "0.2", "60.0", "70.0", "1.2"]
    assert [line.partition(" (")[0] for line in cw[5][1:]] == ["a: 50.0", "b: 70.0"]
    assert cw[5][2].endswith(f"(39.7{DASH}89.2), n = 10")
    # PGD fells the four of the seven right ones that it leaves wrong, each by a perturbation of norm 0.3.
    assert [lines[0] for lines in pgd[1:]] == ["PGD-20", "30.0", "0.3", "0.3", DASH, "", ""]
    assert [lines[0] for lines in average[1:]] == ["Average", "15.0", "0.25", "0.25", "60.0", "", ""]


def test_the_figures_of_matched_methods(root):
    section = section_of(root, "matched", (0.7,), 0.02)
    rows = rows_of(section, "method", "run", "clean", "within", "attack")
    assert {row[:3] for row in rows if row[3] == "false"} == {
        ("none", "plain", 80), ("pgd", "vanilla", 60), ("generator, model.width=2", "g5 2", 60),
    }  # fmt: skip
    figures = section.figures[section.figures.method == "generator, model.width=1"]
    assert figures.attack.tolist() == ["cw", "pgd", "average"]
    assert set(figures.swept) == {"c_l=50; model.width=1"}
    assert figures.mean_l2.tolist() == [0.4, 0.3, 0.35]
    assert figures.iloc[0][["black_box", "sources", "wanted", "tolerance", "succeeded"]].tolist() == [
        60, "a; b", 70, 2, 7,
    ]  # fmt: skip


def test_a_single_source_is_named(tmp_path):
    data = make_data(tmp_path)
    train = make_swept(tmp_path, data, "plain", "none", {}, 8, 0.1)
    make_transferred(tmp_path, data, [train], (("a", 5),))
    (table,) = section_of(tmp_path, "matched", (0.8,)).tables
    assert texts_of(table)[0][5] == ("50.0", f"23.7{DASH}76.3", "n = 10", "from a")


def test_examples_of_a_network_with_the_same_weights_are_not_black_box(tmp_path):
    results = results_of(make_family(tmp_path), (0.8,))
    sources = {one.name: list(attacks_on(one, results)[0].transferred) for one in results.evaluated}
    assert sources["a"] == sources["a2"] == ["b", "c", "x1"]
    assert sources["x1"] == ["a", "b", "c", "a1", "a2", "a1 + b"]
    # Compared are a of none, c of another architecture, and a1 of noise; b has another seed, and a1 the weights of a.
    assert section_of(results, "matched").note.endswith(
        " Of the sources of black-box examples, these share the seed and the architecture with the run, so that the "
        "two were not initialized independently: x1 with a and a1."
    )


def test_of_an_attack_at_many_radii_one_is_compared(tmp_path):
    def radii():
        results = results_of(tmp_path)
        (attacks,) = at_one_radius([attacks_on(results.evaluated[0], results)])
        return [attack.row.epsilon for attack in attacks]

    make_ladder(tmp_path, sweep={"defense.c_l": 1})
    assert radii() == [0.4, 8 / 255, 0.1]
    (run,) = results_of(tmp_path).all_runs
    records = [record for e in (0.1, 0.2) for record in make_records("run", (5,), (fgm(e),), count=10, source="other")]
    make_stage(tmp_path / "transfer", "transfer", {"train:run": run.train}, records, checkpoint="best")
    assert radii() == [0.2, 8 / 255, 0.1]


def test_matched_runs_have_a_power_curve_of_their_own(root):
    plots = section_of(root, "matched", (0.8, 0.7, 0.1)).plots
    assert [(plot.name, plot.title.rpartition(": ")[2]) for plot in plots] == [
        ("matched-0-0", "runs at a clean accuracy of 80%"),
        ("matched-1-0", "runs at a clean accuracy of 70%"),
    ]
    assert {"f0.05", "g50 1"} <= set(texts_in(plots[1]))
    assert not {"f0.02", "plain", "vanilla"} & set(texts_in(plots[1]))
