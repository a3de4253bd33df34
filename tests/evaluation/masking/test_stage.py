"""The artifact of the checks for gradient masking, and the stage that makes it."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

from l2p_tf import artifacts
from l2p_tf.evaluation.masking import battery, stage
from l2p_tf.evaluation.masking.battery import resolved, training_epsilon
from l2p_tf.evaluation.masking.record import (
    CHECKED,
    FAIL,
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
from support.stages import error
from support.stages import stage as run_stage
from support.trainings import digits, nearest_mean

OPTIONS = CheckOptions(count=30, epsilon=0.05, batch_size=32)


def folder_of(root):
    """Data, and a training on them."""
    data = digits(root / "data", limit_test=60)
    model = nearest_mean(data)
    options = {
        "name": "mean",
        "defense": "pgd",
        "defense_options": {"epsilon": 0.05, "norm": "linf"},
        "model": "linear",
    }
    with artifacts.produce(root / "mean" / "train", "train", options, {"data": data.artifact}, seed=0) as work:
        for checkpoint in ("best", "last"):
            save_classifier(model, work.path / f"{checkpoint}.keras")
        work.notes.update(parameters=650, best_epoch=0)
    return data, artifacts.read(root / "mean" / "train")


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
        stage.check_artifact(OPTIONS, train, data, tmp_path / "checks", checkpoint="last")
    assert not (tmp_path / "checks").exists()
    found = stage.check_artifact(OPTIONS, train, data, tmp_path / "checks", checkpoint="last")
    assert len(tried) == 1 + len(read_records(tmp_path / "checks"))
    assert artifacts.read(tmp_path / "checks").options["checkpoint"] == "last"
    assert found.findings == read_inspection(root / "mean" / "checks").findings


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


@pytest.mark.parametrize(
    "change",
    [
        ("one_step", "two_step"), ('"fail"', '"so so"'), ('"hits": 9', '"hits": 90'), ('"hits": 9', '"hits": true'),
        ('"p": 0.001', '"p": 7'), ('"correct": 10', '"correct": 13'), ('"eot"', '"one_step"'),
    ],
)  # fmt: skip
def test_records_are_read_as_they_were_written_and_damage_is_told(tmp_path, change):
    findings = [Finding("one_step", FAIL, (Share("FGSM", 9, 10), Share("PGD-20", 1, 10)), 0.001)]
    findings += [unmeasured("eot", "why")]
    written = Inspection("a", "digits", "test", "linf", 0.1, False, 1, 1, 5, 12, 10, 1.5, tuple(findings))
    write_inspection(tmp_path, written)
    assert read_inspection(tmp_path) == written
    file = tmp_path / CHECKED
    text = file.read_text("utf-8")
    assert change[0] in text
    file.write_text(text.replace(*change, 1), "utf-8")
    with pytest.raises(UserError, match=r"checks\.json' should hold the results of a checks stage"):
        read_inspection(tmp_path)
