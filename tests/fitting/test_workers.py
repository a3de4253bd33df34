"""Several processes that train one classifier together. Run with `pytest -m slow`."""

import signal
import time

import numpy as np
import pytest

from l2p_tf.models.saving import load_classifier
from support.files import read_json, read_rows, records_in
from support.stages import begin_workers, finish, python
from support.training import assert_same

pytestmark = pytest.mark.slow
TRAIN = [
    "--dataset=digits", "--limit_train=700", "--deterministic", "--model=resnet_v1(depth=8, width=0.5)",
    "--defense=learn2perturb(warmup_epochs=1, steps=3, epsilon=0.1)", "--epochs=4", "--batch_size=32",
    "--validation_attack=pgd(steps=2, epsilon=0.1)", "--seed=3", "--checkpoint_minutes=0.01",
]  # fmt: skip
ON_TWO = "from support import replicated; replicated.stage()"


def trained_in(folder):
    return folder / "learn2perturb" / "train"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training by two workers, left alone."""
    folder = tmp_path_factory.mktemp("workers")
    for process in begin_workers("train", *TRAIN, f"--run_dir={folder}"):
        finish(process)
    return folder


def test_two_workers_train_what_two_replicas_of_one_process_do(whole, tmp_path):
    python(ON_TWO, "train", *TRAIN, f"--run_dir={tmp_path}", "--strategy=mirrored")
    one, two = trained_in(whole), trained_in(tmp_path)
    for name in ("best.keras", "last.keras"):
        for a, b in zip(load_classifier(one / name).weights, load_classifier(two / name).weights, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
    for a, b in zip(read_rows(one / "history.csv"), read_rows(two / "history.csv"), strict=True):
        for name in ("loss", "clean_accuracy", "adversarial_accuracy", "tau"):
            assert float(a[name]) == pytest.approx(float(b[name]), abs=1e-4)
    assert read_json(one / "manifest.json")["notes"]["replicas"] == 2
    assert not list(whole.rglob("*.partial"))


@pytest.mark.parametrize(("number", "stopped"), [(0, signal.SIGKILL), (1, signal.SIGKILL), (1, signal.SIGTERM)])
def test_a_training_goes_on_when_a_worker_was_stopped(whole, tmp_path, number, stopped):
    state = trained_in(tmp_path).with_name("train.partial") / "state.npz"
    workers = begin_workers("train", *TRAIN, f"--run_dir={tmp_path}")
    while workers[0].poll() is None and not state.exists():
        time.sleep(0.01)
    workers[number].send_signal(stopped)
    for worker in workers:
        _, messages = worker.communicate(timeout=120)
        assert "Traceback" not in messages, messages[-2000:]
        if stopped == signal.SIGTERM:
            assert worker.returncode == 128 + stopped, messages[-2000:]
        elif worker is not workers[number]:
            assert worker.returncode == 2, messages[-2000:]
            assert "another worker has ended" in messages
    for worker in begin_workers("train", *TRAIN, f"--run_dir={tmp_path}"):
        finish(worker)
    for name in ("best.keras", "last.keras"):
        assert_same(*(load_classifier(trained_in(folder) / name).weights for folder in (whole, tmp_path)))


def test_workers_share_an_evaluation_with_the_results_of_one(whole):
    how = ["--attacks=pgd(steps=3, epsilon=0.1)", "--limit=50", "--checks=0", f"--run_dir={whole}", "--batch_size=16"]
    found = []
    for start in (lambda: begin_workers("attack", *how), lambda: begin_workers("attack", *how, count=1)):
        for worker in start():
            finish(worker)
        folder = whole / "learn2perturb" / "attack"
        arrays = []
        for record in records_in(folder):
            with np.load(folder / record["arrays"]) as file:
                arrays.append({name: file[name] for name in file.files if name != "seconds"})
        found.append(arrays)
        how.append("--overwrite")
    for one, other in zip(*found, strict=True):
        for name, values in one.items():
            np.testing.assert_array_equal(values, other[name])
