"""The model server: answers as the export's, by TensorFlow Serving's interface; limits; an end that loses nothing."""

import concurrent.futures
import json
import os
import re
import signal
import socket
import time

import numpy as np
import pytest
import requests
import tensorflow as tf

from l2p_tf.server.model import Model
from l2p_tf.types import UserError
from support.serving import IMAGES, PREDICT, exported, free_port, served, wait_until_ready
from support.stages import Begun, error


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("noisy"), "learn2perturb", draws=4)


@pytest.fixture(scope="module")
def client(plain):
    with served(plain) as one:
        yield one


def expected(folder, images):
    loaded = tf.saved_model.load(str(folder / "saved_model"))
    return {name: np.asarray(value) for name, value in loaded.signatures["serving_default"](images=images).items()}


def test_answers_are_those_of_the_saved_model_in_rows_and_in_columns(client, plain):
    wanted = expected(plain, IMAGES)
    rows = client.post(PREDICT, json={"instances": IMAGES.tolist()}).json()["predictions"]
    named = client.post(PREDICT, json={"instances": [{"images": image.tolist()} for image in IMAGES]}).json()
    assert named["predictions"] == rows
    columns = client.post(f"{PREDICT}", json={"inputs": {"images": IMAGES.tolist()}}).json()["outputs"]
    bare = client.post("/v1/models/mine/versions/1:predict", json={"inputs": IMAGES.tolist()}).json()["outputs"]
    assert columns == bare
    for name, values in wanted.items():
        np.testing.assert_allclose([row[name] for row in rows], values, atol=1e-6)
        np.testing.assert_allclose(columns[name], values, atol=1e-6)
    whole = np.rint(255 * IMAGES).astype(int)
    body = {"signature_name": "serve_uint8", "instances": whole.tolist()}
    answer = client.post(PREDICT, json=body).json()["predictions"]
    np.testing.assert_allclose(
        [row["probabilities"] for row in answer], expected(plain, np.float32(whole / 255))["probabilities"], atol=1e-5
    )


def test_it_describes_itself(client):
    (status,) = client.get("/v1/models/mine").json()["model_version_status"]
    assert status["state"] == "AVAILABLE"
    told = client.get("/v1/models/mine/metadata").json()["metadata"]
    images = told["signature_def"]["signature_def"]["serving_default"]["inputs"]["images"]
    assert images["dtype"] == "DT_FLOAT"
    assert [one["size"] for one in images["tensor_shape"]["dim"]] == ["-1", "6", "6", "1"]
    assert told["l2p_tf"]["draws"] == 1
    assert client.get("/healthz").text == "ok\n"
    assert client.get("/readyz").status_code == 200


BAD = [
    ({}, 400, "either instances or inputs"),
    ({"instances": [], "inputs": []}, 400, "either instances or inputs"),
    ({"instances": []}, 400, "of shape \\(count, 6x6x1\\)"),
    ({"instances": IMAGES[:, :5].tolist()}, 400, "of shape \\(count, 6x6x1\\), not \\(5, 5, 6, 1\\)"),
    ({"instances": [[1, 2], [3]]}, 400, "lists of numbers of equal lengths"),
    ({"instances": [["a"]]}, 400, "lists of numbers"),
    ({"instances": (IMAGES + 1).tolist()}, 400, "finite and from 0 to 1"),
    ({"instances": [{"image": 1}]}, 400, "images alone"),
    ({"inputs": {"other": 1}}, 400, "inputs should be images"),
    ({"instances": IMAGES.tolist(), "signature_name": "other"}, 400, "should be one of serving_default, serve_uint8$"),
    ({"instances": (IMAGES * 255).tolist(), "signature_name": "serve_uint8"}, 400, "should be whole"),
    ({"inputs": {"images": IMAGES.tolist(), "seed": [1, 2]}}, 400, "seed should be"),
    ({"instances": 3}, 400, "should be JSON with"),
]


@pytest.mark.parametrize(("body", "status", "message"), BAD)
def test_bad_requests_are_told_what_is_wrong(client, body, status, message):
    answer = client.post(PREDICT, json=body)
    assert answer.status_code == status
    assert re.search(message, answer.json()["error"])


@pytest.mark.parametrize("body", [b"{", b'{"instances": [[[[NaN]]]]}', b"\xff", b""])
def test_what_is_no_json_is_told(client, body):
    answer = client.post(PREDICT, data=body)
    assert answer.status_code == 400
    assert "JSON" in answer.json()["error"]


def test_other_addresses_and_methods(client):
    assert client.get("/v1/models/other").status_code == 404
    assert "/v1/models/mine:predict (POST)" in client.get(PREDICT).json()["error"]
    assert client.get(PREDICT).status_code == 405


