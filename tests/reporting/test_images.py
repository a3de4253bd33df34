"""Class by class and image by image: what each run made of them."""

import json
import shutil

import numpy as np
import pytest

from l2p_tf import artifacts
from l2p_tf.data import DATASETS, prepare
from l2p_tf.evaluation.records import wilson_interval
from l2p_tf.reporting import images
from l2p_tf.reporting.examples import data_uri
from l2p_tf.reporting.images import escaped_json, images_of
from l2p_tf.reporting.sections.classes import confusions, outcomes_of
from l2p_tf.reporting.table import NOTHING
from l2p_tf.types import UserError
from support.datasets import noise, write_tfds
from support.judged import arrays_of, make_judged
from support.pages import EVIL
from support.reports import make_data, make_records, make_stage, make_train, results_of, rows_of, section_of, texts_of

CLEAN = ("clean", "clean", None, None, 0, 1)
PGD = ("pgd", "PGD-20", "linf", 0.1, 20, 1)


def place_in(root):
    (place,) = outcomes_of(results_of(root))
    return place


@pytest.fixture
def small(tmp_path):
    """Six images of two classes and one that is not predicted right; a run with two repeats and one with one."""
    data = make_data(tmp_path, names=["cat", EVIL, *"23456789"])
    labels = [0, 0, 0, 0, 1, 1]
    noisy = [
        arrays_of(labels, [1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 1, 0], [0.9] * 6),
        arrays_of(labels, [1, 1, 1, 0, 1, 0], [0, 0, 0, 1, 1, 0], [0.8] * 6),
        arrays_of(labels, [1, 0, 0, 0, 0, 0], [0, 1, 1, 2, 0, 0], [0.6, 0.1, 0.2, 0.3, 0.4, 0.5]),
        arrays_of(labels, [0, 0, 0, 0, 0, 0], [1, 1, 1, 2, 0, 0], [0.5] * 6),
    ]
    make_judged(tmp_path, data, "noisy", (CLEAN, PGD), noisy, repeats=2, randomized=True)
    plain = [arrays_of(labels, [1] * 6, labels), arrays_of(labels, [1, 1, 0, 0, 1, 1], [0, 0, 1, 1, 1, 1])]
    make_judged(tmp_path, data, "plain", (CLEAN, PGD), plain)
    return tmp_path


def test_accuracy_by_class_is_that_of_its_images(small):
    section = section_of(small, "classes")
    assert [table.title for table in section.tables] == ["Clean", "PGD-20"]
    cat, evil = section.tables[1].rows
    low, high = wilson_interval(1 / 8, 4)
    assert (cat[0].lines, cat[1].lines) == (
        ("cat", "n = 4"), ("12.5", f"{100 * low:.1f}\N{EN DASH}{100 * high:.1f}"),
    )  # fmt: skip
    assert [cell.text for cell in evil[1:]] == ["0.0", "100.0"]
    assert [cell.marked for cell in (*cat[1:], *evil[1:])] == [False, True, True, False]
    rows = rows_of(section, "run", "attack", "class", "count", "accuracy", "repeats", "name")
    assert ("noisy", "pgd", 0, 4, 12.5, 2, "cat") in rows


def test_confusions_are_counted_over_all_repeats(small):
    place = place_in(small)
    assert confusions(place.outcomes[0, ("pgd", "l2p_tf")]) == [(0, 1, 5, 8), (1, 0, 4, 4), (0, 2, 2, 8)]
    section = section_of(small, "confusions")
    noisy, plain = texts_of(section.tables[0])
    evil = place.class_name(1)
    assert noisy[2] == (f"cat → {evil}: 5 of 8", f"{evil} → cat: 4 of 4", "cat → 2: 2 of 8")
    assert plain[1] == ("no mistakes",)
    assert rows_of(section, "class", "predicted", "times", "of")[-1] == (0, 1, 2, 4)


def test_images_on_which_runs_differ_come_first(small):
    shown = images_of(place_in(small), 1000)
    # Runs differ on 1, 4 under PGD, and on 5 clean and under PGD; of the others they get 2 and 3 wrong.
    assert [example["index"] for example in shown.examples] == [5, 1, 4, 2, 3, 0]
    assert (shown.total, shown.differ, shown.attacks[shown.hardest]) == (6, 3, "PGD-20")
    packed = json.loads(shown.json)
    assert packed["examples"][1] == {
        "index": 1, "label": 0, "source": "", "cells": [[[0, 1, 90], [0, 1, -1]], [[1, 0, 10], [0, 1, -1]]],
    }  # fmt: skip
    assert packed["classes"][0] == "cat"
    assert not set(shown.json) & set("<>&")


