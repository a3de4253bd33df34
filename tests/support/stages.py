"""Runs stages as a user does, each in a process of its own, without importing TensorFlow anew for each.

One process imports everything and starts nothing; every run is a fork of it.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile

from support import ENVIRONMENT, ROOT

SMALL = [
    "--dataset=digits", "--limit_train=150", "--limit_test=40", "--model=basic_net(width=0.25)",
    "--epochs=2", "--batch_size=32", "--validation_attack=fgsm(epsilon=0.1)", "--repeats=2",
    "--checks=0", "--attacks=fgsm(epsilon=0.1); pgd(epsilon=0.1, steps=2, draws=2)",
]  # fmt: skip
KINDS = ("out", "err")
_server = None


def run_stages(name, arguments, environment, copies):
    """What so many processes at once of `python -m stages.NAME ARGUMENTS` leave: exit status, output, messages."""
    with tempfile.TemporaryDirectory() as folder:
        request = {"name": name, "arguments": list(arguments), "environment": environment}
        begun = _ask({**request, "copies": [f"{folder}/{i}" for i in range(copies)]})
        return [
            subprocess.CompletedProcess(
                [name, *arguments], status, *(pathlib.Path(f"{folder}/{i}-{kind}").read_text("utf-8") for kind in KINDS)
            )
            for i, status in enumerate(_ask({"wait": begun}))
        ]


def _stop():
    with _server:
        _server.kill()


def _ask(request):
    """What the process that runs the stages answers."""
    global _server
    if _server is None:
        _server = subprocess.Popen(
            [sys.executable, "-m", "support.stages"], cwd=ROOT, env=ENVIRONMENT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        atexit.register(_stop)
    _server.stdin.write(json.dumps(request) + "\n")
    _server.stdin.flush()
    answer = _server.stdout.readline()
    assert answer, "The process that runs the stages has died."
    return json.loads(answer)


class Begun:
    """A stage that runs as a user's does, and may be killed.

    Args:
      name: of the stage.
      arguments: flags.
      place: where what it prints is kept, as `PLACE-out` and `PLACE-err`.
      before: a program that is run in the process before the stage.
    """

    def __init__(self, name, arguments, place, before=""):
        environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "COLUMNS": "200"}
        request = {"name": name, "arguments": list(arguments), "environment": environment, "before": before}
        self.place = str(place)
        (self.pid,) = _ask({**request, "copies": [self.place]})

    def wait(self):
        """The exit status."""
        return _ask({"wait": [self.pid]})[0]

    @property
    def messages(self):
        """What it told on standard error."""
        return pathlib.Path(f"{self.place}-err").read_text("utf-8")


def run_stage(name, arguments, environment):
    """The exit status, standard output and standard error of `python -m stages.NAME ARGUMENTS`."""
    return run_stages(name, arguments, environment, 1)[0]


def stages(name, *arguments, status=0, copies=2):
    """Runs a stage in several processes at once."""
    found = run_stages(name, arguments, {"TF_CPP_MIN_LOG_LEVEL": "3", "COLUMNS": "200"}, copies)
    for done in found:
        assert done.returncode == status, done.stdout[-3000:] + done.stderr[-3000:]
    return found


def stage(name, *arguments, status=0):
    """Runs a stage as a user does."""
    return stages(name, *arguments, status=status, copies=1)[0]


def error(name, *arguments):
    """The one line a failing stage leaves behind."""
    done = stage(name, *arguments, status=2)
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def python(code, *arguments, cwd=ROOT, status=0, timeout=600, **environment):
    """Runs a program in a process of its own; variables of the environment that are None are unset."""
    variables = {name: value for name, value in (ENVIRONMENT | environment).items() if value is not None}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, check=False, timeout=timeout)
    assert done.returncode == status, done.stderr[-3000:]
    return done


def begin(stage, *flags, **environment):
    """Starts a stage in a process that shares nothing with this one."""
    command = [sys.executable, "-m", f"stages.{stage}", *flags]
    return subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT | environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def begin_workers(stage, *flags, count=2):
    """Starts the workers of a stage on ports that are free."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("localhost", 0))
        cluster = {"worker": [f"localhost:{one.getsockname()[1]}" for one in sockets]}
    return [
        begin(stage, *flags, TF_CONFIG=json.dumps({"cluster": cluster, "task": {"type": "worker", "index": number}}))
        for number in range(count)
    ]


def finish(process, status=0):
    """Waits up to an hour for what was begun; returns what it printed and its messages."""
    printed, messages = process.communicate(timeout=3600)
    assert process.returncode == status, messages[-3000:]
    return printed, messages


def run(stage, *flags):
    """What a stage prints, run to its end in a process of its own."""
    return finish(begin(stage, *flags))[0]


def report_stage(*flags, cwd):
    """The report stage, run as from a shell in another folder."""
    command = [sys.executable, "-m", "stages.report", *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "150", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", cwd=cwd, env=environment, check=False
    )


def _serve():
    import importlib
    import pkgutil

    for package in ("l2p_tf", "l2p_tf.data", "l2p_tf.layers", "l2p_tf.models", "l2p_tf.attacks", "l2p_tf.training",
                    "l2p_tf.defenses", "l2p_tf.fitting", "l2p_tf.evaluation", "l2p_tf.certification",
                    "l2p_tf.reporting"):  # fmt: skip
        found = importlib.import_module(package)
        for module in pkgutil.iter_modules(found.__path__):
            importlib.import_module(f"{package}.{module.name}")
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in request["wait"]]
        else:
            answer = [os.fork() or _run(request, copy) for copy in request["copies"]]
        print(json.dumps(answer), flush=True)


def _run(request, copy):
    import runpy

    for number, kind in enumerate(KINDS, 1):
        os.dup2(os.open(f"{copy}-{kind}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.update(request["environment"])
    sys.argv = [f"stages/{request['name']}.py", *request["arguments"]]
    status = 0
    try:
        exec(request.get("before", ""), {})
        runpy.run_module(f"stages.{request['name']}", run_name="__main__")
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    _serve()
