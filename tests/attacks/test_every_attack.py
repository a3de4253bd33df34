"""What holds for every registered attack."""

import dataclasses
import json
import re

import numpy as np
import pytest
import tensorflow as tf

from l2p_tf import inference
from l2p_tf.attacks import ATTACKS
from l2p_tf.attacks.base import MinimizationAttack
from l2p_tf.attacks.projection import norms
from l2p_tf.layers.noise import seed_states
from l2p_tf.types import Norm, UserError
from support import others_slow
from support.models import COMPILED, OWN, halfspace, images_and_labels, linear, norms_of, quick, smooth, watched
from support.stages import python


def budgets(name):
    """Options that bound an attack, each with the norm and radius they stand for."""
    attack = ATTACKS.get(name)
    fields = {f.name for f in dataclasses.fields(attack)}
    if "norm" in fields:
        return [({"epsilon": 0.3, "norm": norm}, norm, 0.3) for norm in norms_of(name)]
    if "epsilon" in fields:
        return [({"epsilon": 0.9}, Norm.L2, 0.9)]
    return [({"pixels": 2}, None, 2)]


BUDGETS = [(name, *budget) for name in OWN for budget in budgets(name)]


@pytest.mark.parametrize(("name", "options", "norm", "radius"), BUDGETS)
def test_every_attack_stays_in_the_ball_and_in_range(name, options, norm, radius):
    model, calls = watched(smooth())
    attack = quick(name, **options)
    for count in (1, 13):
        images, labels = images_and_labels(count)
        output = attack(model, images, labels, batch_size=8)
        assert output.adversarial.shape == images.shape
        assert output.adversarial.dtype == np.float32
        assert output.adversarial.min() >= 0
        assert output.adversarial.max() <= 1
        delta = output.adversarial - images
        size = norms(delta)[norm.value] if norm else np.any(delta != 0, axis=-1).sum((1, 2))
        assert size.max() <= radius * (1 + 1e-5)
        for key, value in norms(delta).items():
            np.testing.assert_array_equal(getattr(output, key), value)
        prediction = inference.predict(model, output.adversarial, batch_size=8).argmax(-1)
        np.testing.assert_array_equal(output.prediction, prediction)
        np.testing.assert_array_equal(output.success, prediction != labels)
        np.testing.assert_array_equal(output.wrong, output.success)
    assert calls
    assert not any(training for _, training in calls)
    if norm:
        zero = attack.replace(epsilon=0.0)(model, images, labels, batch_size=8)
        np.testing.assert_array_equal(zero.adversarial, images)


@pytest.mark.parametrize(("shape", "classes"), [((5, 7, 3), 100), ((4, 4, 1), 2)])
@pytest.mark.parametrize("name", OWN)
def test_every_attack_takes_any_shape_any_number_of_classes_and_batches_of_one_class(name, shape, classes):
    model = smooth(shape, classes)
    images, _ = images_and_labels(6, shape, classes)
    labels = np.full(6, classes - 1)
    attack = quick(name, shape, classes)
    if classes == 2 and name in ("worst_case", "autoattack"):
        # The difference of logits ratio needs three.
        with pytest.warns(UserWarning, match="needs more classes than 2; it ascends the margin instead"):
            output = attack(model, images, labels, batch_size=4)
    else:
        output = attack(model, images, labels, batch_size=4)
    assert output.adversarial.shape == images.shape
    assert np.isfinite(output.adversarial).all()


@pytest.mark.parametrize("name", OWN)
def test_every_attack_bears_a_model_without_gradient(name):
    model = linear(np.zeros((4, 4, 1, 5)), bias=[1.0, 0, 0, 0, 0])
    images, _ = images_and_labels(5, (4, 4, 1))
    output = quick(name, (4, 4, 1), 5)(model, images, np.array([0, 0, 0, 1, 2]), batch_size=4)
    assert np.isfinite(output.adversarial).all()
    np.testing.assert_array_equal(output.success, [0, 0, 0, 1, 1])


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("noise", others_slow([None, 0.3], 0.3))
def test_every_attack_repeats_by_its_seed_alone_and_is_compiled_once(name, noise):
    model = smooth(noise=noise)
    images, labels = images_and_labels(16)
    attack = quick(name)
    before = [np.array(state) for state in seed_states(model)]
    first = attack(model, images, labels, seed=3, batch_size=8)
    np.testing.assert_array_equal(before, seed_states(model))
    model(images)
    attack(model, images[::-1], labels, seed=4, batch_size=8)
    again = attack(model, images, labels, seed=3, batch_size=8)
    for field in ("adversarial", "prediction", "success", "gradients", "forwards"):
        np.testing.assert_array_equal(getattr(first, field), getattr(again, field))
    if "epsilon" in {f.name for f in dataclasses.fields(attack)}:
        attack.replace(epsilon=0.2)(model, images, labels, batch_size=8)
    kernel = model.layers[-1].kernel
    kernel.assign(-np.asarray(kernel))
    changed = attack(model, images, labels, seed=3, batch_size=8)
    if name != "noise":
        assert np.abs(changed.adversarial - first.adversarial).max() > 0
    counts = {key: run.traces for key, run in vars(model)["_l2p_compiled"].items()}
    assert set(counts.values()) == {1}, counts


