"""Stages that are killed at random moments, writes among them, leave what an undisturbed call leaves, to the bit."""

import os
import shutil
import time

import numpy as np
import pytest
import tensorflow as tf

from support.kills import Killer, assert_same_results
from support.stages import stage

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("L2P_TF_KILLS", "0"))
"""Of each stage; 0 for those of `STAGES`."""
SMALL = [
    "--dataset=digits", "--limit_train=1000", "--limit_test=60", "--deterministic", "--model=basic_net(width=0.25)",
    "--epochs=8", "--batch_size=32", "--validation_attack=fgsm(epsilon=0.1)", "--checkpoint_minutes=0.001", "--seed=3",
    "--repeats=2", "--attack_batch_size=16",
    "--attacks=fgsm(epsilon=0.1); pgd(epsilon=0.1, steps=5, draws=2, restarts=2); square(epsilon=0.1, queries=60)",
]  # fmt: skip
ONE = ["--defense=learn2perturb(warmup_epochs=2, steps=2, epsilon=0.1)"]
STAGES = {
    "train": ("train", ONE, [], 20),
    "attack": ("attack", [*ONE, "--checks=0", "--save_images=uint8"], ["train"], 20),
    "checks": ("attack", [*ONE, "--checks=40"], ["train", "attack"], 20),
    "pipeline": (
        "pipeline",
        ["--defense=smoothing(sigma=0.1); learn2perturb(warmup_epochs=1, steps=2, epsilon=0.1)", "--checks=20",
         "--epochs=2", "--attacks=fgsm(epsilon=0.1)", "--export=learn2perturb", "--transfer=smoothing",
         "--certify=smoothing(selection_draws=10, draws=100)"],
        [], 6,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", STAGES)
def test_killed_at_random_moments_the_results_are_the_same_bits(kind, tmp_path):
    name, flags, before, kills = STAGES[kind]
    flags = [*SMALL, *flags]
    made = tmp_path / "made"
    for earlier in before:
        stage(earlier, *flags, "--checks=0", f"--run_dir={made}")

    def prepare(place):
        if made.exists():
            shutil.copytree(made, place)

    seed = int(time.time())
    begun = time.monotonic()
    whole, killed, facts = Killer(name, flags, tmp_path, prepare).run(KILLS or kills, seed)
    print(f"{kind}: {facts}, {len(killed)} times to the end, {time.monotonic() - begun:.0f} s; seed {seed}")
    for folder in killed:
        assert_same_results(folder, whole)
        assert not list(folder.rglob("*.partial"))
        assert not [file for file in folder.rglob(".*") if file.name != ".gitignore"]
        assert not list(folder.rglob("*.lock"))
    exports = [folder / "learn2perturb" / "export" / "saved_model" for folder in (whole, *killed)]
    if exports[0].exists():
        images = tf.constant(np.random.default_rng(0).random((5, 8, 8, 1), np.float32))
        answers = []
        for folder in exports:
            loaded = tf.saved_model.load(str(folder))
            answers.append(loaded.signatures["serve_seeded"](images=images, seed=tf.constant([1, 2], tf.int64)))
        for answer in answers[1:]:
            for key, value in answer.items():
                np.testing.assert_array_equal(value, answers[0][key], err_msg=key)
