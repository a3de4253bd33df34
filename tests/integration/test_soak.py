"""Short trainings and evaluations in one process hold memory and threads flat."""

import gc
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from support import ENVIRONMENT, ROOT

pytestmark = pytest.mark.slow
MINUTES = float(os.environ.get("L2P_TF_SOAK_MINUTES", "5"))
WARM_UP = 3
"""Rounds in which everything is met for the first time."""
MOST_MB = 60
"""By which the last quarter of the rounds may lie above the second."""


def soak(folder, minutes):
    """A round after the other; a line of JSON for each: seconds, megabytes, threads."""
    import psutil

    from l2p_tf.attacks import ATTACKS
    from l2p_tf.evaluation.evaluate import attack_artifact
    from l2p_tf.evaluation.options import EvaluationOptions
    from l2p_tf.fitting.run import train
    from support.trainings import digits, options

    data, process = digits(folder / "data", limit_train=200, limit_test=40), psutil.Process()
    attacks = tuple(ATTACKS.parse_list("fgsm(epsilon=0.1); pgd(epsilon=0.1, steps=3)"))
    judged = EvaluationOptions(attacks=attacks, repeats=2)
    begun, number = time.monotonic(), 0
    while time.monotonic() - begun < 60 * minutes:
        defense = ("none", "learn2perturb(warmup_epochs=0, steps=2, epsilon=0.1)", "generator")[number % 3]
        run = train(options(defense, epochs=2, drops=(), seed=number), data, folder / "run" / "train")
        attack_artifact(judged, run, data, folder / "run" / "attack")
        shutil.rmtree(folder / "run")
        gc.collect()
        number += 1
        told = [time.monotonic() - begun, process.memory_info().rss / 1e6, process.num_threads()]
        print(json.dumps([round(one, 1) for one in told]), flush=True)


def test_memory_and_threads_stay_flat(tmp_path):
    command = [sys.executable, "-m", "integration.test_soak", str(tmp_path), str(MINUTES)]
    environment = ENVIRONMENT | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), *sys.path])}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60 * MINUTES + 600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seconds, memory, threads = np.array([json.loads(line) for line in done.stdout.splitlines() if line[:1] == "["]).T
    marks = np.linspace(0, len(memory) - 1, min(9, len(memory))).astype(int)
    print("seconds, MB, threads:", [(seconds[i], memory[i], int(threads[i])) for i in marks])
    assert len(memory) >= 4 + WARM_UP, len(memory)
    kept = memory[WARM_UP:]
    early, late = np.array_split(kept, 4)[1].mean(), np.array_split(kept, 4)[3].mean()
    assert late - early < MOST_MB, (early, late, memory.tolist())
    assert threads[-1] <= threads[WARM_UP:].min() + 2, threads.tolist()


if __name__ == "__main__":
    soak(pathlib.Path(sys.argv[1]), float(sys.argv[2]))
