"""The papers' printed numbers: all of them, digit by digit, and which measurements they may be compared with."""

import collections
import copy
import dataclasses
import json
import os
import pathlib
import statistics

import pytest
from l2p_tf.reporting.comparison import compare
from l2p_tf.reporting.runs import find, gather

from l2p_tf.attacks import ATTACKS
from l2p_tf.evaluation.records import CLEAN
from l2p_tf.reporting import published
from l2p_tf.types import UserError
from support import paper_tables
from support.reports import ATTACKS as MEASURED
from support.reports import make_attack, make_data, make_records, make_train

# Rows, columns, metrics, cells and the sum of the spreads of each table, read off the papers.
SHAPES = {
    "l2p_table1": (3, 4, 3, 36, 1.69), "l2p_table2": (8, 3, 3, 72, 26.55), "l2p_table3": (1, 5, 5, 25, 0),
    "l2p_table4": (6, 1, 2, 12, 0.76), "l2p_eot": (1, 3, 1, 3, 0), "l2p_supp_table1": (2, 5, 3, 30, 0),
    "l2p_supp_table2": (2, 4, 8, 48, 11.43), "study_table1": (1, 3, 4, 12, 0), "study_table2": (1, 2, 4, 8, 0),
    "study_table3": (3, 1, 4, 12, 0), "study_table4": (2, 2, 4, 16, 0), "study_table5": (1, 2, 4, 8, 0),
    "study_table6": (2, 1, 4, 8, 0), "generator_table1": (1, 4, 22, 88, 0), "generator_table2": (1, 4, 22, 88, 0),
}  # fmt: skip
# Sums over each row, column and metric, added up from the texts of the papers.
SUMS = {
    "l2p_table1": {
        "ResNet-V1(20)": 656.13, "ResNet-V1(56)": 688.45, "ResNet-V2(18)": 718.93,
        "No defense": 362.1, "Vanilla": 526.76, "Learn2Perturb-R": 576.51, "Learn2Perturb": 598.14,
        "clean": 1036.06, "pgd": 442.09, "fgsm": 585.36,
    },
    "l2p_table2": {
        "ResNet-V1(20)": 540.75, "ResNet-V1(32)": 547.51, "ResNet-V1(44)": 580.59, "ResNet-V1(56)": 577.67,
        "ResNet-V1(20)[1.5x]": 516.78, "ResNet-V1(20)[2x]": 579.48, "ResNet-V1(20)[4x]": 590.89,
        "ResNet-V2(18)": 594.29,
        "PNI": 1504.79, "Adv-BNN": 1420.18, "Learn2Perturb": 1602.99, "clean": 1962.18, "pgd": 1206.5, "fgsm": 1359.28,
    },
    "l2p_table3": {
        "Network not named": 816.3,
        "No defense": 0, "Vanilla": 0, "PNI": 183.8, "Adv-BNN": 287.2, "Learn2Perturb": 345.3,
        "cw_kappa_0": 229.4, "cw_kappa_0.1": 228.2, "cw_kappa_1": 175.5, "cw_kappa_2": 131.6, "cw_kappa_5": 51.6,
    },
    "l2p_table4": {
        "RSE": 127.5, "DP": 112, "Adv-BNN": 131.82, "PGD adv. training": 133.1, "PNI": 136.8, "Learn2Perturb": 141.6,
        "Result": 782.82, "clean": 511.7, "pgd": 271.12,
    },
    "l2p_eot": {
        "Network not named": 153.18, "PNI": 48.65, "Adv-BNN": 51.19, "Learn2Perturb": 53.34, "pgd_eot": 153.18,
    },
    "l2p_supp_table1": {
        "ResNet-V1(20)": 728.5, "ResNet-V2(18)": 637.39,
        "No defense": 52.69, "Vanilla": 263.2, "PNI": 312.55, "Adv-BNN": 363.15, "Learn2Perturb": 374.3,
        "1_pixel": 546.09, "2_pixels": 432.75, "3_pixels": 387.05,
    },
    "l2p_supp_table2": {
        "ResNet-V1(20)": 1493.72, "ResNet-V2(18)": 1661.72,
        "Vanilla": 839.2, "PNI": 822.69, "Adv-BNN": 708.08, "Learn2Perturb": 785.47,
        "fgsm_from_vanilla": 372.44, "pgd_from_vanilla": 363.12, "fgsm_from_pni": 385.51, "pgd_from_pni": 368.51,
        "fgsm_from_adv_bnn": 439.26, "pgd_from_adv_bnn": 423.02, "fgsm_from_learn2perturb": 410.88,
        "pgd_from_learn2perturb": 392.7,
    },
    "study_table1": {
        "BasicNet": 383.1, "PGD l_inf training": 124.98, "PGD l_2 training": 136.03, "FGSM training": 122.09,
        "clean": 131.6, "pgd_linf": 78.83, "pgd_l2": 86.96, "fgsm": 85.71,
    },
    "study_table2": {
        "Wide ResNet18": 471.59, "PGD l_inf training": 234.61, "Random mix training": 236.98,
        "clean": 156.57, "pgd_linf": 95.96, "pgd_l2": 93.56, "fgsm": 125.5,
    },
    "study_table3": {
        "ResNet20": 211.69, "Wide ResNet18": 238.98, "VGG11": 228.42, "Random mix training": 679.09,
        "clean": 225.11, "pgd_linf": 126.76, "pgd_l2": 154.72, "fgsm": 172.5,
    },
    "study_table4": {
        "BasicNet": 167.26, "Wide ResNet18": 476.41, "Without noise": 321.03, "With noise": 322.64,
        "clean": 207.62, "pgd_linf": 128.05, "pgd_l2": 145.33, "fgsm": 162.67,
    },
    "study_table5": {
        "ResNet20": 415.98, "NoiseNet": 204.29, "Without noise": 211.69,
        "clean": 134.63, "pgd_linf": 80.91, "pgd_l2": 97.11, "fgsm": 103.33,
    },
    "study_table6": {
        "Wide ResNet18": 245.63, "Wider ResNet18, manual mix": 254.08, "Result": 499.71,
        "clean": 160, "pgd_linf": 101.78, "pgd_l2": 108.5, "fgsm": 129.43,
    },
    "generator_table1": {
        "All-convolutional": 1983.4443,
        "Baseline": 362.9416, "FGM training": 454.2529, "PGD training": 600.9106, "Generator": 565.3392,
        "fgm_accuracy": 94.31, "fgm_mean_l2": 1.9944, "fgm_median_l2": 2, "fgm_black_box": 206.46,
        "mim_accuracy": 56.79, "mim_mean_l2": 1.9995, "mim_median_l2": 2, "mim_black_box": 194.98,
        "deepfool_accuracy": 42.79, "deepfool_mean_l2": 0.7472, "deepfool_median_l2": 0.484,
        "deepfool_black_box": 274.54, "cw_accuracy": 0, "cw_mean_l2": 0.6047, "cw_median_l2": 0.3895,
        "cw_black_box": 273.94, "average_accuracy": 48.47, "average_mean_l2": 1.3367, "average_median_l2": 1.2183,
        "average_black_box": 237.47, "clean": 279.99, "seconds_per_epoch": 260.93,
    },
    "generator_table2": {
        "All-convolutional": 2813.2692,
        "Baseline": 480.3525, "FGM training": 716.7906, "PGD training": 862.7705, "Generator": 753.3556,
        "fgm_accuracy": 220.62, "fgm_mean_l2": 1.9971, "fgm_median_l2": 2, "fgm_black_box": 302.77,
        "mim_accuracy": 178.66, "mim_mean_l2": 2, "mim_median_l2": 2, "mim_black_box": 291.79,
        "deepfool_accuracy": 22.01, "deepfool_mean_l2": 1.7343, "deepfool_median_l2": 1.5199,
        "deepfool_black_box": 358.77, "cw_accuracy": 0, "cw_mean_l2": 1.4394, "cw_median_l2": 1.3397,
        "cw_black_box": 359.47, "average_accuracy": 105.31, "average_mean_l2": 1.7926, "average_median_l2": 1.7146,
        "average_black_box": 328.2, "clean": 367.27, "seconds_per_epoch": 260.8616,
    },
}  # fmt: skip
BASIC, WIDE = "BasicNet", "Wide ResNet18"
LINF, MIX, PLAIN = "PGD l_inf training", "Random mix training", "Without noise"
STUDY = ("clean", "pgd_linf", "pgd_l2", "fgsm")
SUSPECT = {
    *(("l2p_table2", f"ResNet-V1({n})", c, "pgd") for n in (32, 44, 56) for c in ("Adv-BNN", "Learn2Perturb")),
    ("l2p_table1", "ResNet-V1(56)", "Learn2Perturb", "pgd"), ("l2p_table1", "ResNet-V2(18)", "Learn2Perturb", "pgd"),
    ("l2p_table2", "ResNet-V2(18)", "Learn2Perturb", "pgd"),
    ("l2p_table4", "Adv-BNN", "Result", "pgd"), ("l2p_table4", "Learn2Perturb", "Result", "pgd"),
    *(("study_table1", BASIC, LINF, metric) for metric in STUDY),
    *(("study_table2", WIDE, LINF, metric) for metric in STUDY[2:]),
    *(("study_table2", WIDE, MIX, metric) for metric in STUDY[:3]),
    *(("study_table3", WIDE, MIX, metric) for metric in STUDY[:3]),
    *(("study_table4", row, PLAIN, metric) for row in (BASIC, WIDE) for metric in STUDY),
    *(("study_table6", WIDE, "Result", metric) for metric in STUDY[2:]),
    ("generator_table1", "All-convolutional", "Baseline", "average_median_l2"),
    ("generator_table1", "All-convolutional", "Generator", "average_mean_l2"),
    ("generator_table2", "All-convolutional", "Generator", "average_median_l2"),
}  # fmt: skip
TABLES = tuple(SHAPES)
papers = pytest.mark.skipif(not os.environ.get("L2P_TF_PAPERS"), reason="L2P_TF_PAPERS names no folder with the papers")


