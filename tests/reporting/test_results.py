"""Results as frames: what a notebook gets."""

import subprocess
import sys

import pytest

import l2p_tf
from l2p_tf.evaluation.records import wilson_interval
from l2p_tf.reporting.results import COLUMNS
from l2p_tf.types import UserError
from support.golden import make_all_certified, make_checked, make_repeated
from support.reports import (
    make_data,
    make_minimal,
    make_runs,
    make_stage,
    make_train,
    make_transferred,
    of_correct,
    records_of,
)
from support.sweeps import make_sweep

CLEAN = ("clean", "clean", None, None, 0, 1)


def test_importing_the_package_stays_light():
    code = "import sys, l2p_tf; sys.exit(bool({'pandas', 'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(UserError, match="at least one folder"):
        l2p_tf.results()


def test_a_row_is_a_record_with_what_follows_from_it(tmp_path):
    found = l2p_tf.results(make_runs(tmp_path))
    assert list(found.records) == list(COLUMNS["records"])
    assert len(found.records) == 4 + 4 + 2 * 4
    (row,) = found.records.query("run == 'pgd' and family == 'fgsm'").to_dict("records")
    low, high = wilson_interval(300 / 360, 360)
    assert (row["kind"], row["accuracy"], row["low"], row["high"]) == ("bounded", 300 / 360, low, high)
    assert (row["method"], row["weights"], row["counted"], row["correct"]) == ("pgd", "best", True, 300)
    means = found.records.groupby(["run", "label"]).accuracy.mean()
    assert means["learn2perturb", "clean"] == pytest.approx((349 + 351) / 720)
    assert list(found.runs) == list(COLUMNS["runs"])
    assert found.runs.set_index("run").parameters.to_dict() == dict.fromkeys(("none", "pgd", "learn2perturb"), 78_330)
    epochs = found.epochs
    assert list(epochs)[:4] == ["run", "key", "method", "epoch"]
    assert epochs.groupby("run").epoch.max().to_dict() == dict.fromkeys(("none", "pgd", "learn2perturb"), 11)
    assert epochs["theta/noise_0/mean"].notna().sum() == 12


def test_kinds_of_records(tmp_path):
    minimal = l2p_tf.results(make_minimal(tmp_path / "a")).records
    assert minimal.kind.tolist() == ["clean", "minimal", "minimal"]
    assert minimal.family.tolist() == ["clean", "deepfool", "fab"]
    moved = l2p_tf.results(make_transferred(tmp_path / "b")).records
    assert moved.kind.value_counts().to_dict() == {"bounded": 6, "transfer": 6, "clean": 2}
    assert moved.query("kind == 'transfer'").source.notna().all()


def test_settings_of_a_sweep_are_columns(tmp_path):
    found = l2p_tf.results(make_sweep(tmp_path))
    for frame in (found.runs, found.records):
        swept = frame.drop_duplicates("run").set_index("run")
        assert [name for name in frame if name.startswith("sweep.")] == [
            "sweep.defense.epsilon", "sweep.defense.c_l", "sweep.model.width",
        ]  # fmt: skip
        assert swept["sweep.defense.epsilon"].dropna().to_dict() == {"f0.1": 0.1, "f0.02": 0.02, "f0.05": 0.05}
    assert set(found.records.method) == {"none", "fgsm", "generator", "pgd"}


def test_certificates_and_checks(tmp_path):
    make_all_certified(tmp_path / "a")
    frame = l2p_tf.results(tmp_path / "a").certificates
    assert list(frame) == list(COLUMNS["certificates"])
    assert sorted(frame.weights) == ["best", "best", "last", "last"]
    assert (frame.accuracy == 5 / 8).all()
    assert (frame.abstained == 2 / 8).all()
    make_checked(tmp_path / "b")
    checks = l2p_tf.results(tmp_path / "b").checks
    assert list(checks) == list(COLUMNS["checks"])
    assert checks.query("verdict == 'fail'").check.tolist() == ["black_box", "gradients"]


def test_nothing_measured_gives_empty_frames_with_all_columns(tmp_path):
    make_train(tmp_path, make_data(tmp_path), history=False)
    found = l2p_tf.results(tmp_path)
    for name in ("records", "certificates", "checks"):
        assert list(getattr(found, name)) == list(COLUMNS[name])
        assert len(getattr(found, name)) == 0
    assert list(found.epochs) == ["run", "key", "method", "epoch"]
    assert len(found.runs) == 1


def test_of_two_evaluations_that_on_the_most_images_counts(tmp_path):
    make_repeated(tmp_path)
    clean = l2p_tf.results(tmp_path).records.query("kind == 'clean'")
    assert clean[["count", "counted"]].values.tolist() == [[8, False], [360, True], [360, True]]


@pytest.mark.parametrize("first", [True, False])
def test_of_as_many_images_results_per_image_count(tmp_path, first):
    data = make_data(tmp_path)
    train = make_train(tmp_path, data)
    arrays = [of_correct([1, 1, 0, 0])]
    for i, kept in enumerate((first, not first)):
        records = records_of("pgd", (CLEAN,), arrays, seed=i)
        make_stage(tmp_path / f"a{i}", "attack", {"train": train, "data": data}, records, arrays if kept else None, n=i)
    (counted,) = l2p_tf.results(tmp_path).records.query("counted").seed
    assert counted == (0 if first else 1)
