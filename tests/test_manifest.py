"""Manifests and requests that were damaged: read as written, told to be damaged, never at the cost of work."""

import json
import pathlib
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2p_tf import artifacts
from l2p_tf.types import UserError
from support import damage


def make(path, **how):
    with artifacts.produce(path, "data", {"a": 1}, **how) as work:
        if work is not None:
            (work.path / "file.txt").write_text("content")
    return artifacts.read(path, "data")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished stage with an input, notes and options of every type."""
    root = tmp_path_factory.mktemp("trained")
    options = {"name": "a", "epsilon": 8 / 255, "drops": [1, 2], "defense_options": {"on": True, "none": None}}
    with artifacts.produce(root / "x", "train", options, {"data": make(root / "data")}, seed=3) as work:
        (work.path / "best.keras").write_text("weights")
        work.notes.update(prediction_draws=1, best_validation=0.5, randomized=False)
    return root / "x"


@given(st.data())
def test_a_manifest_is_read_as_it_was_written_or_refused(trained, data):
    file = trained / artifacts.MANIFEST
    whole, before = file.read_bytes(), artifacts.read(trained)
    said = ""
    try:
        file.write_bytes(damage.in_json(data.draw, whole))
        after = artifacts.read(trained)
    except UserError as error:
        said = str(error)
    finally:
        file.write_bytes(whole)
    if said:
        assert str(trained) in said
        assert "\n" not in said
    else:
        assert json.dumps(after.manifest) == json.dumps(before.manifest)


@pytest.mark.parametrize(
    ("key", "value"), [("prediction_draws", 7), ("prediction_draws", None), ("best_validation", 1.5)]
)
def test_notes_are_digested_and_of_their_types(trained, tmp_path, key, value):
    manifest = json.loads((trained / artifacts.MANIFEST).read_text())
    manifest["notes"][key] = value
    (tmp_path / artifacts.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"manifest.json' should be whole, but is damaged.*(digest|`\$\.notes)"):
        artifacts.read(tmp_path, verify=False)


def test_a_manifest_without_its_digest_or_of_another_version_is_refused(trained, tmp_path):
    manifest = json.loads((trained / artifacts.MANIFEST).read_text())
    del manifest["digest"]
    (tmp_path / artifacts.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="its content is not that of its digest"):
        artifacts.read(tmp_path, verify=False)
    (tmp_path / artifacts.MANIFEST).write_text(json.dumps({**manifest, "schema_version": 1}))
    with pytest.raises(UserError, match="has schema version 1; this version reads 2"):
        artifacts.read(tmp_path, verify=False)


@settings(max_examples=40)
@given(st.data())
def test_unfinished_work_is_continued_or_left_as_it_is(data):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "x"
        with pytest.raises(RuntimeError), artifacts.produce(path, "data", {"a": 1, "b": "c"}) as work:
            (work.path / "state").write_text("1")
            raise RuntimeError
        request = artifacts.partial_path(path) / "request.json"
        whole = json.dumps({**json.loads(request.read_bytes()), "seconds": 1.5}, indent=1).encode()
        request.write_bytes(damage.in_json(data.draw, whole))
        for options, overwrite in (({"a": 2, "b": "c"}, False), ({"a": 1, "b": "c"}, data.draw(st.booleans()))):
            said = ""
            try:
                with artifacts.produce(path, "data", options, overwrite=overwrite) as work:
                    assert work.resumed
                    assert options["a"] == 1
            except UserError as error:
                said = str(error)
            assert ((artifacts.partial_path(path) if said else path) / "state").read_text() == "1"
            if "--overwrite" in said:  # Only where what is there is known, and something else was asked for.
                assert options["a"] == 2
                assert json.loads(request.read_bytes())["digest"] == json.loads(whole)["digest"]


@pytest.mark.parametrize("damage", ["[]", "null", "", '{"stage": "data"}', "[" * 100_000])
def test_a_damaged_request_never_costs_the_work_beside_it(tmp_path, damage):
    with pytest.raises(RuntimeError), artifacts.produce(tmp_path / "x", "data", {"a": 1}) as work:
        (work.path / "state").write_text("1")
        raise RuntimeError
    request = tmp_path / "x.partial" / "request.json"
    kept = request.read_text()
    request.write_text(damage)
    for overwrite in (False, True):
        with pytest.raises(UserError, match="request.json' is damaged.* move .*x.partial' away to begin anew"):
            make(tmp_path / "x", overwrite=overwrite)
    request.write_text(kept)
    make(tmp_path / "x")
    assert (tmp_path / "x" / "state").read_text() == "1"