@pytest.fixture(scope="module")
def file():
    return json.loads(published.FILE.read_text("utf-8"))


@pytest.fixture(scope="module")
def printed():
    return paper_tables.read(pathlib.Path(os.environ["L2P_TF_PAPERS"]))


def table(name):
    return published.load().tables[name]


def sums(table):
    """Sums over each row, column and metric of a table."""
    found = collections.defaultdict(float)
    for place, cell in table.cells.items():
        for name in place:
            found[name] += cell.value
    return {name: round(value, 4) for name, value in found.items()}


def spreads(table):
    return sum(cell.spread or 0 for cell in table.cells.values())


def numbers(table):
    return {place: (cell.value, cell.spread) for place, cell in table.cells.items()}


def changed(data):
    """The tables of the file with one number, or one spread, changed in its last digit: each of them in turn."""
    for name, given in data["tables"].items():
        for g, grid in enumerate(given["grids"]):
            for i, line in enumerate(grid["values"]):
                for k, printed in enumerate(line):
                    for one in range(len(printed) if isinstance(printed, list) else printed is not None):
                        wrong = {**data, "tables": {name: copy.deepcopy(given)}, "suspect": []}
                        values = wrong["tables"][name]["grids"][g]["values"][i]
                        if isinstance(printed, list):
                            values[k][one] = after(printed[one])
                        else:
                            values[k] = after(printed)
                        yield name, published.parse(wrong).tables[name]


