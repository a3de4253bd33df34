"""Attacks of other libraries by the names of their classes. Needs Foolbox and ART: pip install '.[peers]'."""

import dataclasses
import json
import warnings

import numpy as np
import pytest

import l2p_tf
from l2p_tf import inference
from l2p_tf.attacks import ATTACKS
from l2p_tf.attacks.wrapped import library
from l2p_tf.options import Options, further, option
from l2p_tf.registry import Registry, spec_of
from l2p_tf.types import UserError
from support.models import halfspace, images_and_labels, linear, smooth, watched

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("foolbox")
    pytest.importorskip("art")

FEW = {
    "foolbox(attack=LinfPGD, epsilon=0.1, steps=3)": ("linf", 0.1),
    "foolbox(attack=L1PGD, epsilon=2, steps=3)": ("l1", 2.0),
    "foolbox(attack=L0FMNAttack, epsilon=9, steps=5)": ("l0", 9.0),
    "foolbox(attack=BoundaryAttack, steps=5)": ("l2", None),
    "foolbox(attack=HopSkipJumpAttack, constraint=linf, max_gradient_eval_steps=9, steps=1)": ("linf", None),
    "foolbox(attack=InversionAttack, norm=l1)": ("l1", None),
    "foolbox(attack=SpatialAttack, num_rotations=2, num_translations=2)": (None, None),
    "art(attack=ProjectedGradientDescent, epsilon=0.2, norm=l2, eps_step=0.1, max_iter=3)": ("l2", 0.2),
    "art(attack=HopSkipJump, init_eval=5, max_eval=9, max_iter=1)": ("l2", None),
    "art(attack=HopSkipJump, epsilon=0.5, init_eval=5, max_eval=9, max_iter=1)": ("l2", 0.5),
    "art(attack=AdversarialPatch, max_iter=2, scale=0.4)": (None, None),
    "art(attack=SpatialTransformation, max_rotation=30, max_translation=20, num_rotations=3)": (None, None),
    "art(attack=FastGradientMethod, norm=l1, target=next, minimal=True)": ("l1", 8 / 255),
}


NOISY = [spec for spec in FEW if any(name in spec for name in ("LinfPGD", "HopSkipJumpAttack", "epsilon=0.5"))]
"""Those tried on a randomized model: by gradients, and by decisions that its noise may reverse."""


@pytest.mark.parametrize(("spec", "noise"), [*((spec, None) for spec in FEW), *((spec, 0.1) for spec in NOISY)])
def test_they_keep_to_the_contract_of_our_own(spec, noise):
    attack = ATTACKS.parse(spec)
    norm, epsilon = FEW[spec]
    assert attack.spec == spec
    assert ATTACKS.parse(attack.spec) == attack
    assert (attack.facts()["norm"], attack.facts()["epsilon"]) == (norm, epsilon)
    assert json.loads(json.dumps(attack.options()))["attack"] == attack.attack
    assert spec.startswith(f"{attack.BACKEND}(")
    model, calls = watched(smooth((8, 8, 1), noise=noise))
    images, _ = images_and_labels(7, (8, 8, 1))
    labels = inference.predict(model, images, draws=20 if noise else 1).argmax(-1)
    output = attack(model, images, labels, seed=3, batch_size=4)
    assert output.adversarial.dtype == np.float32
    assert output.adversarial.min() >= 0
    assert output.adversarial.max() <= 1
    assert not any(training for _, training in calls)
    if epsilon is not None:
        assert getattr(output, norm).max() <= epsilon * (1 + 1e-6) + 2e-6
    if noise is None:
        prediction = inference.predict(model, output.adversarial).argmax(-1)
        np.testing.assert_array_equal(output.prediction, prediction)
        np.testing.assert_array_equal(output.wrong, prediction != labels)
    assert output.forwards.min() > 0
    state = np.random.get_state()[1].copy()
    again = attack(model, images, labels, seed=3, batch_size=4)
    np.testing.assert_array_equal(output.adversarial, again.adversarial)
    np.testing.assert_array_equal(state, np.random.get_state()[1])


@pytest.mark.parametrize(
    ("spec", "index"),
    [
        ("foolbox(attack=L2DeepFoolAttack, overshoot=1e-4)", 1),
        ("foolbox(attack=LinfDeepFoolAttack, overshoot=1e-4)", 0),
        ("art(attack=DeepFool, epsilon_=1e-4)", 1),
    ],
)
def test_the_smallest_perturbation_of_a_linear_model_is_its_distance_to_the_boundary(spec, index):
    model, images, _, *distances, _ = halfspace()
    output = ATTACKS.parse(spec)(model, images, np.zeros(12, int))
    assert output.success.all()
    np.testing.assert_allclose((output.linf, output.l2)[index], distances[index], rtol=5e-3)


