import dataclasses
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax

from l2p_tf import artifacts
from l2p_tf.attacks import ATTACKS
from l2p_tf.defenses import DEFENSES
from l2p_tf.defenses.base import DerivedDefense
from l2p_tf.inference import predict_with_votes
from l2p_tf.layers.activation_noise import FixedNoise
from l2p_tf.layers.bayesian import BayesianConv, BayesianDense, BayesianNorm
from l2p_tf.layers.bounded_conv import BoundedConv
from l2p_tf.layers.factory import LayerFactory
from l2p_tf.layers.noise import is_randomized, noise_layers, reseed, seed_states, set_noise
from l2p_tf.layers.parametric_noise import ParametricConv, ParametricDense, ParametricNoise
from l2p_tf.layers.perturbation_injection import PerturbationInjection
from l2p_tf.models import MODELS
from l2p_tf.models.base import trainable_parameters
from l2p_tf.models.file import File
from l2p_tf.models.saving import load_classifier, save_classifier
from l2p_tf.serving import export
from l2p_tf.types import UserError
from support import others_slow
from support.models import SHALLOW, TRAINED, Tiny, images_and_labels, residual, small, tiny
from support.training import assert_same, changed, compiled, softmax_gradient, step, values

RNG = np.random.default_rng(0)


# From a training step to a served answer: every defense, and in the slow tier on every architecture.


@pytest.mark.parametrize("defense", DEFENSES.names())
def test_every_defense_from_training_to_serving(defense, tmp_path):
    from_training_to_serving(small(defense), Tiny(), tmp_path)


PLAIN = ("fgsm", "generator", "mat", "none", "pgd", "trades")
"""Those that leave a network as it is."""

NOISY = ("learn2perturb", "rse", "smoothing", "pni")
"""Those that put noise into any network."""


