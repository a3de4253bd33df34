"""A log that nobody reads: requests are answered, what does not fit is counted, and the server ends."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest
import requests

from l2p_tf.server.log import Log
from support import ENVIRONMENT, ROOT
from support.serving import IMAGES, PREDICT, free_port, wait_until_ready


def test_lines_are_written_in_order_and_what_does_not_fit_is_counted():
    written, go = [], threading.Event()

    def write(line):
        go.wait()
        written.append(json.loads(line))

    log = Log(write, most=5)
    for number in range(20):
        log("request", number=number)
    assert log.dropped == 15
    assert not log.drain(0.01)
    go.set()
    assert log.drain(10)
    assert [line["number"] for line in written] == [0, 1, 2, 3, 4]
    log("request", number=20)
    assert log.drain(10)
    assert [(line["event"], line.get("dropped"), line.get("number")) for line in written[5:]] == [
        ("log", 15, None), ("request", None, 20),
    ]  # fmt: skip
    assert log.dropped == 15


def test_a_log_that_is_gone_costs_its_lines_alone():
    def write(line):
        raise BrokenPipeError

    log = Log(write)
    log("start")
    assert log.drain(10)
    assert log.dropped == 1


def test_requests_are_answered_while_nobody_reads_the_log(plain):
    port, (reader, writer) = free_port(), os.pipe()
    os.set_blocking(writer, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    flags = [f"--export={plain}", f"--port={port}", "--name=mine", "--batch_images=8"]
    command = [sys.executable, "-m", "stages.serve", *flags]
    process = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stderr=writer, stdout=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until_ready(address)
        for _ in range(20):
            answer = requests.post(f"{address}{PREDICT}", json={"instances": IMAGES.tolist()}, timeout=30)
            assert answer.status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        os.close(reader)
        os.close(writer)