def after(number):
    """A number with one more in its last digit."""
    digits = len(str(number).partition(".")[2])
    return round(number + 10**-digits, digits)


# The numbers.


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_the_size_and_the_sums_of_the_printed_one(name):
    *shape, spread = SHAPES[name]
    found = table(name)
    assert [len(part) for part in (found.rows, found.columns, found.metrics, found.cells)] == shape
    assert sums(found) == pytest.approx(SUMS[name], abs=1e-9)
    assert spreads(found) == pytest.approx(spread, abs=1e-9)


def test_every_table_is_there_and_no_other():
    assert tuple(published.load().tables) == TABLES
    assert len(published.load().cells) == 466
    assert [table(name).cited for name in ("l2p_eot", "l2p_supp_table2", "study_table6", "generator_table1")] == [
        "Learn2Perturb, Section 4.5", "Learn2Perturb's supplement, Table 2", "The 2021 study, Table 6",
        "Perturbation generator, Table 1",
    ]  # fmt: skip
    assert {found.dataset for found in published.load().tables.values()} == {"cifar10", "cifar100"}
    assert [name for name in TABLES if table(name).dataset == "cifar100"] == ["generator_table1"]


def test_a_changed_digit_changes_a_sum(file):
    count = 0
    for name, wrong in changed(file):
        right = sums(wrong) == pytest.approx(SUMS[name], abs=1e-9)
        assert not (right and spreads(wrong) == pytest.approx(SHAPES[name][-1], abs=1e-9))
        count += 1
    assert count == 466 + 150


