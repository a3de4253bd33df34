"""Attacks that join a finished attack stage."""

import dataclasses

import numpy as np
import pytest

from l2p_tf import artifacts
from l2p_tf.attacks import ATTACKS
from l2p_tf.evaluation import evaluate
from l2p_tf.evaluation.evaluate import attack_artifact
from l2p_tf.evaluation.options import EvaluationOptions
from l2p_tf.evaluation.records import GALLERY, images_of
from l2p_tf.types import UserError
from support.trainings import digits, nearest_mean, trained

PGD, FGSM, NOISE = "pgd(epsilon=0.1, steps=2)", "fgsm(epsilon=0.1)", "noise(epsilon=0.1)"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A classifier with noise as the stage `train` leaves it, and the data."""
    folder = tmp_path_factory.mktemp("joining")
    data = digits(folder / "data", limit_train=100, limit_test=30)
    return trained(folder / "train", nearest_mean(data, noise=0.3), data), data


@pytest.fixture
def attacked(monkeypatch):
    """Notes what is attacked."""
    seen = []
    run = evaluate.ChunkedEvaluation.run

    def noted(self, *arguments):
        seen.append(self.attack.spec if self.attack else "clean")
        return run(self, *arguments)

    monkeypatch.setattr(evaluate.ChunkedEvaluation, "run", noted)
    return seen


def attack(made, folder, *specs, overwrite=False, **changes):
    parsed = tuple(ATTACKS.parse(spec) for spec in specs)
    options = EvaluationOptions(parsed, repeats=2, save_images="uint8", **changes)
    return attack_artifact(options, *made, folder, overwrite=overwrite)


def content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.npz")}


def without_time(records):
    return [dataclasses.replace(record, seconds=0.0) for record in records]


def arrays(folder, name):
    with np.load(folder / name) as file:
        return {key: file[key] for key in file.files}


def test_attacks_join_what_is_finished_and_nothing_is_done_twice(made, tmp_path, attacked):
    folder, at_once = tmp_path / "attack", tmp_path / "at once"
    first = attack(made, folder, PGD)
    before = content(folder)
    del attacked[:]
    # Among those that are there, in another order, and the same again.
    both = attack(made, folder, FGSM, PGD)
    assert set(attacked) == {"clean", ATTACKS.parse(FGSM).spec}
    assert both[: len(first)] == first
    assert {name: data for name, data in content(folder).items() if name in before and name.name != GALLERY} == {
        name: data for name, data in before.items() if name.name != GALLERY
    }
    # Alone.
    three = attack(made, folder, NOISE)
    assert three[: len(both)] == both
    del attacked[:]
    assert attack(made, folder, NOISE, FGSM) == attack(made, folder) == attack(made, folder, FGSM, NOISE, PGD) == three
    assert not attacked
    # As if all had been asked for in one command.
    assert without_time(three) == without_time(attack(made, at_once, PGD, FGSM, NOISE))
    for name in [*{record.arrays for record in three}, GALLERY]:
        found, expected = arrays(folder, name), arrays(at_once, name)
        assert found.keys() == expected.keys()
        for key in found:
            np.testing.assert_array_equal(found[key], expected[key], err_msg=f"{name} {key}")
    one, other = (artifacts.read(path).manifest for path in (folder, at_once))
    assert one["options"] == other["options"]
    assert one["outputs"].keys() == other["outputs"].keys()
    # The adversarial images are kept by attack and repeat.
    assert [images_of(record) in one["outputs"] for record in three] == [False] * 2 + [True] * 6
    for record in three[2:]:
        found, expected = (np.load(path / images_of(record)) for path in (folder, at_once))
        assert (found.shape, found.dtype) == ((30, 8, 8, 1), np.uint8)
        np.testing.assert_array_equal(found, expected)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["at once", "attack"]


def test_other_options_still_ask_and_overwrite_leaves_only_what_is_given(made, tmp_path):
    attack(made, tmp_path / "attack", PGD)
    before = content(tmp_path / "attack")
    with pytest.raises(UserError, match=r"made with other options: limit=None \(now 20\), so further attacks"):
        attack(made, tmp_path / "attack", FGSM, limit=20)
    assert content(tmp_path / "attack") == before
    records = attack(made, tmp_path / "attack", FGSM, overwrite=True)
    assert [record.label for record in records] == ["clean", "clean", "FGSM", "FGSM"]


def test_what_is_finished_stays_until_the_rest_is(made, tmp_path, monkeypatch, attacked):
    folder = tmp_path / "attack"
    attack(made, folder, PGD)
    before = content(folder)
    monkeypatch.setattr(evaluate, "merge", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        attack(made, folder, FGSM)
    assert content(folder) == before
    monkeypatch.undo()
    # With --overwrite the finished attacks would be lost as well.
    with pytest.raises(
        UserError, match="unfinished work made with .*Finish it by its own command, or delete that"
    ) as told:
        attack(made, folder, NOISE)
    assert "--overwrite" not in str(told.value)
    assert [record.label for record in attack(made, folder, FGSM)][2:] == ["PGD-2", "PGD-2", "FGSM", "FGSM"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["attack"]
