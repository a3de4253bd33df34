"""The perturbation generator: its network, its game with the classifier, and its use as an attack."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from l2p_tf.attacks import ATTACKS
from l2p_tf.attacks.tanh_space import gradient_image, pushed
from l2p_tf.data import DATASETS, ImageData, prepare
from l2p_tf.defenses import DEFENSES
from l2p_tf.models.base import MODELS
from l2p_tf.models.perturbation_generator import build_generator
from l2p_tf.models.saving import load_classifier, load_generator, save_classifier
from l2p_tf.training.losses import Batch
from l2p_tf.training.optimizers import MomentumSGD
from l2p_tf.types import UserError
from support.models import generator_run, images_and_labels, linear, quick, smooth, tiny
from support.training import (
    CLASSES,
    FLAT,
    SHAPE,
    WEIGHTS,
    assert_same,
    changed,
    compiled,
    softmax_gradient,
    step,
    trainer_of,
    values,
)  # fmt: skip


def made(spec, model, rate=0.1):
    return trainer_of(f"generator({spec})", model, rate)


# The network.


def test_the_generator_has_the_layers_of_the_appendix():
    network = build_generator((32, 32, 3), 10)
    parameters = {layer.name: sum(int(np.prod(w.shape)) for w in layer.weights) for layer in network.layers}
    assert {name: count for name, count in parameters.items() if count} == {
        "dense1": 10 * 1024 + 1024,
        "dense2": (1024 + 10) * 8192 + 8192,
        "up1": 9 * (128 + 10) * 128 + 128,
        "up2": 9 * (128 + 10) * 128 + 128,
        "up3": 9 * (128 + 6) * 128 + 128,
        "perturbation": 9 * 128 * 3 + 3,
    }
    shapes = [network.get_layer(name).output.shape[1:] for name in ("maps", "up1", "up2", "up3", "perturbation")]
    assert shapes == [(8, 8, 128), (16, 16, 128), (32, 32, 128), (32, 32, 128), (32, 32, 3)]


@pytest.mark.parametrize(("shape", "classes"), [((8, 8, 1), 10), ((9, 5, 3), 7), ((6, 6, 1), 2)])
def test_the_generator_takes_any_image_size_and_comes_back_from_disk(shape, classes, tmp_path):
    network = build_generator(shape, classes, width=0.1)
    images, labels = images_and_labels(5, shape, classes)
    inputs = [images, images, np.eye(classes, dtype=np.float32)[labels]]
    save_classifier(network, tmp_path / "g.keras")
    again = load_generator(tmp_path / "g.keras")
    assert again(inputs).shape == images.shape
    np.testing.assert_allclose(again(inputs), network(inputs), atol=1e-6)
    other = [images, images, np.eye(classes, dtype=np.float32)[(labels + 1) % classes]]
    assert np.abs(np.asarray(network(other)) - network(inputs)).max() > 0
    with pytest.raises(UserError, match="should be a perturbation generator"):
        save_classifier(linear(WEIGHTS), tmp_path / "c.keras")
        load_generator(tmp_path / "c.keras")
    with pytest.raises(UserError, match="should be a classifier"):
        load_classifier(tmp_path / "g.keras")


# What it sees, and how its perturbation is put on.


def test_pushed_images_stay_in_range_with_finite_gradients_at_black_and_white():
    images = tf.constant([0.0, 1.0, 0.5, 1e-7])[:, None, None, None]
    for size in (0.0, 0.1, -3.0, 30.0, -30.0):
        push = tf.fill(images.shape, size)
        with tf.GradientTape() as tape:
            tape.watch(push)
            adversarial = pushed(images, push)
        slope = np.asarray(tape.gradient(adversarial, push))
        assert np.isfinite(slope).all()
        assert np.all((adversarial >= 0) & (adversarial <= 1))
    np.testing.assert_allclose(pushed(images, tf.zeros_like(images)), images, atol=1e-6)
    # Black can become white: the shrinking leaves a way out.
    assert float(pushed(tf.zeros([1, 1, 1, 1]), tf.fill([1, 1, 1, 1], 12.0))[0, 0, 0, 0]) > 0.99


def test_with_a_margin_black_and_white_move_and_none_gets_stuck():
    images = tf.reshape(tf.linspace(0.0, 1.0, 11), [11, 1, 1, 1])
    for margin in (1e-6, 0.1, 0.5):
        # No push, no change, at the ends too.
        np.testing.assert_allclose(pushed(images, tf.zeros_like(images), margin), images, atol=1e-6)
        for size in (-20.0, -1.0, 1.0, 20.0):
            moved = pushed(images, tf.fill(images.shape, size), margin)
            assert np.all((moved >= 0) & (moved <= 1))
    black = tf.zeros([1, 1, 1, 1])
    assert float(pushed(black, tf.fill([1, 1, 1, 1], 1.0))[0, 0, 0, 0]) < 1e-5
    # tanh(atanh(-0.9) + 1) / 2 + 0.45
    assert float(pushed(black, tf.fill([1, 1, 1, 1], 1.0), 0.1)[0, 0, 0, 0]) == pytest.approx(
        0.45 + np.tanh(np.arctanh(-0.9) + 1) / 2, abs=1e-6
    )
    # A black pixel pushed below black comes back where the loss falls with its brightness, and only there.
    for sign, stuck in ((-1.0, False), (1.0, True)):
        push = tf.fill([1, 1, 1, 1], -0.5)
        with tf.GradientTape() as tape:
            tape.watch(push)
            loss = sign * tf.reduce_sum(pushed(black, push, 0.1))
        assert (float(tape.gradient(loss, push)[0, 0, 0, 0]) == 0.0) is stuck


def test_the_generator_has_a_rate_of_its_own():
    trainer = made("generator_rate=0.002, generator_width=0.1", smooth())
    trainer.set_rate(0.01, 0.1)
    assert float(trainer.optimizer.learning_rate) == pytest.approx(0.01)
    assert float(trainer.generator_optimizer.learning_rate) == pytest.approx(0.0002)


@pytest.mark.parametrize("scale", ["raw", "unit"])
def test_the_gradient_image_is_that_of_the_true_classs_probability(scale):
    images, labels = images_and_labels(6, SHAPE, CLASSES)
    found = np.asarray(gradient_image(linear(WEIGHTS), images, tf.constant(labels, tf.int32), scale))
    p = softmax(images.reshape(6, -1) @ FLAT, axis=1)
    wanted = p[np.arange(6), labels][:, None] * (FLAT.T[labels] - p @ FLAT.T)
    if scale == "unit":
        wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(found.reshape(6, -1), wanted, atol=1e-6)


def test_the_unit_gradient_survives_a_saturated_softmax():
    model = linear(40 * WEIGHTS)
    images, _ = images_and_labels(20, SHAPE, CLASSES)
    labels = np.asarray(model(images)).argmax(-1)
    sizes = np.linalg.norm(
        np.reshape(gradient_image(model, images, tf.constant(labels, tf.int32), "unit"), (20, -1)), axis=1
    )
    confident = softmax(np.asarray(model(images), np.float64), axis=1).max(1) > 1 - 1e-8
    assert confident.any()
    np.testing.assert_allclose(sizes, 1.0, rtol=1e-4)


# The game.


class Scaled(keras.layers.Layer):
    """A generator of one parameter: `a` times the gradient it is shown."""

    def build(self, shape):
        self.a = self.add_weight(name="a", shape=(), initializer=keras.initializers.Constant(0.3))

    def call(self, gradient):
        return self.a * gradient


def scaled_generator(shape, classes):
    inputs = [keras.Input(shape), keras.Input(shape), keras.Input((classes,))]
    return keras.Model(inputs, Scaled(name="scaled")(inputs[0]))


def game(flat, a, images, labels, c_l, penalty):
    """Adversarial images of the one-parameter generator, and its objective's slope in a, by hand."""
    rows, count = np.arange(len(images)), len(images)
    x = images.reshape(count, -1).astype(np.float64)
    p = softmax(x @ flat, axis=1)
    g = p[rows, labels][:, None] * (flat.T[labels] - p @ flat.T)
    g /= np.linalg.norm(g, axis=1, keepdims=True)
    z = np.arctanh((2 * x - 1) * (1 - 1e-6)) + a * g
    adversarial = (np.tanh(z) + 1) / 2
    # d x_adv / d a
    moves = (1 - np.tanh(z) ** 2) / 2 * g
    q = softmax(adversarial @ flat, axis=1)
    of_loss = (q - np.eye(CLASSES)[labels]) @ flat.T
    of_size = 2 * (adversarial - x) * moves if penalty == "pixels" else 2 * a * g * g
    return adversarial, np.mean(np.sum(of_loss * moves - c_l * of_size, axis=1))


