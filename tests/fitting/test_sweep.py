"""Families of trainings, and what a training can do besides: early stopping, averages, rho over epochs."""

import numpy as np
import pytest

from l2p_tf.attacks import ATTACKS
from l2p_tf.defenses import DEFENSES
from l2p_tf.fitting import callbacks, run
from l2p_tf.fitting.run import train
from l2p_tf.fitting.sweep import parse_axis, points, share
from l2p_tf.models import MODELS
from l2p_tf.models.saving import load_generator
from l2p_tf.types import UserError
from support.files import read_json, read_rows, records_in
from support.stages import error, stage
from support.training import assert_close, assert_same
from support.trainings import options, weights


def base(*specs):
    model = MODELS.parse("resnet_v1(depth=8, width=0.25)")
    return [options(spec, name=DEFENSES.parse(spec).name, model=model) for spec in specs]


def family(specs, *axes):
    return points(base(*specs), [parse_axis(text) for text in axes])


def test_a_family_is_the_product_of_its_axes():
    found = family(["pgd"], "epsilon=0.01,8/255", "width=0.125,0.25,0.5")
    assert [f.name for f in found] == [
        f"pgd-epsilon_{e}-width_{w}" for e in ("0.01", "8_255") for w in ("0.125", "0.25", "0.5")
    ]
    assert [f.defense.epsilon for f in found] == [0.01] * 3 + [8 / 255] * 3
    assert [f.model.width for f in found] == [0.125, 0.25, 0.5] * 2
    assert found[4].sweep == {"defense.epsilon": 8 / 255, "model.width": 0.25}
    assert found[4].as_json()["sweep"] == {"defense.epsilon": 8 / 255, "model.width": 0.25}
    assert {f.model.depth for f in found} == {8}


def test_an_axis_is_for_every_run_that_has_its_option():
    specs = ["none", "fgsm", "pgd", "generator"]
    found = family(specs, "epsilon=0.1,0.2", "c_l=5,50", "none.seed=0,1")
    assert [f.name for f in found] == [
        "none-seed_0", "none-seed_1", "fgsm-epsilon_0.1", "fgsm-epsilon_0.2", "pgd-epsilon_0.1", "pgd-epsilon_0.2",
        "generator-c_l_5", "generator-c_l_50",
    ]  # fmt: skip
    assert [f.seed for f in found] == [0, 1, 0, 0, 0, 0, 0, 0]
    assert found[0].sweep == {"train.seed": 0}
    (alone,) = family(["none"])
    assert (alone.name, alone.sweep) == ("none", {})


def test_values_may_be_words_and_keep_their_kind():
    found = family(["mat"], "strategy=rand,max", "random_start=true,false", "epochs=3,4", "learning_rate=1e-1")
    assert [(f.defense.strategy, f.defense.random_start, f.epochs) for f in found][:3] == [
        ("rand", True, 3), ("rand", True, 4), ("rand", False, 3),
    ]  # fmt: skip
    assert isinstance(found[0].epochs, int)
    assert found[0].name == "mat-strategy_rand-random_start_true-epochs_3-learning_rate_0.1"
    assert len({f.name for f in found}) == 8


MANY = ",".join(map(str, range(1, 103)))


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (["epsilon"], "should be written OPTION=VALUE,VALUE"),
        (["epsilon=0.1,,0.2"], "should be written OPTION=VALUE,VALUE"),
        (["magic=1"], "should name an option of the defense, of the model, or one of epochs"),
        (["none.epsilon=1"], "Received: 'epsilon' of 'none'"),
        (["epsilon=0.1", "pgd.epsilon=0.2"], "each option once. Received twice: 'epsilon'"),
        (["epsilon=-1"], "`epsilon` should be at least 0"),
        (["epsilon=2"], "did you mean 2/255"),
        ([f"seed={MANY}", f"epochs={MANY[2:]}"], "at most 10,000 runs"),
        (["epochs=2.5"], "`epochs` of the sweep should be of the kind of 3"),
        (["ema=2"], "`ema` should be at"),
        (["ema=1"], "`ema` should be below 1"),
        (["learning_rate=-1"], "`learning_rate` should be at least 0"),
        (["momentum=5"], "`momentum` should be at"),
        (["early_stopping=-1"], "`early_stopping` should be at least 0"),
        (["epochs=0"], "`epochs` should be at least 1"),
        (["epochs=2"], "`drops` should rise and lie between 1 and 1"),
        (["batch_size=0"], "`batch_size` should be at least 1"),
        (["seed=-1"], "`seed` should be at least 0"),
        (["precision=foo"], "`precision` should be one of float32, mixed_bfloat16, mixed_float16"),
        (["optimizer=rmsprop"], "`optimizer` should be one of sgd, adam"),
        (["attack_label=true,'true'"], "`attack_label` should be of type str"),
    ],
)
def test_bad_sweeps_are_told(axes, message):
    with pytest.raises(UserError, match=message):
        family(["pgd"], *axes)


