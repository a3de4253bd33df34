"""What a training makes of damage to its unfinished work: nothing damaged is used, what is whole is kept."""

import math
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2p_tf import artifacts
from l2p_tf.artifacts import Work
from l2p_tf.attacks import ATTACKS
from l2p_tf.defenses import DEFENSES
from l2p_tf.fitting import callbacks, resume, run, state
from l2p_tf.fitting.options import TrainOptions
from l2p_tf.fitting.run import build_trainer, train
from l2p_tf.types import Interrupted, UserError
from support import damage
from support.models import Tiny
from support.trainings import weights

OPTIONS = TrainOptions(
    name="run", model=Tiny(), defense=DEFENSES.parse("generator(generator_width=0.0625)"),
    validation_attack=ATTACKS.parse("fgsm"),
    epochs=3, batch_size=64,
)  # fmt: skip
BEST, STATE, BEST_STATE = "best-1.keras", state.STATE, state.BEST_STATE
GENERATOR = "best-1.generator.keras"


def judge(self, classifier, epoch):
    """The second epoch is the best one."""
    return [[0.5, 0.9, 0.6][epoch]] * 2 + [math.nan] * 2


@pytest.fixture(scope="module")
def stopped(digits, tmp_path_factory):
    """A training stopped when its three epochs are done and saved."""
    output = tmp_path_factory.mktemp("stopped") / "train"

    def stop(*arguments):
        raise Interrupted(15, "stopped")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.Validation, "_judged", judge)
        patch.setattr(run, "check_best", stop)
        with pytest.raises(Interrupted):
            train(OPTIONS, digits, output)
    partial = artifacts.partial_path(output)
    assert {STATE, BEST_STATE, BEST, GENERATOR} < {path.name for path in partial.iterdir()}
    return partial


@pytest.fixture
def work(stopped, tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks.Validation, "_judged", judge)
    shutil.copytree(stopped, tmp_path / "train.partial")
    return Work(tmp_path / "train.partial", True)


def flip(path):
    """One bit of what the file holds."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()  # The newest and the best state may be one file of two names.
    path.write_bytes(content)


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_undamaged_work_goes_on_without_a_word(stopped, work, digits):
    trainer = build_trainer(OPTIONS, digits)
    progress = resume.resume(work, trainer)
    assert (progress.epoch, progress.step, progress.best_epoch) == (3, 0, 1)
    assert set(progress.best_files) == {BEST, GENERATOR}
    assert {p.name: p.read_bytes() for p in work.path.iterdir() if p.is_file()} == {
        p.name: p.read_bytes() for p in stopped.iterdir() if p.is_file()
    }


@pytest.mark.parametrize("file", [BEST, GENERATOR])
@pytest.mark.parametrize("damage", ["bit", "deleted", "another"])
def test_a_best_model_that_is_not_what_was_saved_is_saved_again(stopped, work, digits, file, damage):
    if damage == "bit":
        flip(work.path / file)
    elif damage == "deleted":
        (work.path / file).unlink()
    else:
        shutil.copyfile(stopped / "last.keras", work.path / file)
    trainer = build_trainer(OPTIONS, digits)
    with pytest.warns(
        UserWarning, match=r"best-1\.keras' is missing or damaged. The training goes on after epoch 3\.$"
    ):
        progress = resume.resume(work, trainer)
    assert same(weights(work.path / BEST), weights(stopped / BEST))
    assert not same(weights(work.path / BEST), weights(stopped / "last.keras"))
    assert resume.best_is_whole(work.path, progress)
    # The trainer goes on where it was, not where the best model was.
    assert progress.epoch == 3
    assert same(trainer.classifier.get_weights(), weights(stopped / "last.keras"))


def test_without_its_state_the_best_model_cannot_be_had_again(work, digits):
    trainer, fresh = build_trainer(OPTIONS, digits), build_trainer(OPTIONS, digits)
    flip(work.path / BEST)
    flip(work.path / BEST_STATE)
    with pytest.warns(UserWarning, match=r"best-1\.keras' is .*state-best\.npz' is damaged.*starts again at the first"):
        progress = resume.resume(work, trainer)
    assert progress == state.Progress()
    assert same(trainer.classifier.get_weights(), fresh.classifier.get_weights())
    assert not list(work.path.glob("*.npz")) + list(work.path.glob("*.keras"))


@pytest.mark.parametrize("damage", [flip, lambda path: path.unlink()], ids=["bit", "deleted"])
@pytest.mark.parametrize("best_too", [False, True])
def test_a_lost_state_goes_on_from_that_of_the_best_model(stopped, work, digits, damage, best_too):
    damage(work.path / STATE)
    if best_too:
        damage(work.path / BEST)
    with pytest.warns(UserWarning, match=r"state\.npz' is (missing|damaged).* The training goes on after epoch 2\.$"):
        progress = resume.resume(work, build_trainer(OPTIONS, digits))
    assert (progress.epoch, progress.best_epoch) == (2, 1)
    assert same(weights(work.path / BEST), weights(stopped / BEST))


def test_a_kill_before_the_best_state_was_kept(stopped, work, digits):
    shutil.copyfile(stopped / BEST_STATE, work.path / STATE)
    (work.path / BEST_STATE).unlink()
    assert resume.resume(work, build_trainer(OPTIONS, digits)).epoch == 2
    assert state.read_progress(work.path / BEST_STATE).best_epoch == 1


@settings(max_examples=150)
@given(st.data())
def test_any_damage_to_a_state_is_told_or_does_not_matter(stopped, tmp_path_factory, data):
    whole = (stopped / STATE).read_bytes()
    file = tmp_path_factory.mktemp("damaged") / STATE
    # Headers and directory, at the ends of the file, are a small part of it.
    part = data.draw(st.sampled_from([slice(0, 200), slice(200, -4000), slice(-4000, None)]))
    how = data.draw(st.sampled_from(["flip", "cut"]))
    found = damage.in_bytes(data.draw, whole[part], how)
    file.write_bytes(whole[: part.start] + found + (whole[part.stop :] if part.stop and how == "flip" else b""))
    said = ""
    try:
        progress, arrays = state._read(file)
    except state.DamagedError as error:
        said = str(error)
    if said:
        assert str(file) in said
    else:
        wanted, others = state._read(stopped / STATE)
        assert progress == wanted
        assert arrays.keys() == others.keys()
        assert all(np.array_equal(values, others[name]) for name, values in arrays.items())


@pytest.mark.parametrize("kept", [True, False])
def test_damage_while_it_finishes(stopped, work, digits, monkeypatch, kept):
    plain = run.check_best

    def damaged(*arguments):
        flip(work.path / BEST)
        if not kept:
            flip(work.path / BEST_STATE)
        plain(*arguments)

    monkeypatch.setattr(run, "check_best", damaged)
    output = work.path.with_name("train")
    if kept:
        with pytest.warns(UserWarning, match="It was saved again from the state after its epoch"):
            trained = train(OPTIONS, digits, output)
        assert same(weights(trained.path / "best.keras"), weights(stopped / BEST))
        assert same(weights(trained.path / "last.keras"), weights(stopped / "last.keras"))
        outputs = {name.split("/")[0] for name in trained.manifest["outputs"]}
        networks = {f"{which}{of}.keras" for which in ("best", "last") for of in ("", ".generator")}
        assert outputs == networks | {"history.csv", "logs", STATE}
        assert {path.name for path in trained.path.iterdir()} == {*outputs, artifacts.MANIFEST}
    else:
        with pytest.raises(UserError, match="Run the same command again to train what is lost"):
            train(OPTIONS, digits, output)
