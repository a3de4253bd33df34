"""Images per second of one training step, against the machine's float32 product rate and a PyTorch step.

python benchmarks/train_step.py
python benchmarks/train_step.py --model='resnet_v1(depth=20)' --rounds=5 --torch=off

ResNet-V1(20), 32x32x3, batch 128: clean forward and backward, PGD-7, adversarial forward and backward, update. The
variants take turns, so that a change of the machine's speed meets all of them; the median of the rounds is shown. The
PyTorch step (pip install '.[bench]') is lean, written for this comparison, in channels-last memory format.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import l2p_tf  # noqa: F401 - before TensorFlow, for which it switches oneDNN on

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from machine import described

from l2p_tf.defenses import DEFENSES
from l2p_tf.inference import resolve_jit
from l2p_tf.models import MODELS
from l2p_tf.training.optimizers import MomentumSGD

BATCH = 128
# Multiply-adds of ResNet-V1(20) on 32x32 are 40.8 million; a forward pass costs one such, a backward pass to the input
# another, to the weights a third. Clean and adversarial step: 2 x 3; PGD-7: 7 x 2; theta's own phase: 2 x 2.
FORWARD = 2 * 40.8e6
PASSES = {"pgd": 17, "joint": 20, "sequential": 24}
VARIANTS = {
    "PGD training (adversarial only)": ("pgd", "pgd"),
    "Learn2Perturb joint, one draw a batch": ("learn2perturb(update=joint, noise_sharing=batch)", "joint"),
    "Learn2Perturb joint, draws per example": ("learn2perturb(update=joint)", "joint"),
    "Learn2Perturb sequential, one draw a batch": ("learn2perturb(noise_sharing=batch)", "sequential"),
    "Learn2Perturb sequential, draws per example": ("learn2perturb", "sequential"),
}


def tensorflow_step(spec: str, model: str, images: np.ndarray, labels: np.ndarray) -> Callable[[], None]:
    defense = DEFENSES.parse(spec)
    network = MODELS.parse(model).build((32, 32, 3), 10, defense.factory(0), mean=(0.47,), std=(0.2,))
    trainer = defense.trainer(network, 0, 50_000)
    trainer.compile(optimizer=MomentumSGD(decay=1e-4))
    trainer.begin_epoch(50)
    step = tf.function(lambda x, y: trainer.train_step((x, y)), jit_compile=resolve_jit(None), autograph=False)
    x, y = tf.constant(images), tf.constant(labels)
    return lambda: float(step(x, y)["loss"]) and None


def product_rate() -> Callable[[], float]:
    """A function that measures the rate of a float32 matrix product, in GFLOP/s."""
    a = tf.random.normal([4096, 4096])
    multiply = tf.function(lambda x: tf.reduce_sum(tf.matmul(x, x)))
    multiply(a)

    def measure() -> float:
        start = time.perf_counter()
        float(multiply(a))
        return 2 * 4096**3 / (time.perf_counter() - start) / 1e9

    return measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet_v1(depth=20)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--torch", choices=("auto", "off"), default="auto")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCH, 32, 32, 3), np.uint8)
    labels = rng.integers(0, 10, BATCH, np.int32)
    steps = {name: tensorflow_step(spec, arguments.model, images, labels) for name, (spec, _) in VARIANTS.items()}
    kinds = {name: kind for name, (_, kind) in VARIANTS.items()}
    peers = {}
    if arguments.torch == "auto" and arguments.model == "resnet_v1(depth=20)":
        try:
            import torch_step
        except ImportError:
            print("PyTorch is not installed: pip install '.[bench]' sets it beside these.")
        else:
            for sharing, title in (("batch", "one draw a batch"), ("example", "draws per example")):
                name = f"PyTorch joint, {title}"
                steps[name] = torch_step.make_step(images, labels, per_example=sharing == "example")
                kinds[name] = "joint"
                peers[f"Learn2Perturb joint, {title}"] = name
    rate = product_rate()
    for step in steps.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    rates = []
    for _ in range(arguments.rounds):
        rates.append(rate())
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    gflops = statistics.median(rates)
    speeds = {name: BATCH / statistics.median(seconds) for name, seconds in times.items()}
    print(f"{arguments.model}, batch {BATCH}, {described()}, medians of {arguments.rounds} rounds")
    print(f"float32 product of 4096x4096 matrices: {gflops:.0f} GFLOP/s")
    for name, speed in speeds.items():
        share = f"{speed * PASSES[kinds[name]] * FORWARD / 1e9 / gflops:6.1%}" if "depth=20)" in arguments.model else ""
        print(f"{name:46s} {speed:7.1f} images/s  {share} of the product rate")
    for ours, theirs in peers.items():
        print(f"{ours} / {theirs}: {speeds[ours] / speeds[theirs]:.2f}")
    pgd = speeds["PGD training (adversarial only)"]
    for name in list(VARIANTS)[1:]:
        print(f"{name} / PGD training: {speeds[name] / pgd:.2f}")


if __name__ == "__main__":
    main()