@pytest.mark.parametrize("name", ["foolbox(attack=LinfFastGradientAttack", "art(attack=FastGradientMethod"])
def test_one_step_on_a_linear_model_succeeds_exactly_where_the_boundary_is_nearer(name):
    model, images, _, distance, *_ = halfspace()
    epsilon = float(np.sort(distance)[5:7].mean())
    output = ATTACKS.parse(f"{name}, epsilon={epsilon})")(model, images, np.zeros(12, int))
    np.testing.assert_array_equal(output.success, distance < epsilon)
    assert output.gradients.tolist() == [1] * 12


def test_what_lies_outside_the_ball_is_not_taken():
    model, images, _, _, distance, _ = halfspace()
    epsilon = float(np.sort(distance)[5:7].mean())
    output = ATTACKS.parse(f"art(attack=DeepFool, epsilon={epsilon}, epsilon_=1e-4)")(model, images, np.zeros(12, int))
    np.testing.assert_array_equal(output.success, distance < epsilon)
    np.testing.assert_array_equal(output.l2[distance > epsilon], 0)


def test_where_no_start_is_found_images_of_other_classes_serve_and_else_the_image_stays():
    # Class 1 is found on one bright pixel, which noise of the mean brightness never has with the rest dark.
    weights = np.zeros((4, 4, 1, 2))
    weights[..., 1] = -1
    weights[0, 0, 0, 1] = 12
    model = linear(weights, bias=[0.0, -4.0])
    images = np.full((6, 4, 4, 1), 0.4, np.float32)
    images[5] = 0.0
    images[5, 0, 0] = 1.0
    attack = ATTACKS.parse("foolbox(attack=BoundaryAttack, steps=3)")
    labels = np.array([0, 0, 0, 0, 0, 1])
    output = attack(model, images, labels)
    assert output.success[:5].all()
    alone = attack(model, images[:5], labels[:5])
    np.testing.assert_array_equal(alone.adversarial[alone.success == 0], images[:5][alone.success == 0])


def test_what_is_done_is_kept_batch_by_batch():
    class Store(dict):
        save, load = dict.__setitem__, dict.get

    model, calls = watched(smooth(noise=0.1))
    images, _ = images_and_labels(9)
    labels = inference.predict(model, images, draws=20).argmax(-1)
    attack = ATTACKS.parse("foolbox(attack=L2PGD, epsilon=0.3, steps=4)")
    whole = attack(model, images, labels, seed=5, batch_size=4)
    store = Store()

    def stop(share, left):
        if 0 < share < 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attack(model, images, labels, seed=5, batch_size=4, store=store, progress=stop)
    (kept,) = store.values()
    assert int(kept["done"]) == 4
    resumed = attack(model, images, labels, seed=5, batch_size=4, store=store)
    for field in ("adversarial", "prediction", "gradients", "forwards"):
        np.testing.assert_array_equal(getattr(whole, field), getattr(resumed, field))
    assert calls


def test_they_join_the_worst_case():
    attack = ATTACKS.parse("worst_case(attacks=('fgsm', 'foolbox(attack=LinfPGD, steps=5)'), epsilon=0.1)")
    assert [member.facts()["epsilon"] for member in attack.members()] == [0.1, 0.1]
    model = smooth()
    images, labels = images_and_labels(12)
    worst = attack(model, images, labels)
    assert worst.success.sum() >= ATTACKS.parse("fgsm(epsilon=0.1)")(model, images, labels).success.sum()
    assert worst.linf.max() <= 0.1 * (1 + 1e-5)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("foolbox(attack=BoundryAttack)", "should name an attack of Foolbox. Did you mean 'BoundaryAttack'.*Received"),
        ("art(attack=HopSkip)", "should name an attack of ART. Did you mean 'HopSkipJump'"),
        ("foolbox", "`attack` should name an attack of Foolbox. Received: ''. Known: .*BoundaryAttack"),
        ("foolbox(attack=LinfPGD, max_iter=3)", "LinfPGD takes no option 'max_iter' here. Those it takes: rel_st"),
        ("art(attack=HopSkipJump, max_iters=3)", "takes no option 'max_iters' here. Did you mean 'max_iter'"),
        ("art(attack=FastGradientMethod, eps=0.1)", "takes no option 'eps' here. Did you mean 'epsilon'"),
        ("art(attack=HopSkipJump, verbose=True)", "takes no option 'verbose'"),
        ("foolbox(attack=BoundaryAttack, tensorboard=logs)", "takes no option 'tensorboard'"),
        ("foolbox(attack=LinfPGD, norm=l2)", "`norm` of Foolbox's LinfPGD should be linf. Received: 'l2'"),
        ("art(attack=AdversarialPatch, norm=l2)", "should be left out: it has no ball"),
        ("foolbox(attack=SpatialAttack, epsilon=0.1)", "`epsilon` of Foolbox's SpatialAttack should be left out"),
        ("foolbox(attack=LinfPGD, epsilon=8)", r"did you mean 8/255"),
        ("foolbox(attack=VirtualAdversarialAttack)", "needs the options steps"),
        ("foolbox(attack=LinfPGD, steps=many)", "should be like its default, 40. Received: 'many'"),
    ],
)  # fmt: skip
def test_bad_names_and_options_are_told_in_a_line(spec, message):
    with pytest.raises(UserError, match=message) as told:
        ATTACKS.parse(spec)(smooth(), *images_and_labels(2))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("art(attack=HopSkipJump, max_iter=-1)", "max_iter=-1.* cannot be run: ValueError: The number of iterations"),
        ("foolbox(attack=L2PGD, epsilon=99)", "at most 6 in l2"),
        ("art(attack=NewtonFool, target=next)", "`target` of ART's NewtonFool should be left out"),
    ],
)
def test_bad_values_are_told_before_an_image_is_attacked(spec, message):
    model, calls = watched(smooth())
    with pytest.raises(UserError, match=message):
        ATTACKS.parse(spec).fitting(model)
    assert not calls


