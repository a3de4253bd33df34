"""Published numbers beside measured ones: which may be compared, and the section of the report that does."""

import dataclasses

import pytest

from l2p_tf.attacks import ATTACKS
from l2p_tf.evaluation.records import CLEAN
from l2p_tf.experiments import printed, published
from l2p_tf.reporting import report
from l2p_tf.types import UserError
from support.reports import ATTACKS as MEASURED
from support.reports import make_attack, make_data, make_records, make_train, results_of


def record(**fields):
    (made,) = make_records("a", (100,), MEASURED[2:3], dataset="cifar10")
    return dataclasses.replace(made, **fields)


@pytest.mark.parametrize("name", printed.load())
def test_the_attack_behind_a_number_is_found_again(name):
    table = printed.load()[name]
    target = printed.Target(table, table.rows[0], table.columns[-1])
    assert bool(target.cells) == (name != "l2p_supp_table2")
    for key, cell in target.cells.items():
        metric = table.metrics[key]
        assert metric.compared
        attacks = [ATTACKS.parse(spec) for spec in (metric.spec, *metric.also) if spec != CLEAN]
        for attack in attacks:
            # The presets are the same attack, to the last option.
            assert attack.options() == attacks[0].options()
            facts = {"attack": attack.spec, "dataset": table.dataset, **attack.facts()}
            assert target.cell_for(record(**facts)) is cell
            assert target.cell_for(record(**facts, source="another")) is None
        if not attacks:
            assert target.cell_for(record(attack=CLEAN, norm=None, epsilon=None, dataset=table.dataset)) is cell


PAPER_PGD = {"attack": "pgd(step_size=0.01, steps=7)", "steps": 7}
CW = {"norm": "l2", "epsilon": None, "steps": 1000}
L2P = "l2p_table1/ResNet-V1(20)/Learn2Perturb"
KAPPA = "l2p_table3/Network not named/PNI"


