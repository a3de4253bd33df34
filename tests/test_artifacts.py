import contextlib
import errno
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from l2p_tf import artifacts, files
from l2p_tf.types import UserError
from support import ENVIRONMENT
from support.stages import python


def make(path, options=None, inputs=None, text="content", **kwargs):
    with artifacts.produce(path, "data", options or {"a": 1}, inputs, **kwargs) as work:
        if work is None:
            return None
        (work.path / "sub").mkdir(exist_ok=True)
        (work.path / "sub" / "file.txt").write_text(text)
        work.notes["n"] = 3
    return artifacts.read(path, "data")


def interrupt(path, stage="data", **contents):
    """Work that stops after it has written these files."""
    with pytest.raises(RuntimeError), artifacts.produce(path, stage, {"a": 1}) as work:
        for name, text in contents.items():
            file = work.path / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        raise RuntimeError("stop")


def test_made_whole_and_then_found(tmp_path):
    artifact = make(tmp_path / "x")
    assert artifact.options == {"a": 1}
    assert list(artifact.manifest["outputs"]) == ["sub/file.txt"]
    assert artifact.manifest["notes"] == {"n": 3}
    assert make(tmp_path / "x") is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x"]


def test_fingerprint_is_free_of_time_and_place(tmp_path):
    assert make(tmp_path / "x").fingerprint == make(tmp_path / "y").fingerprint
    assert make(tmp_path / "z", text="other").fingerprint != artifacts.read(tmp_path / "x").fingerprint


def test_an_error_leaves_work_to_be_continued(tmp_path):
    interrupt(tmp_path / "x", half="1")
    assert not (tmp_path / "x").exists()
    with pytest.raises(UserError, match="not finished"):
        artifacts.read(tmp_path / "x")
    with pytest.raises(UserError, match=r"a=1 \(now 2\)"):
        make(tmp_path / "x", {"a": 2})
    with artifacts.produce(tmp_path / "x", "data", {"a": 1}) as work:
        assert work.resumed
        assert (work.path / "half").read_text() == "1"
    assert set(artifacts.read(tmp_path / "x").manifest["outputs"]) == {"half"}


def test_other_options_are_refused_or_replace(tmp_path):
    make(tmp_path / "x")
    with pytest.raises(UserError, match=r"a=1 \(now 2\).*--overwrite"):
        make(tmp_path / "x", {"a": 2})
    assert artifacts.read(tmp_path / "x").options == {"a": 1}
    assert make(tmp_path / "x", {"a": 2}, overwrite=True).options == {"a": 2}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x"]


def test_other_inputs_are_noticed(tmp_path):
    first, second = make(tmp_path / "a"), make(tmp_path / "b", {"a": 2})
    make(tmp_path / "x", inputs={"data": first})
    with pytest.raises(UserError, match="other inputs: data"):
        make(tmp_path / "x", inputs={"data": second})


@pytest.mark.parametrize("damage", ["change", "delete", "manifest", "schema", "stage"])
def test_damage_is_found(tmp_path, damage):
    make(tmp_path / "x")
    file, manifest = tmp_path / "x" / "sub" / "file.txt", tmp_path / "x" / artifacts.MANIFEST
    content = json.loads(manifest.read_text())
    if damage == "change":
        file.write_text("changed")
    elif damage == "delete":
        file.unlink()
    elif damage == "manifest":
        manifest.write_text(manifest.read_text()[:50])
    else:
        content["schema_version" if damage == "schema" else "stage"] = "other"
        manifest.write_text(json.dumps(content))
    with pytest.raises(UserError, match=str(tmp_path)):
        artifacts.read(tmp_path / "x", "data")
    if damage != "schema":
        make(tmp_path / "x", overwrite=True)
        artifacts.read(tmp_path / "x", "data")


def test_a_folder_that_is_no_artifact_is_left_alone(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine").write_text("1")
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"holds files but no manifest\.json"):
            make(tmp_path / "x", overwrite=overwrite)
    assert (tmp_path / "x" / "mine").read_text() == "1"


