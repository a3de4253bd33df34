"""Which attack the summary speaks of, and what plots of trainings say of theirs."""

import dataclasses

import numpy as np
import pytest
from l2p_tf.reporting.comparison import compare
from l2p_tf.reporting.runs import find, from_records, gather

from l2p_tf.reporting import plots, svg, trainings, words
from support.reports import make_data, make_records, make_train

RADII = (4 / 255, 8 / 255, 16 / 255)
CLEAN = ("clean", "clean", None, None, 0, 1)
LADDER = (CLEAN, *((f"{name}(epsilon={r})", name, "linf", r, 20, 1) for r in RADII for name in ("FGSM", "PGD-20")))
CORRECT = (350, 300, 290, 200, 190, 100, 90)


def labels(trained=None, attacks=LADDER, correct=CORRECT):
    records = make_records("a", correct, attacks) + make_records("b", correct, attacks)
    table = compare(from_records(records))
    if trained is not None:
        rows = tuple(dataclasses.replace(row, run=Trained(row.run, trained)) for row in table.rows)
        table = dataclasses.replace(table, rows=rows)
    return [figure.label for figure in words.figures(table)]


class Trained:
    """A run whose training had these options."""

    def __init__(self, run, options):
        self._run, self._options = run, options

    def option(self, name, default=""):
        return self._options if name == "defense_options" else default

    def __getattr__(self, name):
        return getattr(self._run, name)


def test_of_a_ladder_the_middle_radius_is_the_headline():
    assert labels()[1] == "Highest under PGD-20, ε 8/255"


@pytest.mark.parametrize(("radius", "shown"), [(0.015686, "4/255"), (16 / 255, "16/255"), (0.1, "8/255")])
def test_the_radius_of_the_training_is_the_headline(radius, shown):
    assert labels({"epsilon": radius, "norm": "linf"})[1] == f"Highest under PGD-20, ε {shown}"


def test_the_radius_of_another_norm_says_nothing():
    assert labels({"epsilon": 16 / 255, "norm": "l2"})[1] == "Highest under PGD-20, ε 8/255"
    assert labels({"epsilon": "8/255", "norm": "linf"})[1] == "Highest under PGD-20, ε 8/255"


def test_each_norm_has_a_radius_of_its_own():
    attacks = (*LADDER[:5], ("pgd(norm=l2)", "PGD-20 L2", "l2", 2.0, 20, 1))
    assert labels(attacks=attacks, correct=(*CORRECT[:5], 150))[1] == "Highest under PGD-20 L2"


def test_curves_name_the_attack_of_their_validation(tmp_path):
    data = make_data(tmp_path)
    for name in "ab":
        make_train(tmp_path, data, name, validation_attack="pgd(steps=5)")
    runs = gather(find([tmp_path]))
    alone = [plot.title for plot in plots.of_training(runs[0].history, "x", "a", 3, "pgd(steps=5)")]
    assert "Accuracy of a by epoch; in validation under pgd(steps=5)" in alone
    assert "Robust accuracy on held-out images under pgd(steps=5) by epoch" in [p.title for p in trainings.plots(runs)]
    make_train(tmp_path, data, "c", validation_attack="fgsm")
    titles = [plot.title for plot in trainings.plots(gather(find([tmp_path])))]
    assert any(title.startswith("Robust accuracy on held-out images, each under the attack") for title in titles)
    assert not any("under fgsm" in title for title in titles)


def test_labels_of_epochs_stand_on_a_ground_of_their_own(tmp_path):
    make_train(tmp_path, make_data(tmp_path), "a")
    (run,) = gather(find([tmp_path]))
    plot = next(p for p in plots.of_training(run.history, "x", "a", 3) if p.name == "x-accuracy")
    shown = svg.inline(plot.svg, plot.name, plot.title)
    assert shown.count("fill: var(--page)") >= 1
    assert np.all([color not in shown for color in ("fill: #ffffff", "stroke: #ffffff")])
