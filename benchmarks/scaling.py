"""How time and memory grow: with images, epochs, draws, network width, replicas and workers.

python benchmarks/scaling.py
python benchmarks/scaling.py --only=draws,replicas

Every point is measured in a process of its own, after a run that is not counted: seconds are the median of the rounds,
and the most memory the process took (all processes, for workers). `per unit` is time per image, epoch, draw or
multiply-add, relative to the first point: 1 is linear. With replicas and workers the work is the same and they share
one machine, so that time should stay as it is where it has no more cores for them; the last line has the cost of a
distribution strategy of one replica. Networks have random weights: time does not depend on them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable

# Before TensorFlow, for which it switches oneDNN on.
from machine import chosen, described, network, parser, random_images

# isort: split
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from l2p_tf.attacks import ATTACKS
from l2p_tf.defenses import DEFENSES
from l2p_tf.devices import Devices, mirrored, open_devices
from l2p_tf.inference import predict
from l2p_tf.training.optimizers import MomentumSGD

POINTS = {
    "images": (256, 1024, 4096),
    "epochs": (1, 2, 4),
    "draws": (1, 4, 16),
    "width": (1, 2, 4),
    "replicas": (1, 2, 4),
    "workers": (1, 2),
    "strategy": (0, 1),
}
TRAINED = 512
"""Images of a training's epoch."""


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--only", default="", help="what to vary, separated by commas; all when empty")
    flags.add_argument("--point", help=argparse.SUPPRESS)
    arguments = flags.parse_args()
    if arguments.point:
        name, value = arguments.point.split("=")
        print(json.dumps(measured(name, int(value), arguments.rounds)))
        return
    print(f"{described()}, medians of {arguments.rounds} rounds")
    for name in chosen(flags, arguments.only, POINTS):
        table, first = Table(name, "seconds", "per unit", "MB"), None
        for value in POINTS[name]:
            seconds, unit, megabytes = of_process(name, value, arguments.rounds)
            first = first or seconds / unit
            table.add_row(str(value), f"{seconds:.2f}", f"{seconds / unit / first:.2f}", f"{megabytes:.0f}")
        Console().print(table)  # Each as soon as it is there: all take half an hour.


def of_process(name: str, value: int, rounds: int) -> tuple[float, float, float]:
    """Seconds, units of work and most megabytes of a point; of workers the slowest, and all their memory."""
    command = [sys.executable, __file__, f"--point={name}={value}", f"--rounds={rounds}"]
    environments: list[dict[str, str]] = [{}]
    if name == "workers":
        with contextlib.ExitStack() as held:
            sockets = [held.enter_context(socket.socket()) for _ in range(value)]
            for one in sockets:
                one.bind(("localhost", 0))
            cluster = {"worker": [f"localhost:{one.getsockname()[1]}" for one in sockets]}
        tasks = [{"cluster": cluster, "task": {"type": "worker", "index": index}} for index in range(value)]
        environments = [{"TF_CONFIG": json.dumps(task)} for task in tasks]
    processes = [
        subprocess.Popen(command, env=os.environ | one, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for one in environments
    ]
    found = []
    for process in processes:
        printed, messages = process.communicate()
        if process.returncode:
            raise SystemExit(messages)
        found.append(json.loads(printed.splitlines()[-1]))
    return max(seconds for seconds, _, _ in found), found[0][1], sum(megabytes for _, _, megabytes in found)


def measured(name: str, value: int, rounds: int) -> tuple[float, float, float]:
    """The same, of this process."""
    run, unit = {
        "images": lambda: attack("pgd(steps=3)", value, 0.0),
        "draws": lambda: attack(f"pgd(steps=3, draws={value})", 256, 0.1),
        "epochs": lambda: training(epochs=value),
        "width": lambda: training(width=value),
        "replicas": lambda: training(devices=logical(value)),
        "workers": lambda: training(devices=open_devices("multi_worker")),
        "strategy": lambda: training(devices=Devices(mirrored()) if value else Devices()),
    }[name]()
    run()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    units = {"images": value, "draws": value, "epochs": value, "width": unit}.get(name, 1)
    return sorted(times)[rounds // 2], units, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def logical(count: int) -> Devices:
    """The CPU as so many replicas."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    return Devices(mirrored())


def attack(spec: str, count: int, noise: float) -> tuple[Callable[[], object], float]:
    """An attack on random images of a small network, perhaps with noise."""
    model = network("resnet_v1(depth=8)", f"rse(first_std={noise}, inner_std={noise})" if noise else "none")
    images, _ = random_images(count)
    labels = predict(model, images).argmax(-1)  # Images that are misclassified as they are would not be attacked.
    one = ATTACKS.parse(spec)
    return lambda: one(model, images, labels, seed=0, batch_size=128), 1.0


def training(epochs: int = 1, width: int = 1, devices: Devices | None = None) -> tuple[Callable[[], object], float]:
    """Epochs of Learn2Perturb, and the multiply-adds of the network's convolutions in millions."""
    spec, devices = "learn2perturb(steps=3, warmup_epochs=0)", devices or Devices()
    with devices.strategy.scope() if devices.strategy else contextlib.nullcontext():
        model = network(f"resnet_v1(depth=8, width={width})", spec)
        trainer = DEFENSES.parse(spec).trainer(model, 0, TRAINED)
        trainer.compile(MomentumSGD(0.01))
    images, labels = random_images(TRAINED)
    how = {"batch_size": 128, "epochs": epochs, "verbose": 0}
    kernels = [w for w in model.trainable_variables if w.name == "kernel" and len(w.shape) == 4]
    return lambda: trainer.fit(images, labels, **how), sum(float(np.prod(w.shape)) for w in kernels)


if __name__ == "__main__":
    main()
