"""CleverHans behind our names, and ensembles for transfer."""

import numpy as np
import pytest

from l2p_tf import inference
from l2p_tf.attacks import ATTACKS
from l2p_tf.evaluation.backends import backend
from l2p_tf.evaluation.cleverhans import CleverHans
from l2p_tf.evaluation.transfer import ensemble
from l2p_tf.types import UserError
from support.models import images_and_labels, smooth


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
        ("pgd(norm=l1, epsilon=1)", "no projection in l1"),
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
