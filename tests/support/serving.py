"""Exports of tiny networks, and servers of them."""

import contextlib
import socket
import threading
import time

import numpy as np
import requests
import uvicorn

from l2p_tf import artifacts
from l2p_tf.defenses import DEFENSES
from l2p_tf.models.saving import save_classifier
from l2p_tf.server.app import Server
from l2p_tf.server.model import Model
from l2p_tf.server.options import ServeOptions
from l2p_tf.serving import export
from support.models import tiny

SHAPE = (6, 6, 1)
IMAGES = np.random.default_rng(0).random((5, *SHAPE), dtype=np.float32)
PREDICT = "/v1/models/mine:predict"


def trained(folder, defense):
    """The training's artifact of a tiny network with the layers of a defense."""
    options = DEFENSES.parse(defense)
    with artifacts.produce(folder / "train", "train", {"name": "x", "defense": defense, "model": "m"}) as work:
        if work is not None:
            save_classifier(tiny(options), work.path / "best.keras")
            work.notes["prediction_draws"] = 1
    return artifacts.read(folder / "train")


def exported(folder, defense, draws=None, **how):
    """Its export."""
    return export(trained(folder, defense), folder / "export", draws=draws, **how).path


class Client:
    """Asks a server."""

    def __init__(self, address):
        self.address = address

    def get(self, path):
        return requests.get(self.address + path, timeout=60)

    def post(self, path, json=None, data=None):
        return requests.post(self.address + path, json=json, data=data, timeout=60)


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_until_ready(address):
    """Waits for a server that was started, up to a minute."""
    for _ in range(600):
        with contextlib.suppress(requests.ConnectionError):
            if requests.get(f"{address}/readyz", timeout=5).status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError("The server did not start.")


@contextlib.contextmanager
def served(folder, **options):
    """A client of the server of an export, which runs in a thread; few images a pass are soon warmed up for."""
    made = ServeOptions(port=free_port(), **{"batch_images": 8, **options})
    app = Server(Model(folder, made.seeded), "mine", made).app
    server = uvicorn.Server(uvicorn.Config(app, made.host, made.port, log_config=None, lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield Client(f"http://{made.host}:{made.port}")
    finally:
        server.should_exit = True
        thread.join()
