"""Trainings, kills and the quickstart, as a user meets them. Run with `pytest -m slow`."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from l2p_tf.models.saving import load_classifier
from support import ROOT

pytestmark = pytest.mark.slow
TRAIN = [
    sys.executable, "-m", "stages.train", "--dataset=digits", "--limit_train=700", "--deterministic",
    "--model=resnet_v1(depth=8, width=0.5)", "--defense=learn2perturb(warmup_epochs=2, steps=3, epsilon=0.1)",
    "--epochs=8", "--drops=6", "--batch_size=32", "--validation_attack=pgd(steps=2, epsilon=0.1)", "--seed=3",
    "--checkpoint_minutes=0.01",
]  # fmt: skip


def start(run_dir):
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(
        [*TRAIN, f"--run_dir={run_dir}"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def test_killed_anywhere_the_final_weights_are_the_same_bits(tmp_path):
    whole = start(tmp_path / "whole")
    begun = time.monotonic()
    _, messages = whole.communicate(timeout=600)
    assert whole.returncode == 0, messages[-2000:]
    duration = time.monotonic() - begun
    run_dir = tmp_path / "killed" / "learn2perturb"
    state = run_dir / "train.partial" / "state.npz"
    rng = np.random.default_rng(int(time.time()))
    stops = [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGKILL]
    reached = []
    for number in stops:
        process = start(tmp_path / "killed")
        # Long enough to get somewhere, at no particular place.
        seen = state.stat().st_mtime_ns if state.exists() else 0
        while process.poll() is None and (not state.exists() or state.stat().st_mtime_ns == seen):
            time.sleep(0.01)
        time.sleep(float(rng.uniform(0.0, 0.1 * duration)))
        process.send_signal(number)
        _, messages = process.communicate(timeout=600)
        if process.returncode == 0:
            break
        assert b"Traceback" not in messages, messages[-2000:]
        if number != signal.SIGKILL:
            assert b"run the same command to continue" in messages, messages[-2000:]
            assert process.returncode == 128 + number
        with np.load(state) as file:
            progress = json.loads(file["meta"].tobytes())
        reached.append((progress["epoch"], progress["step"]))
    assert len(reached) >= 2
    assert reached == sorted(reached)
    last = start(tmp_path / "killed")
    _, messages = last.communicate(timeout=600)
    assert last.returncode == 0, messages[-2000:]
    folders = [tmp_path / "whole" / "learn2perturb" / "train", run_dir / "train"]
    for name in ("best.keras", "last.keras"):
        a, b = (load_classifier(folder / name).weights for folder in folders)
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y, err_msg=x.path)
    rows = [list(csv.DictReader((folder / "history.csv").read_text().splitlines())) for folder in folders]
    for x, y in zip(*rows, strict=True):
        assert {k: v for k, v in x.items() if k != "seconds"} == {k: v for k, v in y.items() if k != "seconds"}


def test_the_quickstart_makes_sense(tmp_path):
    command = [sys.executable, "-m", "stages.pipeline", "--flagfile=configs/quickstart.flags", f"--run_dir={tmp_path}"]
    begun = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    print(f"quickstart: {time.monotonic() - begun:.0f} s\n{done.stdout}")
    accuracy = {}
    for name in ("none", "pgd", "learn2perturb"):
        records = json.loads((tmp_path / name / "attack" / "results.json").read_text())["records"]
        for record in records:
            accuracy.setdefault((name, record["label"]), []).append(record["correct"] / record["count"])
            assert record["count"] >= 300
    accuracy = {key: float(np.mean(values)) for key, values in accuracy.items()}
    assert accuracy["none", "PGD-20"] <= 0.10
    for name in ("pgd", "learn2perturb"):
        assert accuracy[name, "PGD-20"] >= accuracy["none", "PGD-20"] + 0.40
        assert accuracy[name, "clean"] >= accuracy["none", "clean"] - 0.05
        # Averaging over draws must not make an attack weaker than chance allows.
        assert accuracy[name, "PGD-20 EOT-10"] <= accuracy[name, "PGD-20"] + 0.05
    notes = json.loads((tmp_path / "learn2perturb" / "train" / "manifest.json").read_text())
    assert notes["notes"]["noisy_epochs"] >= notes["options"]["epochs"] / 2
    assert (tmp_path / "learn2perturb" / "export" / "saved_model" / "saved_model.pb").is_file()


def test_memory_does_not_grow_with_epochs(tmp_path):
    program = """
import os, sys
from l2p_tf.fitting import callbacks
from stages import common, train
page, sizes = os.sysconf("SC_PAGE_SIZE"), []
class Watched(callbacks.Bar):
    def on_epoch_end(self, epoch, logs=None):
        sizes.append(int(open("/proc/self/statm").read().split()[1]) * page / 2**20)
callbacks.Bar = Watched
try:
    common.run(train.main)
finally:
    print("sizes", *[round(size) for size in sizes])
"""
    flags = ["--dataset=digits", "--model=resnet_v1(depth=8, width=0.25)", "--epochs=60", "--validate_every=5"]
    flags += ["--defense=learn2perturb(warmup_epochs=2, steps=2)", f"--run_dir={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-c", program, *flags], cwd=ROOT, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr[-2000:]
    sizes = [int(n) for n in done.stdout.splitlines()[-1].split()[1:]]
    assert len(sizes) == 60
    assert max(sizes[50:]) - max(sizes[8:16]) < 40, sizes


def test_a_killed_attack_goes_on_within_itself(tmp_path):
    flags = ["--dataset=digits", "--defense=none", "--deterministic", "--attack_batch_size=32", "--limit=64"]
    model = ["--model=resnet_v1(depth=8, width=0.5)", "--epochs=3", "--limit_train=700"]
    attack = ["--attacks=cw(steps=1500, binary_search_steps=9, abort_early=False); fgsm(epsilon=0.1)"]

    def begin(stage, folder):
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, "-m", f"stages.{stage}", *flags, *model, *attack, f"--run_dir={folder}"]
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def saved(parts):
        """When the state of the running attack was last kept; 0 for never."""
        return max((p.stat().st_mtime_ns for p in parts.glob("01-*+00-000.npz")), default=0)

    def finish(process, status=0):
        out, messages = process.communicate(timeout=600)
        assert process.returncode == status, messages[-2000:]
        return out.decode(), messages.decode()

    finish(begin("train", tmp_path))
    begun = time.monotonic()
    finish(begin("attack", tmp_path))
    whole_seconds = time.monotonic() - begun
    folder = tmp_path / "none" / "attack"
    whole = folder.rename(tmp_path / "whole")
    parts = tmp_path / "none" / "attack.partial" / "parts"
    for number, status in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 128 + signal.SIGTERM)):
        process = begin("attack", tmp_path)
        before = saved(parts)
        while process.poll() is None and saved(parts) in (0, before):
            time.sleep(0.05)
        assert process.poll() is None, "The attack ended before anything of it was saved."
        process.send_signal(number)
        _, messages = finish(process, status)
        if number == signal.SIGTERM:
            assert "run the same command to continue" in messages
            assert "Traceback" not in messages
        assert saved(parts)
    begun = time.monotonic()
    finish(begin("attack", tmp_path))
    assert time.monotonic() - begun < whole_seconds
    assert not list(folder.rglob("parts"))
    records = [json.loads((path / "results.json").read_text())["records"] for path in (whole, folder)]
    for one, other in zip(*records, strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}
        a, b = (np.load(path / one["arrays"]) for path in (whole, folder))
        for key in a.files:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)
    # The clock went on too.
    assert records[1][1]["seconds"] > 0.5 * records[0][1]["seconds"]
