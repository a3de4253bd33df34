import functools
import json
import os
import stat
import subprocess

import numpy as np
import pytest
import yaml

from l2p_tf import devices
from l2p_tf.types import UserError
from support import ROOT
from support.files import records_in
from support.stages import error, python, stage

CLUSTER = ROOT / "configs" / "cluster"
TWO = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}


def test_one_device_is_alone():
    one = devices.open_devices("one")
    assert one == devices.Devices()
    assert (one.is_chief, one.replicas, one.workers) == (True, 1, 1)
    np.testing.assert_array_equal(one.largest([1.0, 2.0]), [1.0, 2.0])
    np.testing.assert_array_equal(one.of_chief(lambda: [3.0], 1), [3.0])
    with one.chief_first(), one.local_scope():
        one.wait()


def test_auto_takes_one_device_where_there_is_no_other(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert devices.open_devices("auto") == devices.Devices()
    with pytest.raises(UserError, match="one, mirrored, multi_worker. Received: 'two'"):
        devices.open_devices("two")


def test_tf_config_tells_the_workers():
    assert devices.read_tf_config(json.dumps(TWO)) == (2, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        "", "{", "[]", json.dumps({**TWO, "task": {"type": "worker", "index": 2}}),
        json.dumps({**TWO, "task": {"type": "chief", "index": 0}}), json.dumps({"cluster": TWO["cluster"]}),
        json.dumps({**TWO, "cluster": {"worker": ["a:1", "a:1"]}}),
        json.dumps({**TWO, "cluster": {"worker": ["a", "b"]}}),
        json.dumps({**TWO, "cluster": {"worker": ["a:1", "b:2"], "ps": ["c:3"]}}),
    ],
)  # fmt: skip
def test_a_wrong_tf_config_is_refused_with_a_right_one(wrong):
    with pytest.raises(UserError, match=r'TF_CONFIG in every process.*"index": 0') as refused:
        devices.read_tf_config(wrong)
    assert str(refused.value).endswith(f"Received: {wrong!r}")


def test_workers_without_tf_config_are_refused_in_one_line(tmp_path):
    assert "needs the environment variable TF_CONFIG" in error(
        "train", "--strategy=multi_worker", "--dataset=digits", "--defense=none", f"--run_dir={tmp_path}"
    )


def test_an_evaluation_on_two_devices_finds_what_one_finds(tmp_path):
    on_two = "from support import replicated; replicated.stage()"
    flags = ["--dataset=digits", "--limit_train=150", "--limit_test=40", "--model=basic_net(width=0.25)", "--epochs=1",
             "--batch_size=32", "--validation_attack=fgsm", "--defense=pgd(steps=2)", "--checks=10", "--seed=1",
             "--attacks=pgd(steps=3, epsilon=0.1)", f"--run_dir={tmp_path}"]  # fmt: skip
    found = []
    stage("train", *flags)
    for run, strategy in ((stage, "one"), (functools.partial(python, on_two), "mirrored")):
        run("attack", *flags, f"--strategy={strategy}")
        # Out of the way, so that the other finds nothing finished.
        attack, _ = ((tmp_path / "pgd" / name).rename(tmp_path / f"{name}_{strategy}") for name in ("attack", "checks"))
        for record in records_in(attack):
            with np.load(attack / record["arrays"]) as file:
                found.append(file["prediction"])
    clean, attacked, clean_of_two, attacked_by_two = found
    np.testing.assert_array_equal(clean, clean_of_two)
    assert np.mean(attacked == attacked_by_two) >= 0.95


# Files for clusters.


def test_the_slurm_script_gives_every_task_its_tf_config(tmp_path):
    script = CLUSTER / "train.sbatch"
    subprocess.run(["bash", "-n", script], check=True)
    fakes = {
        "scontrol": 'printf "node1\\nnode2\\n"',
        # Two tasks, one after the other, as srun would start them on two nodes.
        "srun": 'for i in 0 1; do SLURM_PROCID=$i "$@"; done',
        "python": 'echo "$TF_CONFIG $*"',
    }
    for name, text in fakes.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(stat.S_IRWXU)
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "SLURM_JOB_NODELIST": "node[1-2]",
                   "SLURM_JOB_ID": "4711"}  # fmt: skip
    done = subprocess.run(["bash", script, "--config=l2p"], env=environment, check=True, text=True, capture_output=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for index, line in enumerate(lines):
        config, end = json.JSONDecoder().raw_decode(line)
        assert devices.read_tf_config(json.dumps(config)) == (2, index)
        assert [host.split(":")[0] for host in config["cluster"]["worker"]] == ["node1", "node2"]
        assert line[end:].split() == ["-m", "stages.train", "--strategy=multi_worker", "--config=l2p"]


def test_the_kubernetes_job_gives_every_pod_its_tf_config():
    service, job = yaml.safe_load_all((CLUSTER / "train-job.yaml").read_text("utf-8"))
    assert (service["kind"], job["kind"], job["apiVersion"]) == ("Service", "Job", "batch/v1")
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == 2
    pod = spec["template"]["spec"]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    container = pod["containers"][0]
    assert container["command"][:2] == ["bash", "-c"]
    script = container["command"][2].replace("exec python", 'echo "$TF_CONFIG"; echo')
    for index in range(2):
        environment = {"JOB_COMPLETION_INDEX": str(index), "PATH": os.environ["PATH"]}
        done = subprocess.run(["bash", "-c", script], env=environment, check=True, text=True, capture_output=True)
        config = done.stdout.splitlines()[0]
        assert devices.read_tf_config(config) == (2, index)
        host = json.loads(config)["cluster"]["worker"][1]
        assert host == f"{job['metadata']['name']}-1.{pod['subdomain']}:2222"