@pytest.mark.parametrize(
    ("noise", "eagerly"), [(0.3, False), *(pytest.param(n, True, marks=pytest.mark.slow) for n in (0.3, None))]
)
@pytest.mark.parametrize("name", others_slow(COMPILED, "pgd", "apgd", "cw", "square"))
def test_graph_xla_and_eager_execution_agree(name, noise, eagerly):
    agree_with_xla(name, {"epsilon": 0.05} if name in ("fgsm", "pgd", "bim") else {}, noise, eagerly)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pgd", "apgd", "fab", "square"])
def test_graph_xla_and_eager_execution_agree_in_l1(name):
    for noise, eagerly in ((0.3, False), (0.3, True), (None, True)):
        agree_with_xla(name, {"epsilon": 1.0, "norm": "l1"}, noise, eagerly)


def agree_with_xla(name, options, noise, eagerly):
    images, labels = images_and_labels(8)
    attack = quick(name, **options)
    outputs = [attack(smooth(noise=noise), images, labels, seed=1, jit_compile=jit) for jit in (False, True)]
    if eagerly:
        tf.config.run_functions_eagerly(True)
        try:
            outputs.append(attack(smooth(noise=noise), images, labels, seed=1, jit_compile=False))
        finally:
            tf.config.run_functions_eagerly(False)
    for other in outputs[1:]:
        close = np.isclose(other.adversarial, outputs[0].adversarial, atol=1e-4)
        # Selection on draws, steps along signs and probes at a boundary amplify the last bits.
        assert close.mean() > (0.9 if noise or name == "hop_skip_jump" else 0.999)
        np.testing.assert_array_equal(other.success, outputs[0].success)


@pytest.mark.slow
def test_two_replicas_agree_with_one_device():
    done = python("from support import replicas; replicas.main()", *COMPILED, "worst_case")
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == {*COMPILED, "worst_case"}
    for name, (agree, difference, own_noise) in found.items():
        assert agree == 1.0, name
        assert difference < 1e-4, name
        assert own_noise, name


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 5, 5, 1)), [0, 1], r"shape \(count, 6, 6, 1\). Received: \(2, 5, 5, 1\)"),
        (np.zeros((0, 6, 6, 1)), [], "Received: \\(0, 6, 6, 1\\)"),
        (np.full((2, 6, 6, 1), 1.5), [0, 1], r"in \[0, 1\]. Received: values from 1.5 to 1.5"),
        (np.full((2, 6, 6, 1), np.nan), [0, 1], r"in \[0, 1\]"),
        (np.zeros((2, 6, 6, 1), int), [0, 1], "Received: int64"),
        (np.zeros((2, 6, 6, 1)), [0, 4], "from 0 to 3. Received: labels from 0 to 4"),
        (np.zeros((2, 6, 6, 1)), [-1, 0], "Received: labels from -1 to 0"),
        (np.zeros((2, 6, 6, 1)), [0, 1, 1], r"of shape \(2,\), one for each image. Received: int64 \(3,\)"),
        (np.zeros((2, 6, 6, 1)), [0.0, 1.0], "Received: float64"),
    ],
)
def test_bad_input_is_refused(images, labels, message):
    with pytest.raises(UserError, match=message):
        ATTACKS.parse("fgsm")(smooth(), images, labels)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("deepfool(norm=l1)", "DeepFool: `norm` should be one of linf, l2. Received: 'l1'"),
        ("worst_case(norm=l1, attacks=(pgd, deepfool))", "DeepFool: `norm` should be one of linf, l2. Received: 'l1'"),
        ("pgd(norm=l1, epsilon=1, sparsity=0)", "PGD: `sparsity` should be above 0. Received: 0.0"),
    ],
)
def test_norms_that_an_attack_does_not_know_are_refused(spec, message):
    with pytest.raises(UserError, match=re.escape(message)):
        ATTACKS.parse(spec)


def test_uint8_images_are_taken():
    model = smooth()
    images = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 1), np.uint8)
    a = ATTACKS.parse("fgsm")(model, images, [0, 1, 2, 3])
    b = ATTACKS.parse("fgsm")(model, images.astype(np.float32) / 255, [0, 1, 2, 3])
    np.testing.assert_array_equal(a.adversarial, b.adversarial)