def test_runs_are_told_apart_by_their_names_and_defaults_follow_what_is_swept():
    found = family(["pgd"], "seed=1234567,1234568", "optimizer=sgd,adam")
    assert [f.name for f in found][::2] == ["pgd-seed_1234567-optimizer_sgd", "pgd-seed_1234568-optimizer_sgd"]
    assert [f.as_json()["weight_decay"] for f in found] == [1e-4, 0.0] * 2
    with pytest.raises(UserError, match="a name of its own. Received twice: 'pgd-epsilon_8_255'"):
        points(base("pgd", "pgd"), [parse_axis("epsilon=8/255")])


def test_what_is_made_from_another_run_has_that_runs_model_and_training():
    specs = ["pgd", "noise_at_prediction(run='pgd-width_0.1')"]
    found = family(specs, "width=0.1,0.2", "seed=0,1", "std=0.03,0.06")
    derived = [f for f in found if f.name.startswith("noise")]
    assert [(f.name, f.sweep) for f in derived] == [
        (f"noise_at_prediction-std_{std}", {"defense.std": std}) for std in (0.03, 0.06)
    ]
    assert len(found) == 4 + 2


def test_shares_make_up_the_family():
    found = family(["pgd"], "seed=0,1,2,3,4,5,6")
    shares = [share(found, f"{k}/3") for k in (1, 2, 3)]
    assert [len(part) for part in shares] == [3, 2, 2]
    assert sorted(f.seed for part in shares for f in part) == list(range(7))
    assert share(found, "") == found
    for bad in ("1/" + "9" * 5000, "0/3", "4/3", "2", "a/b"):
        with pytest.raises(UserError, match="should be written K/N"):
            share(found, bad)


SMALL = [
    "--dataset=digits", "--limit_train=120", "--limit_test=30", "--model=basic_net(width=0.25)",
    "--epochs=1", "--batch_size=32", "--validation_attack=fgsm(epsilon=0.1)",
    "--attacks=fgsm(epsilon=[0.05, 0.1, 0.2], norm=l2); cw(steps=10, binary_search_steps=2, initial_const=1)",
    "--defense=none; fgsm(norm=l2)", "--sweep=epsilon=0.1,0.2", "--title=A family",
]  # fmt: skip


