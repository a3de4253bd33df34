"""Adversarial images shown to deployed models: exports, SavedModels and servers."""

import http.server
import json
import threading

import numpy as np
import pytest
import tensorflow as tf

from l2p_tf import artifacts
from l2p_tf.data import ImageData
from l2p_tf.evaluation.evaluate import attack_artifact
from l2p_tf.evaluation.options import EvaluationOptions
from l2p_tf.evaluation.records import images_of, read_records
from l2p_tf.evaluation.replay import asked, replay
from l2p_tf.serving import export
from l2p_tf.types import UserError
from support import foreign
from support.stages import error, stage
from support.trainings import digits


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run under attack, its images kept, and its export."""
    root = tmp_path_factory.mktemp("replay")
    (root / "mine").mkdir()
    data = digits(root / "data", limit_train=100)
    run, _ = foreign.imported(foreign.made(), data, root / "mine", input_range="0..1")
    options = EvaluationOptions("pgd(epsilon=0.1, steps=3); cw(steps=20)", limit=60, save_images="float32")
    attack_artifact(options, run, data, root / "mine" / "attack")
    export(run, root / "mine" / "export")
    return root


def opened(runs):
    return artifacts.read(runs / "mine" / "attack"), ImageData.open(runs / "data")


def test_an_export_falls_as_the_run_did(runs):
    done = stage("replay", f"--run_dir={runs}", "--name=mine", f"--model={runs / 'mine' / 'export'}")
    assert "100.0%" in done.stdout
    found = json.loads((runs / "mine" / "replay" / "replay.json").read_text())
    records = read_records(runs / "mine" / "attack")
    assert [one["attack"] for one in found] == [record.attack for record in records]
    for one, record in zip(found, records, strict=True):
        assert one["before"] == record.count - record.correct
        assert one["agree"] >= 59
    assert artifacts.read(runs / "mine" / "replay").manifest["inputs"]["attack"] == opened(runs)[0].fingerprint


class Other(tf.Module):
    """A SavedModel of another make: it always answers the same class, by its scores."""

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 1], tf.uint8)])
    def serve(self, images):
        return {"scores": tf.one_hot(tf.zeros_like(images[:, 0, 0, 0], tf.int32) + 3, 10)}


def test_a_model_that_answers_otherwise_is_told_apart(runs, tmp_path):
    tf.saved_model.save(Other(), str(tmp_path / "other"), signatures={"serve": Other().serve})
    attack, data = opened(runs)
    found = replay(attack, data, asked(str(tmp_path / "other"), (8, 8, 1)), "other", tmp_path / "replay")
    labels = np.load(runs / "mine" / "attack" / read_records(attack.path)[0].arrays)["label"]
    assert {one.now for one in found} == {int((labels != 3).sum())}
    assert all(one.agree < one.count for one in found)


class Server(http.server.BaseHTTPRequestHandler):
    """A server by TensorFlow Serving's interface, of the network itself."""

    network, status, reply = None, 200, None

    def do_POST(self):
        images = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["instances"]
        logits = np.asarray(self.network(np.array(images, np.float32)))
        rows = [{"probabilities": row} for row in tf.nn.softmax(logits).numpy().tolist()]
        body = json.dumps(self.reply or {"predictions": rows}).encode()
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    Server.network, Server.status, Server.reply = foreign.made(), 200, None
    with http.server.HTTPServer(("localhost", 0), Server) as one:
        thread = threading.Thread(target=one.serve_forever)
        thread.start()
        yield f"http://localhost:{one.server_address[1]}/v1/models/mine"
        one.shutdown()
        thread.join()


def test_a_served_model_falls_as_the_run_did(runs, server, tmp_path):
    found = replay(*opened(runs), asked(server, (8, 8, 1)), "served", tmp_path / "replay")
    assert min(one.agree for one in found) >= 59
    again = replay(*opened(runs), asked(f"{server}:predict", (8, 8, 1)), "served", tmp_path / "replay")
    assert again == found


@pytest.mark.parametrize(
    ("status", "reply", "message"),
    [
        (404, {"error": "no such model"}, "answers 404: no such model"),
        (200, {"outputs": []}, "should answer predictions"),
        (200, {"predictions": [[1, 2]]}, "a class or a row of numbers"),
        (200, {"predictions": "none"}, "a class or a row"),
        (200, {"predictions": [{"a": 1.0}, {"b": 1.0}]}, "a class or a row"),
    ],
)
def test_servers_that_answer_something_else(runs, server, status, reply, message, tmp_path):
    Server.status, Server.reply = status, reply
    with pytest.raises(UserError, match=message):
        replay(*opened(runs), asked(server, (8, 8, 1)), "served", tmp_path / "replay")


def test_bad_input_is_one_line(runs, tmp_path):
    where = (f"--run_dir={runs}", "--name=mine")
    assert "`--model` should be" in error("replay", *where)
    assert "should be the folder of a TensorFlow SavedModel" in error("replay", *where, f"--model={tmp_path}")
    assert "should answer" in error("replay", *where, "--model=http://localhost:9/v1/models/x")
    with pytest.raises(UserError, match="should take images of 9x9x1"):
        asked(str(runs / "mine" / "export"), (9, 9, 1))
    attack, data = opened(runs)
    broken = attack.path / images_of(read_records(attack.path)[1])
    content = broken.read_bytes()
    try:
        broken.write_bytes(content[:500])
        with pytest.raises(UserError, match="hold the adversarial images"):
            replay(attack, data, lambda images: np.zeros(len(images), int), "x", tmp_path / "replay")
    finally:
        broken.write_bytes(content)


def test_images_that_were_not_kept(tmp_path, runs):
    data, run = ImageData.open(runs / "data"), artifacts.read(runs / "mine" / "train")
    attack_artifact(EvaluationOptions("fgsm", limit=20), run, data, tmp_path / "attack")
    with pytest.raises(UserError, match="--save_images"):
        replay(artifacts.read(tmp_path / "attack"), data, lambda images: None, "x", tmp_path / "replay")
