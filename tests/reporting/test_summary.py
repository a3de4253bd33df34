"""The summary in words, and how numbers and names are written in it."""

import dataclasses

import pytest

from l2p_tf.reporting.format import epsilon, plain
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.summary import key_figures, paragraphs
from support.reports import ATTACKS, CLEAN_ATTACK, DEEPFOOL, PGD, make_records, make_runs, results_of

RADII = (4 / 255, 8 / 255, 16 / 255)
LADDER = (CLEAN_ATTACK, *((f"{n}(epsilon={r})", n, "linf", r, 20, 1) for r in RADII for n in ("FGSM", "PGD-20")))
CORRECT = (350, 300, 290, 200, 190, 100, 90)


class Trained:
    """A run whose training had these options."""

    def __init__(self, run, options):
        self._run, self._options = run, options

    def option(self, name, default=""):
        return self._options if name == "defense_options" else default

    def __getattr__(self, name):
        return getattr(self._run, name)


def headline(trained=None, attacks=LADDER, correct=CORRECT):
    results = results_of(make_records("a", correct, attacks) + make_records("b", correct, attacks))
    if trained is not None:
        results = Results([Trained(run, trained) for run in results.all_runs])
    return key_figures(results)[1].label


def test_of_several_radii_the_middle_one_is_the_headline():
    assert headline() == "Highest under PGD-20, ε 8/255"


@pytest.mark.parametrize(
    ("radius", "norm", "shown"),
    [
        (0.015686, "linf", "4/255"), (16 / 255, "linf", "16/255"), (0.1, "linf", "8/255"),
        (16 / 255, "l2", "8/255"), ("8/255", "linf", "8/255"),
    ],
)  # fmt: skip
def test_the_radius_of_the_training_is_the_headline(radius, norm, shown):
    assert headline({"epsilon": radius, "norm": norm}) == f"Highest under PGD-20, ε {shown}"


def test_each_norm_has_a_radius_of_its_own():
    attacks = (*LADDER[:5], ("pgd(norm=l2)", "PGD-20 L2", "l2", 2.0, 20, 1))
    assert headline(attacks=attacks, correct=(*CORRECT[:5], 150)) == "Highest under PGD-20 L2"


def test_no_run_is_called_better_without_results_per_image(tmp_path):
    (paragraph,) = paragraphs(results_of(make_runs(tmp_path)))
    assert "On the test split of digits (8x8), " in paragraph
    assert "learn2perturb is best (82.5%). Not tested against pgd and none" in paragraph
    assert "upper bound" in paragraph


def test_runs_without_a_common_attack_are_not_ordered():
    records = make_records("a", (300,), ATTACKS[1:2]) + make_records("b", (300,), ATTACKS[2:3])
    (paragraph,) = paragraphs(results_of(records))
    assert "No attack was run on all of them." in paragraph
    assert len(paragraphs(results_of(make_records("a") + make_records("b", dataset="cifar10")))) == 2


def test_attacks_of_smallest_norm_rank_no_one():
    attacks = (CLEAN_ATTACK, PGD, DEEPFOOL)
    results = results_of(make_records("a", (350, 200, 3), attacks) + make_records("b", (350, 90, 0), attacks))
    (paragraph,) = paragraphs(results)
    assert "a 55.6% (PGD-20" in paragraph
    assert "(DeepFool" not in paragraph
    assert "leave little by construction" in paragraph
    assert [figure.label for figure in key_figures(results)][1] == "Highest under PGD-20"
    alone = results_of(make_records("a", (350, 3), (CLEAN_ATTACK, DEEPFOOL)))
    assert not {"Lowest accuracy", "upper bound"} & set(paragraphs(alone)[0])
    assert [figure.label for figure in key_figures(alone)] == ["Accuracy on clean images", "Images judged"]


def test_many_models_are_summed_up():
    records = [record for i in range(7) for record in make_records(f"m{i}", (300 - i, 200 - i), LADDER[:2])]
    (paragraph,) = paragraphs(results_of([dataclasses.replace(r, reached=r.count - r.correct) for r in records]))
    assert "7 models were judged under 1 attack." in paragraph
    assert "The lowest accuracy of a model under any of its attacks lies between" in paragraph


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (8 / 255, "8/255"), (0.03, "0.03"), (0.5, "0.5"), (0.15, "0.15"), (1 / 255, "1/255"), (0.2, "0.2"), (0, "0"),
        (72 / 255, "72/255"),
    ],
)  # fmt: skip
def test_epsilon_is_written_as_people_do(value, text):
    assert epsilon(value) == text


def test_text_from_outside_becomes_one_printable_line():
    assert plain("a\n\x1b[31m\u202eb\x00") == "a [31m b"
    assert plain("\ud800x") == "?x"
    assert plain("") == "(no name)"
    assert plain("abcdef", 4) == "abc…"
