"""CleverHans, Foolbox and ART behind our names. The latter two are needed: pip install '.[peers]'."""

import warnings

import numpy as np
import pytest

from l2p_tf import inference
from l2p_tf.attacks import ATTACKS
from l2p_tf.attacks.corruption import Corruption
from l2p_tf.evaluation.backends import backend
from l2p_tf.types import UserError
from support.models import halfspace, images_and_labels, smooth


def in_backend(name, spec):
    """The attack as run by a backend; skips the test if that is not installed."""
    if name != "cleverhans":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pytest.importorskip(name)
    (attack,) = backend(name, (ATTACKS.parse(spec),))
    return attack


SAME = {
    "fgsm(epsilon=0.1)": ["cleverhans", "foolbox", "art"],
    "fgsm(epsilon=0.5, norm=l2)": ["cleverhans", "foolbox", "art"],
    "fgsm(epsilon=0.1, target=next)": ["art"],
    "fgsm(epsilon=0.1, target=least_likely)": ["cleverhans"],
    "bim(epsilon=0.1, steps=4, step_size=0.03)": ["cleverhans", "foolbox", "art"],
    "bim(epsilon=0.2, steps=5, norm=l2)": ["cleverhans"],
    "pgd(epsilon=0.3, steps=4, norm=l2, step_size=0.1, random_start=False)": ["foolbox", "art"],
    "mim(epsilon=0.1, steps=5, decay=0.7)": ["cleverhans"],
    "mim(epsilon=0.2, steps=5, norm=l2)": ["cleverhans"],
}


@pytest.mark.parametrize(("name", "spec"), [(name, spec) for spec, names in SAME.items() for name in names])
def test_all_backends_take_the_same_steps(name, spec):
    model = smooth(seed=4)
    # Away from the edges of the box, where the order of clipping and projecting would matter.
    images = 0.25 + 0.5 * images_and_labels(9)[0]
    # To the end, as others go: labels that no perturbation of this size leaves or reaches.
    model.layers[-1].bias.assign([8.0, 0, 0, 0])
    labels = np.zeros(9, int)
    ours, theirs = ATTACKS.parse(spec), in_backend(name, spec)
    assert (theirs.spec, theirs.label, theirs.facts(), theirs.options()) == (
        ours.spec, ours.label, ours.facts(), ours.options(),
    )  # fmt: skip
    assert name == theirs.BACKEND
    a, b = (one(model, images, labels, batch_size=8) for one in (ours, theirs))
    np.testing.assert_allclose(a.adversarial, b.adversarial, atol=1e-5)
    np.testing.assert_array_equal(a.success, b.success)
    if name == "cleverhans":
        np.testing.assert_array_equal(a.gradients, b.gradients)


@pytest.mark.parametrize("noise", [None, 0.2])
def test_cleverhans_repeats_by_its_seed_and_leaves_the_model_as_it_was(noise):
    model = smooth(noise=noise)
    images, _ = images_and_labels(10)
    labels = inference.predict(model, images, draws=20).argmax(-1)
    attack = in_backend("cleverhans", "pgd(epsilon=0.1, steps=3, restarts=2)")
    first, other, again = (attack(model, images, labels, seed=s, batch_size=4) for s in (1, 2, 1))
    np.testing.assert_array_equal(first.adversarial, again.adversarial)
    assert np.abs(first.adversarial - other.adversarial).max() > 0
    assert np.abs(first.adversarial - images).max() <= 0.1 + 1e-6


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("foolbox", "deepfool"), ("foolbox", "deepfool(norm=linf)"), ("art", "deepfool"),
        ("foolbox", "cw(steps=200, binary_search_steps=4, initial_const=1, learning_rate=0.01)"),
    ],
)  # fmt: skip
def test_attacks_of_smallest_norm_find_the_boundary(name, spec):
    model, images, _, linf, l2, _ = halfspace()
    output = in_backend(name, spec)(model, images, np.zeros(12, int))
    assert output.success.all()
    size, distance = (output.linf, linf) if "linf" in spec else (output.l2, l2)
    np.testing.assert_allclose(size, distance, rtol=0.06)


def test_random_starts_restarts_and_queries_pass_through():
    model = smooth()
    images, _ = images_and_labels(12)
    labels = inference.predict(model, images).argmax(-1)
    specs = [("foolbox", "pgd(epsilon=0.1, steps=3, restarts=2)"), ("art", "pgd(epsilon=0.1, steps=3, restarts=2)")]
    for name, spec in [*specs, ("art", "square(epsilon=0.2, queries=20)")]:
        attack = in_backend(name, spec)
        output = attack(model, images, labels, seed=1)
        assert 0 < output.linf.max() <= attack.facts()["epsilon"] + 2e-6


@pytest.mark.parametrize(
    ("name", "spec", "why"),
    [
        ("foolbox", "fgsm(target=next)", "its FGSM heads for no class"),
        ("foolbox", "mim", "it has no such attack, or one that goes about it in another way"),
        ("art", "deepfool(norm=linf)", "no such attack"), ("foolbox", "square", "no such attack"),
        ("art", "pgd(draws=4)", "cannot average gradients over draws"), ("foolbox", "pgd(norm=l1)", "its steps in l1"),
        ("art", "pgd(loss=margin)", "its own loss here, not `loss=margin`"), ("art", "square(loss=ce)", "its own loss"),
        ("cleverhans", "l2p_cw", "C&W does not run on Keras 3"), ("cleverhans", "deepfool", "has no DeepFool"),
        ("cleverhans", "spsa", "SPSA does not run on Keras 3"), ("cleverhans", "autoattack", "has no such attack"),
        ("cleverhans", "pgd(norm=l1, epsilon=1)", "no projection in l1"),
        ("cleverhans", "pgd(draws=4)", "cannot average gradients over draws"),
        ("cleverhans", "pgd(loss=margin)", "cross-entropy here, not `loss=margin`"),
        ("cleverhans", "fgsm(random_start=True)", "FGSM starts at the image"),
        ("cleverhans", "pgd(epsilon=0.1, step_size=0.2)", "no steps longer than epsilon"),
    ],
)  # fmt: skip
def test_what_they_cannot_do_is_refused_with_the_reason(name, spec, why):
    with pytest.raises(UserError, match=f"`--backend={name}` cannot run .*{why}"):
        in_backend(name, spec)


def test_corruptions_are_left_to_us():
    attacks = (ATTACKS.parse("fgsm"), Corruption(kind="fog"))
    assert backend("l2p_tf", attacks) == attacks
    assert [attack.label for attack in backend("cleverhans", attacks)] == ["FGSM"]
