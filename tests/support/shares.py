"""A process that makes an artifact of slices together with others."""

import contextlib
import os
import signal
import time

from l2p_tf import artifacts, files, sharing

SLICES = 6


def _note(log, *words):
    with log.open("a") as file:
        file.write(" ".join(map(str, words)) + "\n")


def take_part(folder, stop="", number=signal.SIGKILL, a=1, shared=True, together=1):
    """Makes an artifact of slices; the first process to come to the place `stop` gets a signal there.

    Nothing is done before so many processes take part.
    """
    sharing.POLL_SECONDS = 0.02
    log = folder / "log"

    def come_to(place):
        _note(log, place, os.getpid())
        if stop == place:
            with contextlib.suppress(FileExistsError):
                (folder / "stopped").touch(exist_ok=False)
                os.kill(os.getpid(), number)

    def share(partial):
        come_to("joined")
        while log.read_text().count("joined") < together:
            time.sleep(0.01)
        todo = list(range(SLICES))
        while todo:
            for one in list(todo):
                with files.locked(partial / str(one)) as mine:
                    if not mine:
                        continue
                    if not (partial / f"part{one}").exists():
                        time.sleep(0.05)
                        come_to("slice")
                        artifacts.atomic_write(partial / f"part{one}", str(one))
                        _note(log, "done", one, os.getpid())
                    todo.remove(one)
            time.sleep(0.01)

    settle = artifacts._settle

    def settled(*paths):
        come_to("manifest")
        settle(*paths)

    artifacts._settle = settled
    how = {"share": share} if shared else {}
    with artifacts.produce(folder / "made" / "x", "attack", {"a": a}, **how) as work:
        if work is not None:
            come_to("body")
            found = [(work.path / f"part{n}").read_text() for n in range(SLICES)] if shared else []
            work.scratch += [f"part{n}" for n in range(SLICES)]
            artifacts.atomic_write(work.path / "all", " ".join(found))
    _note(log, "left", os.getpid())