@pytest.mark.parametrize("penalty", ["pixels", "raw"])
@pytest.mark.parametrize("update", ["alternating", "joint"])
def test_a_step_of_both_players_by_hand(update, penalty):
    images, labels = images_and_labels(10, SHAPE, CLASSES)
    trainer = made(f"c_l=0.7, update={update}, penalty={penalty}, generator_rate=0.05", linear(WEIGHTS))
    trainer.generator = scaled_generator(SHAPE, CLASSES)
    trainer.generator_optimizer = MomentumSGD(0.05, momentum=0.0, nesterov=False)
    compiled(trainer)
    step(trainer, images, labels)
    adversarial, slope = game(FLAT, 0.3, images, labels, 0.7, penalty)
    a = 0.3 + 0.05 * slope  # The generator ascends.
    assert float(trainer.generator.get_layer("scaled").a) == pytest.approx(a, abs=1e-6)
    if update == "alternating":
        # The classifier trains on what the moved generator makes of the same gradient.
        adversarial = game(FLAT, a, images, labels, 0.7, penalty)[0]
    of_kernel = softmax_gradient(FLAT, 0.0, adversarial, labels)[0]
    np.testing.assert_allclose(trainer.classifier.layers[-1].kernel, FLAT - 0.1 * of_kernel, atol=1e-5)


