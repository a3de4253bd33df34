"""The model server: latency and throughput by draws and clients, against the SavedModel called in this process.

python benchmarks/serving.py
python benchmarks/serving.py --draws=1,8 --clients=1,32 --seconds=5

A ResNet-V1(8) with Learn2Perturb's noise, and one without, on 32x32 images; each client asks for one image at a time,
by HTTP, for some seconds. `bare` is the SavedModel on one image, and on batches of 64, without a server.
"""

from __future__ import annotations

import concurrent.futures
import json
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse

# Before TensorFlow, for which it switches oneDNN on.
from machine import described, network, parser

# isort: split
import numpy as np
import requests
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from l2p_tf import artifacts
from l2p_tf.models.saving import save_classifier
from l2p_tf.serving import export

ROOT = pathlib.Path(__file__).resolve().parents[1]
SHAPE, BATCH = (32, 32, 3), 64


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--draws", default="1,8,32", help="of the noise, separated by commas")
    flags.add_argument("--clients", default="1,8,32,64", help="at the same time, separated by commas")
    flags.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    given = flags.parse_args()
    clients = [int(text) for text in given.clients.split(",")]
    print(f"{described()}, {given.seconds:g} s each")
    cases = [("none", 1), *(("learn2perturb(warmup_epochs=0)", int(text)) for text in given.draws.split(","))]
    for defense, draws in cases:
        with tempfile.TemporaryDirectory() as folder:
            table = Table("clients", "p50 ms", "p99 ms", "images/s", title=f"{defense}, draws {draws}")
            path = exported(pathlib.Path(folder), defense, draws)
            one, many = bare(path, given.seconds)
            table.add_row("bare, 1 image", f"{1000 / one:.1f}", "", f"{one:.0f}")
            table.add_row(f"bare, {BATCH} images", f"{1000 * BATCH / many:.1f}", "", f"{many:.0f}")
            process, address = begun(path)
            for count in clients:
                times, lost = asked(address, count, given.seconds)
                p50, p99 = np.percentile(times, [50, 99]) * 1000
                table.add_row(str(count), f"{p50:.1f}", f"{p99:.1f}", f"{len(times) / given.seconds:.0f}")
                assert not lost, f"{lost} requests were lost"
            process.send_signal(signal.SIGTERM)
            process.wait()
            Console().print(table)


def exported(folder: pathlib.Path, spec: str, draws: int) -> pathlib.Path:
    """An export of a network with random weights."""
    model = network("resnet_v1(depth=8)", spec, SHAPE)
    with artifacts.produce(folder / "train", "train", {"name": "x", "defense": spec, "model": "resnet"}) as work:
        save_classifier(model, work.path / "best.keras")
        work.notes["prediction_draws"] = 1
    return export(artifacts.read(folder / "train"), folder / "export", draws=draws).path


def bare(path: pathlib.Path, seconds: float) -> tuple[float, float]:
    """Images a second of the SavedModel by itself, one by one and in batches."""
    serve = tf.saved_model.load(str(path / "saved_model")).signatures["serving_default"]
    rates = []
    for count in (1, BATCH):
        images = tf.random.uniform((count, *SHAPE))
        serve(images=images)
        begun, done = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            serve(images=images)["predictions"].numpy()
            done += count
        rates.append(done / (time.perf_counter() - begun))
    return rates[0], rates[1]


def begun(path: pathlib.Path) -> tuple[subprocess.Popen[bytes], str]:
    """A server of the export that is ready."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    command = [sys.executable, "-m", "stages.serve", f"--export={path}", f"--port={port}", "--name=model"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    while True:
        try:
            if requests.get(f"{address}/readyz", timeout=5).ok:
                return process, f"{address}/v1/models/model:predict"
        except requests.ConnectionError:
            time.sleep(0.1)


def asked(address: str, clients: int, seconds: float) -> tuple[list[float], int]:
    """How long each request took that clients made in so many seconds, and how many had no answer."""
    image = np.random.default_rng(0).random(SHAPE).round(4)
    body = json.dumps({"instances": [image.tolist()]})

    where = urllib.parse.urlsplit(address)
    head = f"POST {where.path} HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Length: {len(body)}\r\n\r\n"
    request = (head + body).encode()

    def ask(end: float) -> tuple[list[float], int]:
        # Bare sockets: a client that parses HTTP in Python would take the cores that the server needs.
        times, lost = [], 0
        with socket.create_connection((where.hostname, where.port), timeout=60) as connection:
            while time.perf_counter() < end:
                begun = time.perf_counter()
                connection.sendall(request)
                answer = connection.recv(65536)
                while not _is_whole(answer):
                    answer += connection.recv(65536)
                lost += not answer.startswith(b"HTTP/1.1 200 ")
                times.append(time.perf_counter() - begun)
        return times, lost

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        end = time.perf_counter() + seconds
        found = list(pool.map(ask, [end] * clients))
    return [time for times, _ in found for time in times], sum(lost for _, lost in found)


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    return bool(end) and len(body) == int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])


if __name__ == "__main__":
    main()