def test_a_partial_that_is_no_artifact_is_left_alone(tmp_path):
    (tmp_path / "x.partial").mkdir()
    (tmp_path / "x.partial" / "mine").write_text("1")
    (tmp_path / "x.old").mkdir()
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"Move them away"):
            make(tmp_path / "x", overwrite=overwrite)
    (tmp_path / "x.partial" / "mine").rename(tmp_path / "mine")
    make(tmp_path / "x")
    make(tmp_path / "x", {"a": 2}, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "x", "x.old"]


def stateful(path, **kwargs):
    """Makes an artifact with scratch; returns whether that was there already, or None where there is nothing to do."""
    with artifacts.produce(path, "data", {"a": 1}, **kwargs) as work:
        if work is None:
            return None
        work.scratch.append("state")
        there = (work.path / "state").exists()
        (work.path / "state").write_text("all there is")
        (work.path / "out").write_text("done")
        return there


@pytest.mark.parametrize("replaces", [False, True])
def test_a_manifest_that_cannot_be_written_leaves_the_work(tmp_path, monkeypatch, replaces):
    if replaces:
        make(tmp_path / "x", {"a": 0})
    plain = artifacts.write_json

    def full(path, value):
        if path.name == artifacts.MANIFEST:
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(path, value)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(artifacts, "write_json", full)
        stateful(tmp_path / "x", overwrite=replaces)
    assert stateful(tmp_path / "x", overwrite=replaces)
    assert set(artifacts.read(tmp_path / "x").manifest["outputs"]) == {"out"}
    assert {p.name for p in (tmp_path / "x").iterdir()} == {"out", artifacts.MANIFEST}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("replaces", [False, True])
@pytest.mark.parametrize("after", range(8))
def test_killed_while_finishing_the_next_call_only_tidies_up(tmp_path, monkeypatch, after, replaces):
    """Killed before any of the calls that delete or rename: nothing is done again, lost, or left lying."""
    if replaces:
        make(tmp_path / "x", {"a": 0})
    left = after

    def counted(name):
        plain = getattr(pathlib.Path, name)

        def call(path, *arguments, **kwargs):
            nonlocal left
            if (path.parent / artifacts.MANIFEST).exists() or (path / artifacts.MANIFEST).exists():
                left -= 1
                if left < 0:
                    raise Killed
            return plain(path, *arguments, **kwargs)

        return call

    finished = False
    with monkeypatch.context() as patch:
        for name in ("unlink", "rmdir", "rename"):
            patch.setattr(pathlib.Path, name, counted(name))
        with contextlib.suppress(Killed):
            stateful(tmp_path / "x", overwrite=replaces)
            finished = True
    assert finished == (left >= 0)
    assert stateful(tmp_path / "x", overwrite=replaces) is None
    assert artifacts.read(tmp_path / "x").options == {"a": 1}
    assert {p.name for p in (tmp_path / "x").iterdir()} == {"out", artifacts.MANIFEST}
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_what_was_replaced_is_removed_by_the_next_call(tmp_path):
    make(tmp_path / "x")
    (tmp_path / ".x.old-abc").mkdir()
    (tmp_path / "x").rename(tmp_path / ".x.old-abc" / "x")
    make(tmp_path / "x")
    (tmp_path / ".x.old-def").mkdir()
    assert make(tmp_path / "x") is None
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_lock_that_a_killed_process_left_is_removed_by_the_next_call(tmp_path):
    make(tmp_path / "x")
    lock = files.lock_path(tmp_path / "x")
    lock.touch()
    with files.locked(tmp_path / "x"):
        assert make(tmp_path / "x") is None
        assert lock.exists()  # Somebody's who lives.
    lock.touch()
    assert make(tmp_path / "x") is None
    assert not lock.exists()


def test_a_kill_before_the_request_is_written_is_no_hindrance(tmp_path):
    partial = tmp_path / "x.partial"
    partial.mkdir()
    (partial / f"{files.TEMPORARY}abcrequest.json").write_text("{")
    assert set(make(tmp_path / "x").manifest["outputs"]) == {"sub/file.txt"}
    assert {p.name for p in (tmp_path / "x").iterdir()} == {"sub", artifacts.MANIFEST}


