"""Time of the attacks beside CleverHans, Foolbox and ART, cost of the cascade, and how cost and memory grow.

python benchmarks/attacks.py
python benchmarks/attacks.py --only=pgd,cw --rounds=3
python benchmarks/attacks.py --only=autoattack --model=runs/mine/train/best.keras --data=runs/mine/data

ResNet-V1(20), 32x32x3, batch 128, and where it says so the quickstart's ResNet-V1(8), 8x8x1. The variants take turns,
so that a change of the machine's speed meets all of them; the median of the rounds is shown. Everything runs once
before it is timed. The networks are untrained except for those of hop_skip_jump and autoattack: what
is compared is the time of the same number of steps, and labels and budgets are such that nothing falls before the end.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import resource
import sys
from collections.abc import Callable

# Before TensorFlow, for which it switches oneDNN on.
from machine import Variants, beside_product, chosen, parser, print_machine, take_turns

# isort: split
import keras
import numpy as np
import tensorflow as tf
from train_step import FORWARD

from l2p_tf.attacks import ATTACKS
from l2p_tf.attacks.base import Attack
from l2p_tf.attacks.context import AttackOutput
from l2p_tf.data import DATASETS, ImageData
from l2p_tf.layers.factory import LayerFactory
from l2p_tf.layers.noise import set_noise
from l2p_tf.models import MODELS
from l2p_tf.models.saving import load_classifier

try:
    import attack_peers as peers
except ImportError as error:
    peers = None
    MISSING = f"{error}: pip install '.[peers]' sets CleverHans, Foolbox and ART beside these."


class KerasLayers(LayerFactory):
    """The same network of Keras's own layers, as a user of the other libraries would write it."""

    def conv(
        self,
        x: keras.KerasTensor,
        filters: int,
        kernel_size: int,
        name: str,
        *,
        strides: int = 1,
        normalize: bool = True,
        bias: bool = True,
    ) -> keras.KerasTensor:
        x = keras.layers.Conv2D(filters, kernel_size, strides, "same", use_bias=bias and not normalize, name=name)(x)
        return keras.layers.BatchNormalization(name=f"{name}_norm")(x) if normalize else x


def network(depth: int, shape: tuple[int, int, int], factory: LayerFactory | None = None) -> keras.Model:
    keras.utils.set_random_seed(0)
    return MODELS.parse(f"resnet_v1(depth={depth})").build(shape, 10, factory, mean=(0.47,), std=(0.2,))