def test_all_images_are_kept_while_their_results_have_room(tmp_path, monkeypatch):
    data = make_data(tmp_path)
    labels = np.arange(500) % 10
    right = np.arange(500) >= 69
    make_judged(tmp_path, data, "one", (CLEAN,), [arrays_of(labels, right, np.where(right, labels, (labels + 1) % 10))])
    shown = images_of(place_in(tmp_path), 0)
    assert len(shown.examples) == shown.total == 500
    assert sum(example["cells"][0][0][1] == 0 for example in shown.examples) == 69
    monkeypatch.setattr(images, "_CELLS", 100)
    shown = images_of(place_in(tmp_path), 0)
    assert (len(shown.examples), shown.total, json.loads(shown.json)["total"]) == (100, 500, 500)


def test_images_are_those_of_the_split(tmp_path):
    data = prepare(DATASETS.parse("digits"), tmp_path / "data", limit_train=60, limit_test=20)
    labels = np.load(data.path / "test_labels.npy")
    right = np.arange(len(labels)) % 3 > 0
    arrays = [arrays_of(labels, right, np.where(right, labels, (labels + 1) % 10))]
    make_judged(tmp_path, data, "none", (CLEAN,), arrays, dataset="digits")
    place = place_in(tmp_path)
    pixels = np.load(data.path / "test_images.npy")
    for example in images_of(place, 10_000).examples:
        assert example["source"] == data_uri(pixels[example["index"]] / np.float32(255))
    few = [example["source"] for example in images_of(place, 500).examples]
    assert few[0].startswith("data:image/png")
    assert sum(map(len, few)) <= 500
    assert few[-1] == ""


def test_streamed_images_are_shown_while_they_are_at_hand(tmp_path):
    folder = write_tfds(tmp_path, "marks", "1.0.0", (9, 7, 3), 4)
    options = {"data_dir": str(tmp_path), "download": False, "stream": "on"}
    data = prepare(DATASETS.parse("tfds(dataset=marks)"), tmp_path / "data", **options)
    labels = np.arange(20) % 4
    right = np.arange(20) % 3 > 0
    arrays = [arrays_of(labels, right, np.where(right, labels, (labels + 1) % 4))]
    make_judged(tmp_path, data, "none", (CLEAN,), arrays, dataset="marks")
    pixels = noise(20, (9, 7, 3), seed=1)
    for example in images_of(place_in(tmp_path), 10_000).examples:
        assert example["source"] == data_uri(pixels[example["index"]] / np.float32(255))
    shutil.rmtree(folder)
    assert {example["source"] for example in images_of(place_in(tmp_path), 10_000).examples} == {""}


def test_a_run_judged_on_fewer_images_has_gaps(small):
    part = arrays_of([0, 1], [1, 0], [0, 0])
    part["index"] = np.array([2, 5])
    make_judged(small, artifacts.read(small / "data"), "part", (CLEAN,), [part])
    shown = images_of(place_in(small), 0)
    run = shown.runs.index("part")
    assert {e["index"] for e in shown.examples if e["cells"][0][run]} == {2, 5}
    assert not any(e["cells"][1][run] for e in shown.examples)
    assert section_of(small, "classes").tables[1].rows[0][1 + run] is NOTHING


def test_runs_without_arrays_are_named_and_damaged_ones_refused(small):
    data = artifacts.read(small / "data")
    train = make_train(small, data, "bare")
    make_stage(small / "attack_bare", "attack", {"train": train, "data": data}, make_records("bare", (5,), (CLEAN,)))
    remark = "Without bare, whose per-example results were not kept."
    assert section_of(small, "classes").remarks == (remark,)
    results = results_of(small)
    path = small / "attack_plain" / "arrays" / "1.npz"
    np.savez(path, **{**np.load(path), "label": np.zeros(5)})
    with pytest.raises(UserError, match=r"arrays.1\.npz' should hold the per-example arrays.*`label` has shape \(5,\)"):
        section_of(results, "classes")


def test_labels_are_classes_of_the_data(tmp_path):
    for folder, label, message in (
        ("a", 10, "The arrays of 'run' should hold labels below 10"),
        ("b", 2**31 - 1, "`label` should be of finite numbers from 0 to 9999"),
    ):
        arrays = arrays_of([0, 1, label], [1, 1, 0], [0, 1, 2])
        make_judged(tmp_path / folder, make_data(tmp_path / folder), "run", (CLEAN,), [arrays])
        with pytest.raises(UserError, match=message):
            place_in(tmp_path / folder)


def test_json_in_the_page_ends_no_element():
    text = escaped_json({"a": "</script><!--&\u2028"})
    assert text == r'{"a":"\u003c/script\u003e\u003c!--\u0026\u2028"}'
    assert json.loads(text) == {"a": "</script><!--&\u2028"}