@pytest.mark.parametrize("defense", others_slow([*PLAIN, *NOISY], "generator", "pgd", *NOISY))
def test_defenses_on_a_model_made_elsewhere(defense, tmp_path):
    residual().save(tmp_path / "mine.keras")
    options = small(defense)
    options = options.replace(noise="activations") if defense == "pni" else options
    from_training_to_serving(options, File(path=str(tmp_path / "mine.keras"), input_range="0..1"), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", SHALLOW)
@pytest.mark.parametrize("defense", DEFENSES.names())
def test_every_defense_on_every_architecture(defense, architecture, tmp_path):
    from_training_to_serving(small(defense), MODELS.parse(SHALLOW[architecture]), tmp_path)


def from_training_to_serving(options, architecture, tmp_path):
    images, labels = images_and_labels(8, (8, 8, 1), 4)
    options = options.replace(warmup_epochs=1) if hasattr(options, "warmup_epochs") else options
    derived = isinstance(options, DerivedDefense)
    # The derived ones take the classifier of another run, here one with noise on its weights.
    base = small("pni") if derived else options
    model = architecture.build((8, 8, 1), 4, base.factory(0), mean=(0.5,), std=(0.25,))
    if derived:
        with pytest.raises(UserError, match="`run` should name"):
            options.trainer(model, 0, 100)
        model = options.derive(model, 0)
    else:
        before = values(model.trainable_variables)
        trainer, traces = compiled(options.trainer(model, 0, 100), rate=0.05), []
        plain = trainer.train_step
        trainer.train_step = lambda data, phase: traces.append(phase) or plain(data, phase)
        # Batches of 3, 3 and 2, whose size is not known when the step is traced, without and with what begins later.
        pixels = (images * 255).astype(np.uint8)
        history = trainer.fit(pixels, labels, batch_size=3, epochs=3, verbose=0, shuffle=False).history
        assert len(traces) == len(set(traces)) <= 2
        assert history["loss"][-1] < history["loss"][0] * 1.5
        assert all(np.isfinite(weight).all() for weight in values(model.trainable_variables))
        assert all(changed(before, model.trainable_variables))
    save_classifier(model, tmp_path / "best.keras")
    again = load_classifier(tmp_path / "best.keras")
    assert_same(model.weights, again.weights)
    for one in (model, again):
        reseed(one, tf.constant([1, 2]))
    first = np.asarray(again(images))
    np.testing.assert_allclose(first, model(images), atol=1e-5)
    assert is_randomized(again) == (options.name not in PLAIN)
    assert np.any(first != np.asarray(again(images))) == is_randomized(again)
    attack = ATTACKS.parse("pgd(epsilon=0.1, step_size=0.05, steps=2, draws=2)")
    found = attack(again, images, labels, prediction_draws=3)
    assert np.all(np.isin(found.wrong, (0, 1)))
    set_noise(again, False)
    np.testing.assert_array_equal(again(images), again(images))
    with artifacts.produce(tmp_path / "train", "train", {"name": "x", "defense": options.name, "model": "m"}) as work:
        save_classifier(model, work.path / "best.keras")
        work.notes["prediction_draws"] = options.draws_per_answer
    made = export(artifacts.read(tmp_path / "train"), tmp_path / "export")
    served = tf.saved_model.load(str(made.path / "saved_model")).signatures["serving_default"](images=images)
    np.testing.assert_allclose(served["probabilities"].numpy().sum(1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("defense", TRAINED)
def test_noise_adds_no_parameters_to_those_that_papers_count(defense):
    options = DEFENSES.get(defense)()
    model = MODELS.parse("resnet_v1(depth=20)").build((32, 32, 3), 10, options.factory(0))
    # PixelDP's first convolution has a bias besides.
    assert trainable_parameters(model) == 269_722 + (16 if defense == "pixeldp" else 0)
    assert all(layer.active.path for layer in noise_layers(model))


# Where each defense puts its noise, and how large it is.


CONV, DENSE = ("conv", ParametricConv), ("logits", ParametricDense)
OUTPUTS = [("stem_output", PerturbationInjection), ("output", PerturbationInjection)]
NOISE = {
    "none": [],
    "pni(noise=weights)": [("stem", ParametricConv), CONV, DENSE],
    "pni(noise=activations)": [("stem_output", ParametricNoise), ("output", ParametricNoise)],
    "pni(noise=both)": [
        ("stem", ParametricConv), ("stem_output", ParametricNoise), CONV, ("output", ParametricNoise), DENSE,
    ],
    "pni(noise=input)": [("input_noise", ParametricNoise)],
    "rse": [("stem_noise", FixedNoise), ("conv_noise", FixedNoise)],
    "smoothing": [("pixel_noise", FixedNoise)],
    "pixeldp": [("stem_noise", FixedNoise)],
    "adv_bnn": [
        ("stem", BayesianConv), ("conv", BayesianConv), ("norm", BayesianNorm), ("logits", BayesianDense),
    ],
    "learn2perturb": OUTPUTS,
    "learn2perturb(points=(convolutions,))": [(n, PerturbationInjection) for n in ("stem_noise", "conv_noise")],
    "learn2perturb(points=input)": [("input_noise", PerturbationInjection)],
    "learn2perturb(points=(blocks, input))": [("input_noise", PerturbationInjection), *OUTPUTS],
}  # fmt: skip


FOLLOWING = {
    "rse": {"stem_noise": "stem", "conv_noise": "conv"},
    "smoothing": {"pixel_noise": "normalization"},
    "pni(noise=input)": {"normalization": "input_noise"},
    "learn2perturb(points=input)": {"normalization": "input_noise"},
}
"""The layer after each."""


@pytest.mark.parametrize("spec", NOISE)
def test_noise_is_where_a_defense_puts_it(spec):
    model = tiny(DEFENSES.parse(spec))
    noisy = noise_layers(model)
    assert [(layer.name, type(layer)) for layer in noisy] == NOISE[spec]
    seeds = [layer.seed for layer in noisy]
    assert len(set(seeds)) == len(seeds)
    following = dict(itertools.pairwise(layer.name for layer in model.layers))
    assert FOLLOWING.get(spec, {}).items() <= following.items()


def test_options_of_noise_reach_its_layers():
    assert [layer.std for layer in noise_layers(tiny(DEFENSES.parse("rse(first_std=0.3)")))] == [0.3, 0.1]
    (layer,) = noise_layers(tiny(DEFENSES.parse("pni(noise=input, granularity=channel, alpha_initial=0.5)")))
    assert layer.alpha.shape == (1, 1, 1)
    assert float(layer.alpha[0, 0, 0]) == 0.5
    for layer in noise_layers(tiny(DEFENSES.parse("learn2perturb(granularity=channel, distribution=uniform)"))):
        assert layer.distribution == "uniform"
        assert layer.theta.shape[:-1] == (1, 1)
    model = tiny(DEFENSES.parse("adv_bnn(prior_std=0.1, initial_std=0.05)"))
    assert all(layer.prior_std == 0.1 for layer in noise_layers(model))
    plain = [v for v in model.trainable_variables if not v.name.endswith("log_std")]
    spread = [v for v in model.trainable_variables if v.name.endswith("log_std")]
    assert sorted(tuple(v.shape) for v in plain) == sorted(tuple(v.shape) for v in spread)
    assert sum(int(np.prod(v.shape)) for v in plain) == trainable_parameters(model)


def test_smoothing_puts_noise_on_the_pixels():
    model = tiny(DEFENSES.parse("smoothing(sigma=0.5)"))
    assert model.layers[1].std == 0.5
    images = np.full((2000, 6, 6, 1), 0.5, np.float32)
    seen = keras.Model(model.input, model.layers[1].output)(images)
    assert np.std(seen) == pytest.approx(0.5, rel=0.02)
    assert np.min(seen) < 0


def test_pixeldps_noise_is_the_mechanisms_and_its_convolution_stays_bounded():
    options = DEFENSES.parse("pixeldp")
    assert options.std == pytest.approx(0.254, abs=5e-4)
    model = tiny(options)
    names = [layer.name for layer in model.layers]
    assert names[1:5] == ["normalization", "stem", "stem_noise", "stem_norm"]
    assert model.get_layer("normalization").std == [1.0]
    stem = model.get_layer("stem")
    assert isinstance(stem, BoundedConv)
    assert [layer for layer in model.layers if isinstance(layer, BoundedConv)] == [stem]
    assert not stem.normalize
    trainer = compiled(options.trainer(model, 0, 100), rate=5.0)
    for _ in range(3):
        step(trainer, *images_and_labels(8))
        assert stem.sensitivity <= 1.0
    assert stem.sensitivity > 0.9


def test_noise_at_prediction_is_added_to_a_finished_classifier():
    base = tiny(DEFENSES.parse("none"))
    images, _ = images_and_labels(5)
    model = DEFENSES.parse("noise_at_prediction(run=x, std=0.2)").derive(base, 4)
    (layer,) = noise_layers(model)
    assert (layer.std, layer.distribution) == (0.2, "normal")
    set_noise(model, False)
    np.testing.assert_array_equal(model(images), base(images))
    set_noise(model, True)
    reseed(model, tf.constant([1, 2]))
    state = np.array(seed_states(model)[0])
    eta = np.asarray(layer(images)) - images
    seed_states(model)[0].assign(state)
    np.testing.assert_allclose(model(images), base(images + eta), atol=1e-5)
    assert eta.std() == pytest.approx(0.2, rel=0.15)


# One training step by hand.


@dataclasses.dataclass(frozen=True)
class Linear(Tiny):
    """Softmax regression."""

    def features(self, x, factory):
        del factory
        return keras.layers.Flatten()(x)


def regression(defense):
    """Softmax regression of a defense's dense layer on images that are not normalized."""
    model = Linear().build((3, 3, 1), 4, defense.factory(0))
    layer = model.get_layer("logits")
    layer.kernel.assign(RNG.normal(size=(9, 4)))
    layer.bias.assign(RNG.normal(size=4))
    return model, layer


def draws_of_next_pass(model, layer, names):
    """What `drawn` gives in the next forward pass; the state of the seeds is put back."""
    (state,) = seed_states(model)
    before = np.array(state)
    drawn = [np.asarray(layer.drawn(name), np.float64) for name in names]
    state.assign(before)
    return drawn


def test_a_step_of_pni_by_hand():
    images, labels = images_and_labels(12, (3, 3, 1), 4)
    options = DEFENSES.parse("pni(adversarial_weight=0, clean_weight=1, granularity=channel)")
    model, layer = regression(options)
    alpha = np.array([[0.3, -0.2, 0.5, 0.1]])
    layer.alpha.assign(alpha)
    trainer = compiled(options.trainer(model, 0, 100), rate=0.1, decay=0.01)
    w, b = (np.asarray(v, np.float64) for v in (layer.kernel, layer.bias))
    (noisy,) = draws_of_next_pass(model, layer, ["kernel"])
    eta = (noisy - w) / (alpha * w.std())
    assert 0.6 < eta.std() < 1.4
    logs = step(trainer, images, labels)
    of_w, of_b, _ = softmax_gradient(noisy, b, images, labels)
    # The noise is alpha * std(w) * eta: alpha's gradient sums over its channel; std is a constant; decay spares alpha.
    np.testing.assert_allclose(layer.alpha, alpha - 0.1 * (of_w * w.std() * eta).sum(0, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(layer.kernel, w - 0.1 * (of_w + 0.01 * w), atol=1e-6)
    np.testing.assert_allclose(layer.bias, b - 0.1 * (of_b + 0.01 * b), atol=1e-6)
    p = softmax(images.reshape(12, 9) @ noisy + b, axis=1)
    assert logs["loss"] == pytest.approx(-np.log(p[np.arange(12), labels]).mean(), rel=1e-4)


def test_a_step_of_a_bayesian_layer_by_hand():
    images, labels = images_and_labels(12, (3, 3, 1), 4)
    options = DEFENSES.parse("adv_bnn(epsilon=0, steps=1, prior_std=0.4, initial_std=0.2, kl_weight=3.0, kl_epochs=4)")
    model, layer = regression(options)
    trainer = compiled(options.trainer(model, 0, 60), rate=0.1)
    # The first of four epochs over which the KL comes in.
    assert trainer.begin_epoch(0)["kl_weight"] == pytest.approx(0.75)
    scale = 0.25 * 3.0 / 60
    names = ("kernel", "bias")
    means = [np.asarray(getattr(layer, name), np.float64) for name in names]
    state = seed_states(model)[0]
    before = np.array(state)
    # One pass of the attack comes first.
    for name in names:
        layer.drawn(name)
    drawn = draws_of_next_pass(model, layer, names)
    state.assign(before)
    logs = step(trainer, images, labels)
    gradients = softmax_gradient(*drawn, images, labels)[:2]
    kl = 0.0
    for name, mean, value, gradient in zip(names, means, drawn, gradients, strict=True):
        eta = (value - mean) / 0.2
        of_mean = gradient + scale * mean / 0.4**2
        of_log_std = gradient * eta * 0.2 + scale * (0.2**2 / 0.4**2 - 1)
        np.testing.assert_allclose(getattr(layer, name), mean - 0.1 * of_mean, atol=2e-6)
        np.testing.assert_allclose(getattr(layer, f"{name}_log_std"), np.log(0.2) - 0.1 * of_log_std, atol=2e-6)
        kl += np.sum(np.log(0.4 / 0.2) + (0.2**2 + mean**2) / (2 * 0.4**2) - 0.5)
    assert logs["kl"] == pytest.approx(kl, rel=1e-5)
    weights = [trainer.begin_epoch(epoch)["kl_weight"] for epoch in (1, 3, 10)]
    np.testing.assert_allclose(weights, [1.5, 3.0, 3.0])


def test_the_kl_sums_all_layers():
    options = DEFENSES.parse("adv_bnn")
    model = tiny(options)
    trainer = options.trainer(model, 0, 100)
    assert float(trainer.kl()) == pytest.approx(sum(float(layer.kl()) for layer in noise_layers(model)), rel=1e-6)
    assert len(noise_layers(model)) == 4


# Answers that average draws.


@pytest.mark.parametrize("sharing", ["example", "batch"])
def test_an_answer_is_the_argmax_of_the_mean_softmax(sharing):
    model = tiny(DEFENSES.parse(f"rse(first_std=2.0, inner_std=2.0, noise_sharing={sharing})"))
    images, labels = images_and_labels(6)
    single, _ = predict_with_votes(model, images, 1, draws=1)
    many, votes = predict_with_votes(model, images, 1, draws=400)
    averaged, answers = predict_with_votes(model, images, 2, samples_per_prediction=400)
    assert np.abs(single - many).max() > 0.05
    np.testing.assert_allclose(averaged, many, atol=0.06)
    np.testing.assert_array_equal(answers, np.eye(4)[averaged.argmax(1)])
    assert np.any((votes > 0.05) & (votes < 0.95))
    # Several answers, each of several draws: they agree more than single draws do.
    _, steadier = predict_with_votes(model, images, 3, draws=40, samples_per_prediction=30)
    assert steadier.max(1).mean() > votes.max(1).mean()
    # Few images share a pass where the noise is each one's own; the odd number is taken whole.
    _, odd = predict_with_votes(model, images[:2], 4, draws=7, batch_size=64)
    np.testing.assert_allclose(odd.sum(1), 1.0, rtol=1e-6)
    assert set(np.round(odd.ravel() * 7, 4)) <= set(range(8))
    found = ATTACKS.parse("fgsm(epsilon=0)")(model, images, labels, 5, prediction_draws=400)
    np.testing.assert_array_equal(found.wrong, (many.argmax(1) != labels).astype(np.float32))


def test_attacks_judge_what_they_find_by_answers():
    # Each draw answers 1 or 2; their mean softmax answers 0.
    inputs = keras.Input((1, 1, 1))
    z = PerturbationInjection(initial=1.0, minimum=0.0, seed=1)(keras.layers.Rescaling(1.0, -0.5)(inputs))
    sign = keras.layers.Activation("tanh")(keras.layers.Rescaling(1e4)(keras.layers.Flatten()(z)))
    dense = keras.layers.Dense(3)
    model = keras.Model(inputs, dense(sign))
    dense.kernel.assign([[0.0, 5.0, -5.0]])
    dense.bias.assign([4.9, 0.0, 0.0])
    images, labels = np.full((20, 1, 1, 1), 0.5, np.float32), np.zeros(20, int)
    attack = ATTACKS.parse("pgd(epsilon=0, steps=2, restarts=3)")
    single = attack(model, images, labels)
    assert single.wrong.min() == 1
    assert single.gradients.max() == 2  # Fallen after the first start.
    answers = attack(model, images, labels, prediction_draws=200)
    assert answers.wrong.max() == 0
    assert answers.gradients.min() == 6
    minimal = ATTACKS.parse("cw(steps=5, binary_search_steps=2)")(model, images, labels, prediction_draws=200)
    assert minimal.wrong.max() == 0


def test_factories_give_each_layer_its_seed():
    factory = LayerFactory(3)
    seeds = [factory.next_seed() for _ in range(5)]
    assert len(set(seeds)) == 5
    assert LayerFactory(3).next_seed() == seeds[0]
    assert LayerFactory(4).next_seed() not in seeds
