import io
import os
import signal
import zipfile

import keras
import numpy as np
import pytest

from l2p_tf import artifacts
from l2p_tf.attacks import ATTACKS
from l2p_tf.data import DATASETS, ImageData, TrainBatches, prepare
from l2p_tf.defenses import DEFENSES
from l2p_tf.evaluation.evaluate import attack_artifact
from l2p_tf.evaluation.options import EvaluationOptions
from l2p_tf.fitting import callbacks, run, state
from l2p_tf.fitting.derive import derive
from l2p_tf.fitting.run import build_trainer, train
from l2p_tf.layers.noise import is_randomized, noise_layers
from l2p_tf.models import MODELS
from l2p_tf.models.saving import load_classifier
from l2p_tf.types import Interrupted, UserError
from support import trainings
from support.files import read_rows
from support.models import TRAINED, small
from support.training import assert_close, assert_same, changed, values
from support.trainings import options, weights

L2P = "learn2perturb(warmup_epochs=1, steps=2, epsilon=0.1)"


def history(artifact):
    return read_rows(artifact.path / "history.csv")


def test_a_training_from_data_to_artifact(digits, tmp_path):
    artifact = train(options(L2P), digits, tmp_path / "train")
    outputs = set(artifact.manifest["outputs"])
    assert {"best.keras", "last.keras", "history.csv", "state.npz"} < outputs
    assert any(name.startswith("logs/events") for name in outputs)
    rows = history(artifact)
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx([0.1, 0.1, 0.01])
    assert [float(row["noise_active"]) for row in rows] == [0, 1, 1]
    assert [float(row["tau"]) for row in rows] == [0, 1, 1.5]
    for column in ("loss", "clean_loss", "adversarial_loss", "validation_accuracy", "validation_robust_accuracy"):
        assert all(float(row[column]) >= 0 for row in rows)
    thetas = [name for name in rows[0] if name.startswith("theta/stem_output/")]
    assert thetas == ["theta/stem_output/min", "theta/stem_output/mean", "theta/stem_output/max"]
    assert float(rows[0]["theta/stem_output/mean"]) == 0.25
    assert float(rows[2]["theta/stem_output/mean"]) != 0.25
    notes = artifact.manifest["notes"]
    assert notes["best_epoch"] in (1, 2)  # Not in warm-up, whatever its accuracy.
    assert notes["noisy_epochs"] == 2
    assert notes["randomized"]
    assert artifact.options["defense"] == "learn2perturb(epsilon=0.1, steps=2, warmup_epochs=1)"
    assert artifact.options["defense_options"]["gamma"] == 1e-4
    assert is_randomized(load_classifier(tmp_path / "train" / "best.keras"))
    before = (tmp_path / "train" / "manifest.json").stat().st_mtime_ns
    train(options(L2P), digits, tmp_path / "train")
    assert (tmp_path / "train" / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"batch_size=64 \(now 32\)"):
        train(options(L2P, batch_size=32), digits, tmp_path / "train")


class StopAt(callbacks.Bar):
    """Sends the process a signal after so many batches, as a user or a scheduler would."""

    after = 0

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        StopAt.after -= 1
        if StopAt.after == 0:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_saves_and_the_same_call_goes_on(digits, tmp_path, monkeypatch):
    noisy = options("rse")
    whole = train(noisy, digits, tmp_path / "whole")
    steps = TrainBatches(digits, 64, 0).steps_per_epoch
    assert steps == 5
    # Within an epoch, at the end of one, and within the next.
    for after in (3, 2, 3):
        with monkeypatch.context() as patch:
            patch.setattr(callbacks, "Bar", StopAt)
            StopAt.after = after
            handler = signal.getsignal(signal.SIGTERM)
            with pytest.raises(Interrupted, match="run the same command to continue") as stopped:
                train(noisy, digits, tmp_path / "parts")
            assert stopped.value.number == signal.SIGTERM
            assert signal.getsignal(signal.SIGTERM) is handler
        assert not (tmp_path / "parts").exists()
        with pytest.raises(UserError, match="not finished"):
            artifacts.read(tmp_path / "parts")
    parts = train(noisy, digits, tmp_path / "parts")
    for name in ("best.keras", "last.keras"):
        # Sums of several threads differ in their last bits; see the slow tests for the same bits.
        assert_close(weights(whole.path / name), weights(parts.path / name), 1e-3)
    histories = [history(a) for a in (whole, parts)]
    for a, b in zip(*histories, strict=True):
        for column in a:
            if column not in ("seconds", "validation_accuracy", "validation_robust_accuracy"):
                assert float(b[column]) == pytest.approx(float(a[column]), rel=0.02, abs=0.02), column