def test_hidden_folders_are_nobodys_work(tmp_path):
    tool = tmp_path / "x.partial" / ".ipynb_checkpoints"
    tool.mkdir(parents=True)
    (tool / "note.txt").write_text("mine")
    interrupt(tmp_path / "x", good="1")
    assert set(make(tmp_path / "x").manifest["outputs"]) == {"good", "sub/file.txt"}
    (tmp_path / "x" / "sub" / ".ipynb_checkpoints").mkdir()
    assert make(tmp_path / "x") is None
    assert make(tmp_path / "x", {"a": 2}, overwrite=True).options == {"a": 2}


@pytest.mark.parametrize("damaged", [False, True])
def test_nothing_finished_is_deleted_with_what_it_lies_in(tmp_path, damaged):
    make(tmp_path / "x")
    make(tmp_path / "x" / "train")
    if damaged:
        (tmp_path / "x" / artifacts.MANIFEST).write_text("{")
    with pytest.raises(UserError, match=r"would be replaced, but holds 'train/(manifest|sub)"):
        make(tmp_path / "x", {"a": 2}, overwrite=True)
    artifacts.read(tmp_path / "x" / "train")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x"]


@pytest.mark.parametrize("link", ["x", "x.partial", "."])
def test_a_link_that_leads_nowhere_is_told_before_the_work(tmp_path, link):
    place = tmp_path / "run"
    if link != ".":
        place.mkdir()
    (place / link).symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match=r"is a link to '.*gone', which is not there"):
        make(place / "x")
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_link_to_a_folder_elsewhere_is_filled_there(tmp_path):
    (tmp_path / "large").mkdir()
    (tmp_path / "x").symlink_to(tmp_path / "large")
    make(tmp_path / "x")
    assert make(tmp_path / "x") is None
    assert artifacts.read(tmp_path / "large", "data").options == {"a": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["large", "x"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="should be a folder; it is a file"):
        make(tmp_path / "file" / "y")


def test_a_finished_artifact_is_found_where_nothing_can_be_written(tmp_path, monkeypatch):
    make(tmp_path / "x")

    def refuse(*arguments, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    for owner, name in ((os, "mkdir"), (os, "unlink"), (os, "rename"), (os, "replace"), (tempfile, "mkstemp")):
        monkeypatch.setattr(owner, name, refuse)
    monkeypatch.setattr(artifacts.files.filelock.FileLock, "acquire", refuse)
    assert make(tmp_path / "x") is None
    with pytest.raises(OSError, match="Read-only"):
        make(tmp_path / "y")


def test_a_full_disk_names_what_does_not_fit(tmp_path):
    with pytest.raises(OSError, match="No space") as full, artifacts.produce(tmp_path / "x", "data", {}) as work:
        (work.path / "big").write_text("1")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert full.value.filename == str(tmp_path / "x.partial")
    # What a library raises in its own words stays as it is.
    for write in (lambda path: artifacts.produce(path, "data", {}), files.replacing):
        with pytest.raises(OSError, match="^the file is truncated$"), write(tmp_path / "x"):
            raise OSError("the file is truncated")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_what_tensorflow_tells_of_a_disk_is_told_as_the_system_does(tmp_path, number):
    error = tf.errors.ResourceExhaustedError(None, None, f"events.v2; {os.strerror(number)} [Op:Flush]")
    with pytest.raises(OSError, match=os.strerror(number)) as told, files.naming(tmp_path):
        raise error
    assert (told.value.errno, told.value.filename) == (number, str(tmp_path))
    # A device without memory is none.
    with pytest.raises(tf.errors.ResourceExhaustedError), files.naming(tmp_path):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")


def test_work_that_starts_over_leaves_nothing_of_its_former_self(tmp_path):
    interrupt(tmp_path / "x", "export", **{"variables_temp/part": "half", "model.pb.tmp": "half"})
    with artifacts.produce(tmp_path / "x", "export", {"a": 1}) as work:
        assert work.resumed
        work.clear()
        (work.path / "model.pb").write_text("whole")
    assert set(artifacts.read(tmp_path / "x").manifest["outputs"]) == {"model.pb"}
    assert {p.name for p in (tmp_path / "x").iterdir()} == {"model.pb", artifacts.MANIFEST}


def test_what_a_kill_left_of_a_write_is_no_output(tmp_path):
    interrupt(tmp_path / "x", good="1", **{f"{files.TEMPORARY}abcstate.npz": "half"})
    make(tmp_path / "x")
    assert set(artifacts.read(tmp_path / "x").manifest["outputs"]) == {"good", "sub/file.txt"}


def test_a_request_without_work_does_not_stand_in_the_way(tmp_path):
    with pytest.raises(UserError), artifacts.produce(tmp_path / "x", "data", {"a": 1}):
        raise UserError("a bad option")
    assert not list(tmp_path.iterdir())
    assert make(tmp_path / "x", {"a": 2}).options == {"a": 2}


def test_time_adds_up_over_interruptions(tmp_path):
    for _ in range(2):
        with pytest.raises(RuntimeError), artifacts.produce(tmp_path / "x", "data", {"a": 1}) as work:
            (work.path / "f").write_text("1")
            time.sleep(0.1)
            raise RuntimeError
    assert make(tmp_path / "x").manifest["seconds"] >= 0.2


def test_atomic_write_keeps_the_former_file(tmp_path):
    path = tmp_path / "f"
    artifacts.atomic_write(path, b"old")

    def fail(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        artifacts.atomic_write(path, fail)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


HOLD = """
import sys
from l2p_tf import artifacts
with artifacts.produce(sys.argv[1], "data", {"a": 1}) as work:
    (work.path / "f").write_text("1")
    print("begun", flush=True)
    sys.stdin.read()
"""


def test_one_process_at_a_time(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / "x")]
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT) as other:
        assert other.stdout.readline() == "begun\n"
        with pytest.raises(UserError, match="another process"):
            make(tmp_path / "x")
        other.stdin.close()
    assert other.returncode == 0
    assert make(tmp_path / "x") is None


@given(
    st.one_of(
        st.sampled_from(files.RESERVED).flatmap(lambda name: st.sampled_from([name, name.upper(), name.title()])),
        st.builds(str.__add__, st.text("ab.1", max_size=3), st.sampled_from([".partial", ".old", ".lock", ".LOCK"])),
        st.builds(
            str.__add__, st.sampled_from([".", "-", "../", "a/", "a\\", "a\n", "a b", "\0", "\u00e9"]), st.text("ab")
        ),
        st.just(""),
        st.just("a" * 300),
    )
)
def test_names_that_would_be_folders_of_the_stages_are_refused(name):
    with pytest.raises(UserError, match="--name. should"):
        files.check_name(name, "--name")


@given(st.from_regex(r"[a-z0-9_]+(-epsilon_[0-9]\.[0-9]+)?", fullmatch=True).filter(lambda n: n not in files.RESERVED))
def test_other_names_are_accepted(name):
    files.check_name(name[-100:].lstrip("-."))
    files.check_name(f"{name[:50]}_data")


RACE = """
import os, pathlib, sys, time
from l2p_tf import artifacts
from l2p_tf.types import UserError
from support import ENVIRONMENT
from support.stages import python
folder, end, owned = pathlib.Path(sys.argv[1]), time.monotonic() + 1.5, 0
others = []
for _ in range(5):
    other = os.fork()
    if not other:
        others = []
        break
    others.append(other)
while time.monotonic() < end:
    try:
        with artifacts.produce(folder / "x", "data", {}):
            try:
                (folder / "owner").mkdir()
            except FileExistsError:
                os.write(1, b"two owners\\n")
            else:
                time.sleep(0.0005)
                (folder / "owner").rmdir()
                owned += 1
            raise RuntimeError
    except (UserError, RuntimeError):
        pass
os.write(1, b"owned %d\\n" % owned)
for other in others:
    os.waitpid(other, 0)
"""


def test_six_processes_racing_never_hold_it_together(tmp_path):
    done = python(RACE, tmp_path)
    assert "two owners" not in done.stdout
    assert not done.stderr
    counts = [int(line.removeprefix("owned ")) for line in done.stdout.splitlines()]
    assert len(counts) == 6
    assert sum(counts) >= 20
    assert not list(tmp_path.iterdir())
