"""Training and prediction of every defense, relative to PGD training and to the undefended network, in one run.

python benchmarks/defenses.py
python benchmarks/defenses.py --model='resnet_v2(depth=18)' --rounds=3 --only=pgd,pni

Batch 128 of 32x32x3. Every defense that trains on attacks does so with PGD-7 on the adversarial images alone, so that
its noise makes the only difference; RSE, PixelDP and smoothing train on clean images, as published. Prediction is one
draw. The variants take turns, so that a change of the machine's speed meets all of them; medians of the rounds.
"""

from __future__ import annotations

from collections.abc import Callable

import machine
import numpy as np
from train_step import tensorflow_step

from l2p_tf.inference import predict_with_votes

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


def prediction(spec: str, model: str, images: np.ndarray, draws: int = 1) -> Callable[[], None]:
    classifier = machine.network(model, spec)
    how = {"samples_per_prediction": draws, "batch_size": machine.BATCH}
    return lambda: predict_with_votes(classifier, images, **how) and None


def main() -> None:
    flags = machine.parser(__doc__, "resnet_v1(depth=20)")
    flags.add_argument("--only", default="", help="beginnings of names, separated by commas; pgd and none always run")
    arguments = flags.parse_args()
    wanted = tuple(arguments.only.split(","))
    variants = {n: s for n, s in VARIANTS.items() if n in ("none", "pgd") or n.startswith(wanted)}
    images, labels = machine.random_images()
    machine.print_machine(arguments)
    steps: machine.Variants = {n: tensorflow_step(s, arguments.model, images, labels) for n, s in variants.items()}
    training, gflops = machine.beside_product(steps, arguments.rounds)
    del steps
    print(f"{machine.PRODUCT}: {gflops:.0f} GFLOP/s")
    answers: machine.Variants = {n: prediction(s, arguments.model, images) for n, s in variants.items()}
    predicting = machine.take_turns(answers, arguments.rounds, repeats=5)
    print(f"{'':32s}{'training images/s':>18s}{'time of pgd':>13s}{'prediction images/s':>21s}{'time of none':>14s}")
    for name, seconds in training.items():
        first = f"{machine.BATCH / seconds:18.0f}{seconds / training['pgd']:13.2f}"
        print(f"{name:32s}{first}{machine.BATCH / predicting[name]:21.0f}{predicting[name] / predicting['none']:14.2f}")
    shared = {n: s for n, s in variants.items() if n in ("rse", "smoothing", "learn2perturb, per example")}
    one: machine.Variants = {}
    for name, spec in shared.items():
        one[f"{name}, together"] = prediction(spec, arguments.model, images[:1], draws=ANSWER)
        sequential = prediction(spec, arguments.model, images[:1])
        one[f"{name}, one by one"] = lambda run=sequential: [run() for _ in range(ANSWER)] and None
    if one:
        print(f"One image, an answer of {ANSWER} draws:")
    for name, seconds in machine.take_turns(one, arguments.rounds).items():
        print(f"{name:46s} {1000 * seconds:7.1f} ms")


if __name__ == "__main__":
    main()
