"""The lab's training methods, each against steps derived by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax
from scipy.stats import binom

from l2p_tf.attacks.criterion import divergence
from l2p_tf.attacks.projection import norms
from l2p_tf.defenses import DEFENSES
from l2p_tf.training.base import RobustTrainer
from l2p_tf.training.losses import Batch
from support.models import images_and_labels, linear, smooth, tiny
from support.training import (
    CLASSES,
    FLAT,
    SHAPE,
    WEIGHTS,
    assert_same,
    compiled,
    softmax_gradient,
    step,
    trainer_of,
    values,
)  # fmt: skip


def gradients(images, labels):
    """Of the regression's mean cross-entropy: in the kernel, and in the images."""
    return softmax_gradient(FLAT, 0.0, images, labels)[::2]


def attacked(images, labels, linf, l2):
    """One step along the gradient in each norm."""
    slope = gradients(images, labels)[1]
    length = np.sqrt(np.sum(slope**2, axis=(1, 2, 3), keepdims=True))
    return [np.clip(images + delta, 0, 1) for delta in (linf * np.sign(slope), l2 * slope / length)]


def check_step(trainer, images, labels, slope):
    """A step at the rate 0.1 down this gradient of the kernel."""
    logs = step(trainer, images, labels)
    np.testing.assert_allclose(trainer.classifier.layers[-1].kernel, FLAT - 0.1 * slope, atol=1e-5)
    return logs


def clipped(images):
    """Away from the ends of the range, so that no pixel is clipped and perturbations keep their norm."""
    return (0.3 + 0.4 * images).astype(np.float32)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_step_of_fgsm_training_by_hand(norm):
    images, labels = images_and_labels(12, SHAPE, CLASSES)
    trainer = trainer_of(f"fgsm(epsilon=0.1, norm={norm})")
    if norm == "l1":
        # Of so few numbers one moves, that of the largest gradient whose pixel has room.
        slope = gradients(images, labels)[1]
        slope[np.where(slope > 0, images == 1, images == 0)] = 0
        largest = np.abs(slope) == np.abs(slope).max(axis=(1, 2, 3), keepdims=True)
        adversarial = np.clip(images + 0.1 * np.sign(slope) * largest, 0, 1)
    else:
        adversarial = attacked(images, labels, 0.1, 0.1)[norm == "l2"]
    check_step(trainer, images, labels, gradients(adversarial, labels)[0])


def test_fgsm_training_has_a_step_and_a_start_of_its_own():
    attack = DEFENSES.parse("fgsm(epsilon=0.2, step_size=0.25, random_start=True)").attack
    assert (attack.steps, attack.step_size, attack.epsilon, attack.random_start) == (1, 0.25, 0.2, True)
    assert DEFENSES.parse("fgsm(epsilon=0.2)").attack.step_size == 0.2
    # A step that follows epsilon, for sweeps.
    assert DEFENSES.parse("pgd(epsilon=0.2, step_size=None, steps=5)").attack.numbers()["step_size"] == pytest.approx(
        0.1
    )


def norms_drawn(per, calls, count=20):
    """Whether each example was perturbed in l_2, for so many batches; each lies in the ball of its norm."""
    images, labels = images_and_labels(count, SHAPE, CLASSES)
    images = clipped(images)
    spec = (
        f"mat(per={per}, epsilon=0.05, step_size=0.05, l2_epsilon=0.1, l2_step_size=0.1, steps=2, random_start=False)"
    )
    attack = DEFENSES.parse(spec).attack
    model = linear(WEIGHTS)
    run = tf.function(lambda seed: attack.perturb(model, images, tf.constant(labels, tf.int32), seed), autograph=False)
    found = []
    for call in range(calls):
        delta = norms(np.asarray(run(tf.constant([call, 1]))) - images)
        # With a constant gradient two steps end on the sphere.
        box, ball = np.isclose(delta["linf"], 0.05, rtol=1e-3), np.isclose(delta["l2"], 0.1, rtol=1e-3)
        assert np.all(box ^ ball)
        found.append(ball)
    return np.array(found)


def test_mat_rand_draws_each_norm_half_the_time():
    drawn = norms_drawn("example", 40)
    low, high = binom.interval(0.9999, drawn.size, 0.5)
    assert low <= drawn.sum() <= high
    assert drawn.mean(1).std() > 0
    batches = norms_drawn("batch", 60)
    assert np.all((batches.mean(1) == 0) | (batches.mean(1) == 1))
    low, high = binom.interval(0.9999, len(batches), 0.5)
    assert low <= batches[:, 0].sum() <= high


def test_mat_max_takes_the_larger_loss():
    images, labels = images_and_labels(30, (6, 6, 1), 4)
    model, y = smooth(), tf.constant(labels, tf.int32)
    # Radii of about the same strength, so that neither norm always wins.
    attack = DEFENSES.parse(
        "mat(strategy=max, epsilon=0.05, step_size=0.05, l2_epsilon=0.24, l2_step_size=0.08, steps=3)"
    ).attack
    seed = tf.constant([1, 2])
    each = [np.asarray(one.perturb(model, images, y, seed)) for one in attack.attacks]

    def losses(x):
        return np.asarray(tf.nn.sparse_softmax_cross_entropy_with_logits(y, model(x)))

    first, second = losses(each[0]), losses(each[1])
    worse = np.asarray(attack.perturb(model, images, y, seed))
    np.testing.assert_array_equal(worse, np.where((second > first)[:, None, None, None], each[1], each[0]))
    assert 0 < np.mean(second > first) < 1


