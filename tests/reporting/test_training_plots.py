"""The curves of trainings: the history they are read from, and what is drawn of it."""

import csv
import dataclasses
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from l2p_tf.reporting import plot
from l2p_tf.reporting.history import History, read_history
from l2p_tf.reporting.load import Run
from l2p_tf.reporting.sections.training import of_training, side_by_side
from l2p_tf.types import UserError
from support.pages import texts_in
from support.reports import make_data, make_train, results_of, section_of, write_history

RHO = "\N{GREEK SMALL LETTER RHO}"
MARK = re.compile(r'role="img"><title>(.*?)</title>')


class Trained(Run):
    """A run whose best epoch is known, without artifacts."""

    best = None

    def note(self, name, default=None):
        return self.best if name == "best_epoch" else default


def drawn(history, best=None):
    run = Trained("run", "run", history=history)
    object.__setattr__(run, "best", best)
    return {made.name: made for made in of_training(run, "x")}


def history_of(folder, epochs=12, layers=0, **columns):
    """A history with some columns replaced, or with one more each."""
    write_history(folder / "history.csv", epochs, layers)
    history = read_history(folder / "history.csv")
    return dataclasses.replace(history, columns={**history.columns, **columns})


def noise_of(parameter, values, layers=("block_0", "block_1")):
    """A history of a parameter with these means, and less and more by a fifth as smallest and largest."""
    columns = {"epoch": np.arange(len(values), dtype=float)}
    for i, layer in enumerate(layers):
        mean = np.asarray(values, float) + 0.01 * i
        columns |= {f"{parameter}/{layer}/{name}": mean + d for name, d in (("min", -0.2), ("mean", 0), ("max", 0.2))}
    return History(columns)


def paths_in(made, color=""):
    paths = ET.fromstring(made.svg).iter("{http://www.w3.org/2000/svg}path")
    return [path.get("d") for path in paths if color in path.get("style", "")]


def test_history_reads_empty_fields_and_finds_the_noise(tmp_path):
    history = history_of(tmp_path, layers=2)
    assert history.noise_start == 4
    assert history.layers("theta") == ["noise_0", "noise_1"]
    epochs, values = history.curve("validation_robust_accuracy")
    np.testing.assert_array_equal(epochs, np.arange(0, 12, 2))
    assert np.isfinite(values).all()
    assert history.curve("nothing") is None
    assert history.noise("theta", "noise_1", "max")[0] == pytest.approx(0.25 * 1.7)
    without = history_of(tmp_path, 3)
    assert (without.noise_start, without.layers("theta")) == (None, [])
    assert read_history(tmp_path / "nothing.csv") is None


@pytest.mark.parametrize(
    "content", ["epoch,loss\n0,abc\n", "loss\n1\n", "epoch,loss\n0\n", "epoch,loss\n0,1,2\n", "epoch,loss\n,1\n"]
)
def test_a_broken_history_is_refused(tmp_path, content):
    (tmp_path / "history.csv").write_text(content)
    with pytest.raises(UserError, match=r"history\.csv' should be the CSV of a training"):
        read_history(tmp_path / "history.csv")


def test_a_history_of_one_epoch_with_gaps_is_drawn(tmp_path):
    (tmp_path / "history.csv").write_text("epoch,loss,clean_loss,theta/a/mean,noise_active\n0,nan,inf,0.3,1\n")
    assert list(drawn(read_history(tmp_path / "history.csv"))) == ["x-theta"]


def test_long_histories_are_thinned_and_plots_are_reproducible(tmp_path):
    history = history_of(tmp_path, 2000, 20)
    plots = drawn(history)
    assert list(plots) == ["x-loss", "x-accuracy", "x-theta"]
    assert len(plots["x-theta"].svg) < 120_000
    assert plots == drawn(history)


def test_the_best_epoch_is_marked(tmp_path):
    history = history_of(tmp_path)
    for best, marked in ((3, True), (0, True), (11, True), (None, False), (40, False)):
        assert ("best" in texts_in(drawn(history, best)["x-accuracy"])) is marked


