"""Finding finished stages and joining them into runs."""

import datetime
import pathlib
import shutil

import pytest

from l2p_tf import artifacts
from l2p_tf.reporting import load, report
from l2p_tf.reporting.load import find, gather
from l2p_tf.types import UserError
from support.reports import (
    ATTACKS,
    CORRECT,
    make_attack,
    make_data,
    make_records,
    make_runs,
    make_train,
    results_of,
    rows_of,
    section_of,
)  # fmt: skip


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return make_runs(tmp_path_factory.mktemp("digits") / "runs")


def names_in(*folders):
    return [run.name for run in gather(find(folders))]


def test_runs_are_joined_by_fingerprint_not_by_folder_name(tmp_path):
    data = make_data(tmp_path)
    a = make_train(tmp_path, data, "none", folder="x/attack_b")
    b = make_train(tmp_path, data, "pgd", folder="x/data")
    make_attack(tmp_path, b, data, make_records("pgd"), folder="train_none")
    runs = {run.name: run for run in results_of(tmp_path).all_runs}
    assert (runs["pgd"].train.fingerprint, runs["none"].train.fingerprint) == (b.fingerprint, a.fingerprint)
    assert (len(runs["pgd"].records), runs["none"].records) == (len(ATTACKS), [])
    assert runs["pgd"].info["name"] == "digits"


def test_several_attack_stages_of_a_run_are_joined(tmp_path):
    data = make_data(tmp_path)
    train = make_train(tmp_path, data)
    make_attack(tmp_path, train, data, make_records("pgd", attacks=ATTACKS[:2], correct=(350, 300)), "a")
    make_attack(tmp_path, train, data, make_records("pgd", attacks=ATTACKS[2:], correct=(290, 280)), "b")
    assert rows_of(section_of(tmp_path, "comparison"), "accuracy") == [97.2222, 83.3333, 80.5556, 77.7778]


def test_an_attack_without_its_training_is_reported_with_a_note(tmp_path):
    data = make_data(tmp_path / "a")
    train = make_train(tmp_path / "a", data)
    make_attack(tmp_path / "b", train, data, make_records("the pgd run"))
    section = section_of(tmp_path / "b", "comparison")
    assert set(rows_of(section, "run", "defense")) == {("the pgd run", "")}
    assert any("training of the pgd run was not given" in remark for remark in section.remarks)
    page = (report.make([tmp_path / "b"], tmp_path / "report").path / "report.html").read_text("utf-8")
    assert "class 3" in page


def test_a_training_without_history_or_attacks_is_reported(tmp_path):
    make_train(tmp_path / "runs", make_data(tmp_path / "runs"), history=False)
    page = (report.make([tmp_path / "runs"], tmp_path / "report").path / "report.html").read_text("utf-8")
    assert "Not attacked, so without accuracies: pgd." in page
    assert 'id="training"' not in page
    assert 'id="gallery"' not in page


def test_runs_of_the_same_name_are_told_apart(tmp_path):
    data = make_data(tmp_path)
    for seed in (1, 2):
        make_train(tmp_path, data, "pgd", folder=f"t{seed}", learning_rate=seed)
    assert set(names_in(tmp_path)) == {"pgd [t1]", "pgd [t2]"}


@pytest.mark.parametrize(
    ("paths", "parts"),
    [
        (["/a/one/pgd/train", "/a/two/pgd/train"], ["one", "two"]),
        (["/a/one/x/pgd/train", "/b/one/y/pgd/train", "/b/one/z/pgd/train"], ["a/one/x", "b/one/y", "b/one/z"]),
        (["/a/pgd/train", "/a/b/pgd/train"], []),
        (["/a/a/a/train", "/a/a/train"], []),
        (["/a/transfer", "/a/transfer"], []),
        (["/a/train", None], []),
    ],
)
def test_folders_are_told_by_what_sets_them_apart(paths, parts):
    assert load._apart([path and pathlib.Path(path) for path in paths]) == parts