def test_a_step_of_mat_both_by_hand():
    images, labels = images_and_labels(12, SHAPE, CLASSES)
    common = "steps=1, random_start=False, epsilon=0.1, step_size=0.1, l2_epsilon=0.2, l2_step_size=0.2"
    trainer = trainer_of(f"mat(strategy=both, clean_weight=0.5, adversarial_weight=2.0, {common})")
    both = attacked(images, labels, 0.1, 0.2)
    check_step(trainer, images, labels, 0.5 * gradients(images, labels)[0] + sum(gradients(x, labels)[0] for x in both))


def test_a_share_of_batches_is_natural():
    images, labels = images_and_labels(6, SHAPE, CLASSES)
    trainer = trainer_of("pgd(clean_probability=0.25, epsilon=0.1, steps=1)", rate=0.0)
    step(trainer, images, labels, times=200)
    natural, attacked = (float(trainer.means[f"{kind}_loss"].count) / len(images) for kind in ("clean", "adversarial"))
    assert natural + attacked == 200
    low, high = binom.interval(0.9999, 200, 0.25)
    assert low <= natural <= high
    # A natural batch is trained on by its clean loss, whatever the weights say.
    trainer = trainer_of("pgd(clean_probability=0.999999, epsilon=0.1, steps=1, adversarial_weight=0.3)")
    check_step(trainer, images, labels, gradients(images, labels)[0])


def kl(p_logits, q_logits):
    p, q = log_softmax(p_logits, axis=1), log_softmax(q_logits, axis=1)
    return np.sum(np.exp(p) * (p - q), axis=1)


def test_the_divergence_is_kullback_leiblers():
    rng = np.random.default_rng(0)
    p, q = rng.normal(size=(2, 7, 5)).astype(np.float32)
    np.testing.assert_allclose(divergence(p, q), kl(p, q), rtol=1e-4)
    np.testing.assert_allclose(divergence(p, p), 0, atol=1e-6)


def test_a_step_of_trades_by_hand():
    images, labels = images_and_labels(8, SHAPE, CLASSES)
    trainer = trainer_of("trades(epsilon=0.1, steps=3, step_size=0.05, adversarial_weight=6.0)")
    state = np.array(trainer.attack_seed.state)
    adversarial = np.asarray(trainer.perturbed(Batch(tf.constant(images), tf.constant(labels, tf.int32))))
    trainer.attack_seed.state.assign(state)
    assert np.abs(adversarial - images).max() == pytest.approx(0.1, rel=1e-3)

    def loss(flat):
        clean, attacked = (x.reshape(8, -1).astype(np.float64) @ flat for x in (images, adversarial))
        entropy = -np.mean(log_softmax(clean, axis=1)[np.arange(8), labels])
        return entropy + 6.0 * np.mean(kl(clean, attacked))

    slope = np.zeros_like(FLAT)
    for at in np.ndindex(FLAT.shape):
        small = np.zeros_like(FLAT)
        small[at] = 1e-5
        slope[at] = (loss(FLAT + small) - loss(FLAT - small)) / 2e-5
    assert check_step(trainer, images, labels, slope)["loss"] == pytest.approx(loss(FLAT), rel=1e-4)


def test_the_attack_of_trades_ascends_the_divergence_and_needs_no_label():
    images, labels = images_and_labels(30, (6, 6, 1), 4)
    model = smooth()
    attack = DEFENSES.parse("trades(epsilon=0.1, steps=5, step_size=0.03)").attack
    found = attack.perturb(model, images, tf.constant(labels, tf.int32), tf.constant([1, 2]))
    others = attack.perturb(model, images, tf.constant((labels + 1) % 4, tf.int32), tf.constant([1, 2]))
    np.testing.assert_array_equal(found, others)
    noise = np.clip(images + np.random.default_rng(0).uniform(-0.1, 0.1, images.shape), 0, 1).astype(np.float32)
    reference = model(images)
    assert np.all(divergence(reference, model(found)) > divergence(reference, model(noise)))
    assert np.abs(found - images).max() <= 0.1 * (1 + 1e-5)


def test_the_average_of_the_weights_is_the_closed_form():
    images, labels = images_and_labels(8)
    model = tiny(DEFENSES.parse("none"))
    trainer = DEFENSES.parse("none").trainer(model, 0, 100)
    trainer.keep_averages(0.9)
    compiled(trainer, momentum=0.9)
    history = [values(model.weights)]
    for _ in range(5):
        step(trainer, images, labels)
        history.append(values(model.weights))
    own = history[-1]
    with trainer.averaged_weights():
        for i, variable in enumerate(model.weights):
            wanted = 0.9**5 * history[0][i]
            wanted = wanted + sum(0.1 * 0.9 ** (5 - n) * history[n][i] for n in range(1, 6))
            np.testing.assert_allclose(variable, wanted, atol=1e-6)
            assert np.any(own[i] != history[0][i]), "the moving averages of batch norm are followed too"
    assert_same(model.weights, own)


def test_without_an_average_the_weights_themselves_are_judged():
    trainer = RobustTrainer(linear(WEIGHTS))
    with trainer.averaged_weights():
        np.testing.assert_allclose(trainer.classifier.layers[-1].kernel, FLAT, rtol=1e-6)
    assert not trainer.averages
    assert isinstance(trainer, keras.Model)