@pytest.mark.parametrize(
    ("reference", "fields", "metric"),
    [
        (L2P, PAPER_PGD, "pgd"),
        (L2P, PAPER_PGD | {"attack": "l2p_pgd"}, "pgd"),
        (L2P, PAPER_PGD | {"attack": "pgd(epsilon=0.0314, step_size=0.01, steps=7)", "epsilon": 0.0314}, "pgd"),
        (L2P, PAPER_PGD | {"dataset": "CIFAR-10 (JPEG)"}, "pgd"),
        (L2P, PAPER_PGD | {"dataset": "cifar100"}, None),
        (L2P, PAPER_PGD | {"split": "validation"}, None),
        (L2P, PAPER_PGD | {"source": "other"}, None),
        (L2P, PAPER_PGD | {"attack": "pgd(steps=7)"}, None),
        (L2P, PAPER_PGD | {"attack": "pgd(step_size=0.02, steps=7)"}, None),
        (L2P, PAPER_PGD | {"attack": "pgd(step_size=True, steps=7)"}, None),
        (L2P, PAPER_PGD | {"attack": "pgd(step_size=0.01, steps=7, random_start=False)"}, None),
        (L2P, PAPER_PGD | {"attack": "l2p_pgd(step_size=0.02)"}, None),
        (L2P, PAPER_PGD | {"attack": "other(step_size=0.01, steps=7)"}, None),
        (L2P, PAPER_PGD | {"steps": 20}, None),
        (L2P, PAPER_PGD | {"norm": "l2"}, None),
        (L2P, PAPER_PGD | {"epsilon": 4 / 255}, None),
        (L2P, PAPER_PGD | {"draws": 10}, None),
        (L2P, PAPER_PGD | {"restarts": 2}, None),
        (L2P, {"attack": "fgsm", "steps": 1}, "fgsm"),
        (L2P, {"attack": "fgsm(draws=5)", "steps": 1, "draws": 5}, None),
        (L2P, {"attack": "clean", "norm": None, "epsilon": None}, "clean"),
        (L2P, {"attack": "not a spec("}, None),
        ("l2p_eot/Network not named/PNI", PAPER_PGD | {"attack": "l2p_eot", "draws": 80}, "pgd_eot"),
        ("l2p_eot/Network not named/PNI", PAPER_PGD | {"attack": "l2p_eot(draws=10)", "draws": 10}, None),
        ("l2p_eot/Network not named/PNI", PAPER_PGD, None),
        (KAPPA, CW | {"attack": "l2p_cw(kappa=5)"}, "cw_kappa_5"),
        (KAPPA, CW | {"attack": "l2p_cw"}, "cw_kappa_0"),
        (KAPPA, CW | {"attack": "cw(learning_rate=0.0005, kappa=0.1)"}, "cw_kappa_0.1"),
        (KAPPA, CW | {"attack": "cw(kappa=1)"}, None),
        (KAPPA, CW | {"attack": "l2p_cw(kappa=3)"}, None),
        (KAPPA, CW | {"attack": "l2p_cw(epsilon=0.5, kappa=5)", "epsilon": 0.5}, None),
        (KAPPA, CW | {"attack": "l2p_cw(kappa=5)", "draws": 10}, None),
        (KAPPA, CW | {"attack": "l2p_cw(kappa=5)", "steps": 100}, None),
    ],
)
def test_only_the_papers_setting_is_compared(reference, fields, metric):
    cell = printed.target(reference).cell_for(record(**fields))
    assert (cell.metric if cell else None) == metric


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("table9", r"table/row/column.*Received: 'table9'"),
        (
            "table9/ResNet-V1(20)/PNI",
            "should name a table: l2p_table1, l2p_table2, .*, generator_table2. Received: 'table9'",
        ),
        ("l2p_supp_table2/ResNet-V1(20)/PNI", "l2p_supp_table1, study_table1.*Received: 'l2p_supp_table2'"),
        (
            "l2p_table1/ResNet-V1(32)/Vanilla",
            r"row of l2p_table1: ResNet-V1\(20\), ResNet-V1\(56\), .*'ResNet-V1\(32\)'",
        ),
        ("l2p_table2/ResNet-V1(32)/Vanilla", "column of l2p_table2: PNI, Adv-BNN, Learn2Perturb. Received: 'Vanilla'"),
    ],
)  # fmt: skip
def test_an_unknown_published_row_lists_what_is_there(reference, message):
    with pytest.raises(UserError, match=message):
        printed.target(reference)


def test_every_reference_that_is_listed_can_be_named():
    references = printed.references()
    assert len(references) == len(set(references)) == 84
    for reference in references:
        target = printed.target(reference)
        assert target.reference == reference
        assert target.cells


def test_a_published_row_has_its_parameters_and_cells():
    target = printed.target("l2p_table2/ResNet-V1(20)[1.5\N{MULTIPLICATION SIGN}]/Learn2Perturb")
    assert target.facts.parameters == 605_026
    assert {metric: cell.value for metric, cell in target.cells.items()} == {"clean": 85.4, "pgd": 53.32, "fgsm": 61.1}
    assert target.title == "Learn2Perturb, Table 2, ResNet-V1(20)[1.5x], Learn2Perturb"
    assert target.notes == []
    target = printed.target("generator_table2/All-convolutional/Generator")
    assert {metric: cell.value for metric, cell in target.cells.items()} == {
        "fgm_accuracy": 65.34, "mim_accuracy": 59.58, "deepfool_accuracy": 5.57, "cw_accuracy": 0.0, "clean": 91.86,
    }  # fmt: skip


# The section.


def made(root, reference, correct, attacks=MEASURED, name="pgd", **fields):
    """The section on one run that reproduces a printed row."""
    data = make_data(root, name="cifar10")
    train = make_train(root, data, name, published=reference)
    make_attack(root, train, data, make_records(name, correct, attacks, dataset="cifar10", **fields))
    return published.section(results_of(root))


def reproduced(root):
    how = {"randomized": True, "count": 10_000, "repeats": 2}
    row = "l2p_table2/ResNet-V1(32)/Learn2Perturb"
    return made(root, row, (8400, 6000, 5300, 5200), name="learn2perturb", **how)