def test_limits(plain):
    with served(plain, body_mb=0.001, timeout_s=30) as small:
        large = small.post(PREDICT, json={"instances": IMAGES.tolist()})
        assert large.status_code == 413
        streamed = small.post(PREDICT, data=(b"x" * 500 for _ in range(9)))
        assert streamed.status_code == 413
    with served(plain, timeout_s=1e-6) as hasty:
        assert hasty.post(PREDICT, json={"instances": IMAGES.tolist()}).status_code == 504


def test_too_many_images_are_refused_and_the_rest_are_answered(plain):
    with (
        served(plain, queue_images=6, batch_images=5, batch_wait_ms=300) as client,
        concurrent.futures.ThreadPoolExecutor(8) as pool,
    ):
        asked = [pool.submit(client.post, PREDICT, json={"instances": IMAGES.tolist()}) for _ in range(8)]
        found = [one.result() for one in asked]
    statuses = sorted(one.status_code for one in found)
    assert set(statuses) == {200, 503}
    assert all(one.headers["retry-after"] == "1" for one in found if one.status_code == 503)


def test_requests_share_passes_and_get_their_own_answers(plain):
    wanted = expected(plain, IMAGES)["probabilities"]
    with (
        served(plain, batch_images=64, batch_wait_ms=50) as client,
        concurrent.futures.ThreadPoolExecutor(16) as pool,
    ):
        asked = [pool.submit(client.post, PREDICT, json={"instances": [IMAGES[i % 5].tolist()]}) for i in range(64)]
        for i, one in enumerate(asked):
            np.testing.assert_allclose(one.result().json()["predictions"][0]["probabilities"], wanted[i % 5], atol=1e-5)
        text = client.get("/metrics").text
    passes = float(next(line for line in text.splitlines() if line.startswith("l2p_tf_batch_images_count")).split()[1])
    assert passes < 32
    assert "l2p_tf_images_total 64.0" in text
    assert 'l2p_tf_requests_total{path="/v1/models/mine:predict",status="200"} 64.0' in text


def seeded(seed):
    return {"signature_name": "serve_seeded", "inputs": {"images": IMAGES.tolist(), "seed": seed}}


def test_noise_is_fresh_on_each_request_and_within_a_pass(noisy):
    body = {"instances": [IMAGES[0].tolist()] * 2}
    with (
        served(noisy, batch_wait_ms=20) as client,
        concurrent.futures.ThreadPoolExecutor(8) as pool,
    ):
        asked = [pool.submit(client.post, PREDICT, json=body) for _ in range(8)]
        rows = [tuple(row["probabilities"]) for one in asked for row in one.result().json()["predictions"]]
        assert "should be one of" in client.post(PREDICT, json=seeded([1, 2])).json()["error"]
    assert len(set(rows)) == len(rows) == 16


def test_a_seed_repeats_an_answer_where_it_may_be_given(noisy):
    with served(noisy, seeded=True) as client:
        first, again, other = (client.post(PREDICT, json=seeded(seed)).json() for seed in ([1, 2], [1, 2], [1, 3]))
        assert first == again != other
        assert client.post(PREDICT, json=seeded([1])).status_code == 400
        assert client.post(PREDICT, json=seeded([1, 2**70])).status_code == 400


def test_what_is_no_export_is_refused(tmp_path):
    with pytest.raises(UserError, match="should be the folder of an export"):
        Model(tmp_path)
    assert "`--export` should be" in error("serve")
    assert "should be the folder of an export" in error("serve", f"--export={tmp_path}")


def test_nothing_is_lost_when_it_is_stopped(noisy, tmp_path):
    port = free_port()
    flags = (f"--export={noisy}", f"--port={port}", "--name=mine", "--batch_wait_ms=5", "--batch_images=16")
    server = Begun("serve", flags, tmp_path / "serve")
    address = f"http://127.0.0.1:{port}"
    wait_until_ready(address)
    body = {"instances": IMAGES.tolist()}

    def ask(_):
        answers = []
        while True:
            try:
                answers.append(requests.post(f"{address}{PREDICT}", json=body, timeout=30))
            except requests.ConnectionError as gone:
                # Before it was taken: afterwards an answer must come.
                return answers, "refused" in str(gone).lower() or "reset" in str(gone).lower()

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(ask, number) for number in range(8)]
        time.sleep(1)
        os.kill(server.pid, signal.SIGTERM)
        found = [one.result() for one in clients]
    assert all(refused for _, refused in found)
    assert all(one.status_code == 200 for answers, _ in found for one in answers)
    assert server.wait() == 0, server.messages[-2000:]
    lines = [json.loads(line) for line in server.messages.splitlines() if line.startswith("{")]
    answered = sum(len(answers) for answers, _ in found)
    assert sum(line["event"] == "request" and line["path"].endswith("predict") for line in lines) == answered > 8
    assert lines[0]["event"] == "start"
    assert lines[-1]["event"] == "end"


def test_a_port_that_is_taken_is_told(plain):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "`--port` should be free" in error("serve", f"--export={plain}", f"--port={taken.getsockname()[1]}")