def test_a_state_restores_every_variable(digits, tmp_path):
    trainer = build_trainer(options(L2P), digits)
    trainer.begin_epoch(1)
    images, labels = TrainBatches(digits, 64, 0).batch(0, 0)
    trainer.train_step((images, labels))
    progress = state.Progress(2, 3, [{"epoch": 0, "loss": 1.5}], 0.5, 1, {"best-1.keras": "a"}, 2.5)
    state.save_state(tmp_path / "state.npz", trainer, progress)
    saved = {name: np.array(v) for name, v in state.state_variables(trainer).items()}
    kinds = " ".join(saved)
    for part in ("kernel", "moving_mean", "theta", "velocity", "seed_generator_state", "iteration", "learning_rate",
                 "active", "regularizer_weight", "loss/total"):  # fmt: skip
        assert part in kinds
    other = build_trainer(options(L2P, seed=7), digits)
    assert state.load_state(tmp_path / "state.npz", other) == progress
    for name, variable in state.state_variables(other).items():
        np.testing.assert_array_equal(variable, saved[name])


@pytest.mark.parametrize(("defense", "optimizer"), [*((name, "sgd") for name in TRAINED), ("adv_bnn", "adam")])
def test_a_state_restores_every_defense(digits, tmp_path, defense, optimizer):
    how = {"defense": small(defense), "optimizer": optimizer, "learning_rate": 0.01}
    trainer = build_trainer(options(**how), digits)
    trainer.begin_epoch(1)
    trainer.train_step(TrainBatches(digits, 16, 0).batch(0, 0))
    state.save_state(tmp_path / "state.npz", trainer, state.Progress(1))
    saved = values(state.state_variables(trainer).values())
    other = build_trainer(options(**how, seed=7), digits)
    before = values(state.state_variables(other).values())
    state.load_state(tmp_path / "state.npz", other)
    after = values(state.state_variables(other).values())
    assert_same(saved, after)
    assert sum(changed(before, after)) > 5


def test_a_run_cannot_be_named_like_a_folder_of_the_stages():
    with pytest.raises(UserError, match=r"`name` should not be .*Received: 'report'"):
        options(name="report")


def test_optimizers():
    assert options().decay == 1e-4
    assert options(optimizer="adam").decay == 0.0
    with pytest.raises(UserError, match="`weight_decay` should be 0 with optimizer adam. Received: 0.1"):
        options(optimizer="adam", weight_decay=0.1)
    with pytest.raises(UserError, match="one of sgd, adam. Received: 'lion'"):
        options(optimizer="lion")


def test_a_run_made_from_another(digits, tmp_path):
    source = train(options(epochs=1, drops=()), digits, tmp_path / "none" / "train")
    made = {}
    for name, spec in (
        ("noisy", "noise_at_prediction(run=none, std=0.2)"),
        ("twice", "noise_at_prediction(run=noisy)"),
    ):
        base = made.get("noisy", source)
        made[name] = derive(name, DEFENSES.parse(spec), base, digits, tmp_path / name / "train", seed=len(made))
    for name, count in (("noisy", 1), ("twice", 2)):
        assert len(noise_layers(load_classifier(made[name].path / "best.keras"))) == count
        assert made[name].manifest["notes"]["randomized"]
        assert history(made[name]) == history(source)
    with pytest.raises(UserError, match="`run` should be another run"):
        derive("none", DEFENSES.parse("noise_at_prediction(run=none)"), source, digits, source.path, overwrite=True)
    # An answer averages what the source's did, unless it is told otherwise.
    source.manifest["notes"]["prediction_draws"] = 5
    for spec, draws in (("noise_at_prediction(run=none)", 5), ("noise_at_prediction(run=none, prediction_draws=2)", 2)):
        other = derive("x", DEFENSES.parse(spec), source, digits, tmp_path / f"x{draws}")
        assert other.manifest["notes"]["prediction_draws"] == draws
        assert "best_validation" not in other.manifest["notes"]
    assert made["noisy"].options["source_defense"] == "none"
    assert made["noisy"].manifest["inputs"]["source"] == source.fingerprint
    again = derive(
        "noisy", DEFENSES.parse("noise_at_prediction(run=none, std=0.2)"), source, digits, made["noisy"].path
    )
    assert again.fingerprint == made["noisy"].fingerprint
    with pytest.raises(UserError, match="--overwrite"):
        derive("noisy", DEFENSES.parse("noise_at_prediction(run=none)"), source, digits, made["noisy"].path)
    other = trainings.digits(tmp_path / "other", limit_train=300)
    with pytest.raises(UserError, match="`data` should be what"):
        derive("x", DEFENSES.parse("noise_at_prediction(run=none)"), source, other, tmp_path)


