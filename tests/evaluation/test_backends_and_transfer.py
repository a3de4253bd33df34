"""CleverHans behind our names, transfer between models, and both through the stages."""

import json

import numpy as np
import pytest

from l2p_tf import inference
from l2p_tf.attacks import ATTACKS
from l2p_tf.evaluation.cleverhans import CleverHans, backend
from l2p_tf.evaluation.transfer import ensemble
from l2p_tf.types import UserError
from support.models import images_and_labels, smooth
from support.stages import SMALL, error, stage


@pytest.mark.parametrize(
    "spec",
    [
        "fgsm(epsilon=0.1)", "fgsm(epsilon=0.5, norm=l2)", "fgsm(epsilon=0.1, target=least_likely)",
        "bim(epsilon=0.1, steps=5)", "bim(epsilon=0.2, steps=5, norm=l2)", "mim(epsilon=0.1, steps=5, decay=0.7)",
        "mim(epsilon=0.2, steps=5, norm=l2)",
    ],
)  # fmt: skip
def test_both_backends_take_the_same_steps(spec):
    model = smooth(seed=4)
    images, _ = images_and_labels(13)
    # Away from the edges of the box, where the order of clipping and projecting would matter.
    images = 0.25 + 0.5 * images
    # To the end, as CleverHans goes: labels that no perturbation of this size leaves or reaches.
    model.layers[-1].bias.assign([8.0, 0, 0, 0])
    labels = np.zeros(13, int)
    attack = ATTACKS.parse(spec)
    ours, theirs = (a(model, images, labels, batch_size=8) for a in (attack, CleverHans(attack)))
    np.testing.assert_allclose(ours.adversarial, theirs.adversarial, atol=1e-5)
    np.testing.assert_array_equal(ours.success, theirs.success)
    np.testing.assert_array_equal(ours.gradients, theirs.gradients)
    assert CleverHans(attack).spec == attack.spec
    assert CleverHans(attack).facts() == attack.facts()
    assert CleverHans(attack).options() == attack.options()


@pytest.mark.parametrize("noise", [None, 0.2])
def test_cleverhans_repeats_by_its_seed_and_leaves_the_model_as_it_was(noise):
    model = smooth(noise=noise)
    images, _ = images_and_labels(10)
    labels = inference.predict(model, images, draws=20).argmax(-1)
    attack = CleverHans(ATTACKS.parse("pgd(epsilon=0.1, steps=3, restarts=2)"))
    first, other, again = (attack(model, images, labels, seed=s, batch_size=4) for s in (1, 2, 1))
    np.testing.assert_array_equal(first.adversarial, again.adversarial)
    assert np.abs(first.adversarial - other.adversarial).max() > 0
    assert np.abs(first.adversarial - images).max() <= 0.1 + 1e-6


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("l2p_cw", "C&W does not run on Keras 3"),
        ("spsa", "SPSA does not run on Keras 3"),
        ("deepfool", "has no DeepFool"),
        ("autoattack", "has no such attack"),
        ("pgd(draws=4)", "cannot average gradients over draws"),
        ("pgd(loss=margin)", "cross-entropy here, not `loss=margin`"),
        ("fgsm(random_start=True)", "FGSM starts at the image"),
        ("pgd(epsilon=0.1, step_size=0.2)", "no steps longer than epsilon"),
    ],
)
def test_what_cleverhans_cannot_do_is_refused_with_the_reason(spec, why):
    with pytest.raises(UserError, match=f"`--backend=cleverhans` cannot run .*{why}"):
        backend("cleverhans", (ATTACKS.parse(spec),))


def test_an_ensemble_answers_with_the_mean_of_the_logits():
    models = [smooth(seed=seed) for seed in (1, 2)]
    images, labels = images_and_labels(5)
    expected = np.mean([model(images) for model in models], axis=0)
    both = ensemble(models)
    np.testing.assert_allclose(both(images), expected, atol=1e-6)
    assert ensemble(models[:1]) is models[0]
    found = ATTACKS.parse("pgd(epsilon=0.2, steps=4)")(both, images, labels)
    np.testing.assert_array_equal(found.prediction, inference.predict(both, found.adversarial).argmax(-1))
    noisy = ensemble([smooth(noise=0.2), smooth(seed=2)])
    assert np.abs(noisy(images) - noisy(images)).max() > 0


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    flags = [*SMALL, f"--run_dir={folder}"]
    both = "--defense=none; learn2perturb(warmup_epochs=1, steps=1)"
    stage("pipeline", *flags, both, "--attacks=mim(epsilon=0.1, steps=3)", "--transfer=all,none+learn2perturb")
    return folder


