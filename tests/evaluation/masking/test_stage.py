"""The artifact of the checks for gradient masking, and the stage that makes it."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

from l2p_tf import artifacts
from l2p_tf.data import DATASETS, ImageData, prepare
from l2p_tf.evaluation.masking import battery, stage
from l2p_tf.evaluation.masking.battery import resolved, training_epsilon
from l2p_tf.evaluation.masking.record import (
    CHECKED,
    FAIL,
    UNMEASURED,
    Finding,
    Inspection,
    Share,
    read_inspection,
    unmeasured,
    write_inspection,
)  # fmt: skip
from l2p_tf.evaluation.masking.rules import CHECKS
from l2p_tf.evaluation.options import CheckOptions
from l2p_tf.evaluation.records import read_records
from l2p_tf.manifest import sealed
from l2p_tf.models.saving import save_classifier
from l2p_tf.types import UserError
from support.models import linear
from support.stages import error
from support.stages import stage as run_stage

OPTIONS = CheckOptions(count=30, epsilon=0.05, batch_size=32)


def trained_on(root, data, name="mean", scale=1.0, **defense):
    """A training whose model takes each image to the nearest class mean, with the margins scaled."""
    _, images, labels = data.sample("train")
    means = np.stack([images[labels == c].mean(0) / 255 for c in range(10)], -1).astype(np.float32)
    model = linear(2 * scale * means, -scale * (means.reshape(-1, 10) ** 2).sum(0))
    options = {"name": name, "defense": "pgd", "defense_options": defense, "model": "linear"}
    with artifacts.produce(root / name / "train", "train", options, {"data": data.artifact}, seed=0) as work:
        for checkpoint in ("best", "last"):
            save_classifier(model, work.path / f"{checkpoint}.keras")
        work.notes.update(parameters=650, best_epoch=0)
    return artifacts.read(root / name / "train")


def folder_of(root):
    prepare(DATASETS.parse("digits"), root / "data", seed=0, limit_test=60)
    data = ImageData.open(root / "data")
    return data, trained_on(root, data, epsilon=0.05, norm="linf")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What the stage makes, and what it says."""
    root = tmp_path_factory.mktemp("run")
    data, train = folder_of(root)
    flags = [f"--run_dir={root}", "--name=mean", "--attacks=fgsm(epsilon=0.05)", "--attack_batch_size=32"]
    done = run_stage("attack", *flags, "--checks=30")
    return root, data, train, done


def test_the_stage_makes_the_checks_beside_the_attack(made):
    root, _, train, done = made
    assert {p.parent.name for p in (root / "mean").rglob("manifest.json")} == {"train", "attack", "checks"}
    assert re.search(r"mean: checked for gradient masking, \d passed, 0 failed; in '.*mean/checks'", done.stdout)
    artifact = artifacts.read(root / "mean" / "checks", "checks")
    assert artifact.manifest["inputs"]["train"] == train.fingerprint
    assert set(artifact.manifest["inputs"]) == {"train", "data"}
    # The radius is that of the training.
    assert {key: artifact.options[key] for key in ("count", "epsilon", "checkpoint")} == {
        "count": 30, "epsilon": 0.05, "checkpoint": "best",
    }  # fmt: skip
    assert not (root / "mean" / "checks" / "parts").exists()


