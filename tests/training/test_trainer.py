import gc

import keras
import numpy as np
import pytest
import tensorflow as tf

from l2p_tf.attacks import ATTACKS
from l2p_tf.defenses import DEFENSES
from l2p_tf.layers.noise import noise_layers, noise_statistics
from l2p_tf.models import MODELS
from l2p_tf.training.base import RobustTrainer
from l2p_tf.training.losses import Batch
from l2p_tf.training.optimizers import MomentumSGD
from l2p_tf.training.schedules import check_drops, harmonic_tau, learning_rate
from l2p_tf.types import UserError
from support import others_slow
from support.models import images_and_labels, linear, tiny
from support.training import (
    FLAT,
    WEIGHTS,
    assert_same,
    changed,
    compiled,
    softmax_gradient,
    step,
    tiny_trainer,
    values,
)  # fmt: skip


def test_sgd_is_pytorchs():
    w = keras.Variable([1.0, -2.0])
    optimizer = MomentumSGD(0.1, momentum=0.9, decay=0.01)
    optimizer.build([w])
    value, velocity = np.array([1.0, -2.0]), np.zeros(2)
    for rate, gradient in ((0.1, [0.5, 1.0]), (0.1, [-0.2, 0.3]), (0.01, [0.1, 0.1])):
        optimizer.learning_rate.assign(rate)
        optimizer.apply([tf.constant(gradient)], [w])
        g = np.array(gradient) + 0.01 * value
        velocity = 0.9 * velocity + g
        value = value - rate * (g + 0.9 * velocity)
        np.testing.assert_allclose(w, value, rtol=1e-5)
    plain = MomentumSGD(0.1, nesterov=False)
    w.assign([1.0, 1.0])
    plain.apply([tf.constant([1.0, 2.0])], [w])
    np.testing.assert_allclose(w, [0.9, 0.8], rtol=1e-6)
    assert MomentumSGD.from_config(optimizer.get_config()).decay == 0.01


def test_schedules():
    rates = [learning_rate(epoch, 0.1, (150, 250)) for epoch in (0, 149, 150, 249, 250, 349)]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    cosine = [learning_rate(at, 0.2, (), schedule="cosine", epochs=8) for at in (0, 2, 4, 6, 8)]
    np.testing.assert_allclose(cosine, [0.2, 0.1 + 0.1 * 0.5**0.5, 0.1, 0.1 - 0.1 * 0.5**0.5, 0], atol=1e-12)
    cycle = [learning_rate(at, 0.3, (), schedule="one_cycle", epochs=5) for at in (0, 1, 2, 3.5, 5)]
    np.testing.assert_allclose(cycle, [0, 0.15, 0.3, 0.15, 0], atol=1e-12)
    np.testing.assert_allclose([harmonic_tau(20 + i, 20) for i in range(4)], [1, 1.5, 11 / 6, 25 / 12])
    for drops in ((3, 2), (0,), (10,), (2, 2)):
        with pytest.raises(UserError, match=r"between 1 and 9. Received"):
            check_drops(drops, 10)


def test_a_mixed_step_by_hand():
    images, labels = images_and_labels(12, (3, 3, 1), 4)
    model = linear(WEIGHTS)
    attack = ATTACKS.parse("fgsm(epsilon=0.1)")
    trainer = compiled(RobustTrainer(model, attack, clean_weight=0.3, adversarial_weight=0.7))
    logs = step(trainer, images, labels)
    _, _, of_images = softmax_gradient(FLAT, 0.0, images, labels)
    adversarial = np.clip(images + 0.1 * np.sign(of_images), 0, 1)
    clean, attacked = (softmax_gradient(FLAT, 0.0, x, labels) for x in (images, adversarial))
    dense = model.layers[-1]
    np.testing.assert_allclose(dense.kernel, FLAT - 0.1 * (0.3 * clean[0] + 0.7 * attacked[0]), atol=1e-5)
    np.testing.assert_allclose(dense.bias, -0.1 * (0.3 * clean[1] + 0.7 * attacked[1]), atol=1e-6)
    assert logs["loss"] == pytest.approx(0.3 * logs["clean_loss"] + 0.7 * logs["adversarial_loss"], rel=1e-5)
    assert logs["adversarial_loss"] > logs["clean_loss"]