@pytest.mark.slow
def test_a_sweep_through_the_pipeline_in_shares(tmp_path):
    stage("data", "--dataset=digits", "--limit_train=120", "--limit_test=30", f"--run_dir={tmp_path}/shared")
    data = f"--data={tmp_path}/shared/data"
    for machine in (1, 2):
        done = stage("pipeline", *SMALL, data, f"--run_dir={tmp_path}/{machine}", f"--sweep_shard={machine}/2")
    assert "fgsm-epsilon_0.1: trained" in done.stdout
    assert {p.name for p in (tmp_path / "1").iterdir()} == {"none", "fgsm-epsilon_0.2", "report"}
    both = f"--runs={tmp_path}/1,{tmp_path}/2"
    stage("report", f"--run_dir={tmp_path}/all", both, "--match=0.5", "--match_tolerance=0.9")
    page = (tmp_path / "all" / "report" / "report.html").read_text()
    for text in ("none", "fgsm-epsilon_0.1", "fgsm-epsilon_0.2"):
        assert text in page
    assert len(list((tmp_path / "all" / "report" / "plots").glob("*.svg"))) > 5
    manifest = read_json(tmp_path / "2" / "fgsm-epsilon_0.1" / "train" / "manifest.json")
    assert manifest["options"]["sweep"] == {"defense.epsilon": 0.1}
    records = records_in(tmp_path / "1" / "none" / "attack")
    assert [r["epsilon"] for r in records] == [None, 0.05, 0.1, 0.2, None]
    # What needs another share's run is told before anything is made.
    needs = ["--attacks=generator(run=generator)", "--defense=generator;pgd", f"--run_dir={tmp_path}/3", data]
    assert "should be a run of pgd" in error("pipeline", *SMALL[:6], *needs, "--sweep_shard=2/2")
    assert "none of them in share 3/3" in stage("pipeline", *SMALL[:6], *needs, "--sweep_shard=3/3").stdout
    assert not (tmp_path / "3").exists()
    # One of the family by itself: found, not made again.
    done = stage("train", *SMALL, data, f"--run_dir={tmp_path}/2", "--name=fgsm-epsilon_0.1")
    assert "up to date" in done.stdout
    assert "should be a run of the sweep" in error("train", *SMALL, data, f"--run_dir={tmp_path}/2", "--name=other")
    assert "`--name` picks one" in error("train", *SMALL, data, f"--run_dir={tmp_path}/2")


@pytest.mark.slow
def test_a_generator_through_the_pipeline(tmp_path):
    flags = [
        "--dataset=digits", "--limit_train=120", "--limit_test=30", "--model=all_conv(width=0.125)", "--epochs=2",
        "--batch_size=32", "--optimizer=adam", "--learning_rate=1e-3", "--ema=0.9", f"--run_dir={tmp_path}",
        "--defense=none; generator(generator_width=0.1)", "--validation_attack=fgsm(epsilon=0.1)",
        "--checkpoint=best,last", "--attacks=generator(run=generator); generator(run=generator, epsilon=0.5)",
    ]  # fmt: skip
    stage("pipeline", *flags)
    folder = tmp_path / "generator" / "train"
    manifest = read_json(folder / "manifest.json")
    assert {"best.generator.keras", "last.generator.keras"} < set(manifest["outputs"])
    assert load_generator(folder / "last.generator.keras").output_shape == (None, 8, 8, 1)
    rows = read_rows(folder / "history.csv")
    assert {"generator_objective", "perturbation_l2"} < set(rows[0])
    # The attack on the other run is made from the generator's training, and says so.
    attacked = read_json(tmp_path / "none" / "attack" / "manifest.json")
    assert any(role.startswith("generator:") for role in attacked["inputs"])
    gallery = np.load(tmp_path / "none" / "attack" / "gallery.npz")
    assert list(gallery["attacks"]) == ["Generator of generator", "Generator of generator l2 0.5"]
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Generator of generator" in page
    # The last models beside the best ones.
    assert (tmp_path / "generator" / "attack_last" / "results.json").is_file()
    assert "generator (last)" in page
    assert "up to date" in stage("pipeline", *flags).stdout
    assert "should be a run of" in error("pipeline", *flags[:-1], "--attacks=generator(run=nobody)")


# A training that stops early, and what it keeps.


class Scripted(callbacks.Validation):
    """Validation that gives the accuracies it was told, and keeps the weights it saw."""

    accuracies: tuple = ()
    seen: dict = {}

    def _judged(self, classifier, epoch):
        Scripted.seen[epoch] = [np.array(w) for w in classifier.weights]
        return [self.accuracies[epoch]] * 2 + [np.nan] * 2


class Killed(callbacks.Bar):
    """Dies after so many batches, as if killed."""

    after = 10**9

    def on_train_batch_end(self, batch, logs=None):
        Killed.after -= 1
        if Killed.after == 0:
            raise RuntimeError("killed")


