import json
import multiprocessing
import time

import pytest

from l2p_tf import artifacts
from l2p_tf.types import UserError


def make(path, options=None, inputs=None, text="content", **kwargs):
    with artifacts.produce(path, "data", options or {"a": 1}, inputs, **kwargs) as work:
        if work is None:
            return None
        (work.path / "sub").mkdir(exist_ok=True)
        (work.path / "sub" / "file.txt").write_text(text)
        work.notes["n"] = 3
    return artifacts.read(path, "data")


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
    def fail():
        with artifacts.produce(tmp_path / "x", "data", {"a": 1}) as work:
            (work.path / "half").write_text("1")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        fail()
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


@pytest.mark.parametrize("place", ["write_json", "rename"])
@pytest.mark.parametrize("replaces", [False, True])
def test_stopped_while_finishing_the_work_is_still_there(tmp_path, monkeypatch, place, replaces):
    if replaces:
        make(tmp_path / "x", {"a": 0})

    def work():
        with artifacts.produce(tmp_path / "x", "data", {"a": 1}, overwrite=replaces) as work:
            work.scratch.append("state")
            resumed = (work.path / "state").exists()
            (work.path / "state").write_text("all there is")
            (work.path / "out").write_text("done")
            return resumed

    with monkeypatch.context() as patch:
        plain = artifacts.write_json if place == "write_json" else artifacts.pathlib.Path.rename

        def stop(path, *arguments):
            if path.name in (artifacts.MANIFEST, "x.partial"):
                raise OSError(28, "No space left on device")
            return plain(path, *arguments)

        patch.setattr(*((artifacts, place) if place == "write_json" else (artifacts.pathlib.Path, place)), stop)
        with pytest.raises(OSError, match="No space"):
            work()
    assert work()
    assert set(artifacts.read(tmp_path / "x").manifest["outputs"]) == {"out"}
    assert {p.name for p in (tmp_path / "x").iterdir()} == {"out", artifacts.MANIFEST}


def test_what_a_kill_left_of_a_write_is_no_output(tmp_path):
    with pytest.raises(RuntimeError), artifacts.produce(tmp_path / "x", "data", {"a": 1}) as work:
        (work.path / "good").write_text("1")
        (work.path / ".state.npz.abc").write_text("half")
        raise RuntimeError
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


def _hold(path, started, release):
    with artifacts.produce(path, "data", {"a": 1}) as work:
        (work.path / "f").write_text("1")
        started.set()
        release.wait(20)


def test_one_process_at_a_time(tmp_path):
    context = multiprocessing.get_context("spawn")
    started, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path / "x", started, release))
    other.start()
    assert started.wait(20)
    with pytest.raises(UserError, match="another process"):
        make(tmp_path / "x")
    release.set()
    other.join(20)
    assert make(tmp_path / "x") is None
