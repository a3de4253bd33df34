"""Training steps and attacks as programs of XLA, which others than TensorFlow can run, too."""

import numpy as np
import pytest
import tensorflow as tf

from l2p_tf.attacks import ATTACKS
from support import others_slow
from support.models import TRAINED, images_and_labels, smooth
from support.training import step, tiny_trainer, values

IMAGES, LABELS = (
    tf.constant(array, dtype) for array, dtype in zip(images_and_labels(8), ("float32", "int32"), strict=True)
)


def exported(function, *inputs):
    """The function as a portable StableHLO program: bytecode of MLIR."""
    return function.experimental_get_compiler_ir(*inputs)(stage="stablehlo_serialized")


@pytest.mark.parametrize("name", others_slow(TRAINED, "learn2perturb", "trades", "generator"))
def test_every_step_compiles_agrees_and_is_exported(name):
    alone, trainer = tiny_trainer(name), tiny_trainer(name)
    alone.run_eagerly = True
    step(alone, IMAGES, LABELS)
    take = tf.function(lambda *batch: trainer.train_step(batch), jit_compile=True, autograph=False)
    take(IMAGES, LABELS)
    trained, expected = (values(t.classifier.trainable_variables) for t in (trainer, alone))
    for a, b in zip(trained, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)
    assert exported(take, IMAGES, LABELS).startswith(b"ML\xefR")


def test_an_attack_is_exported():
    model, attack = smooth(), ATTACKS.parse("pgd(epsilon=0.1, steps=3)")
    perturb = tf.function(lambda *inputs: attack.perturb(model, *inputs), jit_compile=True, autograph=False)
    inputs = IMAGES, LABELS, tf.constant([1, 2], tf.int64)
    found = perturb(*inputs)
    np.testing.assert_allclose(found, attack.perturb(model, *inputs), atol=1e-5)
    assert exported(perturb, *inputs).startswith(b"ML\xefR")