def test_best_and_last_epoch_are_marked_where_the_training_overfits():
    robust = np.array([0.2, 0.5, 0.6, 0.45, 0.4, 0.35])
    history = History({"epoch": np.arange(6.0), "validation_robust_accuracy": robust})
    texts = MARK.findall(drawn(history, 2)["x-accuracy"].svg)
    assert "accuracy 60% at the best epoch, adversarial, validation, epoch 3" in texts
    assert "accuracy 35% at the last epoch, adversarial, validation, epoch 6" in texts
    assert "at the best epoch" not in drawn(history, 5)["x-accuracy"].svg


def test_clean_accuracy_and_size_of_perturbations_over_a_training(tmp_path):
    epochs = np.arange(12.0)
    rho = {"validation_rho": 1 / (1 + epochs), "validation_rho_success": np.minimum(1, 0.9 + epochs / 20)}
    made = drawn(history_of(tmp_path, **rho), 4)["x-rho"]
    expected = {"clean accuracy", "attack's success", f"{RHO} of the successes", f"{RHO}, L2 norm", "best"}
    assert expected <= set(texts_in(made))


def test_alpha_is_drawn_as_theta_is():
    values = np.linspace(0.25, 0.75, 6)
    (theta,), (alpha,) = (drawn(noise_of(name, values)).values() for name in ("theta", "alpha"))
    assert (theta.name, alpha.name) == ("x-theta", "x-alpha")
    assert alpha.title == "Evolution of alpha of run, mean over layers, by epoch"
    assert paths_in(alpha) == paths_in(theta)
    assert "alpha" in texts_in(alpha)
    assert "theta" not in texts_in(alpha)


def test_an_alpha_below_zero_is_seen():
    (made,) = drawn(noise_of("alpha", np.linspace(0.25, -0.5, 6))).values()
    assert any(text and text.startswith("\N{MINUS SIGN}0.") for text in texts_in(made))
    heights = [float(y) for _, y in re.findall(r"[ML] (-?[\d.]+) (-?[\d.]+)", paths_in(made, f"stroke: {plot.INK}")[0])]
    assert (np.diff(heights) > 0).all()  # In an SVG y grows downwards.


def test_of_a_posterior_the_deviation_of_its_kernels_is_drawn():
    history = noise_of("kernel_log_std", np.log(np.linspace(0.08, 0.04, 6)))
    (made,) = drawn(history).values()
    assert made.title == "Evolution of posterior std of kernels of run, mean over layers, by epoch"
    columns = {name.replace("kernel_log_std", "theta"): np.exp(values) for name, values in history.columns.items()}
    (theta,) = drawn(History({**columns, "epoch": history.epochs})).values()
    assert paths_in(made) == paths_in(theta)
    # What overflows is left out.
    (made,) = drawn(noise_of("kernel_log_std", [-3.0, -2.0, 1000.0])).values()
    assert not re.search("inf|nan", "".join(paths_in(made)))


@pytest.mark.parametrize("parameter", ["bias_log_std", "gamma_log_std", "beta_log_std", "../../theta"])
def test_no_other_parameter_is_drawn(parameter):
    assert drawn(noise_of(parameter, [0.1, 0.2])) == {}


def test_labels_of_epochs_stand_on_a_ground_of_their_own(tmp_path):
    inside = plot.inline(drawn(history_of(tmp_path), 3)["x-accuracy"])
    assert "fill: var(--page)" in inside
    assert "fill: #ffffff" not in inside


def test_curves_name_the_attack_of_their_validation(tmp_path):
    data = make_data(tmp_path)
    for name in "ab":
        make_train(tmp_path, data, name, validation_attack="pgd(steps=5)")
    section = section_of(tmp_path, "training")
    titles = [made.title for made in section.plots]
    assert "Accuracy of a by epoch; in validation under pgd(steps=5)" in titles
    assert titles[0] == "Robust accuracy on held-out images under pgd(steps=5) by epoch"
    assert [made.group for made in section.plots] == [
        "Trainings side by side", *["Training of a"] * 2, *["Training of b"] * 2,
    ]  # fmt: skip
    make_train(tmp_path, data, "c", validation_attack="fgsm")
    titles = [made.title for made in side_by_side(results_of(tmp_path).all_runs)]
    assert titles[0].startswith("Robust accuracy on held-out images, each under the attack")


def test_histories_are_frames(tmp_path):
    make_train(tmp_path, make_data(tmp_path))
    with (tmp_path / "train_pgd" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    epochs = results_of(tmp_path).epochs
    assert epochs.loss.tolist() == [float(row["loss"]) for row in rows]
