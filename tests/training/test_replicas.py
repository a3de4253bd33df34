import json

import numpy as np
import pytest
import tensorflow as tf

from l2p_tf.attacks import randomness
from l2p_tf.defenses import DEFENSES
from l2p_tf.layers.batch_norm import synchronize
from l2p_tf.training.optimizers import MomentumSGD
from l2p_tf.types import UserError
from support.models import linear
from support.stages import python
from support.training import WEIGHTS

PGD = "epsilon=0.1, step_size=0.05, steps=2"
# No signs, which the last bit of a gradient turns.
SMOOTH = "norm=l2, epsilon=0.5, step_size=0.2, steps=2"
# Without batch norm and noise: the defense, the network, weights of samples, an average of the weights.
SAME = [
    (f"pgd({PGD}, clean_weight=0.5, clean_probability=0.3)", "", True, True),
    (f"trades({SMOOTH}, start_std=0.02)", "", False, False),
    (f"mat(strategy=rand, per=batch, {PGD})", "", False, False),
    (f"mat(strategy=both, {PGD})", "", True, False),
    ("generator(clean_weight=0.5, adversarial_weight=0.5, generator_width=0.1, adversarial_epoch=2)", "", False, False),
    ("generator(update=joint, clean_weight=0.5, generator_width=0.1)", "", True, False),
]
TOGETHER = [(f"pgd({PGD}, clean_weight=0.5, one_batch=True)", "resnet_v1(depth=8)"), ("none", "resnet_v1(depth=8)")]
HALF = (f"pgd({PGD}, clean_weight=0.5)", "", False, False, "mixed_float16")


@pytest.fixture(scope="module")
def results():
    """What a process of two replicas finds: how far each training is from that on one device, and more."""
    wanted = [*SAME, *TOGETHER, HALF, ["noise"], ["overflow"]]
    done = python("from support import replicated; replicated.main()", json.dumps(wanted))
    return {spec[0]: found for spec, found in zip(wanted, json.loads(done.stdout), strict=True)}


@pytest.mark.slow
def test_two_replicas_train_what_one_device_does(results):
    for spec, *_ in SAME:
        assert results[spec]["weights"] < 2e-5, spec
        assert results[spec]["answers"] < 2e-5, spec
        assert results[spec]["logs"] < 2e-4, spec


@pytest.mark.slow
def test_with_batch_norm_too_where_it_is_synchronized(results):
    for spec, _ in TOGETHER:
        assert results[spec]["weights"] < 1e-3, spec
        assert results[spec]["answers"] < 2e-3, spec


@pytest.mark.slow
def test_noise_differs_on_every_replica(results):
    noise = results["noise"]
    # 65,536 numbers each, as often as a replica took a step.
    np.testing.assert_allclose(noise["std"], 0.4, rtol=0.02)
    np.testing.assert_allclose(noise["mean"], 0.0, atol=0.02)
    assert np.abs(noise["correlation"]).max() < 0.03
    assert len(noise["correlation"]) == 6


@pytest.mark.slow
def test_replicas_share_a_loss_scale_in_float16(results):
    assert results[HALF[0]]["weights"] < 3e-3
    assert results[HALF[0]]["logs"] < 3e-3
    overflow = results["overflow"]
    assert overflow["scale"] == [2.0**59, 2.0**59, 2.0**10, 2.0**10]
    assert overflow["iterations"] == [0, 0, 1, 1]
    assert overflow["kernel"][:2] == [0, 0]
    assert overflow["kernel"][2] == overflow["kernel"][3] > 0


def test_replicas_draw_the_rows_of_one_device():
    whole = randomness.uniform([7, 3], [1, 2])
    parts = []
    for first, rows in ((0, 3), (3, 4)):
        with randomness.rows_of_replica(randomness.Rows(tf.constant(first), rows, 7)):
            parts.append(randomness.uniform([rows, 3], [1, 2]))
    np.testing.assert_array_equal(tf.concat(parts, 0), whole)


def test_a_trainer_shares_the_strategy_of_its_classifier():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    outside = linear(WEIGHTS)
    with strategy.scope():
        classifier = linear(WEIGHTS)
        with pytest.raises(UserError, match="same distribution strategy"):
            DEFENSES.parse("none").trainer(outside, 0, 10)
        trainer = DEFENSES.parse("none").trainer(classifier, 0, 10)
        with pytest.raises(UserError, match="`jit_compile` should be False or auto"):
            trainer.compile(MomentumSGD(0.1), jit_compile=True)
    with pytest.raises(UserError, match="same distribution strategy"):
        DEFENSES.parse("none").trainer(classifier, 0, 10)


def test_a_single_replica_of_a_strategy_trains():
    images, labels = np.random.default_rng(0).uniform(size=(6, 3, 3, 1)), np.arange(6) % 4
    found = []
    for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0"])):
        with strategy.scope():
            trainer = DEFENSES.parse("pgd(steps=2)").trainer(linear(WEIGHTS), 0, 10)
            synchronize(trainer.classifier)
            trainer.compile(MomentumSGD(0.1), steps_per_execution=2)
        trainer.fit(images, labels, batch_size=2, epochs=2, verbose=0, shuffle=False)
        found.append(trainer.classifier.get_weights())
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