@pytest.mark.parametrize("penalty", ["pixels", "raw"])
def test_the_generator_finds_the_optimum_of_one_pixel(penalty):
    # One pixel, two classes: the loss is log(1 + exp(w (x + d))), the penalty c_l times the square of the change.
    model = linear(np.array([[[[0.0, 6.0]]]]))
    trainer = made(f"c_l=2.0, penalty={penalty}, generator_rate=0.05", model)
    trainer.generator = scaled_generator((1, 1, 1), 2)
    trainer.generator_optimizer = keras.optimizers.Adam(0.05)
    compiled(trainer)
    images, labels = np.full((1, 1, 1, 1), 0.4, np.float32), tf.constant([0])
    run = tf.function(lambda g: trainer.generator_step(Batch(tf.constant(images), labels), g), autograph=False)
    # Away from the label: the unit gradient of the label's probability points down, so a below 0 raises the loss.
    gradient = trainer.gradient_of(Batch(tf.constant(images), labels))
    assert float(gradient[0, 0, 0, 0]) == pytest.approx(-1.0)
    for _ in range(600):
        run(gradient)
    push = float(trainer.generator.get_layer("scaled").a) * -1.0

    def objective(u):
        x = (np.tanh(np.arctanh(2 * 0.4 - 1) + u) + 1) / 2
        return -(np.log1p(np.exp(6.0 * x)) - 2.0 * ((x - 0.4) ** 2 if penalty == "pixels" else u**2))

    best = minimize_scalar(objective, bounds=(-3, 6), method="bounded", options={"xatol": 1e-10}).x
    moved = [(np.tanh(np.arctanh(-0.2) + u) + 1) / 2 for u in (push, best)]
    assert moved[0] == pytest.approx(moved[1], abs=2e-3)
    assert 0.42 < moved[1] < 1