def test_what_was_found_follows_from_the_arrays_beside_it(made):
    root, *_ = made
    folder = root / "mean" / "checks"
    found = read_inspection(folder)
    assert [finding.check for finding in found.findings] == list(CHECKS)
    place = (found.model, found.dataset, found.split, found.count, found.randomized)
    assert place == ("mean", "digits", "test", 30, False)
    records = read_records(folder)
    assert [r.label for r in records][:4] == ["clean", "PGD-20 x3", "FGSM", "PGD-20"]
    assert found.correct == records[0].correct
    arrays = {}
    for record in records:
        with np.load(folder / record.arrays) as file:
            arrays[record.attack] = {key: file[key] for key in ("index", "correct")}
            assert len(file["index"]) == record.count
    right = arrays["clean"]["correct"]
    by_check = {finding.check: finding for finding in found.findings}
    one, many = by_check["one_step"].shares
    assert one.hits == int((right & ~arrays["fgsm(epsilon=0.05)"]["correct"]).sum())
    assert many.hits == int((right & ~arrays["pgd(epsilon=0.05)"]["correct"]).sum())
    assert one.count == many.count == found.correct
    # Random points are tried on what PGD left standing alone.
    left = arrays["pgd(epsilon=0.05, restarts=3)"]["correct"]
    np.testing.assert_array_equal(arrays[records[-1].attack]["index"], arrays["clean"]["index"][left])


def test_what_is_up_to_date_is_left_alone(made):
    root, data, train, _ = made
    folder = root / "mean" / "checks"
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    again = stage.check_artifact(dataclasses.replace(OPTIONS, epsilon=None), train, data, folder)
    assert again == read_inspection(folder)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    with pytest.raises(UserError, match=r"epsilon=0\.05 \(now 0\.1\).* Pass --overwrite"):
        stage.check_artifact(dataclasses.replace(OPTIONS, epsilon=0.1), train, data, folder)


def test_what_was_interrupted_goes_on(made, tmp_path, monkeypatch):
    root, data, train, _ = made
    run, tried = battery.ChunkedEvaluation._slice, []

    def stops(self, *arguments):
        tried.append(self.attack)
        if len(tried) == 4:
            raise KeyboardInterrupt
        return run(self, *arguments)

    monkeypatch.setattr(battery.ChunkedEvaluation, "_slice", stops)
    with pytest.raises(KeyboardInterrupt):
        stage.check_artifact(OPTIONS, train, data, tmp_path / "checks")
    assert not (tmp_path / "checks").exists()
    found = stage.check_artifact(OPTIONS, train, data, tmp_path / "checks")
    assert len(tried) == 1 + len(read_records(tmp_path / "checks"))
    assert found.findings == read_inspection(root / "mean" / "checks").findings


def test_other_data_is_refused(made, tmp_path):
    _, _, train, _ = made
    prepare(DATASETS.parse("digits"), tmp_path / "data", seed=1)
    with pytest.raises(UserError, match="`data` should be what the model was trained on"):
        stage.check_artifact(OPTIONS, train, ImageData.open(tmp_path / "data"), tmp_path / "checks")
    assert not (tmp_path / "checks").exists()


def test_a_saturated_training_fails(made, tmp_path):
    _, data, _, _ = made
    train = trained_on(tmp_path, data, "steep", scale=1e5)
    found = stage.check_artifact(OPTIONS, train, data, tmp_path / "checks", checkpoint="last")
    assert {f.check for f in found.findings if f.verdict == FAIL} >= {"gradients", "unbounded", "loss"}
    assert [f.check for f in found.findings if f.verdict == UNMEASURED] == ["transfer"]
    assert artifacts.read(tmp_path / "checks").options["checkpoint"] == "last"


@pytest.mark.parametrize(
    ("options", "epsilon"),
    [
        ({"epsilon": 0.18, "norm": "linf"}, 0.18), ({"epsilon": 0.18}, 0.18), ({"epsilon": 0.5, "norm": "l2"}, 8 / 255),
        ({}, 8 / 255), ({"epsilon": 0}, 8 / 255), ({"epsilon": 2.0}, 8 / 255),
    ],
)  # fmt: skip
def test_the_radius_is_that_of_the_training_where_it_has_one(options, epsilon, tmp_path):
    with artifacts.produce(tmp_path / "train", "train", {"defense_options": options}) as work:
        (work.path / "best.keras").write_bytes(b"")
    assert training_epsilon(artifacts.read(tmp_path / "train")) == epsilon