def test_published_numbers_stand_beside_measured_ones(tmp_path):
    section = reproduced(tmp_path)
    (table,) = section.tables
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["learn2perturb", "Clean", "84.01 ± 0.01", "84.19 ± 0.06", "\N{MINUS SIGN}0.18"],
        ["learn2perturb", "PGD-7", "53.01 ± 0.01", "54.62 ± 0.06 †", "\N{MINUS SIGN}1.61"],
        ["learn2perturb", "FGSM", "60.01 ± 0.01", "59.94 ± 0.11", "+0.07"],
        ["learn2perturb", "Trainable parameters", "78,330", "464,154", "\N{MINUS SIGN}385,824"],
    ]
    assert table.rows[1][2].below == ("52.03\N{EN DASH}53.99", "n = 10,000, 2 repeats")
    assert section.remarks == (
        "† suspect: 54.62 ± 0.06 is printed in six cells of Table 2; they cannot all be measurements.",
    )
    assert section.figures.to_dict("records")[1] == {
        "run": "learn2perturb", "target": "l2p_table2/ResNet-V1(32)/Learn2Perturb", "metric": "pgd",
        "attack": "pgd(step_size=0.01, steps=7)", "repeats": 2, "count": 10_000, "measured": 53.01, "low": 52.0308,
        "high": 53.9869, "spread": 0.0141, "published": 54.62, "published_spread": 0.06, "difference": -1.61,
        "suspect": "true",
    }  # fmt: skip
    assert section.figures.suspect.tolist() == ["false", "true", "false", "false"]


def test_a_published_number_without_its_setting_is_said_to_be_missing(tmp_path):
    section = made(tmp_path, "l2p_table1/ResNet-V1(20)/Vanilla", (350,), MEASURED[:1])
    (note,) = section.remarks
    assert "Learn2Perturb, Table 1, ResNet-V1(20), Vanilla" in note
    assert "pgd(norm=linf, epsilon=8/255, steps=7, step_size=0.01) and fgsm(norm=linf, epsilon=8/255)" in note
    assert [row[2].text for row in section.tables[0].rows] == ["97.2", "\N{EN DASH}", "\N{EN DASH}", "78,330"]
    assert section.figures.difference.tolist()[1:3] == [None, None]


def test_the_section_says_what_must_be_known_of_the_printed_numbers(tmp_path):
    section = made(tmp_path, "l2p_table4/RSE/Result", (350,), MEASURED[:1])
    title = "Learn2Perturb, Table 4, RSE, Result"
    assert [note.removeprefix(f"{title}: ") for note in section.remarks if note.startswith(title)] == [
        "by its caption some of the numbers were taken from PNI's paper; which ones, and under which attack, it does "
        "not say.",
        "its network is ResNeXt.",
        "taken from another paper, on a network that is not built here.",
    ]


def test_the_section_says_which_of_the_options_are_ours(tmp_path):
    attacks = (*MEASURED[:1], ("pgd(epsilon=0.5, norm=l2, steps=10)", "PGD-10 l2", "l2", 0.5, 10, 1))
    remarks = made(tmp_path, "study_table6/Wide ResNet18/Result", (350, 180), attacks).remarks
    assert [note for note in remarks if "our choice" in note] == [
        "The 2021 study, Table 6, Wide ResNet18, Result: the radius of 0.5, the 10 steps and their length of PGD in L2 "
        "are our choice, as the study prints none of them."
    ]
    assert [note for note in remarks if note.startswith("†")] == [
        "† suspect: PGD L2 for Wide ResNet18 trained by PGD l_inf is 41.48 in Table 2 and 52.48 in Table 6."
    ]


def test_only_runs_that_name_a_row_have_the_section_in_their_report(tmp_path):
    reproduced(tmp_path / "a")
    folder = report.make([tmp_path / "a"], tmp_path / "report", sections=[published.section]).path
    assert "54.62</span> ± 0.06 †" in (folder / "report.html").read_text("utf-8")
    assert "464154" in (folder / "published.csv").read_text("utf-8")
    assert made(tmp_path / "b", "", (350,), MEASURED[:1]) is None
    with pytest.raises(UserError, match="table9"):
        made(tmp_path / "c", "table9/a/b", (350,), MEASURED[:1])
