"""Every defense trained: on digits, where it must help, and on photographs. Run with `pytest -m slow`."""

import os

import numpy as np
import pytest

from l2p_tf.attacks import ATTACKS
from l2p_tf.models.saving import load_classifier
from support.files import read_rows, records_in
from support.models import TRAINED
from support.stages import run

pytestmark = pytest.mark.slow
RANDOMIZED = ("pni", "adv_bnn", "learn2perturb", "rse", "pixeldp", "smoothing", "noise_at_prediction")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The folder of all defenses on digits, and the correct examples by run, attack and repeat."""
    folder = tmp_path_factory.mktemp("digits")
    print(run("pipeline", "--config=digits/defenses", f"--run_dir={folder}"))
    correct = {}
    for path in folder.glob("*/attack/results.json"):
        for record in records_in(path.parent):
            with np.load(path.parent / record["arrays"]) as arrays:
                correct.setdefault((record["model"], record["attack"]), []).append(arrays["correct"].astype(float))
    return folder, {key: np.stack(values) for key, values in correct.items()}


def pgd(epsilon, draws=""):
    return ATTACKS.parse(f"pgd(epsilon={epsilon}, steps=20{draws})").spec


@pytest.mark.parametrize("name", ["pgd", *RANDOMIZED])
def test_it_withstands_more_than_no_defense(digits, name):
    # Two of those that are not trained on attacks are judged under smaller ones.
    epsilon = "0.1" if name in ("rse", "smoothing") else "0.18"
    correct = digits[1]
    gain = correct[name, pgd(epsilon, ", draws=10")].mean(0) - correct["none", pgd(epsilon)].mean(0)
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    print(
        f"{name}: PGD-20 with EOT at {epsilon}: {100 * gain.mean():.1f} points above none, standard error "
        f"{100 * error:.1f}"
    )
    assert gain.mean() > 0.05
    assert gain.mean() > 3 * error


@pytest.mark.parametrize("epsilon", ["0.1", "0.18"])
@pytest.mark.parametrize("name", RANDOMIZED)
def test_expectation_over_draws_is_not_weaker(digits, name, epsilon):
    correct = digits[1]
    # By example, the mean over repeats: what PGD with EOT leaves standing beyond PGD without.
    weaker = (correct[name, pgd(epsilon, ", draws=10")] - correct[name, pgd(epsilon)]).mean(0)
    error = weaker.std(ddof=1) / np.sqrt(len(weaker))
    print(f"{name}, {epsilon}: EOT leaves {100 * weaker.mean():+.1f} points, 95% interval ± {196 * error:.1f}")
    assert weaker.mean() - 1.96 * error <= 0


def test_the_report_has_attacks_with_and_without_expectation_and_certificates(digits):
    folder = digits[0]
    page = (folder / "report" / "report.html").read_text("utf-8")
    assert "PGD-20 EOT-10" in page
    assert "Certified" in page
    assert {row["run"] for row in read_rows(folder / "report" / "certified.csv")} >= {"smoothing", "pixeldp"}


@pytest.mark.skipif("L2P_TF_DATA_DIR" not in os.environ, reason="needs CIFAR-10 in TensorFlow Datasets' form")
@pytest.mark.parametrize("name", TRAINED)
def test_it_trains_on_photographs(name, tmp_path):
    data = ["--dataset=cifar10", f"--data_dir={os.environ['L2P_TF_DATA_DIR']}", "--download=false"]
    data += ["--limit_train=3000", "--limit_test=100", f"--run_dir={tmp_path}"]
    short = {"learn2perturb": "(warmup_epochs=1)", "pni": "(adversarial_epoch=1)"}.get(name, "")
    run(
        "train", *data, "--model=resnet_v1(depth=8)", f"--defense={name}{short}", "--epochs=3", "--validation_limit=100"
    )
    for file in ("best.keras", "last.keras"):
        for variable in load_classifier(tmp_path / name / "train" / file).weights:
            if variable.dtype != "bool":
                assert np.isfinite(np.asarray(variable)).all(), variable.path
    rows = read_rows(tmp_path / name / "train" / "history.csv")
    losses = [float(row["loss"]) for row in rows]
    print(name, [round(loss, 3) for loss in losses], "validation", rows[-1]["validation_accuracy"])
    # Where attacks begin in the second epoch, the loss rises with them.
    assert losses[-1] < (losses[0] if not short else losses[1])
