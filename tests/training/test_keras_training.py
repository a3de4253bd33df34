"""Trainers as Keras models: `fit`, `evaluate` and the like on arrays and data sets, weights, wrong data, networks."""

import itertools
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax

from l2p_tf.defenses import DEFENSES
from l2p_tf.defenses.base import Defense
from l2p_tf.defenses.mat import TwofoldTrainer
from l2p_tf.layers.noise import noise_layers, set_noise
from l2p_tf.registry import spec_of
from l2p_tf.training.inputs import Accepted
from l2p_tf.training.losses import Batch
from l2p_tf.training.optimizers import MomentumSGD
from l2p_tf.types import UserError
from support.models import TRAINED, images_and_labels, linear, small, tiny
from support.training import (
    CLASSES,
    FLAT,
    SHAPE,
    WEIGHTS,
    assert_same,
    changed,
    trainer_of,
    values,
)  # fmt: skip

STEPS = [
    "none", "fgsm", "pgd(steps=2)", "trades(steps=2)", "mat(strategy=both, steps=1)", "generator(generator_width=0.1)",
]  # fmt: skip
"""Of the defenses without layers of their own."""


def plain():
    """A network of Keras's own layers, as someone else might have built it."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Conv2D(4, 3, use_bias=False, kernel_regularizer=keras.regularizers.L2(1e-3)),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.Dropout(0.1),
        keras.layers.Flatten(),
        keras.layers.Dense(4),
    ]
    return keras.Sequential([keras.Input((6, 6, 1)), *layers])


def cross_entropy(model, images, labels):
    logits = np.asarray(model(images, training=False), np.float64)
    return -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]


# Weights.


def weighted_trainers():
    for name in TRAINED:
        yield small(name)
    yield DEFENSES.parse("mat(strategy=both, steps=1, clean_weight=0.5)")
    yield DEFENSES.parse("pgd(one_batch=True, clean_weight=0.5)")


@pytest.mark.parametrize("options", list(weighted_trainers()), ids=spec_of)
def test_weights_enter_every_defenses_loss_as_keras_defines_it(options):
    images, labels = images_and_labels(8)
    weights = np.random.default_rng(1).uniform(0, 3, 8)
    model = tiny(options)
    trainer = options.trainer(model, 0, 100)
    set_noise(model, False)
    adversarial = [images[:, ::-1], images[:, :, ::-1]][: 2 if isinstance(trainer, TwofoldTrainer) else 1]
    parts = [log_softmax(np.asarray(model(x), np.float64), axis=1) for x in (images, *adversarial)]
    losses = [np.mean(weights * -part[np.arange(8), labels]) for part in parts]
    accuracies = [np.average(part.argmax(1) == labels, weights=weights) for part in parts]
    x, y, w = tf.constant(images), tf.constant(labels, tf.int32), tf.constant(weights, tf.float32)

    def judged(attacked):
        trainer.reset_metrics()
        loss = trainer.batch_loss(Batch(x, y, w, attacked), training=False)
        found = {name: float(mean.result()) for name, mean in trainer.means.items()}
        assert found["loss"] == pytest.approx(float(loss))
        assert found["clean_loss"] == pytest.approx(losses[0], rel=1e-4)
        assert found["clean_accuracy"] == pytest.approx(accuracies[0], rel=1e-4)
        return found

    assert judged(None)["loss"] == pytest.approx(losses[0], rel=1e-4)
    if not trainer.attacks:
        return
    found = judged(tf.constant(np.concatenate(adversarial, 0)))
    other = np.mean(losses[1:])
    assert found["adversarial_loss"] == pytest.approx(other, rel=1e-4)
    assert found["adversarial_accuracy"] == pytest.approx(np.mean(accuracies[1:]), rel=1e-4)
    if "trades" in spec_of(options):
        other = np.mean(weights * np.sum(np.exp(parts[0]) * (parts[0] - parts[1]), axis=1))
    wanted = trainer.clean_weight * losses[0] + trainer.adversarial_weight * other
    assert found["loss"] == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("spec", [*STEPS, "generator(generator_width=0.1, update=joint)"])
def test_what_weighs_nothing_moves_nothing(spec):
    images, labels = images_and_labels(6, SHAPE, CLASSES)
    model = linear(WEIGHTS)
    trainer = trainer_of(spec.replace("generator(", "generator(c_l=0, "), model)
    networks = [model, *trainer.auxiliary_models.values()]
    trained = [variable for network in networks for variable in network.trainable_variables]
    before = values(trained)
    trainer.train_on_batch(images, labels, np.zeros(6))
    assert_same(before, trained)
    trainer.train_on_batch(images, labels, np.ones(6))
    moved = changed(before, trained)
    assert moved[0]
    assert moved[-1]


# The methods of a Keras model.


def test_evaluation_and_prediction_by_hand():
    images, labels = images_and_labels(10, SHAPE, CLASSES)
    weights = np.random.default_rng(1).uniform(0, 2, 10).astype(np.float32)
    model = linear(WEIGHTS)
    trainer = trainer_of("none", model)
    losses, logits = cross_entropy(model, images, labels), np.asarray(model(images))
    hits = logits.argmax(1) == labels
    # Batches of 4, 4 and 2.
    found = trainer.evaluate(images, labels, batch_size=4, verbose=0, return_dict=True)
    wanted = {"loss": losses.mean(), "clean_loss": losses.mean(), "clean_accuracy": hits.mean()}
    assert found == pytest.approx(wanted, rel=1e-5)
    found = trainer.evaluate(images, labels, batch_size=4, sample_weight=weights, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(np.mean(weights * losses), rel=1e-5)
    assert found["clean_accuracy"] == pytest.approx(np.average(hits, weights=weights), rel=1e-5)
    data = tf.data.Dataset.from_tensor_slices((images, labels, weights)).batch(4)
    assert trainer.evaluate(data, verbose=0, return_dict=True) == pytest.approx(found, rel=1e-5)
    assert trainer.test_on_batch(images, labels, weights, return_dict=True) == pytest.approx(found, rel=1e-5)
    np.testing.assert_allclose(trainer.predict(images, batch_size=4, verbose=0), logits, rtol=1e-5, atol=1e-6)
    whole = np.round(images * 255).astype(np.uint8)
    np.testing.assert_allclose(trainer.predict(whole, verbose=0), model(whole / np.float32(255)), rtol=1e-5, atol=1e-5)
    assert trainer.predict_on_batch(whole).shape == (10, 4)


@pytest.mark.parametrize("spec", ["fgsm", "pgd(steps=2, clean_weight=0.5)", "trades(steps=2)", "mat(strategy=both)"])
def test_evaluation_attacks_and_trains_nothing(spec):
    images, labels = images_and_labels(6, SHAPE, CLASSES)
    model = linear(WEIGHTS)
    trainer = trainer_of(spec, model)
    before = values(model.weights)
    found = trainer.evaluate(images, labels, batch_size=4, verbose=0, return_dict=True)
    assert found["clean_loss"] == pytest.approx(cross_entropy(model, images, labels).mean(), rel=1e-5)
    if "trades" in spec:
        assert found["loss"] == pytest.approx(found["clean_loss"] + 6 * found["divergence"], rel=1e-5)
        assert found["divergence"] > 0
    else:
        assert found["adversarial_loss"] > found["clean_loss"]
        parts = found["clean_loss"], found["adversarial_loss"]
        wanted = np.dot([trainer.clean_weight, trainer.adversarial_weight], parts)
        assert found["loss"] == pytest.approx(wanted, rel=1e-5)
    assert_same(before, model.weights)


def test_fit_takes_weights_validation_and_any_batches():
    images, labels = images_and_labels(10, SHAPE, CLASSES)
    model = linear(WEIGHTS)
    trainer = trainer_of("none", model, rate=0.0)
    of_class = {0: 0.5, 1: 1.0, 2: 2.0, 3: 0.0}
    losses = cross_entropy(model, images, labels)
    how = {"batch_size": 4, "verbose": 0, "validation_data": (images[:3], labels[:3])}
    found = trainer.fit(images, labels, class_weight=of_class, **how).history
    assert found["loss"] == pytest.approx([np.mean([of_class[y] * v for y, v in zip(labels, losses, strict=True)])])
    assert found["val_loss"] == pytest.approx([losses[:3].mean()])
    found = trainer.fit(images, labels, sample_weight=np.arange(10.0), **how).history
    assert found["clean_loss"] == pytest.approx([np.mean(np.arange(10) * losses)])
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)
    found = trainer.fit(data, validation_data=data, class_weight=of_class, verbose=0, shuffle=False).history
    assert found["val_loss"] == pytest.approx([losses.mean()])
    found = trainer.fit(images, labels, validation_split=0.5, batch_size=3, verbose=0).history
    assert found["loss"] == pytest.approx([losses[:5].mean()])
    assert found["val_loss"] == pytest.approx([losses[5:].mean()])


def test_fit_begins_the_epochs_and_theta_follows_the_rate():
    images, labels = images_and_labels(6)
    options = small("learn2perturb").replace(warmup_epochs=1)
    trainer = options.trainer(tiny(options), 0, 100)
    trainer.compile(MomentumSGD(0.1))
    assert not noise_layers(trainer.classifier)[0].is_on
    seen = []
    follow = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(
            (trainer.theta_on, float(trainer.theta_optimizer.learning_rate))
        )
    )
    rates = keras.callbacks.LearningRateScheduler(lambda epoch: [0.3, 0.2, 0.125][epoch])
    trainer.fit(images, labels, batch_size=4, epochs=3, verbose=0, callbacks=[rates, follow])
    assert [on for on, _ in seen] == [False, False, True, True, True, True]
    np.testing.assert_allclose([rate for _, rate in seen[2:]], [0.2, 0.2, 0.125, 0.125])


def test_losses_and_metrics_are_the_defenses_own():
    trainer = DEFENSES.parse("none").trainer(linear(WEIGHTS), 0, 100)
    for name in ("loss", "metrics", "weighted_metrics"):
        with pytest.raises(UserError, match=f"`{name}` should be None: the defense has its own. Received: 'mse'"):
            trainer.compile("sgd", **{name: "mse"})


# Wrong data.


class Batches(keras.utils.PyDataset):
    def __init__(self, images, labels):
        super().__init__()
        self.images, self.labels = images, labels

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.images[3 * index : 3 * index + 3], self.labels[3 * index : 3 * index + 3]


QUIET = {"verbose": 0, "shuffle": False}
WAYS = {
    "fit": lambda t, x, y: t.fit(x, y, verbose=0),
    "fit on a data set": lambda t, x, y: t.fit(tf.data.Dataset.from_tensor_slices((x, y)).batch(3), **QUIET),
    "fit on a generator": lambda t, x, y: t.fit((b for b in itertools.repeat((x, y))), **QUIET, steps_per_epoch=2),
    "fit on a PyDataset": lambda t, x, y: t.fit(Batches(x, y), verbose=0),
    "validation": lambda t, x, y: t.fit(*images_and_labels(6, SHAPE, CLASSES), validation_data=(x, y), verbose=0),
    "evaluate": lambda t, x, y: t.evaluate(x, y, verbose=0),
    "train_on_batch": lambda t, x, y: t.train_on_batch(x, y),
    "test_on_batch": lambda t, x, y: t.test_on_batch(x, y),
}


def wrong():
    images, labels = images_and_labels(6, SHAPE, CLASSES)
    holed = images.copy()
    holed[1, 1, 1] = np.nan
    yield images * 255, labels, r"divide them by 255, or pass them as uint8. Received: values from 0 to"
    yield images - 0.1, labels, r"in \[0, 1\].* Received: values from -0.1 to 0.9"
    yield holed, labels, r"should be finite .* Received: values from nan to nan"
    yield (images * 255).astype(np.int32), labels, r"should be uint8, or floats in \[0, 1\]. Received: int32"
    yield images[:, :2], labels, r"should be of shape \(count, 3, 3, 1\), at least one. Received: \(\d, 2, 3, 1\)"
    yield images, labels + 2.9, r"`labels` should be integers of shape .* Received: float64 \(\d,\)(, such as \d.9)?$"
    yield images, labels + 4, r"`labels` should be from 0 to 3. Received: labels from \d to [4-7]"
    yield images, labels - 4, r"`labels` should be from 0 to 3. Received: labels from -[1-4]"
    yield images, np.eye(4)[labels], r"`labels` should be integers of shape .* Received: float64 \(\d, 4\)"


@pytest.fixture(scope="module")
def trainer():
    return trainer_of("none")


@pytest.mark.parametrize(("images", "labels", "message"), list(wrong()))
@pytest.mark.parametrize("way", WAYS)
def test_wrong_data_are_refused_in_one_line(trainer, way, images, labels, message):
    before = np.array(trainer.classifier.layers[-1].kernel)
    with pytest.raises(UserError, match=message) as refused:
        WAYS[way](trainer, images, labels)
    assert "\n" not in str(refused.value)
    np.testing.assert_array_equal(before, trainer.classifier.layers[-1].kernel)


@pytest.mark.parametrize("way", WAYS)
def test_right_data_are_not(trainer, way):
    images, labels = images_and_labels(6, SHAPE, CLASSES)
    WAYS[way](trainer, (images * 255).astype(np.uint8), labels)
    WAYS[way](trainer, np.nextafter(images, np.float32(2)), labels.astype(np.uint8))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.full(6, -1.0), "finite and at least 0. Received: -1"),
        (np.full(6, np.nan), "finite and at least 0. Received: nan"),
        (np.ones(5), r"numbers of shape \(6,\). Received: float64 \(5,\)"),
        (np.ones((6, 1)), r"numbers of shape \(6,\). Received: float64 \(6, 1\)"),
    ],
)
def test_wrong_weights_are_refused(trainer, weights, message):
    images, labels = images_and_labels(6, SHAPE, CLASSES)
    for use in (trainer.fit, trainer.evaluate, trainer.train_on_batch):
        with pytest.raises(UserError, match=f"`sample_weight` should be {message}"):
            use(images, labels, sample_weight=weights)


def test_missing_labels_and_images_to_predict(trainer):
    images, _ = images_and_labels(6, SHAPE, CLASSES)
    with pytest.raises(UserError, match="Labels should be given beside the images"):
        trainer.fit(images)
    for predict in (trainer.predict, trainer.predict_on_batch):
        with pytest.raises(UserError, match="from 0 to 255"):
            predict(images * 255)


@given(
    st.integers(0, 8),
    st.floats(width=32).filter(lambda v: not -1e-6 <= v <= 1 + 1e-6),
    st.sampled_from([np.float32, np.float64]),
)
def test_no_pixel_out_of_range_is_overlooked(position, value, dtype):
    images = np.full((2, 3, 3, 1), 0.5, dtype)
    images[1].flat[position] = value
    with pytest.raises(UserError, match=r"in \[0, 1\]"):
        Accepted(SHAPE, CLASSES).check(images, [0, 1])


# Networks that were not built for a defense.


@pytest.mark.parametrize("spec", STEPS)
def test_networks_of_keras_are_trained_by_defenses_without_layers_of_their_own(spec):
    images, labels = images_and_labels(10)
    model = plain()
    trainer = trainer_of(spec, model, rate=0.01)
    before = values(model.trainable_variables)
    history = trainer.fit(images, labels, batch_size=4, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert all(changed(before, model.trainable_variables))


def test_a_softmax_is_taken_off_and_what_cannot_be_trained_is_told():
    images, labels = images_and_labels(6, SHAPE, CLASSES)
    logits = linear(WEIGHTS)
    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, keras.layers.Softmax()(logits(inputs)))
    with pytest.warns(UserWarning, match="ends in a softmax, which was taken off"):
        trainer = trainer_of("pgd(steps=2, clean_weight=0.5)", model)
    before = np.array(logits.layers[-1].kernel)
    found = trainer.evaluate(images, labels, verbose=0, return_dict=True)
    assert found["clean_loss"] == pytest.approx(cross_entropy(logits, images, labels).mean(), rel=1e-5)
    trainer.fit(images, labels, verbose=0)
    assert np.any(before != np.array(logits.layers[-1].kernel))

    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = logits

        def call(self, images):
            return self.inner(images)

    model = Subclassed()
    model(images)
    with pytest.raises(UserError, match=r"'subclassed.*' should be a functional or Sequential model"):
        trainer_of("none", model)
    trainer_of("none", keras.Model(inputs, model(inputs))).fit(images, labels, verbose=0)


@pytest.mark.parametrize("name", TRAINED)
def test_layers_that_a_defense_needs_are_asked_for(name):
    for spec in [name, *(f"pni(noise={kind})" for kind in ("activations", "both", "input") if name == "pni")]:
        options = DEFENSES.parse(spec)
        if type(options).factory is Defense.factory:
            assert not options.own_layers
            continue
        factory = rf"Build one that has: MODELS.*DEFENSES.parse\(.{re.escape(spec_of(options))}.\).factory\(seed\)"
        with pytest.raises(UserError, match=rf"'sequential.*' has no layer of \w+.*{factory}"):
            options.trainer(plain(), 0, 100)
        assert options.trainer(tiny(options), 0, 100).classifier


def test_regularizers_of_the_network_are_kept():
    images, labels = images_and_labels(6, SHAPE, CLASSES)
    kernels = []
    for regularizer in (None, keras.regularizers.L2(0.5)):
        model = linear(WEIGHTS)
        model.layers[-1].kernel.regularizer = regularizer
        trainer_of("none", model).train_on_batch(images, labels)
        kernels.append(np.array(model.layers[-1].kernel))
    np.testing.assert_allclose(kernels[1], kernels[0] - 0.1 * FLAT, atol=1e-5)


def test_weights_of_a_trainer_are_saved_and_a_whole_one_is_refused(tmp_path):
    images, labels = images_and_labels(8)
    trainer, other = (trainer_of("pgd(steps=1)", plain()) for _ in range(2))
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "a.weights.h5", save_weights_only=True)
    trainer.fit(images, labels, verbose=0, callbacks=[checkpoint])
    other.load_weights(tmp_path / "a.weights.h5")
    assert_same(trainer.classifier.weights, other.classifier.weights)
    with pytest.raises(UserError, match=r"not saved whole. Save its classifier, trainer.classifier.save\(path\)"):
        trainer.save(tmp_path / "a.keras")


def test_a_data_set_need_not_tell_its_shapes():
    images, labels = images_and_labels(7)
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)
    untold = tf.data.Dataset.from_generator(lambda: iter(batches), output_types=(tf.float32, tf.int64))
    # Of unknown length Keras warns where it ends.
    untold = untold.apply(tf.data.experimental.assert_cardinality(2))
    found, expected = (
        trainer_of("pgd(steps=2)", plain()).evaluate(data, verbose=0, return_dict=True) for data in (untold, batches)
    )
    assert found == pytest.approx(expected, rel=1e-5)
    wrong = tf.data.Dataset.from_generator(lambda: iter([(images[:, 1:], labels)]), output_types=(tf.float32, tf.int64))
    with pytest.raises(UserError, match=r"should be of shape \(count, 6, 6, 1\)"):
        trainer_of("pgd(steps=2)", plain()).evaluate(wrong, verbose=0)


def test_optimizers_scale_no_loss():
    for optimizer in (
        keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()),
        keras.optimizers.SGD(loss_scale_factor=2.0),
    ):
        with pytest.raises(UserError, match="should not scale the loss"):
            DEFENSES.parse("fgsm").trainer(plain(), 0, 8).compile(optimizer)


def test_steps_that_draw_whether_they_attack_are_taken_one_by_one():
    trainer = DEFENSES.parse("pgd(clean_probability=0.5)").trainer(linear(WEIGHTS), 0, 10)
    with pytest.raises(UserError, match="`steps_per_execution` should be 1"):
        trainer.compile(MomentumSGD(0.1), steps_per_execution=2)