def test_only_a_defense_on_its_own_examples_is_left_empty():
    for found in published.load().tables.values():
        for row in found.rows:
            for column in found.columns:
                for metric in found.metrics.values():
                    own = metric.setting is not None and metric.setting.source == column
                    assert (found.cell(row, column, metric.key) is None) == own


def test_numbers_are_in_the_range_of_their_unit():
    units = collections.Counter()
    for found in published.load().tables.values():
        for (row, column, key), cell in found.cells.items():
            assert (cell.table, cell.row, cell.column, cell.metric, cell.paper) == (
                found.name, row, column, key, found.paper,
            )  # fmt: skip
            assert cell.reference == f"{found.name}/{row}/{column}/{key}"
            metric = found.metrics[key]
            units[metric.unit] += 1
            low, high = {"percent": (0, 100), "l2": (0.05, 0.52), "seconds": (8, 176)}[metric.unit]
            assert low <= cell.value <= high
            assert cell.spread is None or 0 <= cell.spread < 6
    assert units == {"percent": 466 - 88, "l2": 80, "seconds": 8}


def test_suspect_cells_are_those_that_contradict_others():
    found = {(c.table, c.row, c.column, c.metric): c for c in published.load().cells if c.suspect}
    assert set(found) == SUSPECT
    assert len(found) == 36
    # A reason quotes the number it is about, or says what to set against it.
    for cell in found.values():
        assert f"{cell.value:g}" in cell.reason or any(
            words in cell.reason for words in ("six cells", "FGSM does", "said to be", "average to")
        ), cell
    assert found["l2p_table2", "ResNet-V1(56)", "Learn2Perturb", "pgd"].reason == (
        "54.62 ± 0.06 is printed in six cells of Table 2; they cannot all be measurements; "
        "PGD for ResNet-V1(56) is 54.84 in Table 1 and 54.62 in Table 2"
    )


def test_averages_of_the_generator_paper_follow_from_their_rows_or_are_suspect():
    for name in ("generator_table1", "generator_table2"):
        found = table(name)
        for column in found.columns:
            for figure in ("accuracy", "mean_l2", "median_l2", "black_box"):
                scale = 1 if figure.endswith("l2") else 100
                parts = [
                    found.cell("All-convolutional", column, f"{a}_{figure}").value
                    for a in ("fgm", "mim", "deepfool", "cw")
                ]
                cell = found.cell("All-convolutional", column, f"average_{figure}")
                # Four decimals are printed: the average is rounded, and so is each of what it averages.
                apart = abs(cell.value - statistics.fmean(parts)) / scale
                assert cell.suspect == (apart > 1.0001e-4), cell.reference


def test_rows_of_table_4_say_where_they_come_from():
    found = table("l2p_table4")
    assert dict(found.networks) == {
        "RSE": "ResNeXt", "DP": "28-10 wide ResNet", "Adv-BNN": "ResNet-V1(56)",
        "PGD adv. training": "ResNet-V1(20)[4x]", "PNI": "ResNet-V1(20)[4x]", "Learn2Perturb": "ResNet-V2(18)",
    }  # fmt: skip
    assert set(found.sources) == set(found.rows)
    assert [row for row in found.rows if "another paper" in found.sources[row]] == ["RSE", "DP"]
    # What is said to be of Table 2 is what is printed there.
    for row in ("Adv-BNN", "PNI"):
        assert found.sources[row] == "the same numbers as in Table 2"
        for metric in ("clean", "pgd"):
            there = table("l2p_table2").cell(found.networks[row], row, metric)
            assert there.value == found.cell(row, "Result", metric).value