TARGETED = [name for name in COMPILED if "target" in {f.name for f in dataclasses.fields(ATTACKS.get(name))}]
WITHIN = [name for name in TARGETED if not issubclass(ATTACKS.get(name), MinimizationAttack) and name != "few_pixel"]


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, {}) for name in TARGETED if name not in WITHIN]
    + [(name, {"epsilon": 0.5, "norm": "linf"}) for name in WITHIN]
    + [(name, {"epsilon": 3.0, "norm": "l2"}) for name in WITHIN],
)
def test_targeted_attacks_count_only_their_target(name, options):
    model = smooth(seed=3)
    images, _ = images_and_labels(16)
    labels = inference.predict(model, images).argmax(-1)
    output = quick(name, target="next", **options)(model, images, labels, batch_size=8)
    classes = inference.predict(model, output.adversarial, batch_size=8).argmax(-1)
    np.testing.assert_array_equal(output.success, classes == (labels + 1) % 4)
    np.testing.assert_array_equal(output.wrong, classes != labels)
    if name in ("pgd", "apgd", "bim", "mim"):
        untargeted = quick(name, **options)(model, images, labels, batch_size=8)
        assert 0 < output.success.sum() <= untargeted.success.sum()


@pytest.mark.parametrize(
    ("spec", "label"),
    [
        ("fgsm", "FGSM"), ("fgsm(norm=l2, draws=10)", "FGM l2 EOT-10"), ("pgd(restarts=2)", "PGD-20 x2"),
        ("pgd(loss=margin, target=next)", "PGD-20 margin to next"), ("mim(norm=l2)", "MIM-20 l2"),
        ("apgd(loss=dlr, target_classes=9)", "APGD-T-100 dlr"), ("cw(kappa=5)", "C&W kappa 5"), ("zoo", "ZOO"),
        ("hop_skip_jump(norm=linf, epsilon=0.1)", "HopSkipJump-50 linf within 0.1"),
        ("deepfool(norm=linf, epsilon=0.1)", "DeepFool linf within 0.1"), ("fab(target_classes=9)", "FAB-T"),
        ("square(norm=l2)", "Square-5000 l2"), ("square(loss=ce)", "Square-5000 ce"), ("spsa", "SPSA-100"),
        ("apgd(norm=l1)", "APGD-100 l1"),
        ("few_pixel(pixels=2)", "2 pixels"), ("few_pixel", "1 pixel"), ("noise(restarts=10)", "noise x10"),
        ("autoattack(norm=l2)", "AutoAttack l2"), ("autoattack(version=rand)", "AutoAttack rand"),
        ("worst_case(attacks=(pgd, square))", "worst of PGD-20, Square-5000"), ("gen_fgm", "FGM l2"),
    ],
)  # fmt: skip
def test_labels_are_short_and_tell_what_matters(spec, label):
    assert ATTACKS.parse(spec).label == label


@pytest.mark.parametrize("name", [name for name in OWN if issubclass(ATTACKS.get(name), MinimizationAttack)])
def test_what_is_wrong_already_needs_no_perturbation(name):
    model, images, *_ = halfspace()
    labels = np.arange(12) % 2
    output = quick(name)(model, images, labels, batch_size=8)
    np.testing.assert_array_equal(output.l2[labels == 1], 0)
    assert output.success[labels == 1].all()
    assert not output.gradients[labels == 1].any()
    zero = quick(name, epsilon=0.0)(model, images, labels)
    np.testing.assert_array_equal(zero.success, labels)


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ("l2p_fgsm", {"epsilon": 8 / 255, "norm": Norm.LINF}),
        ("l2p_pgd", {"epsilon": 8 / 255, "steps": 7, "step_size": 0.01, "random_start": True}),
        ("l2p_eot", {"epsilon": 8 / 255, "steps": 7, "step_size": 0.01, "draws": 80}),
        ("l2p_cw(kappa=5)", {"learning_rate": 5e-4, "steps": 1000, "binary_search_steps": 9, "initial_const": 1e-3,
                             "kappa": 5.0}),
        ("few_pixel(pixels=2)", {"population": 400, "generations": 75, "pixels": 2}),
        ("gen_fgm", {"epsilon": 0.5, "norm": Norm.L2}),
        ("gen_mim", {"epsilon": 0.5, "norm": Norm.L2, "steps": 100}),
        ("gen_deepfool", {"steps": 100, "norm": Norm.L2}),
        ("gen_cw", {"steps": 100}),
        ("autoattack", {"version": "standard", "epsilon": 8 / 255, "steps": 100, "queries": 5000}),
    ],
)  # fmt: skip
def test_presets_are_the_papers_settings(spec, options):
    attack = ATTACKS.parse(spec)
    assert {key: getattr(attack, key) for key in options} == options
    assert ATTACKS.parse(attack.spec) == attack