def derived_from(folder, source, **options):
    """A training that was made from another's classifier; its own options name that as `run`."""
    request = {"defense_options": {"run": "x", "std": 0.1, **options}}
    with artifacts.produce(folder, "train", request, {"source": source}) as work:
        (work.path / "best.keras").write_bytes(b"")
    return artifacts.read(folder)


def test_the_radius_of_a_derived_run_is_that_of_the_training_it_comes_from(tmp_path):
    with artifacts.produce(tmp_path / "train", "train", {"defense_options": {"epsilon": 0.18}}) as work:
        (work.path / "best.keras").write_bytes(b"")
    once = derived_from(tmp_path / "once", artifacts.read(tmp_path / "train"))
    twice = derived_from(tmp_path / "twice", once)
    assert [training_epsilon(run) for run in (once, twice)] == [0.18, 0.18]
    # A radius that is given needs no source.
    manifest = tmp_path / "train" / "manifest.json"
    changed = json.loads(manifest.read_text("utf-8").replace("0.18", "0.19"))
    artifacts.write_json(manifest, sealed(changed))
    with pytest.raises(UserError, match=r"`checks_epsilon` should be given.*Received: another training"):
        training_epsilon(twice)
    shutil.rmtree(tmp_path / "train")
    with pytest.raises(UserError, match=r"`checks_epsilon` should be given, or .*train' to be what it was made from"):
        training_epsilon(twice)
    assert resolved(CheckOptions(epsilon=0.05), twice).epsilon == 0.05


def test_a_bad_number_is_told_in_one_line(made):
    root, *_ = made
    for flag, message in (
        ("--checks=3", "`checks` should be 0 for none, or at least 10 images. Received: 3"),
        ("--checks_epsilon=0", "`checks_epsilon` should be above 0. Received: 0"),
    ):
        assert message in error("attack", f"--run_dir={root}", "--name=mean", "--checks=30", flag)
    assert json.loads((root / "mean" / "checks" / "manifest.json").read_text())["options"]["count"] == 30


def inspected():
    findings = [Finding("one_step", FAIL, (Share("FGSM", 9, 10), Share("PGD-20", 1, 10)), 0.001)]
    findings += [unmeasured("eot", "why")]
    return Inspection("a", "digits", "test", "linf", 0.1, False, 1, 1, 5, 12, 10, 1.5, tuple(findings))


def test_records_are_read_as_they_were_written(tmp_path):
    write_inspection(tmp_path, inspected())
    assert read_inspection(tmp_path) == inspected()


@pytest.mark.parametrize(
    "change",
    [
        ("one_step", "two_step"), ('"fail"', '"so so"'), ('"count"', '"number"'), ("{", ""),
        ('"hits": 9', '"hits": 90'),
        ('"hits": 9', '"hits": -1'), ('"hits": 9', '"hits": "9"'), ('"hits": 9', '"hits": true'),
        ('"hits": 9', '"hits": 9.0'), ('"p": 0.001', '"p": 7'), ('"p": 0.001', '"p": NaN'),
        ('"p": 0.001', '"p": "0.001"'),
        ('"label": "FGSM"', '"label": 3'), ('"reason": "why"', '"reason": ["why"]'), ('"correct": 10', '"correct": 13'),
        ('"seed": 5', '"seed": null'), ('"randomized": false', '"randomized": 0'), ('"eot"', '"one_step"'),
        ('"epsilon": 0.1', '"epsilon": "8/255"'),
    ],
)  # fmt: skip
def test_damaged_records_are_told(tmp_path, change):
    write_inspection(tmp_path, inspected())
    file = tmp_path / CHECKED
    written = file.read_text("utf-8")
    assert change[0] in written
    file.write_text(written.replace(*change, 1), "utf-8")
    with pytest.raises(UserError, match=r"checks\.json' should hold the results of a checks stage"):
        read_inspection(tmp_path)