# Against the papers themselves.


@papers
@pytest.mark.parametrize("name", TABLES)
def test_every_number_is_the_one_in_the_paper(name, printed):
    assert numbers(table(name)) == printed[name]


@papers
def test_the_sums_are_those_of_the_papers(printed):
    assert set(printed) == set(TABLES)
    for name, cells in printed.items():
        found = collections.defaultdict(float)
        for place, (value, _) in cells.items():
            for part in place:
                found[part] += value
        assert dict(found) == pytest.approx(SUMS[name], abs=1e-9)


@papers
def test_a_changed_digit_is_not_the_one_in_the_paper(file, printed):
    for name, wrong in changed(file):
        apart = {place for place, pair in numbers(wrong).items() if pair != printed[name][place]}
        assert len(apart) == 1


@papers
def test_a_digit_changed_in_a_paper_is_noticed(tmp_path):
    names = {
        "learn2perturb.txt": ("54.84±0.10", "54.84±0.01", "l2p_table1"),
        "learn2perturb_supplement.md": ("64.55", "64.56", "l2p_supp_table1"),
        "adversarial_training_for_image_classification.md": ("40,7", "40,8", "study_table1"),
        "perturbation_generator_networks.md": ("175.2541", "175.2542", "generator_table2"),
    }
    folder = pathlib.Path(os.environ["L2P_TF_PAPERS"])
    for name, (old, new, _) in names.items():
        text = (folder / name).read_text("utf-8")
        assert text.count(old) == 1
        (tmp_path / name).write_text(text.replace(old, new), "utf-8")
    found = paper_tables.read(tmp_path)
    assert [name for name in TABLES if found[name] != numbers(table(name))] == [row[2] for row in names.values()]


@papers
def test_parameters_are_those_in_the_paper():
    text = (pathlib.Path(os.environ["L2P_TF_PAPERS"]) / "learn2perturb.txt").read_text("utf-8")
    counts = paper_tables.parameters(text)
    for name, rows in paper_tables.NETWORKS.items():
        assert {row: {count} for row, count in table(name).parameters.items()} == {row: counts[row] for row in rows}


def test_parameters_are_told_where_they_are_printed():
    assert sum(table("l2p_table1").parameters.values()) == 12_296_702
    assert sum(table("l2p_table2").parameters.values()) == 19_384_456
    others = [name for name in TABLES if name not in ("l2p_table1", "l2p_table2")]
    assert not any(table(name).parameters for name in others)


# What may be compared with them.


@pytest.mark.parametrize("name", TABLES)
def test_the_attack_behind_a_number_is_found_again(name):
    found = table(name)
    row, column = found.rows[0], found.columns[-1]
    compared = [metric for metric in found.metrics.values() if metric.compared]
    if name == "l2p_supp_table2":
        assert not compared
        return
    target = published.load().target(f"{name}/{row}/{column}")
    assert list(target.cells) == [metric.key for metric in compared]
    for metric in compared:
        cell = found.cell(row, column, metric.key)
        attacks = [ATTACKS.parse(spec) for spec in (metric.setting.spec, *metric.setting.also) if spec != CLEAN]
        for attack in attacks:
            # The presets are the same attack, to the last option.
            assert attack.options() == attacks[0].options()
            facts = {"attack": attack.spec, "dataset": found.dataset, **attack.facts()}
            assert target.cell_for(record(**facts)) is cell
            assert target.cell_for(record(**facts, source="another")) is None
        if not attacks:
            assert target.cell_for(record(attack=CLEAN, norm=None, epsilon=None, dataset=found.dataset)) is cell


