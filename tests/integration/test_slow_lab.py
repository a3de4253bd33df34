"""The laboratory's families on digits: what each must show. Run with `pytest -m slow`."""

import numpy as np
import pytest

from support.files import read_rows, records_in
from support.stages import run

pytestmark = pytest.mark.slow


def correct_by(folder):
    """Correct examples by run, attack and source."""
    found = {}
    for path in [*folder.glob("*/attack*/results.json"), *folder.glob("transfer/results.json")]:
        for record in records_in(path.parent):
            with np.load(path.parent / record["arrays"]) as arrays:
                found[record["model"], record["label"], record["source"]] = arrays["correct"].astype(float)
    return found


def is_above(these, others):
    """More correct on the same images, by more than three standard errors."""
    gain = these - others
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    print(f"{100 * gain.mean():.1f} points more, standard error {100 * error:.1f}")
    return gain.mean() > 3 * error


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adversarial_training")
    print(run("pipeline", "--config=digits/adversarial_training", f"--run_dir={folder}"))
    return folder, correct_by(folder)


@pytest.mark.parametrize(
    "name", ["fgsm", "pgd", "pgd-2", "mat-strategy_rand", "mat-strategy_max", "mat-strategy_both", "trades"]
)
@pytest.mark.parametrize("attack", ["PGD-20", "PGD-20 l2"])
def test_every_adversarial_training_withstands_more_than_none(trained, name, attack):
    correct = trained[1]
    assert is_above(correct[name, attack, None], correct["none", attack, None])
    assert correct[name, "clean", None].mean() > 0.9


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generator")
    print(run("pipeline", "--config=digits/generator", f"--run_dir={folder}"))
    return folder, correct_by(folder)


@pytest.mark.parametrize("name", ["fgsm", "pgd", "generator"])
def test_the_papers_methods_withstand_more_than_none(played, name):
    correct = played[1]
    assert is_above(correct[name, "PGD-20 l2", None], correct["none-seed_0", "PGD-20 l2", None])
    # What was made on an independent network does less than what was made on this one.
    black_box = correct[name, "PGD-20 l2", "none-seed_1"]
    assert black_box.mean() >= correct[name, "PGD-20 l2", None].mean()


def test_the_generators_classifier_needs_larger_perturbations(played):
    rows = [row for row in read_rows(played[0] / "report" / "norms.csv") if row["attack"].startswith("cw")]
    rho = {row["run"].removesuffix(" (last)"): float(row["mean"]) for row in rows}
    print(rho)
    assert rho["generator"] > 1.2 * rho["none-seed_0"]


def test_its_generator_is_an_attack_and_its_training_does_not_collapse(played):
    folder, correct = played
    label = "Generator of generator"
    assert correct["none-seed_0", label, None].mean() < correct["none-seed_0", "clean", None].mean() - 0.2
    rows = read_rows(folder / "generator" / "train" / "history.csv")
    sizes = [float(row["perturbation_l2"]) for row in rows[len(rows) // 2 :]]
    assert 0.1 < min(sizes) <= max(sizes) < 2.0
    assert any(row["validation_rho"] for row in rows)
    page = (folder / "report" / "report.html").read_text("utf-8")
    for text in (label, "Methods at the same clean accuracy", "Accuracy by radius"):
        assert text in page