def random_images(model: keras.Model, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise away from 0 and 1, labeled as the model answers: it falls only to those who look for it."""
    images = np.random.default_rng(0).uniform(0.1, 0.9, (count, *model.input_shape[1:])).astype(np.float32)
    return images, answers(model, images)


def answers(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return np.asarray(model(images, training=False)).argmax(-1).astype(np.int32)


def table(title: str, seconds: dict[str, float], target: dict[str, float] | None = None) -> None:
    """Seconds, and how many times as long as the first, ours, the others take."""
    print(f"\n{title}")
    first = next(iter(seconds.values()))
    for name, value in seconds.items():
        wanted = (target or {}).get(name)
        note = f"  (target: {wanted:g})" if wanted else ""
        print(f"  {name:44s} {value:8.3f} s  {value / first:6.2f} x{note}", flush=True)


def spec(name: str, options: dict[str, object]) -> str:
    return f"{name}({', '.join(f'{option}={value}' for option, value in options.items())})"


def ours(written: str, model: keras.Model, images: np.ndarray, labels: np.ndarray) -> Callable[[], object]:
    return functools.partial(ATTACKS.parse(written), model, images, labels, batch_size=128)


def keras_network(images: np.ndarray) -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """The network of Keras's own layers, the images, and what it answers to them."""
    plain = network(20, (32, 32, 3), KerasLayers())
    return plain, images, answers(plain, images)


def peer_variants(name: str, model: keras.Model, images: np.ndarray, labels: np.ndarray, **options: object) -> Variants:
    """The peers' attack of this name on our network, and on the same of Keras's layers; none without peers."""
    if not peers:
        return {}
    attack = getattr(peers, name)
    on_keras = attack(*keras_network(images), **options)
    return {**attack(model, images, labels, **options), **{f"{k}, Keras's layers": v for k, v in on_keras.items()}}


def pgd(arguments: argparse.Namespace) -> None:
    model = network(20, (32, 32, 3))
    images, labels = random_images(model, 128)
    # A budget in which nothing falls: all seven gradients of every image, in all of them.
    options = {"epsilon": 1e-6, "steps": 7, "step_size": 2.5e-7}
    attack = ours(spec("pgd", options), model, images, labels)
    assert attack().gradients.min() == 7, "images fell before the end"
    variants = {"l2p_tf, its last look included": attack, **peer_variants("pgd", model, images, labels, **options)}
    if peers:
        variants["l2p_tf, Keras's layers"] = ours(spec("pgd", options), *keras_network(images))
    seconds, gflops = beside_product(variants, arguments.rounds)
    table("PGD-7, ResNet-V1(20), 128 images", seconds, {"CleverHans": 1.2, "Foolbox": 2.8, "ART": 2.8})
    first = next(iter(seconds.values()))
    # Seven gradients of two passes' work, and the last look.
    share = 128 * 15 * FORWARD / first / 1e9 / gflops
    print(f"  l2p_tf: {128 / first:.0f} images/s, {share:.1%} of the float32 product rate of {gflops:.0f} GFLOP/s")


def sparse(arguments: argparse.Namespace) -> None:
    model = network(20, (32, 32, 3))
    images, labels = random_images(model, 128)
    # As above a budget in which nothing falls.
    options = {"epsilon": 1e-3, "steps": 10, "step_size": 2.5e-4, "sparsity": 0.01}
    variants = {"l2p_tf, PGD-10 l1": ours(f"{spec('pgd', options)[:-1]}, norm=l1)", model, images, labels)}
    for name, written in (
        ("PGD-10 linf", "pgd(epsilon=1e-6, steps=10)"), ("APGD-10 linf", "apgd(epsilon=1e-6, steps=10)"),
        ("APGD-10 l1", "apgd(epsilon=1e-3, steps=10, norm=l1)"),
    ):  # fmt: skip
        variants[f"l2p_tf, {name}"] = ours(written, model, images, labels)
    variants |= peer_variants("sparse", model, images, labels, **options)
    table("Ten steps in l1, ResNet-V1(20), 128 images", take_turns(variants, arguments.rounds))


def cw(arguments: argparse.Namespace) -> None:
    model = network(20, (32, 32, 3))
    images, labels = random_images(model, arguments.images)
    steps, constants = 30, 3
    for abort in (True, False):
        options = {
            "steps": steps, "binary_search_steps": constants, "learning_rate": 0.01, "initial_const": 0.01,
            "abort_early": abort,
        }  # fmt: skip
        attack = ours(spec("cw", options), model, images, labels)
        variants = {"l2p_tf": attack, **peer_variants("carlini_wagner", model, images, labels, **options)}
        title = f"C&W, {steps} steps for {constants} c, {len(images)} images, abort_early={abort}"
        table(title, take_turns(variants, arguments.rounds), {"Foolbox": 3.0})
        used = attack().gradients.mean()
        print(f"  l2p_tf took {used:.1f} of {steps * constants} gradients an image")


def deepfool(arguments: argparse.Namespace) -> None:
    model = network(20, (32, 32, 3))
    images, labels = random_images(model, arguments.images)
    # Few steps: on an untrained network boundaries are near, and Foolbox goes on until the last image has fallen.
    options = {"steps": 3, "overshoot": 0.02}
    attack = ours(spec("deepfool", options), model, images, labels)
    variants = {"l2p_tf": attack, **peer_variants("deepfool", model, images, labels, **options)}
    seconds = take_turns(variants, arguments.rounds)
    table(f"DeepFool, at most 3 steps, {len(images)} images", seconds, {"Foolbox": 3.0})
    output = attack()
    print(f"  l2p_tf took {output.gradients.mean() / 9:.2f} steps an image; {output.success.mean():.0%} fell")


def few_pixel(arguments: argparse.Namespace) -> None:
    for depth, shape, count, target in ((20, (32, 32, 3), 2, 2.0), (8, (8, 8, 1), 16, 10.0)):
        model = network(depth, shape)
        images, labels = random_images(model, count)
        genes, generations = 2 + shape[-1], 5
        population = 400 // genes * genes
        options = {"pixels": 1, "population": population, "generations": generations}
        attack = ours(spec("few_pixel", options), model, images, labels)
        variants: Variants = {"l2p_tf": attack}
        if peers:
            variants |= peers.pixel(model, images, labels, generations)
        title = f"One pixel, ResNet-V1({depth}), {count} images, {population} candidates, {generations + 1} generations"
        table(title, take_turns(variants, arguments.rounds), {"ART": target})
        output = attack()
        looks = output.forwards.mean() / population
        print(f"  l2p_tf looked at {looks:.2f} generations an image; {output.success.mean():.0%} fell")


def hop_skip_jump(arguments: argparse.Namespace) -> None:
    # Not of the class that noise has: Foolbox begins at nothing else.
    model, images, labels = robust_digits(arguments)
    noise = np.random.default_rng(0).uniform(size=(256, *images.shape[1:])).astype(np.float32)
    seldom = np.bincount(answers(model, noise), minlength=10) < 128
    rows = np.flatnonzero(seldom[labels])[: arguments.images]
    images, labels = images[rows].astype(np.float32) / 255.0, labels[rows]
    for norm in ("l2", "linf"):
        attack = ours(f"hop_skip_jump(steps=5, norm={norm})", model, images, labels)
        variants: Variants = {"l2p_tf": attack}
        if peers:
            variants |= peers.hop_skip_jump(model, images, labels, steps=5, norm=norm)
        seconds = take_turns(variants, arguments.rounds)
        targets = {"ART": 3.0, "Foolbox": 3.0, "Foolbox, compiled classifier": 3.0}
        table(f"HopSkipJump in {norm}, 5 steps, ResNet-V1(8), {len(images)} digits", seconds, targets)
        print(f"  l2p_tf took {attack().forwards.mean():.0f} queries an image")


def robust_digits(arguments: argparse.Namespace) -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """A saved classifier and its test images, or a small one trained on digits for the purpose."""
    if arguments.model:
        images, labels = ImageData.open(arguments.data).split("test")
        model = load_classifier(arguments.model)
        set_noise(model, False)
        return model, images[: arguments.limit], labels[: arguments.limit]
    source = DATASETS.parse("digits").open("", False)
    parts = []
    for split in (source.train, source.test):
        parts.append((np.concatenate(list(split.batches())), np.asarray(split.labels, np.int32)))
    (images, labels), (test, test_labels) = parts
    model = network(8, (8, 8, 1))
    attack = ATTACKS.parse("pgd(epsilon=0.18, steps=4, step_size=0.06)")
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(0)

    @tf.function(autograph=False)
    def step(x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor) -> None:
        x = attack.perturb(model, tf.cast(x, tf.float32) / 255.0, y, seed)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, model(x, training=True)))
        optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )

    for epoch in range(12):
        optimizer.learning_rate.assign(0.05 if epoch < 9 else 0.005)
        for rows in np.array_split(rng.permutation(len(images)), len(images) // 64):
            rows = rows[:64]
            step(tf.constant(images[rows]), tf.constant(labels[rows]), tf.constant(rng.integers(0, 2**31, 2), tf.int32))
    return model, test[: arguments.limit], test_labels[: arguments.limit]


def autoattack(arguments: argparse.Namespace) -> None:
    model, images, labels = robust_digits(arguments)
    attack = ATTACKS.parse(
        f"autoattack(epsilon={arguments.epsilon}, steps={arguments.steps}, queries={arguments.queries}, "
        "target_classes=3)"
    )
    members = attack.members()

    def run(one: Attack, rows: np.ndarray | slice = slice(None)) -> AttackOutput:
        return one(model, images[rows], labels[rows], batch_size=128)

    # Who reaches a member is who stands against those before it.
    reaching, standing = [], np.arange(len(images))
    for member in members:
        reaching.append(standing)
        if len(standing):
            standing = standing[run(member, standing).success < 1.0]
    variants: Variants = {"cascade": lambda: run(attack)}
    for member, rows in zip(members, reaching, strict=True):
        variants[member.label] = functools.partial(run, member)
        variants[f"{member.label}, those it reaches"] = functools.partial(run, member, rows)
    seconds = take_turns(variants, arguments.rounds)
    shares = [len(rows) / len(images) for rows in reaching]
    expected = sum(seconds[m.label] * share for m, share in zip(members, shares, strict=True))
    alone = sum(seconds[f"{m.label}, those it reaches"] for m in members)
    print(f"\n{attack.label}, {len(images)} images, {len(standing) / len(images):.0%} stand at the end")
    for member, share in zip(members, shares, strict=True):
        reached = seconds[f"{member.label}, those it reaches"]
        print(
            f"  {member.label:32s} {seconds[member.label]:8.3f} s on all, {reached:8.3f} s on the {share:.0%} it meets"
        )
    cascade = seconds["cascade"]
    print(
        f"  cascade {cascade:.3f} s / times on all x shares {expected:.3f} s = {cascade / expected:.2f} (target: 1.15)"
    )
    print(f"  cascade {cascade:.3f} s / times on those it meets {alone:.3f} s = {cascade / alone:.2f}")


def growth(arguments: argparse.Namespace) -> None:
    model = network(20, (32, 32, 3))
    images, labels = random_images(model, 512)
    variants: Variants = {
        f"{n} images": ours("pgd(epsilon=1e-6, steps=7, step_size=2.5e-7)", model, images[:n], labels[:n])
        for n in (128, 256, 512)
    }
    seconds = take_turns(variants, arguments.rounds)
    table("PGD-7 by number of images", seconds)
    each = [value / n for value, n in zip(seconds.values(), (128, 256, 512), strict=True)]
    print(f"  per image, of that at 128: {each[1] / each[0]:.2f} at 256, {each[2] / each[0]:.2f} at 512")
    small = network(8, (8, 8, 1))
    inputs = random_images(small, 256)
    attacks = [
        ATTACKS.parse(spec)
        for spec in ("pgd(steps=20)", "autoattack(steps=10, queries=50, target_classes=2)", "cw(steps=30)")
    ]
    for one in attacks:
        sizes = []
        for _ in range(10):
            one(small, *inputs)
            sizes.append(resident())
        print(
            f"  memory, {one.label}: {sizes[9] - sizes[1]:+.1f} MiB from the 2nd run to the 10th, of {sizes[1]:.0f} MiB"
        )


def resident() -> float:
    """Memory in use, in MiB; where the system does not say, the most there was."""
    try:
        pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
    return pages * resource.getpagesize() / 2**20


SECTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "pgd": pgd, "sparse": sparse, "cw": cw, "deepfool": deepfool, "few_pixel": few_pixel,
    "hop_skip_jump": hop_skip_jump, "autoattack": autoattack, "growth": growth,
}  # fmt: skip


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--only", default="", help="sections, separated by commas; all when empty")
    flags.add_argument("--images", type=int, default=64, help="of cw, deepfool and hop_skip_jump")
    what = "of hop_skip_jump and autoattack, saved, its noise off; empty trains one on digits"
    flags.add_argument("--model", default="", help=what)
    flags.add_argument("--data", default="", help="the data artifact of --model")
    flags.add_argument("--steps", type=int, default=25, help="autoattack: steps of APGD and FAB")
    flags.add_argument("--queries", type=int, default=500, help="autoattack: queries of Square")
    flags.add_argument("--limit", type=int, default=None, help="of --data: at most so many test images")
    flags.add_argument("--epsilon", type=float, default=0.22, help="autoattack: radius of the ball")
    arguments = flags.parse_args()
    names = chosen(flags, arguments.only, SECTIONS)
    if bool(arguments.model) != bool(arguments.data):
        flags.error("--model and --data belong together")
    if peers is None:
        print(MISSING)
    print_machine(arguments, model=False)
    for name in names:
        SECTIONS[name](arguments)


if __name__ == "__main__":
    main()