def record(**fields):
    (made,) = make_records("a", (100,), MEASURED[2:3], dataset="cifar10")
    return dataclasses.replace(made, **fields)


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
    cell = published.load().target(reference).cell_for(record(**fields))
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
        published.load().target(reference)


def test_every_reference_that_is_listed_can_be_named():
    references = published.load().references()
    assert len(references) == len(set(references)) == 84
    for reference in references:
        target = published.load().target(reference)
        assert target.reference == reference
        assert target.cells


def test_a_published_row_has_its_parameters_and_cells():
    target = published.load().target("l2p_table2/ResNet-V1(20)[1.5\N{MULTIPLICATION SIGN}]/Learn2Perturb")
    assert target.parameters == 605_026
    assert {metric: cell.value for metric, cell in target.cells.items()} == {"clean": 85.4, "pgd": 53.32, "fgsm": 61.1}
    assert target.title == "Learn2Perturb, Table 2, ResNet-V1(20)[1.5x], Learn2Perturb"
    assert target.notes == ()
    target = published.load().target("generator_table2/All-convolutional/Generator")
    assert {metric: cell.value for metric, cell in target.cells.items()} == {
        "fgm_accuracy": 65.34, "mim_accuracy": 59.58, "deepfool_accuracy": 5.57, "cw_accuracy": 0.0, "clean": 91.86,
    }  # fmt: skip


def test_a_report_says_what_must_be_known_of_the_printed_numbers(tmp_path):
    data = make_data(tmp_path, name="cifar10")
    train = make_train(tmp_path, data, published="l2p_table4/RSE/Result")
    make_attack(tmp_path, train, data, make_records("pgd", (350,), MEASURED[:1], dataset="cifar10"))
    table = compare(gather(find([tmp_path])))
    (entry,) = table.rows[0].entries.values()
    assert entry.comparison == "87.5 (+9.7)"
    title = "Learn2Perturb, Table 4, RSE, Result"
    assert [note.removeprefix(f"{title}: ") for note in table.notes if note.startswith(title)] == [
        "by its caption some of the numbers were taken from PNI's paper; which ones, and under which attack, it does "
        "not say.",
        "its network is ResNeXt.",
        "taken from another paper, on a network that is not built here.",
    ]


def test_a_report_says_which_of_the_options_are_ours(tmp_path):
    data = make_data(tmp_path, name="cifar10")
    train = make_train(tmp_path, data, published="study_table6/Wide ResNet18/Result")
    spec = "pgd(epsilon=0.5, norm=l2, steps=10)"
    attacks = (*MEASURED[:1], (spec, "PGD-10 l2", "l2", 0.5, 10, 1))
    make_attack(tmp_path, train, data, make_records("pgd", (350, 180), attacks, dataset="cifar10"))
    notes = compare(gather(find([tmp_path]))).notes
    assert [note for note in notes if "our choice" in note] == [
        "The 2021 study, Table 6, Wide ResNet18, Result: the radius of 0.5, the 10 steps and their length of PGD in L2 "
        "are our choice, as the study prints none of them."
    ]
    assert [note for note in notes if note.startswith("†")] == [
        "† suspect: PGD L2 for Wide ResNet18 trained by PGD l_inf is 41.48 in Table 2 and 52.48 in Table 6."
    ]


# Damaged files.


def grid(data, name="l2p_table1"):
    return data["tables"][name]["grids"][0]


