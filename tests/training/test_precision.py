"""Training steps in half precision."""

import keras
import numpy as np
import pytest

from l2p_tf.training.loss_scale import GROWTH_STEPS, INITIAL_SCALE
from l2p_tf.types import UserError
from support import others_slow
from support.models import TRAINED, images_and_labels, linear, precision, small, tiny
from support.training import WEIGHTS, assert_same, changed, compiled, step, tiny_trainer, trainer_of, values

HALVES = ("mixed_bfloat16", "mixed_float16")
ADAM = keras.optimizers.Adam


def moves(name, policy, jit_compile=None):
    """By how much a step moves everything trained, in one vector for each network; with None it runs eagerly."""
    trainer = tiny_trainer(name, policy)
    networks = [trainer.classifier, *trainer.auxiliary_models.values()]
    before = [values(network.trainable_variables) for network in networks]
    trainer.run_eagerly = jit_compile is None
    logs = step(trainer, *images_and_labels(8), jit_compile=bool(jit_compile))
    assert all(np.isfinite(value) for value in logs.values())
    assert all(v.dtype == "float32" for network in networks for v in network.trainable_variables)
    return [
        np.concatenate([np.ravel(v - b) for v, b in zip(values(network.trainable_variables), old, strict=True)])
        for network, old in zip(networks, before, strict=True)
    ]


def assert_as_in_float32(name, policy, jit_compile=None):
    # Kinks and signs of tiny gradients tip over: single numbers differ, the step as a whole hardly. Adam, of the
    # generator, takes signs alone.
    for moved, expected, share in zip(
        moves(name, policy, jit_compile), moves(name, "float32"), (0.15, 0.3), strict=False
    ):
        assert np.linalg.norm(expected) > 0
        assert np.linalg.norm(moved - expected) < share * np.linalg.norm(expected)


@pytest.mark.parametrize("policy", others_slow(HALVES, "mixed_float16"))
@pytest.mark.parametrize("name", TRAINED)
def test_every_step_in_half_precision_is_that_in_float32(name, policy):
    assert_as_in_float32(name, policy)


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("policy", HALVES)
@pytest.mark.parametrize("name", TRAINED)
def test_every_step_in_half_precision_compiles(name, policy, jit_compile):
    assert_as_in_float32(name, policy, jit_compile)


def regression(optimizer=None):
    """A trainer of softmax regression in float16."""
    with precision("mixed_float16"):
        trainer = trainer_of("none", linear(WEIGHTS))
    if optimizer is not None:
        trainer.compile(optimizer)
    return trainer


IMAGES, LABELS = images_and_labels(8, (3, 3, 1), 4)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_step_that_overflows_is_undone_and_halves_the_scale(jit_compile):
    trainer = regression(ADAM(0.01))
    step(trainer, IMAGES, LABELS)
    moved = [*trainer.classifier.variables, *trainer.optimizer.variables]
    before = values(moved)
    trainer.loss_scale.scale.assign(2.0**21)
    step(trainer, IMAGES, LABELS, jit_compile=jit_compile)
    assert_same(moved, before)
    assert float(trainer.loss_scale.scale) == 2.0**20
    assert int(trainer.loss_scale.good_steps) == 0
    logs = step(trainer, IMAGES, LABELS, times=8, jit_compile=jit_compile)
    assert all(changed(values(trainer.classifier.trainable_variables), before[:2]))
    assert float(trainer.loss_scale.scale) < 2.0**20
    assert np.isfinite(logs["loss"])


def test_the_scale_doubles_after_good_steps():
    trainer = regression()
    assert float(trainer.loss_scale.scale) == INITIAL_SCALE
    trainer.loss_scale.scale.assign(4.0)
    trainer.loss_scale.good_steps.assign(GROWTH_STEPS - 2)
    scales = []
    for _ in range(3):
        step(trainer, IMAGES, LABELS)
        scales.append((float(trainer.loss_scale.scale), int(trainer.loss_scale.good_steps)))
    assert scales == [(4.0, GROWTH_STEPS - 1), (8.0, 0), (8.0, 1)]


def test_small_gradients_are_not_lost():
    # The label leads by 17: the gradient at the logits is 4e-8 and less.
    images, labels = np.ones((8, 3, 3, 1), np.float32), np.zeros(8, int)
    found = {}
    for scale in (1.0, INITIAL_SCALE, None):
        with precision("float32" if scale is None else "mixed_float16"):
            trainer = trainer_of("none", linear(np.zeros((3, 3, 1, 4)), bias=[17.0, 0, 0, 0]), rate=1.0)
        if scale is not None:
            trainer.loss_scale.scale.assign(scale)
        step(trainer, images, labels)
        found[scale] = np.array(trainer.classifier.get_layer("logits").kernel)
    np.testing.assert_array_equal(found[1.0], 0)
    np.testing.assert_allclose(found[INITIAL_SCALE], found[None], rtol=0.01)
    assert np.all(found[None][:, 1:] < 0)


def test_players_that_share_a_pass_skip_it_together():
    options = small("generator").replace(update="joint")
    with precision("mixed_float16"):
        trainer = compiled(options.trainer(tiny(options), 0, 100))
    moved = [*trainer.classifier.trainable_variables, *trainer.generator.variables]
    moved += [v for optimizer in trainer.optimizers for v in optimizer.variables]
    before = values(moved)
    trainer.loss_scale.scale.assign(2.0**60)
    trainer.run_eagerly = True
    step(trainer, *images_and_labels(8))
    assert_same(moved, before)
    trainer.loss_scale.scale.assign(INITIAL_SCALE)
    step(trainer, *images_and_labels(8))
    assert [int(optimizer.iterations) for optimizer in trainer.optimizers] == [1, 1]
    assert trainer.loss_scale.checked() == INITIAL_SCALE


def test_float16_is_told_where_it_does_not_work():
    trainer = regression()
    trainer.loss_scale.scale.assign(2.0**-16)
    with pytest.raises(UserError, match="not finite in float16, whatever the loss is scaled by: use mixed_bfloat16"):
        trainer.fit(IMAGES, LABELS, verbose=0)
    with precision("float16"):
        model = linear(WEIGHTS)
    with pytest.warns(UserWarning, match="weights are float16, in which small steps are lost"):
        trainer_of("none", model)
    with precision("mixed_bfloat16"):
        assert trainer_of("none", linear(WEIGHTS)).loss_scale is None
