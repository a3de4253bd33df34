"""Foolbox and ART behind our names. Needs them: pip install '.[peers]'."""

import warnings

import numpy as np
import pytest

from l2p_tf import inference
from l2p_tf.attacks import ATTACKS
from l2p_tf.attacks.corruption import Corruption
from l2p_tf.evaluation.backends import backend
from l2p_tf.types import UserError
from support.models import halfspace, images_and_labels, smooth

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("foolbox")
    pytest.importorskip("art")

SAME = [
    "fgsm(epsilon=0.1)", "fgsm(epsilon=0.5, norm=l2)", "fgsm(epsilon=0.1, target=next)",
    "bim(epsilon=0.1, steps=4, step_size=0.03)",
    "pgd(epsilon=0.3, steps=4, norm=l2, step_size=0.1, random_start=False)",
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "spec"),
    [(n, spec) for spec in SAME for n in ("foolbox", "art") if (n, "target" in spec) != ("foolbox", True)],
)
def test_all_backends_take_the_same_steps(name, spec):
    model = smooth(seed=4)
    # Away from the edges of the box, where the order of clipping and projecting would matter.
    images = 0.25 + 0.5 * images_and_labels(9)[0]
    # To the end, as others go: labels that no perturbation of this size leaves or reaches.
    model.layers[-1].bias.assign([8.0, 0, 0, 0])
    labels = np.zeros(9, int)
    ours = ATTACKS.parse(spec)
    (theirs,) = backend(name, (ours,))
    assert (theirs.spec, theirs.label, theirs.facts(), theirs.options()) == (
        ours.spec, ours.label, ours.facts(), ours.options(),
    )  # fmt: skip
    assert name == theirs.BACKEND
    a, b = (one(model, images, labels, batch_size=8) for one in (ours, theirs))
    np.testing.assert_allclose(a.adversarial, b.adversarial, atol=1e-5)
    np.testing.assert_array_equal(a.success, b.success)


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("foolbox", "deepfool"), ("foolbox", "deepfool(norm=linf)"), ("art", "deepfool"),
        ("foolbox", "cw(steps=200, binary_search_steps=4, initial_const=1, learning_rate=0.01)"),
    ],
)  # fmt: skip
def test_attacks_of_smallest_norm_find_the_boundary(name, spec):
    model, images, _, linf, l2, _ = halfspace()
    (attack,) = backend(name, (ATTACKS.parse(spec),))
    output = attack(model, images, np.zeros(12, int))
    assert output.success.all()
    size, distance = (output.linf, linf) if "linf" in spec else (output.l2, l2)
    np.testing.assert_allclose(size, distance, rtol=0.06)


def test_random_starts_restarts_and_queries_pass_through():
    model = smooth()
    images, _ = images_and_labels(12)
    labels = inference.predict(model, images).argmax(-1)
    specs = [("foolbox", "pgd(epsilon=0.1, steps=3, restarts=2)"), ("art", "pgd(epsilon=0.1, steps=3, restarts=2)")]
    for name, spec in [*specs, ("art", "square(epsilon=0.2, queries=20)")]:
        (attack,) = backend(name, (ATTACKS.parse(spec),))
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
    ],
)  # fmt: skip
def test_what_they_cannot_do_is_refused_with_the_reason(name, spec, why):
    with pytest.raises(UserError, match=f"`--backend={name}` cannot run .*{why}"):
        backend(name, (ATTACKS.parse(spec),))


def test_corruptions_are_left_to_us():
    attacks = (ATTACKS.parse("fgsm"), Corruption(kind="fog"))
    assert backend("l2p_tf", attacks) == attacks
    assert [attack.label for attack in backend("foolbox", attacks)] == ["FGSM"]