def test_transfer_is_a_matrix_and_is_not_made_twice(runs):
    records = json.loads((runs / "transfer" / "results.json").read_text())["records"]
    found = {(r["source"], r["model"], r["repeat"]): r for r in records}
    names = ("none", "learn2perturb")
    assert set(found) == {(s, t, r) for s in (*names, "none+learn2perturb") for t in names for r in (0, 1)}
    for (source, model, repeat), record in found.items():
        arrays = np.load(runs / "transfer" / record["arrays"])
        assert record["correct"] == arrays["correct"].sum()
        assert record["reached"] == 40 - record["correct"]
        assert arrays["linf"].max() <= 0.1 + 1e-6
        assert record["randomized"] == (model == "learn2perturb"), (source, model, repeat)
    # Made on the undefended model itself, as the attack stage does it, they are as good as there.
    own = json.loads((runs / "none" / "attack" / "results.json").read_text())["records"][1]
    assert found["none", "none", 0]["correct"] == own["correct"]
    page = (runs / "report" / "report.html").read_text()
    assert "none + learn2perturb" in page
    flags = [*SMALL, f"--run_dir={runs}", "--attacks=mim(epsilon=0.1, steps=3)"]
    done = stage("attack", *flags, "--transfer=none,learn2perturb,none+learn2perturb")
    assert "up to date" in done.stdout
    assert "white-box" in done.stdout
    assert "should name runs of" in error("pipeline", *flags, "--defense=none", "--transfer=pgd")
    assert "pgd/train" in error("attack", *flags, "--transfer=none,pgd")
    assert "untargeted" in error("attack", *flags, "--attacks=pgd(target=next)", "--transfer=none", "--overwrite")


def test_both_backends_side_by_side(runs):
    flags = [f"--run_dir={runs}", "--name=none"]
    specs = "--attacks=mim(epsilon=0.1, steps=3)"
    done = stage("attack", *flags, *SMALL, specs, "--backend=l2p_tf,cleverhans")
    assert "MIM-3 (CleverHans)" in done.stdout
    records = json.loads((runs / "none" / "attack_cleverhans" / "results.json").read_text())["records"]
    assert [(r["attack"], r["backend"]) for r in records] == [
        ("clean", "l2p_tf"),
        ("mim(epsilon=0.1, steps=3)", "cleverhans"),
    ]
    ours = json.loads((runs / "none" / "attack" / "results.json").read_text())["records"]
    assert abs(ours[1]["correct"] - records[1]["correct"]) <= 1
    stage("report", f"--run_dir={runs}", "--overwrite")
    assert "CleverHans" in (runs / "report" / "report.md").read_text()
    assert "cannot run 'cw'" in error("attack", *flags, *SMALL, "--attacks=fgsm; cw", "--backend=cleverhans")
    assert "`--backend` should be" in error("attack", *flags, *SMALL, "--backend=art")


def test_attacks_of_all_kinds_through_the_stage(runs, tmp_path):
    flags = [f"--run_dir={runs}", "--name=none", "--overwrite", "--limit=12"]
    attacks = (
        "autoattack(epsilon=0.1, steps=3, queries=10, target_classes=2); deepfool(steps=5); "
        "few_pixel(pixels=2, population=8, generations=2); worst_case(epsilon=0.1, attacks=(pgd(steps=2), noise)); "
        "pgd(epsilon=0.3, target=next)"
    )
    done = stage("attack", *flags, *SMALL, f"--attacks={attacks}", "--limit=12")
    assert "AutoAttack shortened" in done.stdout
    assert "2 pixels" in done.stdout
    assert "smallest L2" in done.stdout
    records = json.loads((runs / "none" / "attack" / "results.json").read_text())["records"]
    assert [r["norm"] for r in records] == [None, "linf", "l2", "l0", "linf", "linf"]
    assert [r["epsilon"] for r in records] == [None, 0.1, None, 2.0, 0.1, 0.3]
    arrays = np.load(runs / "none" / "attack" / records[1]["arrays"])
    assert {
        "index",
        "label",
        "prediction",
        "probability",
        "correct",
        "success",
        "l0",
        "l2",
        "linf",
        "gradients",
        "forwards",
    } == set(arrays.files)
    shown = stage("attack", "--attacks=help").stdout
    for name in ATTACKS.names():
        assert f"{name}: " in shown
