"""Processes that make one artifact together: who does what, who waits, and what becomes of those that end early."""

import multiprocessing
import os
import signal
import time

import pytest

from l2p_tf import artifacts, sharing
from l2p_tf.types import UserError
from support.shares import SLICES, take_part

CONTEXT = multiprocessing.get_context("spawn")


@pytest.fixture(autouse=True)
def _restored(monkeypatch):
    """Undoes what `take_part` changes in this process."""
    for owner, name in ((sharing, "POLL_SECONDS"), (artifacts, "_settle")):
        monkeypatch.setattr(owner, name, getattr(owner, name))


def noted(log, kind):
    lines = log.read_text().splitlines() if log.exists() else []
    return [line.split()[1:] for line in lines if line.startswith(kind + " ")]


def wait_for(log, kind, count=1):
    end = time.monotonic() + 20
    while len(noted(log, kind)) < count:
        assert time.monotonic() < end, log.read_text() if log.exists() else "nothing"
        time.sleep(0.01)


def begin(*arguments, **how):
    process = CONTEXT.Process(target=take_part, args=arguments, kwargs=how)
    process.start()
    return process


def ended(processes):
    for process in processes:
        process.join(30)
    return sorted(process.exitcode for process in processes)


def assert_made(folder):
    assert [p.name for p in (folder / "made").iterdir()] == ["x"]
    assert {p.name for p in (folder / "made" / "x").iterdir()} == {"all", artifacts.MANIFEST}
    assert (folder / "made" / "x" / "all").read_text() == "0 1 2 3 4 5"
    artifacts.read(folder / "made" / "x", "attack")
    assert sorted(int(one) for one, _ in noted(folder / "log", "done")) == list(range(SLICES))


def test_each_slice_is_done_once_and_one_process_joins_them(tmp_path):
    processes = [begin(tmp_path, together=3) for _ in range(3)]
    wait_for(tmp_path / "log", "done")
    processes.append(begin(tmp_path))  # Late.
    assert ended(processes) == [0] * 4
    assert len({pid for _, pid in noted(tmp_path / "log", "done")}) > 1
    assert_made(tmp_path)
    take_part(tmp_path)
    assert len(noted(tmp_path / "log", "body")) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("place", ["slice", "body", "manifest"])
def test_what_a_stopped_process_leaves_is_done_by_another(tmp_path, place, number):
    """Stopped in a slice, before the manifest is written, and after it."""
    status = 1 if number == signal.SIGINT else -signal.SIGKILL
    assert ended([begin(tmp_path, place, number) for _ in range(3)]) == sorted([status, 0, 0])
    bodies = 2 if place == "body" else 1
    assert len(noted(tmp_path / "log", "body")) == bodies
    assert len(noted(tmp_path / "log", "left")) == 2
    assert_made(tmp_path)


def test_other_options_and_commands_that_do_not_share_are_refused(tmp_path):
    halted = begin(tmp_path, "slice", signal.SIGSTOP)
    wait_for(tmp_path / "log", "slice")
    with pytest.raises(UserError, match=r"made by another process, with other options: a=1 \(now 2\)"):
        take_part(tmp_path, a=2)
    with pytest.raises(UserError, match=r"is being made by another process\.$"):
        take_part(tmp_path, shared=False)
    # One of the same options goes on with all but the slice that is held, and with that when it can be had.
    other = begin(tmp_path)
    wait_for(tmp_path / "log", "done", SLICES - 1)
    os.kill(halted.pid, signal.SIGKILL)
    assert ended([halted, other]) == [-signal.SIGKILL, 0]
    assert_made(tmp_path)


def test_one_that_shares_waits_for_one_that_does_not(tmp_path, capfd):
    alone = begin(tmp_path, "body", signal.SIGSTOP, shared=False)
    wait_for(tmp_path / "log", "body")
    waiting = begin(tmp_path)
    with pytest.raises(UserError, match=r"made by another process, with other options: a=1 \(now 2\)"):
        take_part(tmp_path, a=2)
    os.kill(alone.pid, signal.SIGCONT)
    assert ended([alone, waiting]) == [0, 0]
    assert not noted(tmp_path / "log", "joined")
    assert "waiting for another process that makes" in capfd.readouterr().err