def test_early_stopping_keeps_the_best_weights(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(Scripted, "accuracies", (0.2, 0.6, 0.5, 0.4, 0.3, 0.9))
    monkeypatch.setattr(callbacks, "Validation", Scripted)
    told = options("none", epochs=6, drops=(), early_stopping=2, ema=0.5)
    artifact = train(told, digits, tmp_path / "train")
    notes = artifact.manifest["notes"]
    assert (notes["best_epoch"], notes["epochs"], notes["best_validation"]) == (1, 4, 0.6)
    for file, epoch in (("best", 1), ("last", 3)):
        assert_same(weights(artifact.path / f"{file}.keras"), Scripted.seen[epoch])
    # Stopped by force after its last epoch, it neither goes on nor forgets.
    monkeypatch.setattr(run.cb, "save_models", _dies_at(tmp_path, "last.keras"))
    with pytest.raises(RuntimeError, match="killed"):
        train(told, digits, tmp_path / "again")
    monkeypatch.undo()
    monkeypatch.setattr(callbacks, "Validation", Scripted)
    monkeypatch.setattr(Scripted, "accuracies", (0.0,) * 6)
    again = train(told, digits, tmp_path / "again")
    assert again.manifest["notes"]["epochs"] == 4
    assert_close(weights(artifact.path / "best.keras"), weights(again.path / "best.keras"), 1e-3)


@pytest.mark.parametrize(
    ("accuracies", "every", "patience", "epochs"),
    [
        ((0.3, 0.2, 0.2, 0.2, 0.2, 0.2), 1, 3, 4),
        # Being as good as the best is not being better.
        ((0.3, 0.3, 0.3, 0.3, 0.3, 0.3), 1, 3, 4),
        # Between validations nothing can get better.
        ((0.0, 0.2, 0.0, 0.3, 0.0, 0.3), 2, 1, 6),
        ((0.0, 0.3, 0.0, 0.2, 0.0, 0.4), 2, 1, 4),
        ((0.1, 0.2, 0.3, 0.4, 0.5, 0.6), 1, 1, 6),
    ],
)
def test_when_a_training_stops_early(digits, tmp_path, monkeypatch, accuracies, every, patience, epochs):
    monkeypatch.setattr(Scripted, "accuracies", accuracies)
    monkeypatch.setattr(callbacks, "Validation", Scripted)
    told = options("none", epochs=6, drops=(), early_stopping=patience, validate_every=every)
    assert train(told, digits, tmp_path / "train").manifest["notes"]["epochs"] == epochs


def _dies_at(folder, name):
    plain = callbacks.save_models

    def save(trainer, path):
        if path.name == name:
            raise RuntimeError("killed")
        return plain(trainer, path)

    return save


def test_averages_are_resumed_with_the_rest(digits, tmp_path, monkeypatch):
    told = options("generator(generator_width=0.05, generator_rate=0.001)", ema=0.9, epochs=2, drops=())
    whole = train(told, digits, tmp_path / "whole", checkpoint_minutes=0.0)
    monkeypatch.setattr(callbacks, "Bar", Killed)
    Killed.after = 8
    with pytest.raises(RuntimeError, match="killed"):
        train(told, digits, tmp_path / "parts", checkpoint_minutes=0.0)
    Killed.after = 10**9
    parts = train(told, digits, tmp_path / "parts", checkpoint_minutes=0.0)
    for file in ("last.keras", "best.keras"):
        assert_close(weights(whole.path / file), weights(parts.path / file), 2e-3)
    generators = [load_generator(artifact.path / "last.generator.keras").weights for artifact in (whole, parts)]
    assert_close(*generators, 2e-3)


def test_rho_is_recorded_at_each_validation(digits, tmp_path):
    rho = ATTACKS.parse("deepfool(steps=10)")
    artifact = train(options("none", epochs=2, drops=(), rho_attack=rho), digits, tmp_path / "train")
    rows = read_rows(artifact.path / "history.csv")
    for row in rows:
        assert 0 < float(row["validation_rho_success"]) <= 1
        assert 0 < float(row["validation_rho"]) < 8
    for wrong in ("pgd", "deepfool(norm=linf)", "cw(epsilon=1)"):
        with pytest.raises(UserError, match="should look for the smallest l2 norm"):
            options("none", rho_attack=ATTACKS.parse(wrong))
