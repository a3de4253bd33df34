"""Transferred examples: the matrix of sources by targets, how the two are related, and what it takes to say so."""

import dataclasses

import pytest

from l2p_tf.evaluation.masking.record import FAIL, PASS
from l2p_tf.evaluation.records import wilson_interval
from l2p_tf.reporting import report
from l2p_tf.reporting.sections.transfer import PARTLY, SHARED, WHITE_BOX
from l2p_tf.reporting.summary import paragraphs
from support.checked import make_attacked
from support.reports import (
    MATRIX,
    make_data,
    make_records,
    make_train,
    make_transfer,
    make_transferred,
    results_of,
    rows_of,
    section_of,
    texts_of,
    transferred,
)
from support.sweeps import make_family

DASH = "\N{EN DASH}"
PGD = ("pgd", "PGD-20", "linf", 8 / 255, 20, 1)


def test_a_transfer_is_a_matrix_of_sources_by_targets(tmp_path):
    section = section_of(make_transferred(tmp_path), "transfer")
    (table,) = section.tables
    assert [column.label for column in table.columns] == ["Source", "a", "b"]
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["a", "10.0", "75.0"], ["b", "60.0", "40.0"], ["a + b", "20.0", "45.0"],
    ]  # fmt: skip
    assert [[cell.marked for cell in row[1:]] for row in table.rows] == [[True, False], [False, True], [False, False]]
    low, high = wilson_interval(0.1, 200)
    assert table.rows[0][1].below == (f"{100 * low:.1f}{DASH}{100 * high:.1f}", "n = 200", "white-box")
    assert table.rows[2][1].below[-1] == "part of the source"
    assert table.caption.startswith("L∞, ε 8/255, 20 steps. Source by target, on digits (8x8), test.")
    assert rows_of(section, "source", "target", "accuracy", "reached")[0] == ("a", "a", 10, 90)


def test_transferred_records_stay_out_of_the_comparison(tmp_path):
    assert set(rows_of(section_of(make_transferred(tmp_path), "comparison"), "attack")) == {
        "clean", "fgsm", "pgd(step_size=0.01, steps=7)", "pgd(draws=10)",
    }  # fmt: skip


def test_each_attack_and_each_transfer_stage_has_a_matrix(tmp_path):
    data = make_data(tmp_path)
    trains = [make_train(tmp_path, data, name) for name in ("a", "b")]
    stronger = ("pgd(steps=100)", "PGD-100", "linf", 8 / 255, 100, 1)
    make_transfer(tmp_path, trains, data, transferred(MATRIX) + transferred(MATRIX, stronger))
    make_transfer(tmp_path, trains, data, transferred({("a", "b"): 150}), "transfer2", checkpoint="last")
    section = section_of(tmp_path, "transfer")
    # Two of the same name are told apart by all in which they differ.
    titles = [table.title for table in section.tables]
    assert [title.partition(" (")[0] for title in titles] == ["PGD-20", "PGD-100", "PGD-20"]
    assert "last weights" in titles[2]
    assert len(set(titles)) == 3
    assert len(section.figures) == 13


def test_matrices_of_one_attack_are_told_apart_by_no_more_than_it_takes():
    attacks = [(f"fgsm(epsilon={e}, norm=l2)", "FGM l2", "l2", e, 1, 1) for e in (0.1, 0.2)]
    attacks.append(("fgsm(epsilon=0.2, norm=l2, loss=margin)", *attacks[1][1:]))
    section = section_of(make_records("a", (1, 1, 1), attacks, source="b"), "transfer")
    assert [table.title for table in section.tables] == [
        "FGM l2 (L2, ε 0.1, 1 step)",
        "FGM l2 (L2, ε 0.2, 1 step; fgsm(epsilon=0.2, norm=l2))",
        "FGM l2 (L2, ε 0.2, 1 step; fgsm(epsilon=0.2, norm=l2, loss=margin))",
    ]