def test_a_library_that_is_not_there_is_told_with_what_to_do():
    with pytest.raises(UserError, match=r"Toolbox should be installed: pip install 'l2p_tf\[peers\]', or box. Import"):
        library("no_such_library", "Toolbox", "box")


def test_further_options_stand_beside_the_others_in_a_spec():
    registry = Registry("thing", "support")
    registry._scanned = True

    @registry.register("thing")
    @dataclasses.dataclass(frozen=True)
    class Thing(Options):
        """A thing."""

        steps: int = option(3, "how often")
        others: tuple = further("what another takes")

    spec = "thing(steps=4, a=None, b=(1, 'x y'), c=True, d=word, e=-0.5)"
    thing = registry.parse(spec)
    assert spec_of(thing) == spec
    assert thing.options() == {"steps": 4, "a": None, "b": (1, "x y"), "c": True, "d": "word", "e": -0.5}
    assert registry.parse(spec_of(thing)) == thing
    assert hash(registry.parse(spec)) == hash(thing)
    assert len(registry.parse_list("thing(z=[1, 2], steps=[1, 2])")) == 4
    assert "...  what another takes" in registry.help("help(thing)")
    with pytest.raises(UserError, match="`a` should be a number, a word, a truth value, or a tuple of those"):
        Thing(others={"a": object()})


def test_they_are_recorded_joined_and_reported_beside_our_own(tmp_path):
    model = smooth((8, 8, 1))
    images, _ = images_and_labels(30, (8, 8, 1))
    images = np.round(255 * images) / 255
    labels = inference.predict(model, images).argmax(-1)
    ours, theirs = "pgd(epsilon=0.05, steps=3)", "foolbox(attack=LinfPGD, epsilon=0.05, steps=3)"
    how = {"checks": 0, "folder": tmp_path / "runs", "slice_size": 16, "batch_size": 8}
    l2p_tf.evaluate(model, images, labels, attacks=ours, **how)
    others = "art(attack=AdversarialPatch, max_iter=2); foolbox(attack=L1PGD, epsilon=1, steps=2)"
    others += "; foolbox(attack=EADAttack, steps=3, binary_search_steps=2)"
    result = l2p_tf.evaluate(model, images, labels, attacks=f"{theirs}; {others}", **how)
    rows = [tuple(row) for row in result.records[["kind", "backend", "norm", "epsilon", "label"]].astype(object).values]
    assert [row[:2] for row in rows] == [
        ("clean", "l2p_tf"), ("bounded", "l2p_tf"), ("bounded", "foolbox"), ("bounded", "art"), ("bounded", "foolbox"),
        ("minimal", "foolbox"),
    ]  # fmt: skip
    assert rows[3][4] == "AdversarialPatch"
    page = result.report(tmp_path / "report")
    text = page.with_suffix(".md").read_text("utf-8")
    assert "Worst case over libraries" in text
    worst = (page.parent / "libraries.csv").read_text("utf-8").splitlines()
    assert len(worst) == 4
    for record in result.records.arrays[1:]:
        with np.load(tmp_path / "runs" / "model" / "attack" / record) as arrays:
            assert (arrays["l1"] >= arrays["l2"] * (1 - 1e-5)).all()
