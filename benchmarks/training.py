"""Training steps of the generator paper's methods, and of mixed adversarial training, compared within one run.

python benchmarks/training.py
python benchmarks/training.py --model='all_conv(width=0.5)' --generator_width=0.5 --rounds=3

Batch 128 of 32x32x3 on the networks of the paper's Appendix A. The paper measures, in seconds an epoch on one GPU, 51.8
for its method, 175.9 for PGD-10 and 25.1 for FGM: 0.29 and 2.06. The variants take turns, so that a change of the
machine's speed meets all of them; medians of the rounds.
"""

from __future__ import annotations

from machine import BATCH, PRODUCT, Variants, beside_product, chosen, parser, print_machine, random_images
from train_step import tensorflow_step

TEN = "steps=10, random_start=True"
VARIANTS = {
    "none": "none",
    "FGM": "fgsm(epsilon=0.1, norm=l2)",
    "PGD-10 l_2": f"pgd(epsilon=0.1, step_size=0.025, norm=l2, {TEN})",
    "generator, alternating": "generator(generator_width={width})",
    "generator, joint": "generator(generator_width={width}, update=joint)",
    "PGD-10 l_inf": f"pgd({TEN})",
    "MAT-Rand, per example": f"mat({TEN})",
    "MAT-Rand, per batch": f"mat(per=batch, {TEN})",
    "MAT-Max": f"mat(strategy=max, {TEN})",
    "TRADES": "trades",
}


def main() -> None:
    flags = parser(__doc__, "all_conv")
    flags.add_argument("--generator_width", type=float, default=1.0)
    flags.add_argument("--only", default="", help="names, separated by `;`; all when empty")
    arguments = flags.parse_args()
    wanted = chosen(flags, arguments.only, VARIANTS, separator=";")
    images, labels = random_images()
    print_machine(arguments)
    specs = {name: VARIANTS[name].format(width=arguments.generator_width) for name in wanted}
    steps: Variants = {name: tensorflow_step(spec, arguments.model, images, labels) for name, spec in specs.items()}
    seconds, gflops = beside_product(steps, arguments.rounds)
    print(f"{PRODUCT}: {gflops:.0f} GFLOP/s")
    for name, value in seconds.items():
        print(f"{name:26s} {BATCH / value:7.1f} images/s")
    pairs = [(f"generator, {how}", peer) for how in ("alternating", "joint") for peer in ("PGD-10 l_2", "FGM")]
    pairs += [(f"MAT-Rand, per {per}", peer) for per in ("example", "batch") for peer in ("PGD-10 l_inf", "PGD-10 l_2")]
    for name, peer in pairs:
        if {name, peer} <= set(seconds):
            print(f"{name} / {peer}: {seconds[name] / seconds[peer]:.2f}")


if __name__ == "__main__":
    main()
