"""Stages that are killed again and again, and what they leave beside what an undisturbed call leaves."""

import json
import os
import pathlib
import signal
import time

import numpy as np

from l2p_tf.artifacts import MANIFEST
from l2p_tf.models.saving import load_classifier
from support.files import read_json, read_rows
from support.stages import Begun

TIMES = frozenset({"seconds", "seconds_per_epoch", "images_per_second", "finished", "order", "trained"})
"""What is measured by a clock or digests what is, and so differs."""

_AT_A_WRITE = """
import os, random, signal, sys, threading
events = {{"open", "os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "shutil.copyfile"}}
left, folder = {number}, {folder!r}
def hook(event, args):
    global left
    if event not in events or not any(str(one).startswith(folder) for one in args[:2]):
        return
    if event == "open" and not (args[2] or 0) & (os.O_WRONLY | os.O_RDWR):
        return
    left -= 1
    if left == 0:
        wait = {wait}
        if not wait:
            os.kill(os.getpid(), signal.SIGKILL)
        threading.Timer(wait, os.kill, (os.getpid(), signal.SIGKILL)).start()
sys.addaudithook(hook)
"""
"""Kills the process at one of its writes into a folder: files opened, renamed, deleted, linked, copied."""


class Killer:
    """Runs a stage to its end, killed on the way, until so many kills hit.

    Half of them come at any time of a run, half at one of its writes, or some milliseconds after it began. When a stage
    has come to its end it begins anew in another folder.

    Args:
      name: of the stage.
      flags: its flags, but for the folder.
      folder: for what it leaves.
      prepare: called with each new folder.
    """

    def __init__(self, name, flags, folder, prepare=lambda place: None):
        self.name, self.flags, self.folder, self.prepare = name, flags, folder, prepare
        self.ended = []

    def begin(self, place, before=""):
        return Begun(self.name, [*self.flags, f"--run_dir={place}"], self.folder / "told", before)

    def run(self, kills, seed):
        """Kills the stage; returns where it was undisturbed, where it was killed, and what the kills hit."""
        rng = np.random.default_rng(seed)
        whole = self.folder / "whole"
        self.prepare(whole)
        counter = "import atexit\n" + _AT_A_WRITE.format(number=-1, folder=str(whole), wait=0)
        counter += f"import os; leave = os._exit\nos._exit = lambda s: (open({str(self.folder / 'writes')!r}, 'w')"
        counter += ".write(str(-1 - left)), leave(s))\n"
        begun = time.monotonic()
        process = self.begin(whole, counter)
        assert process.wait() == 0, process.messages[-3000:]
        duration = time.monotonic() - begun
        writes = int((self.folder / "writes").read_text())
        hits = {"time": 0, "write": 0}
        place, found = self._next()
        while sum(hits.values()) < kills:
            at_write = sum(hits.values()) % 2 == 1
            before = ""
            if at_write:
                # Kills add up: each call does what the last one left.
                number = int(rng.integers(1, max(2, writes // 4)))
                wait = float(rng.choice([0.0, rng.uniform(0, 0.01)]))
                before = _AT_A_WRITE.format(number=number, folder=str(place), wait=wait)
            process = self.begin(place, before)
            if not at_write:
                time.sleep(float(rng.uniform(0, duration / 2)))
                os.kill(process.pid, signal.SIGKILL)  # A process that has ended waits to be asked for its status.
            status = process.wait()
            assert status in (0, -signal.SIGKILL), process.messages[-3000:]
            hits["write" if at_write else "time"] += status != 0
            if status == 0:
                found.append(place)
                place, _ = self._next()
        process = self.begin(place)
        assert process.wait() == 0, process.messages[-3000:]
        self.ended.append(place)
        return whole, self.ended, {**hits, "seconds": round(duration, 1), "writes": writes}

    def _next(self):
        place = self.folder / f"killed{len(self.ended)}"
        self.prepare(place)
        return place, self.ended


def assert_same_results(found, wanted):
    """Two folders hold the same to the bit, but for what a clock measured and where they are."""
    files = [
        sorted(
            file.relative_to(folder).as_posix()
            for file in folder.rglob("*")
            if file.is_file() and not _is_free(file.relative_to(folder))
        )
        for folder in (found, wanted)
    ]
    assert files[0] == files[1]
    for name in files[0]:
        _assert_same_file(found / name, wanted / name)


def _is_free(name):
    """Whether a file is other each time: TensorBoard's logs, and pages that tell of seconds and dates."""
    return "logs" in name.parts or "report" in name.parts or "saved_model" in name.parts


def _assert_same_file(found, wanted):
    kind = found.suffix
    if kind == ".keras":
        weights = [load_classifier(file).weights for file in (found, wanted)]
        for one, other in zip(*weights, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=str(found))
    elif kind == ".npz":
        with np.load(found) as one, np.load(wanted) as other:
            assert one.files == other.files
            for key in set(one.files) - TIMES:
                if key == "meta":
                    assert _progress(one[key]) == _progress(other[key])
                else:
                    np.testing.assert_array_equal(one[key], other[key], err_msg=f"{found} {key}")
    elif kind == ".json":
        one, other = _timeless(read_json(found)), _timeless(read_json(wanted))
        if found.name == MANIFEST:
            for manifest in (one, other):
                # Digests of files with seconds in them, of which the rest is compared here, and places.
                for key in ("inputs", "outputs"):
                    manifest[key] = sorted(name for name in manifest[key] if not _is_free(pathlib.Path(name)))
                del manifest["lineage"], manifest["digest"]
        assert one == other, found
    elif kind == ".csv":
        assert _timeless(read_rows(found)) == _timeless(read_rows(wanted)), found
    else:
        assert found.read_bytes() == wanted.read_bytes(), found


def _progress(meta):
    """What a state says of itself; of the best model's files, which hold dates, the names."""
    content = _timeless(json.loads(meta.tobytes()))
    return {**content, "best_files": sorted(content["best_files"])}


def _timeless(value):
    if isinstance(value, dict):
        return {key: _timeless(one) for key, one in value.items() if key not in TIMES}
    return [_timeless(one) for one in value] if isinstance(value, list) else value
