"""Training and prediction of every defense, relative to PGD training and to the undefended network, in one run.

python benchmarks/defenses.py
python benchmarks/defenses.py --model='resnet_v2(depth=18)' --rounds=3 --only=pgd,pni

Batch 128 of 32x32x3. Every defense that trains on attacks does so with PGD-7 on the adversarial images alone, so that
its noise makes the only difference; RSE, PixelDP and smoothing train on clean images, as published. Prediction is one
draw. The variants take turns, so that a change of the machine's speed meets all of them; medians of the rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from machine import described
from train_step import BATCH, product_rate, tensorflow_step

from l2p_tf.defenses import DEFENSES
from l2p_tf.inference import predict_with_votes
from l2p_tf.models import MODELS

SAME = "clean_weight=0, adversarial_weight=1, steps=7, step_size=0.01, epsilon=8/255"
VARIANTS = {
    "none": "none",
    "pgd": f"pgd({SAME})",
    "learn2perturb, per example": f"learn2perturb(update=joint, {SAME})",
    "learn2perturb, per batch": f"learn2perturb(update=joint, noise_sharing=batch, {SAME})",
    "pni, activations per example": f"pni(noise=activations, attack_label=true, {SAME})",
    "pni, activations per batch": f"pni(noise=activations, noise_sharing=batch, attack_label=true, {SAME})",
    "pni, weights": f"pni(attack_label=true, {SAME})",
    "adv_bnn": f"adv_bnn(random_start=True, {SAME})",
    "rse": "rse",
    "pixeldp": "pixeldp",
    "smoothing": "smoothing",
}
ANSWER = 16


def prediction(spec: str, model: str, images: np.ndarray, averaged: int = 1) -> Callable[[], None]:
    network = MODELS.parse(model).build((32, 32, 3), 10, DEFENSES.parse(spec).factory(0), mean=(0.47,), std=(0.2,))
    return lambda: predict_with_votes(network, images, samples_per_prediction=averaged, batch_size=BATCH) and None


def turns(runs: dict[str, Callable[[], None]], rounds: int, inner: int = 1) -> dict[str, float]:
    """Median seconds of each, after a first run that compiles."""
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            for _ in range(inner):
                run()
            times[name].append((time.perf_counter() - start) / inner)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet_v1(depth=20)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="beginnings of names, separated by commas; pgd and none always run")
    arguments = parser.parse_args()
    wanted = tuple(arguments.only.split(","))
    variants = {n: s for n, s in VARIANTS.items() if n in ("none", "pgd") or n.startswith(wanted)}
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCH, 32, 32, 3), np.uint8)
    labels = rng.integers(0, 10, BATCH, np.int32)
    rate = product_rate()
    print(f"{arguments.model}, batch {BATCH}, {described()}, medians of {arguments.rounds} rounds")
    print(f"float32 product of 4096x4096 matrices: {statistics.median(rate() for _ in range(5)):.0f} GFLOP/s")
    steps = {name: tensorflow_step(spec, arguments.model, images, labels) for name, spec in variants.items()}
    training = turns(steps, arguments.rounds)
    del steps
    predicting = turns({n: prediction(s, arguments.model, images) for n, s in variants.items()}, arguments.rounds, 5)
    print(f"{'':32s}{'training images/s':>18s}{'time of pgd':>13s}{'prediction images/s':>21s}{'time of none':>14s}")
    for name, seconds in training.items():
        first = f"{BATCH / seconds:18.0f}{seconds / training['pgd']:13.2f}"
        print(f"{name:32s}{first}{BATCH / predicting[name]:21.0f}{predicting[name] / predicting['none']:14.2f}")
    shared = {n: s for n, s in variants.items() if n in ("rse", "smoothing", "learn2perturb, per example")}
    one = {}
    for name, spec in shared.items():
        one[f"{name}, together"] = prediction(spec, arguments.model, images[:1], samples_per_prediction=ANSWER)
        sequential = prediction(spec, arguments.model, images[:1])
        one[f"{name}, one by one"] = lambda run=sequential: [run() for _ in range(ANSWER)] and None
    if one:
        print(f"One image, an answer of {ANSWER} draws:")
    for name, seconds in turns(one, arguments.rounds).items():
        print(f"{name:46s} {1000 * seconds:7.1f} ms")


if __name__ == "__main__":
    main()
