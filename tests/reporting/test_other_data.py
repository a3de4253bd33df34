"""Runs judged on other data than they were trained on: never mixed with the rest, and always said."""

import pytest

from l2p_tf.reporting import summary
from l2p_tf.reporting.load import find, gather
from support.reports import (
    make_attack,
    make_data,
    make_records,
    make_train,
    results_of,
    rows_of,
    section_of,
)


def judged_on(root, name, dataset, trained_on, names=None):
    """Makes data and an attack on the run of `root` on it; their artifact."""
    data = make_data(root / name, names, name=dataset)
    (run,) = gather(find([root]))
    notes = {"other_data": {"pgd": {"images": 360, "trained_on": trained_on}}}
    records = make_records("pgd", dataset=dataset, correct=(300, 200, 100, 90))
    make_attack(root / name, run.train, data, records, "attack", notes=notes)
    return data


@pytest.fixture
def root(tmp_path):
    data = make_data(tmp_path)
    train = make_train(tmp_path, data)
    make_attack(tmp_path, train, data, make_records("pgd"))
    return tmp_path


def test_each_data_set_has_a_row_of_its_own_and_a_line_that_says_what_is_known(root):
    judged_on(root, "a", "photos", 0)
    judged_on(root, "b", "paintings", 12)
    judged_on(root, "c", "drawings", None)
    section, start = section_of(root, "comparison"), "pgd was judged on other data than it was trained on"
    titles = [f"{name} (8x8)" for name in ("digits", "photos", "paintings", "drawings")]
    assert [row[0].lines[0] for row in section.tables[0].rows] == [f"pgd ({title}, test)" for title in titles]
    assert list(dict.fromkeys(rows_of(section, "dataset"))) == titles
    among = "among its training images, pixel by pixel."
    assert [text for text in section.remarks if "judged on" in text] == [
        f"{start} ({titles[1]}, test): none of the 360 images is {among}"
    ]
    assert set(section.warnings) >= {
        f"{start} ({titles[2]}, test): 12 of the 360 images are {among}",
        f"{start} ({titles[3]}, test): whether some of the 360 images are among its training images is not known.",
    }
    results = results_of(root)
    assert results.attacks.counted.all()
    assert len(results.evaluated) == 4
    assert len(summary.paragraphs(results)) == 4
    assert set(results.runs.dataset) == {"digits"}


def test_other_data_of_the_same_name_are_told_apart(root):
    """But not where just the training images were split anew."""
    other = judged_on(root, "a", "digits", 0, names=list("abcdefghij"))
    (run,) = results_of(root).all_runs
    label = f"digits [{other.fingerprint[:6]}]"
    assert [evaluation.records[0].dataset for evaluation in run.evaluations] == ["digits", label]
    assert run.title_of(label) == f"digits (8x8) [{other.fingerprint[:6]}]"
    assert run.title_of("digits") == "digits (8x8)"
    assert run.data_of(label).fingerprint == other.fingerprint
    assert run.data_of("digits").fingerprint == run.data.fingerprint
    assert len(results_of(root).evaluated) == 2


def test_without_the_training_nothing_is_renamed(root, tmp_path):
    make_attack(tmp_path / "alone", results_of(root).all_runs[0].train, make_data(tmp_path / "d"), make_records("pgd"))
    (run,) = results_of(tmp_path / "alone").all_runs
    assert {record.dataset for record in run.records} == {"digits"}
