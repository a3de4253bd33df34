"""What the benchmarks share: arguments, the machine they run on, networks, random images, and how times are taken."""

from __future__ import annotations

import argparse
import os
import pathlib
import platform
import re
import statistics
import time
from collections.abc import Callable, Collection

import l2p_tf  # noqa: F401 - before TensorFlow, for which it switches oneDNN on

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from l2p_tf.defenses import DEFENSES
from l2p_tf.environment import onednn
from l2p_tf.models import MODELS

BATCH = 128
PRODUCT = "float32 product of 4096x4096 matrices"
Variants = dict[str, Callable[[], object]]


def parser(description: str | None, model: str | None = None) -> argparse.ArgumentParser:
    """Arguments of a benchmark: --rounds, and --model where it has a default."""
    arguments = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    arguments.add_argument("--rounds", type=int, default=5)
    if model is not None:
        arguments.add_argument("--model", default=model)
    return arguments


def described() -> str:
    """The CPU, its cores, and whether TensorFlow, which should be loaded, computes with oneDNN."""
    try:
        told = re.search(r"^model name\s*:\s*(.+)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        told = None
    cpu = told.group(1) if told else platform.processor() or platform.machine()
    return f"{cpu}, {os.cpu_count()} cores, oneDNN {'on' if onednn() else 'off'}"


def chosen(flags: argparse.ArgumentParser, text: str, known: Collection[str], separator: str = ",") -> list[str]:
    """The names in the value of --only, all that are known where it is empty; ends the program at another."""
    names = [name.strip() for name in text.split(separator) if name.strip()] or list(known)
    if unknown := set(names) - set(known):
        among, received = (f"{separator} ".join(some) for some in (known, sorted(unknown)))
        flags.error(f"--only should be among {among}. Received: {received}")
    return names


def network(model: str, defense: str = "none", shape: tuple[int, int, int] = (32, 32, 3)) -> keras.Model:
    """A classifier of ten classes with a defense's layers and random weights."""
    return MODELS.parse(model).build(shape, 10, DEFENSES.parse(defense).factory(0), mean=(0.47,), std=(0.2,))


def random_images(count: int = BATCH) -> tuple[np.ndarray, np.ndarray]:
    """Images of 32x32x3 in uint8, and labels of ten classes."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 32, 32, 3), np.uint8), rng.integers(0, 10, count, np.int32)


def take_turns(variants: Variants, rounds: int, repeats: int = 1) -> dict[str, float]:
    """Median seconds of each, after one run of each that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for run in variants.values():
        run()
    for _ in range(rounds):
        for name, run in variants.items():
            start = time.perf_counter()
            for _ in range(repeats):
                run()
            times[name].append((time.perf_counter() - start) / repeats)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def beside_product(variants: Variants, rounds: int) -> tuple[dict[str, float], float]:
    """Median seconds of each, and the rate of a float32 matrix product that takes turns with them, in GFLOP/s."""
    a = tf.random.normal([4096, 4096])
    multiply = tf.function(lambda x: tf.reduce_sum(tf.matmul(x, x)))
    seconds = take_turns({PRODUCT: lambda: float(multiply(a)), **variants}, rounds)
    return seconds, 2 * 4096**3 / seconds.pop(PRODUCT) / 1e9


def print_machine(arguments: argparse.Namespace, *, model: bool = True) -> None:
    begin = f"{arguments.model}, batch {BATCH}, " if model else ""
    print(f"{begin}{described()}, medians of {arguments.rounds} rounds", flush=True)
