"""Trainings, kills and the quickstart, as a user meets them. Run with `pytest -m slow`."""

import json
import signal
import time

import numpy as np
import pytest

from l2p_tf.models.saving import load_classifier
from support.files import read_json, read_rows, records_in, untimed
from support.stages import begin, finish, python, run
from support.training import assert_same

pytestmark = pytest.mark.slow
TRAIN = [
    "--dataset=digits", "--limit_train=700", "--deterministic", "--model=resnet_v1(depth=8, width=0.5)",
    "--defense=learn2perturb(warmup_epochs=2, steps=3, epsilon=0.1)", "--epochs=8", "--drops=6", "--batch_size=32",
    "--validation_attack=pgd(steps=2, epsilon=0.1)", "--seed=3", "--checkpoint_minutes=0.01",
]  # fmt: skip


def test_killed_anywhere_the_final_weights_are_the_same_bits(tmp_path):
    begun = time.monotonic()
    run("train", *TRAIN, f"--run_dir={tmp_path}/whole")
    duration = time.monotonic() - begun
    run_dir = tmp_path / "killed" / "learn2perturb"
    state = run_dir / "train.partial" / "state.npz"
    rng = np.random.default_rng(int(time.time()))
    stops = [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGKILL]
    reached = []
    for number in stops:
        process = begin("train", *TRAIN, f"--run_dir={tmp_path}/killed")
        # Long enough to get somewhere, at no particular place.
        seen = state.stat().st_mtime_ns if state.exists() else 0
        while process.poll() is None and (not state.exists() or state.stat().st_mtime_ns == seen):
            time.sleep(0.01)
        time.sleep(float(rng.uniform(0.0, 0.1 * duration)))
        process.send_signal(number)
        _, messages = process.communicate(timeout=600)
        if process.returncode == 0:
            break
        assert "Traceback" not in messages, messages[-2000:]
        if number != signal.SIGKILL:
            assert "run the same command to continue" in messages, messages[-2000:]
            assert process.returncode == 128 + number
        with np.load(state) as file:
            progress = json.loads(file["meta"].tobytes())
        reached.append((progress["epoch"], progress["step"]))
    assert len(reached) >= 2
    assert reached == sorted(reached)
    run("train", *TRAIN, f"--run_dir={tmp_path}/killed")
    folders = [tmp_path / "whole" / "learn2perturb" / "train", run_dir / "train"]
    for name in ("best.keras", "last.keras"):
        assert_same(*(load_classifier(folder / name).weights for folder in folders))
    for one, other in zip(*(read_rows(folder / "history.csv") for folder in folders), strict=True):
        assert untimed(one) == untimed(other)


def test_the_quickstart_makes_sense(tmp_path):
    begun = time.monotonic()
    printed = run("pipeline", "--config=quickstart", f"--run_dir={tmp_path}")
    print(f"quickstart: {time.monotonic() - begun:.0f} s\n{printed}")
    accuracy = {}
    for name in ("none", "pgd", "learn2perturb"):
        for record in records_in(tmp_path / name / "attack"):
            accuracy.setdefault((name, record["label"]), []).append(record["correct"] / record["count"])
            assert record["count"] >= 300
    accuracy = {key: float(np.mean(values)) for key, values in accuracy.items()}
    assert accuracy["none", "PGD-20"] <= 0.10
    for name in ("pgd", "learn2perturb"):
        assert accuracy[name, "PGD-20"] >= accuracy["none", "PGD-20"] + 0.40
        assert accuracy[name, "clean"] >= accuracy["none", "clean"] - 0.05
        # Averaging over draws must not make an attack weaker than chance allows.
        assert accuracy[name, "PGD-20 EOT-10"] <= accuracy[name, "PGD-20"] + 0.05
    manifest = read_json(tmp_path / "learn2perturb" / "train" / "manifest.json")
    assert manifest["notes"]["noisy_epochs"] >= manifest["options"]["epochs"] / 2
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
    printed = python(program, *flags, timeout=900).stdout
    sizes = [int(n) for n in printed.splitlines()[-1].split()[1:]]
    assert len(sizes) == 60
    assert max(sizes[50:]) - max(sizes[8:16]) < 40, sizes


def test_a_killed_attack_goes_on_within_itself(tmp_path):
    flags = [
        "--dataset=digits", "--defense=none", "--deterministic", "--attack_batch_size=32", "--limit=64",
        "--model=resnet_v1(depth=8, width=0.5)", "--epochs=3", "--limit_train=700", f"--run_dir={tmp_path}",
        "--attacks=cw(steps=1500, binary_search_steps=9, abort_early=False); fgsm(epsilon=0.1)",
    ]  # fmt: skip

    def saved(parts):
        """When the state of the running attack was last kept; 0 for never."""
        return max((p.stat().st_mtime_ns for p in parts.glob("01-*+00-000.npz")), default=0)

    run("train", *flags)
    begun = time.monotonic()
    run("attack", *flags)
    whole_seconds = time.monotonic() - begun
    folder = tmp_path / "none" / "attack"
    whole = folder.rename(tmp_path / "whole")
    parts = tmp_path / "none" / "attack.partial" / "parts"
    for number, status in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 128 + signal.SIGTERM)):
        process = begin("attack", *flags)
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
    run("attack", *flags)
    assert time.monotonic() - begun < whole_seconds
    assert not list(folder.rglob("parts"))
    records = [records_in(path) for path in (whole, folder)]
    for one, other in zip(*records, strict=True):
        assert untimed(one) == untimed(other)
        a, b = (np.load(path / one["arrays"]) for path in (whole, folder))
        for key in a.files:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)
    # The clock went on too.
    assert records[1][1]["seconds"] > 0.5 * records[0][1]["seconds"]
