"""One evaluation by several processes."""

import re
import shlex
import shutil
import subprocess

import numpy as np
import pytest
import yaml

from stages import settings
from support import ROOT
from support.files import records_in, untimed
from support.stages import SMALL, error, stage, stages

ATTACKS = "--attacks=fgsm(epsilon=0.1); pgd(epsilon=0.1, steps=2, draws=2); square(epsilon=0.1, queries=20)"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharing")
    stage("train", *SMALL, f"--run_dir={folder}", "--defense=smoothing", "--epochs=1")
    return folder


def arrays_in(folder):
    return {
        (file.relative_to(folder).as_posix(), name): values
        for file in sorted(folder.rglob("*.npz"))
        for name, values in np.load(file).items()
    }


def assert_same_results(folder, expected):
    found, wanted = arrays_in(folder), arrays_in(expected)
    assert found.keys() == wanted.keys()
    for key, values in found.items():
        np.testing.assert_array_equal(values, wanted[key], err_msg=str(key))


def test_two_processes_leave_what_one_leaves(run_dir):
    flags = [*SMALL, f"--run_dir={run_dir}", "--name=smoothing", "--deterministic", ATTACKS]
    folder = run_dir / "smoothing" / "attack"
    stage("attack", *flags)
    alone = folder.rename(run_dir / "alone")
    # Clean and three attacks, each in two repeats.
    both = stages("attack", *flags, "--share")
    assert all(f"smoothing: attacked; in {str(folder)!r}" in done.stdout for done in both)
    here = [int(re.search(r"shared .* 320/320 images .* here=(\d+)", done.stderr)[1]) for done in both]
    assert min(here) > 0
    assert sum(here) == 320
    assert_same_results(folder, alone)
    assert [untimed(record) for record in records_in(folder)] == [untimed(record) for record in records_in(alone)]
    assert sorted(p.name for p in folder.parent.iterdir()) == ["attack", "train"]
    assert "up to date" in stage("attack", *flags, "--share").stdout
    assert "Pass --overwrite" in error("attack", *flags, "--share", "--repeats=1")
    assert "`--share` should be given to stages.attack" in error("pipeline", *flags, "--share")
    shutil.rmtree(alone)


def test_the_documented_jobs_are_whole():
    text = (ROOT / "docs" / "scaling.md").read_text("utf-8")
    script = re.search(r"sbatch .*<<'END'\n(#!/bin/sh\n.*?)END\n", text, re.DOTALL)[1]
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
    commands = [shlex.split(script.splitlines()[1])]
    (job,) = (
        job for job in map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)) if "share" in str(job)
    )
    assert (job["apiVersion"], job["kind"], job["spec"]["completionMode"]) == ("batch/v1", "Job", "Indexed")
    assert job["spec"]["completions"] == job["spec"]["parallelism"]
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    commands.append(container["command"])
    for command in commands:
        assert command[:3] == ["python", "-m", "stages.attack"]
        flags = settings.read(command[3:])
        assert flags.share
        flags.check()