def l2p(spec=""):
    """A softmax regression behind one noise layer, its trainer and its parts."""
    rng = np.random.default_rng(5)
    weights = rng.normal(size=(3, 3, 1, 4))
    model = linear(weights, noise=0.5)
    options = DEFENSES.parse(f"learn2perturb(warmup_epochs=2, epsilon=0.0, theta_momentum=0.0, gamma=0.01{spec})")
    return model, compiled(options.trainer(model, 0, 100)), weights.reshape(9, 4)


def noise_of_next_passes(model, images, count):
    """The noise the next passes add, found by making them; the seeds are put back."""
    layer = noise_layers(model)[0]
    state = np.array(layer.seed_generator.state)
    found = [np.asarray(layer(images)) - images for _ in range(count)]
    layer.seed_generator.state.assign(state)
    return found


@pytest.mark.parametrize("update", ["joint", "sequential"])
def test_a_learn2perturb_step_by_hand(update):
    images, labels = images_and_labels(6, (3, 3, 1), 4)
    model, trainer, weights = l2p(f", update={update}, steps=1")
    trainer.begin_epoch(3)  # The second noisy epoch: tau = 1.5.
    # Passes of the step: the attack's one, then clean and adversarial for W, and again for theta.
    noise = noise_of_next_passes(model, images, 5)[1:]
    step(trainer, images, labels)

    def gradients(w, b, pair):
        of_w, of_b, of_theta = 0.0, 0.0, 0.0
        for n in pair:
            g = softmax_gradient(w, b, images + n, labels)
            of_w, of_b = of_w + 0.5 * g[0], of_b + 0.5 * g[1]
            of_theta = of_theta + 0.5 * np.sum(g[2] * (n / 0.5), axis=0).ravel()
        return of_w, of_b, of_theta

    of_w, of_b, of_theta = gradients(weights, np.zeros(4), noise[:2])
    w, b = weights - 0.1 * of_w, -0.1 * of_b
    if update == "sequential":
        of_theta = gradients(w, b, noise[2:])[2]
    regularizer = -0.01 / 1.5 * 0.5 / np.sqrt(0.5)
    np.testing.assert_allclose(model.layers[-1].kernel, w, atol=1e-5)
    np.testing.assert_allclose(model.layers[-1].bias, b, atol=1e-6)
    theta = np.asarray(noise_layers(model)[0].theta).ravel()
    np.testing.assert_allclose(theta, np.maximum(0.5 - 0.1 * (of_theta + regularizer), 0.0), atol=2e-6)


def test_learn2perturb_r_moves_theta_by_the_regularizer_alone():
    images, labels = images_and_labels(6, (3, 3, 1), 4)
    model, trainer, _ = l2p(", regularizer_only=True")
    trainer.begin_epoch(2)
    step(trainer, images, labels)
    theta = np.asarray(noise_layers(model)[0].theta)
    np.testing.assert_allclose(theta, 0.5 + 0.1 * 0.01 * 0.5 / np.sqrt(0.5), rtol=1e-6)


@pytest.mark.parametrize("update", ["joint", "sequential"])
def test_warm_up_has_no_noise_and_leaves_theta(update):
    images, labels = images_and_labels(6, (3, 3, 1), 4)
    model, trainer, _ = l2p(f", update={update}")
    facts = trainer.begin_epoch(1)
    assert facts == {"noise_active": 0.0, "tau": 0.0}
    theta = values(trainer.noise_parameters)
    before = values(trainer.classifier_weights)
    step(trainer, images, labels)
    np.testing.assert_array_equal(theta, values(trainer.noise_parameters))
    assert np.abs(before[0] - values(trainer.classifier_weights)[0]).max() > 0
    np.testing.assert_array_equal(model(images), model(images))
    assert not trainer.is_mature(1)
    assert trainer.is_mature(2)


def test_each_phase_leaves_the_others_variables_to_the_bit():
    images, labels = images_and_labels(8, (8, 8, 1), 4)
    options = DEFENSES.parse("learn2perturb(warmup_epochs=0, steps=2)")
    model = MODELS.parse("resnet_v1(depth=8, width=0.25)").build((8, 8, 1), 4, options.factory(0))
    trainer = compiled(options.trainer(model, 0, 100), momentum=0.9, decay=1e-4)
    theta_ids = {id(v) for v in trainer.noise_parameters}
    # Batch norm's moving averages belong to W.
    w_like = [v for v in model.weights if id(v) not in theta_ids]
    x, y = tf.constant(images), tf.constant(labels, tf.int32)
    before_w, before_theta = values(w_like), values(trainer.noise_parameters)
    trainer._theta_phase(Batch(x, y, adversarial=x))
    assert_same(before_w, w_like)
    assert all(changed(before_theta, trainer.noise_parameters))
    before_theta = values(trainer.noise_parameters)
    RobustTrainer.update_classifier(trainer, Batch(x, y, adversarial=x))
    assert_same(before_theta, trainer.noise_parameters)
    moved = changed(before_w, w_like)
    assert sum(moved) == len(moved) - len(noise_layers(model))  # All but the noise's switches.