def test_an_artifact_counts_once_and_folders_keep_their_order(digits):
    assert len(find([digits, digits / "train_pgd", digits.parent])) == len(find([digits])) == 7
    assert names_in(digits / "train_pgd", digits / "train_none", digits) == ["pgd", "none", "learn2perturb"]
    assert set(names_in(digits)) == set(CORRECT)


def test_bad_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"should name folders that exist\. Received: '.*nowhere'"):
        find([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="Stages found there: none"):
        find([tmp_path])
    with artifacts.produce(tmp_path / "x", "export", {}):
        pass
    with pytest.raises(UserError, match="Stages found there: export"):
        find([tmp_path])
    make_data(tmp_path)
    with pytest.raises(UserError, match="Only data was found"):
        gather(find([tmp_path]))
    with pytest.raises(UserError, match="at least one folder"):
        report.make([], tmp_path / "report")


def test_a_damaged_result_is_refused_and_nothing_is_made(tmp_path):
    make_runs(tmp_path / "runs")
    (tmp_path / "runs" / "attack_pgd" / "results.json").write_text("{}")
    with pytest.raises(UserError, match=r"results\.json' is missing or damaged"):
        report.make([tmp_path / "runs"], tmp_path / "report")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_unfinished_work_is_left_out_and_named(tmp_path, monkeypatch):
    make_runs(tmp_path / "runs")
    shutil.move(tmp_path / "runs" / "attack_pgd", tmp_path / "runs" / "attack_pgd.partial")
    # What a killed call or a tool left hidden is neither a result nor unfinished work.
    shutil.copytree(tmp_path / "runs" / "attack_none", tmp_path / "runs" / ".attack_none.old-abc" / "attack_none")
    shutil.copytree(tmp_path / "runs" / "attack_none", tmp_path / "runs" / ".ipynb_checkpoints" / "b.partial")
    monkeypatch.chdir(tmp_path)
    made = report.make(["runs", tmp_path / "runs"], tmp_path / "report")
    assert [path.resolve() for path in made.left_out] == [tmp_path / "runs" / "attack_pgd.partial"]
    assert {run.name: len(run.evaluations) for run in made.results.all_runs} == {
        "none": 1, "pgd": 0, "learn2perturb": 1,
    }  # fmt: skip


def test_a_stage_without_its_manifest_is_told(tmp_path):
    make_runs(tmp_path)
    (tmp_path / "attack_pgd" / artifacts.MANIFEST).unlink()
    with pytest.warns(UserWarning, match="attack_pgd' is left out: it looks like a finished attack or transfer"):
        assert len(find([tmp_path])) == 6


class Back(datetime.datetime):
    """A clock that is set back by a day whenever somebody looks."""

    looks = 0

    @classmethod
    def now(cls, tz=None):
        cls.looks += 1
        return cls(2026, 1, 31 - cls.looks % 30, tzinfo=tz)


def test_runs_stand_as_they_were_trained_whatever_the_clock_says(tmp_path, monkeypatch):
    monkeypatch.setattr(datetime, "datetime", Back)
    data = make_data(tmp_path)
    for name in ("none", "pgd", "a"):
        train = make_train(tmp_path, data, name, folder=f"{name}/train")
        make_attack(tmp_path, train, data, make_records(name), folder=f"{name}/attack")
    for stage in ("train", "attack"):
        found = [artifact for artifact in find([tmp_path]) if artifact.stage == stage]
        assert [artifact.path.parent.name for artifact in found] == ["none", "pgd", "a"]
        times = [artifact.manifest["finished"] for artifact in found]
        assert times == sorted(times, reverse=True)
    assert names_in(tmp_path) == ["none", "pgd", "a"]
    # What is made again is the last.
    shutil.rmtree(tmp_path / "none")
    make_train(tmp_path, data, "none", folder="none/train")
    assert names_in(tmp_path) == ["pgd", "a", "none"]
