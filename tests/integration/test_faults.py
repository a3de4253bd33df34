"""Disks that are full or read-only and clocks set back: told in a line or harmless, and the same command goes on."""

import pathlib
import shutil
import time

import pytest

from support.disks import disk
from support.files import read_json
from support.kills import assert_same_results
from support.stages import begin, finish, run_stage, stage

TRAIN = [
    "--dataset=digits", "--limit_train=200", "--limit_test=60", "--deterministic", "--model=basic_net(width=0.25)",
    "--defense=learn2perturb(warmup_epochs=1, steps=2, epsilon=0.1)", "--epochs=3", "--batch_size=32",
    "--validation_attack=fgsm(epsilon=0.1)", "--repeats=2", "--checks=0", "--save_images=float32",
    "--attacks=fgsm(epsilon=0.1); pgd(epsilon=0.1, steps=2)",
]  # fmt: skip
BEFORE = {"data": [], "train": ["data"], "attack": ["data", "train"], "export": ["data", "train"],
          "report": ["data", "train", "attack"]}  # fmt: skip
ROOM = 4096
FAKE_CLOCK = [*pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")]
"""Debian's package faketime."""


@pytest.mark.slow
@pytest.mark.parametrize("name", BEFORE)
def test_on_a_full_disk_a_stage_ends_in_a_line_and_goes_on_with_room(name, tmp_path):
    flags = [*TRAIN, f"--run_dir={tmp_path}/disk/run"]
    with disk(tmp_path / "disk") as small:
        run = small.place / "run"
        for earlier in BEFORE[name]:
            stage(earlier, *flags)
        before = small.used
        kept = tmp_path / "kept"
        if run.exists():
            shutil.copytree(run, kept)
        stage(name, *flags)
        whole, needed = tmp_path / "whole", small.used - before
        shutil.copytree(run, whole)
        told = []
        for share in (0.02, 0.2, 0.4, 0.6, 0.8, 0.95):
            shutil.rmtree(run)
            if kept.exists():
                shutil.copytree(kept, run)
            small.set(f"size={small.used + max(ROOM, int(share * needed) // ROOM * ROOM)}")
            done = run_stage(name, flags, {"TF_CPP_MIN_LOG_LEVEL": "3"})
            if done.returncode:
                assert done.returncode == 2, (share, done.returncode, done.stderr[-2000:])
                errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
                assert len(errors) == 1, (share, done.stderr[-2000:])
                assert "Traceback" not in done.stderr
                told += errors
            small.set("size=256m")
            stage(name, *flags)
            assert_same_results(run, whole)
        assert len(told) >= 3, told
        assert all(
            str(small.place) in line and ("disk full" in line or "cannot be written" in line) for line in told
        ), told


def test_on_a_read_only_disk_what_is_finished_is_found_and_the_rest_told(tmp_path):
    flags = [*TRAIN, f"--run_dir={tmp_path}/disk/run"]
    with disk(tmp_path / "disk") as small:
        stage("train", *flags)
        small.set("ro")
        assert "up to date" in stage("train", *flags).stdout
        done = run_stage("attack", flags, {"TF_CPP_MIN_LOG_LEVEL": "3"})
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert line.startswith(f"error: Read-only file system: '{small.place}/run/learn2perturb/")
        small.set("rw")
        stage("attack", *flags)


@pytest.mark.slow
@pytest.mark.skipif(not FAKE_CLOCK, reason="needs faketime")
def test_a_clock_that_is_set_back_while_stages_run_changes_no_result(tmp_path):
    flags = [*TRAIN, "--checks=20", "--checkpoint_minutes=0.001"]
    stage("pipeline", *flags, f"--run_dir={tmp_path}/whole")
    (tmp_path / "clock").write_text("+0\n")
    process = begin(
        "pipeline", *flags, f"--run_dir={tmp_path}/run", LD_PRELOAD=str(FAKE_CLOCK[0]), FAKETIME_NO_CACHE="1",
        FAKETIME_TIMESTAMP_FILE=str(tmp_path / "clock"), FAKETIME_DONT_FAKE_MONOTONIC="1",
    )  # fmt: skip
    training = tmp_path / "run" / "learn2perturb"
    while not (training / "train.partial" / "state.npz").exists():
        assert process.poll() is None, finish(process)
        time.sleep(0.01)
    (tmp_path / "clock").write_text("-400d\n")
    finish(process)
    assert_same_results(tmp_path / "run", tmp_path / "whole")
    dates = [
        read_json(tmp_path / name / "learn2perturb" / "attack" / "manifest.json")["finished"]
        for name in ("run", "whole")
    ]
    assert dates[0] < dates[1]
