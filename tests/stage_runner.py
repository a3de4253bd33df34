"""Runs stages as a user does, each in a process of its own, without importing TensorFlow anew for each.

One process imports everything and starts nothing; every run is a fork of it.
"""

from __future__ import annotations

import atexit
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parent.parent
_server = None


def run_stage(name, arguments, environment):
    """The exit status, standard output and standard error of `python -m stages.NAME ARGUMENTS`."""
    global _server
    if _server is None:
        _server = subprocess.Popen(
            [sys.executable, __file__], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        )  # fmt: skip
        atexit.register(_server.kill)
    with tempfile.TemporaryDirectory() as folder:
        request = {"name": name, "arguments": list(arguments), "environment": environment, "folder": folder}
        _server.stdin.write(json.dumps(request) + "\n")
        _server.stdin.flush()
        answer = _server.stdout.readline()
        assert answer, "The process that runs the stages has died."
        out, err = (pathlib.Path(folder, kind).read_text("utf-8") for kind in ("out", "err"))
    return subprocess.CompletedProcess([name, *arguments], int(answer), out, err)


def _serve():
    import importlib
    import pkgutil
    import runpy

    for package in ("l2p_tf", "l2p_tf.data", "l2p_tf.layers", "l2p_tf.models", "l2p_tf.attacks", "l2p_tf.training",
                    "l2p_tf.defenses", "l2p_tf.fitting", "l2p_tf.evaluation", "l2p_tf.certification",
                    "l2p_tf.reporting"):  # fmt: skip
        found = importlib.import_module(package)
        for module in pkgutil.iter_modules(found.__path__):
            importlib.import_module(f"{package}.{module.name}")
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            for number, kind in ((1, "out"), (2, "err")):
                os.dup2(os.open(os.path.join(request["folder"], kind), os.O_WRONLY | os.O_CREAT), number)  # noqa: PTH118
            os.environ.update(request["environment"])
            sys.argv = [f"stages/{request['name']}.py", *request["arguments"]]
            status = 0
            try:
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
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    _serve()