def test_inner_iterations_and_theta_minimum():
    images, labels = images_and_labels(6, (3, 3, 1), 4)
    model, trainer, _ = l2p(", weight_iterations=3, theta_iterations=2")
    trainer.begin_epoch(2)
    step(trainer, images, labels)
    assert int(trainer.optimizer.iterations) == 3
    assert int(trainer.theta_optimizer.iterations) == 2
    del model
    options = DEFENSES.parse("learn2perturb(warmup_epochs=0, gamma=0, theta_initial=0.02, steps=1)")
    model = tiny(options)
    trainer = compiled(options.trainer(model, 0, 100), rate=1e3)
    step(trainer, *images_and_labels(8))
    lowest = [statistics for name, statistics in noise_statistics(model).items() if name.endswith("/min")]
    assert min(lowest) == pytest.approx(0.01)


def test_adversarial_training_begins_when_told():
    images, labels = images_and_labels(8, (3, 3, 1), 4)
    attack = ATTACKS.parse("fgsm(epsilon=0.2)")
    for epoch, adversarial in ((0, False), (5, True)):
        how = {"clean_weight": 0.5, "adversarial_weight": 0.5}
        trainer = compiled(RobustTrainer(linear(WEIGHTS), attack, **how, adversarial_epoch=5))
        trainer.begin_epoch(epoch)
        other = compiled(RobustTrainer(linear(WEIGHTS), attack if adversarial else None, **how))
        logs, wanted = (step(one, images, labels) for one in (trainer, other))
        kernel, expected = (one.classifier.layers[-1].kernel for one in (trainer, other))
        np.testing.assert_allclose(kernel, expected, atol=1e-6)
        if adversarial:
            assert logs["adversarial_loss"] == pytest.approx(wanted["adversarial_loss"], rel=1e-5)
        else:
            # Nothing was attacked: that is no loss and no accuracy of 0.
            assert np.isnan([logs["adversarial_loss"], logs["adversarial_accuracy"]]).all()
        assert trainer.is_mature(epoch) is adversarial


def test_the_predicted_label_may_be_attacked():
    images, _ = images_and_labels(16, (3, 3, 1), 4)
    predicted = np.asarray(linear(WEIGHTS)(images)).argmax(-1)
    other = (predicted + 1) % 4
    attack = ATTACKS.parse("fgsm(epsilon=0.1)")

    def attacked(label, labels):
        trainer = RobustTrainer(linear(WEIGHTS), attack, adversarial_weight=1.0, attack_label=label)
        return np.asarray(trainer.perturbed(Batch(tf.constant(images), tf.constant(labels, tf.int32))))

    np.testing.assert_array_equal(attacked("predicted", other), attacked("true", predicted))
    assert np.abs(attacked("true", other) - attacked("true", predicted)).max() > 0


def test_one_batch_changes_only_what_batch_norm_sees():
    images, labels = images_and_labels(8)
    losses = {}
    for one_batch in (False, True):
        keras.utils.set_random_seed(0)
        model = tiny(DEFENSES.parse("none"))
        attack = ATTACKS.parse("fgsm(epsilon=0.0)")
        trainer = RobustTrainer(model, attack, clean_weight=0.5, adversarial_weight=0.5, one_batch=one_batch)
        losses[one_batch] = step(compiled(trainer), images, labels)
    # With clean and adversarial images equal, the joint batch has the same statistics.
    assert losses[True]["loss"] == pytest.approx(losses[False]["loss"], rel=1e-4)


@pytest.mark.parametrize("name", ["learn2perturb", "generator", *others_slow(["none", "trades"])])
def test_a_training_leaves_no_graph_behind(name):
    def graphs():
        gc.collect()
        # By class, since some objects of libraries import modules when they are asked for it.
        return sum(issubclass(type(held), tf.Graph) for held in gc.get_objects())

    def train():
        trainer = tiny_trainer(name)
        images, labels = images_and_labels(8, trainer.classifier.input_shape[1:])
        trainer.fit(images, labels, batch_size=4, epochs=1, verbose=0)

    train()
    before = graphs()
    train()
    train()
    assert graphs() <= before
