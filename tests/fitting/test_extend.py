"""More epochs for a finished training."""

import dataclasses
import math
import shutil
import signal
import time
import types

import keras
import numpy as np
import pytest

from l2p_tf import artifacts, files
from l2p_tf.artifacts import Work
from l2p_tf.attacks import ATTACKS
from l2p_tf.defenses import DEFENSES
from l2p_tf.fitting import callbacks, run, state
from l2p_tf.fitting.extend import check_extends, copy_finished
from l2p_tf.fitting.options import TrainOptions
from l2p_tf.fitting.resume import resume
from l2p_tf.fitting.run import build_trainer, train
from l2p_tf.models.saving import load_classifier
from l2p_tf.types import Interrupted, UserError
from stages import outlook
from support.files import read_rows, untimed
from support.models import Tiny
from support.stages import begin, python
from support.stages import run as run_stage
from support.training import assert_same

OPTIONS = TrainOptions(
    name="run", model=Tiny(), defense=DEFENSES.parse("generator(generator_width=0.0625)"),
    validation_attack=ATTACKS.parse("fgsm"),
    epochs=2, drops=(1,), batch_size=64,
)  # fmt: skip
FOUR = dataclasses.replace(OPTIONS, epochs=4, drops=(1, 3))


def judge(self, classifier, epoch):
    """The second epoch is the best one."""
    return [[0.5, 0.9, 0.6, 0.7][epoch]] * 2 + [math.nan] * 2


@pytest.fixture(autouse=True)
def judged(monkeypatch):
    """Notes the epochs that are done."""
    done = []

    def noted(self, classifier, epoch):
        done.append(epoch)
        return judge(self, classifier, epoch)

    monkeypatch.setattr(callbacks.Validation, "_judged", noted)
    return done