def test_each_phase_leaves_the_other_player_to_the_bit():
    images, labels = images_and_labels(8, (8, 8, 1), 4)
    model = MODELS.parse("resnet_v1(depth=8, width=0.25)").build((8, 8, 1), 4)
    trainer = made("generator_width=0.1, generator_rate=0.001", model)
    x, y = tf.constant(images), tf.constant(labels, tf.int32)
    gradient = trainer.gradient_of(Batch(x, y))
    before, before_g = values(model.weights), values(trainer.generator.weights)
    trainer.generator_step(Batch(x, y), gradient)
    assert_same(before, model.weights)
    # All but what a ReLU that is off for every image hides.
    assert all(changed(before_g, trainer.generator.weights))
    before_g = values(trainer.generator.weights)
    trainer.update_classifier(Batch(x, y, adversarial=x))
    assert_same(before_g, trainer.generator.weights)
    assert all(changed(before, model.weights))


def test_generator_steps_and_natural_batches():
    images, labels = images_and_labels(8)
    trainer = made("generator_steps=3, generator_width=0.1", tiny(DEFENSES.parse("none")))
    step(trainer, images, labels)
    assert int(trainer.generator_optimizer.iterations) == 3
    assert int(trainer.optimizer.iterations) == 1
    trainer = made("clean_probability=0.999999, generator_width=0.1", tiny(DEFENSES.parse("none")))
    before = values(trainer.generator.weights)
    step(trainer, images, labels)
    assert_same(before, trainer.generator.weights)


def test_no_gradient_flows_through_what_the_generator_is_shown():
    images, labels = images_and_labels(4)
    model = smooth()
    with tf.GradientTape() as tape:
        shown = tf.reduce_sum(gradient_image(model, tf.constant(images), tf.constant(labels, tf.int32), "raw"))
    assert all(g is None for g in tape.gradient(shown, [v.value for v in model.trainable_variables]))


@pytest.mark.slow
def test_a_generator_raises_the_loss_of_a_fixed_classifier_more_than_fgm_of_the_same_norm(tmp_path):
    prepare(DATASETS.parse("digits"), tmp_path / "data")
    data = ImageData.open(tmp_path / "data")

    def split(name):
        _, images, labels = data.sample(name, None, 0)
        return (images / 255).astype(np.float32), labels.astype(np.int32)

    train = tf.data.Dataset.from_tensor_slices(split("train")).shuffle(2000, seed=1).batch(64, drop_remainder=True)
    images, labels = split("test")
    keras.utils.set_random_seed(0)
    model = MODELS.parse("all_conv(width=0.25)").build((8, 8, 1), 10)
    natural = DEFENSES.parse("none").trainer(model, 0, 100)
    natural.compile(optimizer=keras.optimizers.Adam(1e-3))
    natural.fit(train.repeat(15), verbose=0, shuffle=False)
    assert np.mean(np.asarray(model(images)).argmax(-1) == labels) > 0.9
    trainer = made("c_l=1, generator_rate=1e-3", model)
    run = tf.function(
        lambda x, y: trainer.generator_step(Batch(x, y), trainer.gradient_of(Batch(x, y))), autograph=False
    )
    for _ in range(5):
        for x, y in train:
            run(x, y)
    x, y = tf.constant(images), tf.constant(labels)
    gradient = np.asarray(trainer.gradient_of(Batch(x, y)))
    adversarial = np.asarray(trainer.made(Batch(x, y), trainer.gradient_of(Batch(x, y)))[0])
    sizes = np.sqrt(np.sum((adversarial - images) ** 2, (1, 2, 3)))
    # Each image's FGM has the norm of its generator's perturbation after it is clipped, not before.
    low, high = np.zeros(len(x)), np.full(len(x), 50.0)
    for _ in range(50):
        middle = (low + high) / 2
        moved = np.clip(images - middle[:, None, None, None] * gradient, 0, 1)
        short = np.sqrt(np.sum((moved - images) ** 2, (1, 2, 3))) < sizes
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    fgm = np.clip(images - low[:, None, None, None] * gradient, 0, 1).astype(np.float32)

    def losses(at):
        return np.asarray(tf.nn.sparse_softmax_cross_entropy_with_logits(y, model(at)))

    gain = losses(adversarial) - losses(fgm)
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    print(
        f"mean norm {sizes.mean():.2f}: loss {losses(images).mean():.2f} clean, {losses(fgm).mean():.1f} FGM, "
        f"{losses(adversarial).mean():.1f} generator; difference {gain.mean():.1f}, standard error {error:.2f}"
    )
    assert gain.mean() > 3 * error


