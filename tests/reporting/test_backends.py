"""The same attacks by two implementations, side by side on the same images."""

import dataclasses

import numpy as np

from l2p_tf import artifacts
from l2p_tf.evaluation.records import read_records
from support.reports import make_backends, make_records, make_stage, of_correct, rows_of, section_of, texts_of

PGD = ("pgd", "PGD-20", "linf", 8 / 255, 20, 1)


def test_backends_stand_side_by_side(tmp_path):
    section = section_of(make_backends(tmp_path), "backends")
    (row,) = texts_of(section.tables[0])
    assert [lines[0] for lines in row] == ["pgd", "PGD-20", "40.0", "50.0", "+10.0", "3", "50 ms", "2.0 s"]
    assert row[5] == ("3", "30.0%")
    figures = ("accuracy", "accuracy_cleverhans", "difference", "disagree", "seconds", "seconds_cleverhans", "count")
    assert rows_of(section, *figures) == [(40, 50, 10, 3, 0.05, 2, 10)]


def test_backends_on_other_images_are_not_compared(tmp_path):
    root = make_backends(tmp_path, other_index=np.arange(10) + 1)
    assert section_of(root, "backends") is None
    columns = section_of(root, "comparison").tables[0].columns
    assert [column.label for column in columns[1:]] == ["Clean", "PGD-20", "PGD-20 (CleverHans)"]


def test_one_backend_alone_is_compared_with_nothing(tmp_path):
    assert section_of(make_backends(tmp_path) / "attack_cleverhans", "backends") is None
    records = make_records("a", (9,), (PGD,)) + make_records("a", (8,), (PGD,), backend="cleverhans")
    assert section_of(records, "backends") is None


def test_each_other_implementation_has_a_table(tmp_path):
    root = make_backends(tmp_path)
    again = artifacts.read(root / "attack_cleverhans")
    records = [dataclasses.replace(record, backend="art") for record in read_records(again.path)]
    arrays = [of_correct([1] * 10), of_correct([1, 1, 1, 1, 0, 0, 0, 0, 0, 1])]
    inputs = {"train": artifacts.read(root / "train_pgd"), "data": artifacts.read(root / "data")}
    make_stage(root / "attack_art", "attack", inputs, records, arrays, backends=["art"])
    section = section_of(root, "backends")
    assert sorted(table.title for table in section.tables) == ["ART", "CleverHans"]
    assert {table.columns[3].label for table in section.tables} == {"ART", "CleverHans"}
    assert sorted(rows_of(section, "disagree")) == [1, 3]
    assert "accuracy_art" in section.figures