@pytest.fixture(scope="module")
def two(digits, tmp_path_factory):
    """A finished training of two epochs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.Validation, "_judged", judge)
        return train(OPTIONS, digits, tmp_path_factory.mktemp("two") / "train").path


@pytest.fixture
def finished(two, tmp_path):
    """A copy of it."""
    return shutil.copytree(two, tmp_path / "run" / "train")


def content(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_finished_training_goes_on_to_more_epochs(digits, finished, two, judged):
    before = artifacts.read(finished)
    made = train(FOUR, digits, finished)
    assert judged == [2, 3]
    assert made.options == dict(before.options, epochs=4, drops=[1, 3])
    assert made.manifest["notes"]["epochs"] == 4
    assert made.manifest["seconds"] > before.manifest["seconds"]
    rows = read_rows(finished / "history.csv")
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx([0.1, 0.01, 0.01, 0.001])
    assert (finished / "history.csv").read_text().startswith((two / "history.csv").read_text())
    # The best model is still that of the second epoch, and the generator beside it.
    assert made.manifest["notes"]["best_epoch"] == 1
    for name in ("best.keras", "best.generator.keras"):
        assert (finished / name).read_bytes() == (two / name).read_bytes()
        last = name.replace("best", "last")
        assert (finished / last).read_bytes() != (two / last).read_bytes()
    kinds = {name for name in made.manifest["outputs"] if "/" not in name}
    assert kinds == {name for name in before.manifest["outputs"] if "/" not in name}
    assert len([name for name in made.manifest["outputs"] if name.startswith("logs/events")]) == 2
    assert [p.name for p in finished.parent.iterdir()] == ["train"]
    assert train(FOUR, digits, finished).fingerprint == made.fingerprint
    assert judged == [2, 3]


def test_what_is_finished_stays_until_the_rest_is(digits, finished, two, monkeypatch):
    monkeypatch.setattr(callbacks.History, "on_epoch_end", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train(FOUR, digits, finished)
    assert content(finished) == content(two)
    assert train(OPTIONS, digits, finished).options["epochs"] == 2


@pytest.mark.parametrize(
    ("lost", "text"),
    [(("best-1.keras", "best-1.generator.keras"),
      "best-1.keras' is missing or damaged. The training goes on after epoch 2."),
     (("state.npz",), "state-best.npz' is missing. The training starts again where '.*train' ends."),
     (("state.npz", "history.csv", "logs"), "The training starts again where '.*train' ends.")],
)  # fmt: skip
def test_lost_work_on_further_epochs_is_had_from_the_finished_ones(digits, finished, two, lost, text):
    made, work = artifacts.read(finished), Work(artifacts.partial_path(finished), True)
    work.path.mkdir()
    copy_finished(made, work.path)
    for name in lost:
        files.delete(work.path / name)
    trainer = build_trainer(FOUR, digits)
    with pytest.warns(UserWarning, match=text):
        progress = resume(work, trainer, made)
    assert (progress.epoch, progress.step, progress.best_epoch) == (2, 0, 1)
    with np.load(two / state.STATE) as file:
        for name, variable in state.state_variables(trainer).items():
            np.testing.assert_array_equal(variable, file[name])
    for name in ("best.keras", "best.generator.keras"):
        assert (work.path / name.replace("best", "best-1")).read_bytes() == (two / name).read_bytes()
    assert (work.path / "history.csv").read_bytes() == (two / "history.csv").read_bytes()
    assert list((work.path / "logs").iterdir())


def test_overwrite_trains_anew(digits, finished, monkeypatch):
    def begun(work, trainer, continued):
        assert continued is None
        raise Interrupted(15, "begun")

    monkeypatch.setattr(run, "resume", begun)
    with pytest.raises(Interrupted):
        train(FOUR, digits, finished, overwrite=True)


@pytest.mark.parametrize(
    "changes",
    [{"learning_rate": 0.2}, {"drops": ()}, {"drops": (1, 2), "epochs": 3, "seed": 1}, {"sweep": {"epochs": 4.0}},
     {"drops": (), "epochs": 1}],
)  # fmt: skip
def test_what_differs_in_more_than_its_length_is_another_training(digits, finished, changes, judged):
    with pytest.raises(UserError, match=r"was made with other options: .*epochs=2 \(now [134]\).* --overwrite"):
        train(dataclasses.replace(FOUR, **changes), digits, finished)
    assert not judged
    assert not artifacts.partial_path(finished).exists()


def changed(path, options, notes=(), dropped=()):
    """A finished training of other facts, as far as they are looked at before anything is trained."""
    manifest = artifacts.read(path).manifest
    outputs = {name: digest for name, digest in manifest["outputs"].items() if name not in dropped}
    new = {**manifest, "options": manifest["options"] | options, "notes": manifest["notes"] | dict(notes)}
    return artifacts.Artifact(path, {**new, "outputs": outputs})


@pytest.mark.parametrize(
    ("options", "notes", "dropped", "why"),
    [
        ({"epochs": 5, "validate_every": 2}, {"epochs": 5}, (),
         "validated after its last epoch.* 5 is no multiple of `validate_every`, 2"),
        ({"epochs": 5, "early_stopping": 2}, {"epochs": 4}, (), "early stopping ended it after 4"),
        ({"epochs": 5}, {"epochs": 5}, ("state.npz",), r"it holds no state\.npz"),
    ],
)  # fmt: skip
def test_epochs_that_cannot_follow_are_refused_with_the_reason(finished, options, notes, dropped, why):
    found = changed(finished, options, notes, dropped)
    with pytest.raises(
        UserError, match=f"has 5 epochs and cannot go on to 9: .*{why}.*--overwrite to train anew"
    ) as told:
        check_extends(found, found.options | {"epochs": 9})
    assert "\n" not in str(told.value)
    assert not check_extends(found, found.options)
    assert not check_extends(found, found.options | {"epochs": "many"})


@pytest.mark.parametrize(("epoch", "step"), [(1, 0), (2, 1), ("../2", 0)])
def test_a_state_that_is_not_that_of_the_end_is_refused(digits, finished, epoch, step):
    with np.load(finished / state.STATE) as file:
        arrays = dict(file)
    place = f'"epoch": {epoch!r}, "step": {step}'.replace("'", '"').encode()
    meta = arrays["meta"].tobytes().replace(b'"epoch": 2, "step": 0', place)
    arrays["meta"] = np.frombuffer(meta, np.uint8)
    np.savez(finished / state.STATE, **arrays)
    manifest = artifacts.read(finished, verify=False).manifest
    manifest["outputs"][state.STATE] = artifacts.digest_file(finished / state.STATE)
    artifacts.write_json(finished / artifacts.MANIFEST, artifacts.sealed(manifest))
    with pytest.raises(UserError, match=r"state\.npz' (should be the state after epoch 2|is damaged).*--overwrite"):
        train(FOUR, digits, finished)


def test_an_outlook_counts_the_epochs_that_are_done(finished):
    def state_of(options):
        plan = types.SimpleNamespace(
            train_folder=lambda _: finished, runs={"run": types.SimpleNamespace(options=options)}
        )
        return outlook._trained(plan, "run")

    assert state_of(OPTIONS) == ("done", 2)
    assert state_of(FOUR) == ("to go on from epoch 2", 2)
    assert state_of(dataclasses.replace(FOUR, seed=1)) == ("made with other options", 0)


PROGRAM = """
import dataclasses, pathlib, sys
from l2p_tf.fitting.options import TrainOptions
from l2p_tf.fitting.run import make_deterministic, train
make_deterministic()
from support.models import Tiny
from l2p_tf.attacks import ATTACKS
from l2p_tf.data import DATASETS, ImageData, prepare
from l2p_tf.defenses import DEFENSES
folder = pathlib.Path(sys.argv[1])
prepare(DATASETS.parse("digits"), folder / "data", limit_train=200)
data = ImageData.open(folder / "data")
options = TrainOptions(
    name="run", model=Tiny(), defense=DEFENSES.parse(sys.argv[2]), validation_attack=ATTACKS.parse("pgd(steps=2)"),
    epochs=6, drops=(2, 5), batch_size=32, validate_every=2, deterministic=True, early_stopping=20,
    ema=float(sys.argv[3]),
    optimizer=sys.argv[4], learning_rate=0.01,
)
train(options, data, folder / "whole")
for epochs, drops in ((2, ()), (4, (2,)), (6, (2, 5))):
    train(dataclasses.replace(options, epochs=epochs, drops=drops), data, folder / "parts")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("defense", "ema", "optimizer"),
    [("learn2perturb(warmup_epochs=1, steps=2)", 0.9, "sgd"), ("generator(generator_width=0.0625)", 0, "adam"),
     ("adv_bnn(steps=2, kl_epochs=5)", 0, "sgd")],
)  # fmt: skip
def test_in_parts_it_is_the_same_bits_as_at_once(tmp_path, defense, ema, optimizer):
    python(PROGRAM, tmp_path, defense, ema, optimizer)
    whole, parts = (artifacts.read(tmp_path / name) for name in ("whole", "parts"))
    assert whole.options == parts.options
    assert whole.manifest["inputs"] == parts.manifest["inputs"]
    measured = {"seconds_per_epoch", "images_per_second"}
    notes = [{k: v for k, v in one.manifest["notes"].items() if k not in measured} for one in (whole, parts)]
    assert notes[0] == notes[1]
    rows = [read_rows(one.path / "history.csv") for one in (whole, parts)]
    assert len(rows[0]) == 6
    for a, b in zip(*rows, strict=True):
        assert untimed(a) == untimed(b)
    saved = [name for name in whole.manifest["outputs"] if name.endswith(".keras")]
    assert saved == [name for name in parts.manifest["outputs"] if name.endswith(".keras")]
    for name in saved:
        assert_same(*(keras.models.load_model(one.path / name, compile=False).weights for one in (whole, parts)))
    with np.load(whole.path / "state.npz") as a, np.load(parts.path / "state.npz") as b:
        assert a.files == b.files
        for key in set(a.files) - {"meta"}:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


@pytest.mark.slow
def test_a_kill_while_it_goes_on_leaves_what_is_finished(tmp_path):
    def flags(name, epochs):
        return ["--dataset=digits", "--limit_train=700", "--deterministic", "--model=resnet_v1(depth=8, width=0.25)",
                "--defense=none", f"--epochs={epochs}", f"--run_dir={tmp_path / name}"]  # fmt: skip

    run_stage("train", *flags("whole", 12))
    run_stage("train", *flags("parts", 2))
    folder, whole = (tmp_path / name / "none" / "train" for name in ("parts", "whole"))
    before, kept = content(folder), artifacts.partial_path(folder) / state.STATE
    process = begin("train", *flags("parts", 12))
    while process.poll() is None and not (kept.exists() and state.read_progress(kept).epoch > 2):
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert content(folder) == before
    assert "up to date; in" in run_stage("train", *flags("parts", 2))
    assert "continued from 2 to 12 epochs" in run_stage("train", *flags("parts", 12))
    artifacts.read(folder)
    for name in ("best.keras", "last.keras"):
        assert_same(*(load_classifier(path / name).weights for path in (folder, whole)))
