import json
import multiprocessing

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
