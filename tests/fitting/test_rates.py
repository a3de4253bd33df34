"""Learning rates that change with every step: the same whether a training was interrupted or not."""

import csv
import types

import numpy as np
import pytest

from l2p_tf.fitting.callbacks import Schedule
from l2p_tf.fitting.options import TrainOptions
from l2p_tf.fitting.state import Progress
from l2p_tf.training.schedules import learning_rate
from l2p_tf.types import UserError
from support.stages import error, stage

STEPS, EPOCHS = 5, 4


def rates_of(first_epoch, first_step, end=EPOCHS):
    """The rates of all steps of a training from there on, and the shares of the highest one."""
    found = []
    progress = Progress(epoch=first_epoch, step=first_step)
    schedule = Schedule(
        progress, lambda at: learning_rate(at, 0.4, (), schedule="one_cycle", epochs=EPOCHS), 0.4, STEPS, None
    )
    model = types.SimpleNamespace(begin_epoch=lambda _: {}, set_rate=lambda rate, share: found.append((rate, share)))
    schedule.set_model(model)
    for epoch in range(first_epoch, end):
        schedule.on_epoch_begin(epoch)
        found.pop()  # Before the first step nothing is trained by it.
        for batch in range(STEPS - (first_step if epoch == first_epoch else 0)):
            schedule.on_train_batch_begin(batch)
        schedule.on_epoch_end(epoch, {"loss": 1.0})
    return found


def test_one_cycle_by_steps_and_after_an_interruption():
    whole = rates_of(0, 0)
    middles = (np.arange(STEPS * EPOCHS) + 0.5) / STEPS
    expected = np.interp(middles, [0, 0.4 * EPOCHS, EPOCHS], [0, 0.4, 0])
    np.testing.assert_allclose([rate for rate, _ in whole], expected)
    np.testing.assert_allclose([share for _, share in whole], expected / 0.4)
    assert rates_of(2, 3) == whole[2 * STEPS + 3 :]


def test_options_that_do_not_go_together():
    how = {"name": "x", "defense": None, "epochs": 5, "drops": (2,), "schedule": "cosine"}
    with pytest.raises(UserError, match="`drops` should be given with schedule=drops alone. Received: 'cosine'"):
        TrainOptions(**how)


def test_a_training_in_one_cycle(tmp_path):
    flags = ("--dataset=digits", "--limit_train=200", "--limit_test=20", f"--run_dir={tmp_path}", "--defense=none")
    flags += ("--model=basic_net(width=0.5)", "--schedule=one_cycle", "--learning_rate=0.1", "--batch_size=20")
    stage("train", *flags, "--epochs=4")
    with (tmp_path / "none" / "train" / "history.csv").open() as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    # Of the last step of each epoch.
    np.testing.assert_allclose(rates, np.interp(np.arange(1, 5) - 0.5 / 9, [0, 1.6, 4], [0, 0.1, 0]), rtol=1e-5)
    assert "was set for so many" in error("train", *flags, "--epochs=5")