def test_repeats_have_a_spread_gaps_are_dashes_and_targets_are_told():
    records = transferred({("a", "b"): 100, ("c", "b"): 50}, repeats=3, randomized=True)
    cell = section_of(records, "transfer").tables[0].rows[0][1]
    assert (cell.text, cell.below[1], cell.marked) == ("51.0 ± 1.0", "n = 200, 3 repeats", False)
    table = section_of(transferred({("a", "b"): 1, ("b", "a"): 2}), "transfer").tables[0]
    assert {row[0].text: [c.text for c in row[1:]] for row in table.rows} == {"b": ["1.0", DASH], "a": [DASH, "0.5"]}
    targeted = section_of([dataclasses.replace(r, reached=7) for r in transferred({("a", "b"): 100})], "transfer")
    assert "target class reached 3.5%" in targeted.tables[0].rows[0][1].below
    assert rows_of(targeted, "reached") == [3.5]


def test_a_transfer_alone_is_reported(tmp_path):
    data = make_data(tmp_path / "a")
    trains = [make_train(tmp_path / "a", data, name) for name in ("a", "b")]
    made = make_transfer(tmp_path / "b", trains, data, transferred(MATRIX))
    result = report.make([made.path], tmp_path / "report")
    page = (result.path / "report.html").read_text("utf-8")
    assert "Judged on transferred examples only, so not in the comparison: a and b." in page
    assert "The training of a was not given" in page
    assert {path.suffix for path in result.path.iterdir()} == {".json", ".html", ".md", ".csv", ".tex"}
    assert [section.name for section in result.sections if section.tables] == ["transfer"]


def test_trainings_without_attacks_of_their_own_are_listed(tmp_path):
    data = make_data(tmp_path)
    trains = [make_train(tmp_path, data, name) for name in ("a", "b", "c")]
    make_transfer(tmp_path, trains, data, transferred(MATRIX))
    assert paragraphs(results_of(tmp_path)) == [
        "Not attacked, so without accuracies: c.",
        "Judged on transferred examples only, so not in the comparison: a and b.",
    ]


def test_sources_are_named_as_the_report_names_their_runs(tmp_path):
    data = make_data(tmp_path)
    first = make_train(tmp_path, data, "a", folder="one", seed=1)
    make_train(tmp_path, data, "a", folder="two", seed=2)
    make_transfer(tmp_path, [first], data, transferred({("a", "a"): 20}))
    (table,) = section_of(tmp_path, "transfer").tables
    assert texts_of(table)[0][0] == ("a [one]",)
    assert table.columns[1].label == "a [one]"
    assert table.rows[0][1].marked


def test_what_shares_weights_is_told(tmp_path):
    rows = rows_of(section_of(make_family(tmp_path), "transfer"), "source", "target", "relation", "white_box")
    relation = {(source, target): text for source, target, text, _ in rows}
    # From the source, to it, and between those that come from one.
    for pair in (("a", "a1"), ("a1", "a"), ("a1", "a2"), ("a1 + b", "a"), ("a1 + b", "a2")):
        assert relation[pair] == SHARED
    for pair in (("a", "b"), ("a1", "b"), ("x1", "a"), ("a1", "x1"), ("a1 + b", "c")):
        assert relation[pair] == ""
    assert (relation["a1", "a1"], relation["a1 + b", "b"]) == (WHITE_BOX, PARTLY)
    assert {white_box for *_, text, white_box in rows if text != WHITE_BOX} == {"false"}


@pytest.mark.parametrize(
    ("own", "moved", "verdict"),
    [(range(60), range(58), PASS), (range(40), range(30, 75), FAIL), (range(60), range(52, 75), FAIL)],
)
def test_transferred_examples_are_a_check_for_masking(tmp_path, own, moved, verdict):
    """They fail a model that they fool more than its own attack does, or that has many images to themselves."""
    data = make_data(tmp_path)
    train, source = (make_train(tmp_path, data, name) for name in ("a", "b"))
    make_attacked(tmp_path, train, data, {PGD: own}, wrong_when_clean=2)
    records = {"train:a": train, "train:b": source, "data": data}
    make_attacked(tmp_path, train, data, {PGD: moved}, "transfer", inputs=records, wrong_when_clean=2, source="b")
    section = section_of(tmp_path, "checks")
    figures = section.figures[section.figures.check == "transfer"]
    assert set(figures.verdict) == {verdict}
    assert figures.hits.tolist()[:2] == [len(set(own) - {0, 1}), len(set(moved) - {0, 1})]
    assert bool(section.warnings) is (verdict == FAIL)