# The attack.


def test_the_attack_is_the_generators_perturbation():
    images, labels = images_and_labels(9)
    model = smooth()
    found = quick("generator")(model, images, labels, batch_size=4)
    network = load_generator(generator_run((6, 6, 1), 4) / "train" / "best.generator.keras")
    gradient = gradient_image(model, tf.constant(images), tf.constant(labels, tf.int32), "unit")
    inputs = [gradient, tf.constant(images), tf.one_hot(labels, 4)]
    wanted = pushed(images, network(inputs))
    np.testing.assert_allclose(found.adversarial, wanted, atol=1e-5)
    assert found.l2.max() > 0.1
    scaled = quick("generator", epsilon=0.05)(model, 0.3 + 0.4 * images, labels)
    np.testing.assert_allclose(scaled.l2, 0.05, rtol=1e-4)
    assert quick("generator").label == "Generator of made"
    (role,) = quick("generator").inputs()
    assert role.startswith("generator:")


def test_the_folder_given_in_any_way_is_one_generator(monkeypatch):
    folder = generator_run((6, 6, 1), 4)
    monkeypatch.chdir(folder.parent)
    ways = [str(folder), folder.name, f"../{folder.parent.name}/{folder.name}", f"{folder}/train"]
    attacks = [quick("generator").replace(run=way) for way in ways]
    assert {attack.spec for attack in attacks} == {f"generator(run={folder.name})"}
    assert {attack.options()["run"] for attack in attacks} == {folder.name}
    assert len({role for attack in attacks for role in attack.inputs()}) == 1
    assert [attack.folder.resolve() for attack in attacks] == [folder / "train"] * len(ways)


def test_on_a_randomized_model_the_gradient_is_averaged_over_draws():
    images, labels = images_and_labels(4, (3, 3, 1), 4)
    model, y = linear(WEIGHTS, noise=0.5), tf.constant(labels, tf.int32)
    exact = np.asarray(gradient_image(linear(WEIGHTS), images, y, "raw"))

    def distance(draws):
        return np.linalg.norm(gradient_image(model, images, y, "raw", draws) - exact)

    # What is left beyond the noise's own effect on the mean shrinks with the draws.
    assert distance(200) < 0.5 * np.mean([distance(1) for _ in range(10)])
    found = quick("generator", (3, 3, 1), 4, draws=3)(model, images, labels)
    assert set(found.gradients) == {3}


def test_the_attack_says_what_it_needs():
    images, labels = images_and_labels(4)
    with pytest.raises(UserError, match="`run` should name a run trained with --defense=generator"):
        ATTACKS.parse("generator")(smooth(), images, labels)
    with pytest.raises(UserError, match="should be for images and classes"):
        quick("generator", (8, 8, 1), 4)(smooth(), images, labels)