def test_a_damaged_state_or_one_of_another_model_is_refused(digits, tmp_path):
    path = tmp_path / "state.npz"
    trainer, wider = (
        build_trainer(options(L2P, model=MODELS.parse(f"basic_net(width={width})")), digits) for width in (0.5, 1)
    )
    state.save_state(path, trainer, state.Progress())
    with pytest.raises(UserError, match=r"checkpoint of another model: .* has shape \(5, 5, 1, 3\) there"):
        state.load_state(path, wider)
    with pytest.raises(UserError, match="another model"):
        state.load_state(path, build_trainer(options(), digits))
    whole, parts = path.read_bytes(), io.BytesIO()
    with zipfile.ZipFile(parts, "w") as archive:
        archive.writestr("meta.npy", b"\x93NUMPY\x01\x00")
    changed = whole[:2000] + b"\xff" * 64 + whole[2064:]
    for damaged in (whole[: len(whole) // 2], b"", changed, parts.getvalue()):
        path.write_bytes(damaged)
        with pytest.raises(state.DamagedError, match="is damaged"):
            state.load_state(path, trainer)


def test_a_loss_that_is_not_finite_stops_with_the_last_good_state(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_rate", lambda options, epoch: 0.1 if epoch < 1 else float("inf"))
    with pytest.raises(UserError, match=r"The loss is .* in epoch 2"):
        train(options(), digits, tmp_path / "train")
    kept = tmp_path / "train.partial" / state.STATE
    trainer = build_trainer(options(), digits)
    progress = state.load_state(kept, trainer)
    assert progress.epoch == 1
    assert all(np.isfinite(w).all() for w in trainer.classifier.get_weights() if w.dtype != bool)


def test_training_never_reaches_the_defense_says_so(digits, tmp_path):
    with pytest.raises(UserError, match="shorten the warm-up"):
        train(options("learn2perturb(warmup_epochs=3, steps=1)"), digits, tmp_path / "train")
    # Told before anything is trained, and nothing stands in the way of another try.
    assert not list(tmp_path.iterdir())
    train(options("learn2perturb(warmup_epochs=0, steps=1)", epochs=1, drops=()), digits, tmp_path / "train")


def test_a_model_is_attacked_on_the_data_it_was_trained_on(digits, tmp_path):
    trained = train(options(epochs=1, drops=()), digits, tmp_path / "train")
    prepare(DATASETS.parse("digits(test_share=0.9)"), tmp_path / "data")
    attacks = EvaluationOptions((ATTACKS.parse("fgsm"),))
    with pytest.raises(UserError, match="`data` should be what the model was trained on"):
        attack_artifact(attacks, trained, ImageData.open(tmp_path / "data"), tmp_path / "attack")
    assert not (tmp_path / "attack").exists()


def test_seeds_decide_the_start(digits):
    first, again, other = (build_trainer(options(seed=seed), digits) for seed in (1, 1, 2))
    a, b, c = (t.classifier.get_weights()[0] for t in (first, again, other))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 0


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_and_goes_on(precision, digits, tmp_path):
    trainer, again = (build_trainer(options(L2P, precision=precision), digits) for _ in range(2))
    facts = trainer.begin_epoch(1)
    logs = trainer.train_step(TrainBatches(digits, 64, 0).batch(0, 0))
    assert np.isfinite(float(logs["loss"]))
    assert all(v.dtype == "float32" for v in trainer.classifier.trainable_variables)
    assert trainer.classifier.output.dtype == "float32"
    if precision == "mixed_float16":
        assert facts["loss_scale"] == 2**15
        trainer.loss_scale.scale.assign(2.0**9)
        state.save_state(tmp_path / "state.npz", trainer, state.Progress())
        state.load_state(tmp_path / "state.npz", again)
        # A step for W and one for theta.
        assert (float(again.loss_scale.scale), int(again.loss_scale.good_steps)) == (2**9, 2)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_a_training_does_not_follow_the_floats_of_keras_json(digits, precision):
    def dtypes():
        trainer = build_trainer(options("none", precision=precision, ema=0.5), digits)
        return [str(variable.dtype) for variable in state.state_variables(trainer).values()]

    usual, floats = dtypes(), keras.config.floatx()
    assert "float32" in usual
    keras.config.set_floatx("float16")
    try:
        assert dtypes() == usual
        assert keras.config.floatx() == "float16"
    finally:
        keras.config.set_floatx(floats)
