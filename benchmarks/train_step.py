"""Images per second of one training step, against the machine's float32 product rate and a PyTorch step.

python benchmarks/train_step.py
python benchmarks/train_step.py --model='resnet_v1(depth=20)' --rounds=5 --torch=off

ResNet-V1(20), 32x32x3, batch 128: clean forward and backward, PGD-7, adversarial forward and backward, update. The
variants take turns, so that a change of the machine's speed meets all of them; the median of the rounds is shown. The
PyTorch step (pip install '.[bench]') is lean, written for this comparison, in channels-last memory format.
"""

from __future__ import annotations

from collections.abc import Callable

# Before TensorFlow, for which it switches oneDNN on.
from machine import BATCH, PRODUCT, Variants, beside_product, network, parser, print_machine, random_images

# isort: split
import numpy as np
import tensorflow as tf

from l2p_tf.defenses import DEFENSES
from l2p_tf.training.optimizers import MomentumSGD

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
    trainer = DEFENSES.parse(spec).trainer(network(model, spec), 0, 50_000)
    trainer.compile(optimizer=MomentumSGD(decay=1e-4))
    trainer.begin_epoch(50)
    trainer.make_train_function()
    batch = tf.constant(images), tf.constant(labels)
    return lambda: float(trainer.train_function(iter([batch]))["loss"]) and None


def main() -> None:
    flags = parser(__doc__, "resnet_v1(depth=20)")
    flags.add_argument("--torch", choices=("auto", "off"), default="auto")
    arguments = flags.parse_args()
    images, labels = random_images()
    steps: Variants = {
        name: tensorflow_step(spec, arguments.model, images, labels) for name, (spec, _) in VARIANTS.items()
    }
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
    seconds, gflops = beside_product(steps, arguments.rounds)
    speeds = {name: BATCH / value for name, value in seconds.items()}
    print_machine(arguments)
    print(f"{PRODUCT}: {gflops:.0f} GFLOP/s")
    for name, speed in speeds.items():
        share = speed * PASSES[kinds[name]] * FORWARD / 1e9 / gflops
        note = f"  {share:6.1%} of the product rate" if "depth=20)" in arguments.model else ""
        print(f"{name:46s} {speed:7.1f} images/s{note}")
    for ours, theirs in peers.items():
        print(f"{ours} / {theirs}: {speeds[ours] / speeds[theirs]:.2f}")
    pgd = speeds["PGD training (adversarial only)"]
    for name in list(VARIANTS)[1:]:
        print(f"{name} / PGD training: {speeds[name] / pgd:.2f}")


if __name__ == "__main__":
    main()