DAMAGE = {
    "no metrics": (lambda d: d.pop("metrics"), "the file should have `metrics`"),
    "a list": (lambda d: d.update(tables=[]), "have `tables` of type dict"),
    "paper": (lambda d: d["tables"]["l2p_eot"].update(paper="magic"), "l2p_eot should have as `paper` one of learn2"),
    "title": (lambda d: d["tables"]["l2p_eot"].pop("title"), "l2p_eot should have `title`"),
    "field": (lambda d: d["tables"]["l2p_eot"].update(note="x"), "no other fields than .*notes.*'note'"),
    "grids": (lambda d: d["tables"]["l2p_eot"].update(grids=[]), "l2p_eot should have `grids`"),
    "metric": (lambda d: grid(d)["across"].update(metric=["clean", "pgd", "magic"]), "be of a metric of .*'magic'"),
    "unit": (lambda d: d["metrics"]["study"]["fgsm"].update(unit="miles"), "percent, l2, seconds. Received: 'miles'"),
    "spec": (lambda d: d["metrics"]["study"]["fgsm"].update(spec="fgsm("), "attack 'fgsm\\(' should be of the form"),
    "label": (lambda d: d["metrics"]["study"]["fgsm"].pop("label"), "metric fgsm of study should have `label`"),
    "line": (lambda d: grid(d)["values"].pop(), "3 lines of 12 values. Received: '\\[12, 12\\]"),
    "value": (lambda d: grid(d)["values"][1].pop(), "3 lines of 12 values. Received: '\\[12, 11, 12\\]"),
    "side": (lambda d: grid(d)["down"].clear(), "on its sides each of column, metric, row once"),
    "twice on a side": (lambda d: grid(d)["down"].update(row=["A", "A", "B"]), "names on its sides that differ"),
    "slash": (lambda d: grid(d)["down"].update(row=["A/B", "C", "D"]), "list of names without a slash"),
    "name": (lambda d: grid(d)["down"].update(row=[1, 2, 3]), "row of a grid of l2p_table1 should be text"),
    "too much": (lambda d: grid(d)["values"][0].__setitem__(0, 101.0), "from 0 to 100, .*'101.0'"),
    "share": (lambda d: grid(d, "generator_table1")["values"][0].__setitem__(0, 11.73), "from 0 to 1, .*'11.73'"),
    "negative": (lambda d: grid(d, "generator_table1")["values"][0].__setitem__(1, -0.1), "not be negative"),
    "text": (lambda d: grid(d)["values"][0].__setitem__(0, "92.1"), "l2p_table1/ResNet-V1\\(20\\)/No defense/clean"),
    "truth": (lambda d: grid(d)["values"][0].__setitem__(0, True), "from 0 to 100, .*'True'"),
    "nothing known": (lambda d: grid(d)["values"][0].__setitem__(0, float("nan")), "from 0 to 100, .*'nan'"),
    "two spreads": (lambda d: grid(d)["values"][0].__setitem__(1, [0.0, 0.0, 0.0]), "as \\[value, spread\\]"),
    "again": (lambda d: d["tables"]["l2p_eot"]["grids"].append(grid(d, "l2p_eot")), "PNI/pgd_eot is there twice"),
    "gap": (lambda d: d["tables"]["generator_table1"]["grids"][1].update(
        down={"row": ["Other"], "column": ["Baseline", "FGM training", "PGD training", "Generator"]}),
        "give every row"),
    "row": (lambda d: d["tables"]["l2p_table1"]["rows"].update(Other={}), "have `rows` among .*'Other'"),
    "parameters": (lambda d: d["tables"]["l2p_table1"]["rows"].update(
        {"ResNet-V1(20)": {"parameters": "many"}}), "row ResNet-V1\\(20\\) of l2p_table1 should have `parameters`"),
    "suspect": (lambda d: d["suspect"][0]["cells"].append("l2p_table1/A/B/pgd"), "name cells that are there"),
    "suspect twice": (lambda d: d["suspect"][0]["cells"].extend(d["suspect"][0]["cells"]), "suspect twice"),
    "reason": (lambda d: d["suspect"][0].pop("reason"), "an entry of `suspect` should have `reason`"),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_file_is_refused(file, what):
    damage, message = DAMAGE[what]
    data = copy.deepcopy(file)
    damage(data)
    with pytest.raises(UserError, match=message):
        published.parse(data)


@pytest.mark.parametrize("text", ["", '{"papers": ', "\x80"])
def test_a_file_that_is_no_json_is_refused(text, tmp_path, monkeypatch):
    path = tmp_path / "published.json"
    path.write_bytes(text.encode("latin-1"))
    monkeypatch.setattr(published, "FILE", path)
    with pytest.raises(UserError, match="published.json should be a file of JSON"):
        published.load.__wrapped__()


def test_what_is_no_object_is_refused():
    with pytest.raises(UserError, match="the file should be an object"):
        published.parse([])
