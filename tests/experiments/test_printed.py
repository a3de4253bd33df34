"""The papers' printed tables: every number, digit by digit, and that they are whole."""

import collections
import json
import math
import os
import pathlib
import statistics

import pytest

from l2p_tf.attacks import ATTACKS
from l2p_tf.evaluation.records import CLEAN
from l2p_tf.experiments import printed
from l2p_tf.schema import as_type
from l2p_tf.types import UserError
from support import paper_tables

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
PAPERS = pathlib.Path(os.environ.get("L2P_TF_PAPERS", ""))
papers = pytest.mark.skipif(not os.environ.get("L2P_TF_PAPERS"), reason="L2P_TF_PAPERS names no folder with the papers")


def table(name):
    return printed.load()[name]


def all_cells():
    return [cell for table in printed.load().values() for cell in table.cells.values()]


def pairs(name):
    """Each number of a table with its spread, by row, column and metric."""
    return {place: (cell.value, cell.spread) for place, cell in table(name).cells.items()}


def sums(pairs):
    """Sums of the numbers over each row, column and metric."""
    totals = collections.defaultdict(float)
    for place, (value, _) in pairs.items():
        for part in place:
            totals[part] += value
    return {part: round(value, 4) for part, value in totals.items()}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_the_size_and_the_sums_of_the_printed_one(name):
    *shape, spread = SHAPES[name]
    whole = table(name)
    assert [len(part) for part in (whole.rows, whole.columns, whole.metrics, whole.cells)] == shape
    assert sums(pairs(name)) == pytest.approx(SUMS[name], abs=1e-9)
    assert sum(cell.spread or 0 for cell in whole.cells.values()) == pytest.approx(spread, abs=1e-9)


def test_every_table_is_there_and_no_other():
    assert tuple(printed.load()) == TABLES
    assert len(all_cells()) == 466
    assert [table(name).cited for name in ("l2p_eot", "l2p_supp_table2", "study_table6", "generator_table1")] == [
        "Learn2Perturb, Section 4.5", "Learn2Perturb's supplement, Table 2", "The 2021 study, Table 6",
        "Perturbation generator, Table 1",
    ]  # fmt: skip
    assert {table.dataset for table in printed.load().values()} == {"cifar10", "cifar100"}
    assert [name for name in TABLES if table(name).dataset == "cifar100"] == ["generator_table1"]


def test_only_a_defense_on_its_own_examples_is_left_empty():
    for whole in printed.load().values():
        for row in whole.rows:
            for column in whole.columns:
                for key, metric in whole.metrics.items():
                    assert ((row, column, key) not in whole.cells) == (metric.source == column)


def test_the_file_is_consistent():
    """No number is there twice, names can be parts of a reference, and what is said is said of something there."""
    file = json.loads(printed.FILE.read_text("utf-8"))
    for name, given in file["tables"].items():
        grids = as_type(given["grids"], list[printed._Grid])
        places = [place for grid in grids for place, _ in grid.cells()]
        assert len(places) == len(set(places)) == math.prod(SHAPES[name][:3])
        assert not [part for place in places for part in place if "/" in part]
        assert set(given.get("rows", {})) <= set(table(name).rows)
    for metrics in file["metrics"].values():
        for metric in metrics.values():
            ATTACKS.parse_list("; ".join({metric.get("spec") or CLEAN, *metric.get("also", ())} - {CLEAN}) or "pgd")
    suspects = [(reference, entry["reason"]) for entry in file["suspect"] for reference in entry["cells"]]
    assert len(suspects) == len(set(suspects))
    assert {reference for reference, _ in suspects} == {cell.reference for cell in all_cells() if cell.reason}


def test_numbers_are_in_the_range_of_their_unit():
    units = collections.Counter()
    for whole in printed.load().values():
        for place, cell in whole.cells.items():
            assert (cell.table, cell.row, cell.column, cell.metric) == (whole.name, *place)
            unit = whole.metrics[cell.metric].unit
            units[unit] += 1
            low, high = {"percent": (0, 100), "l2": (0.05, 0.52), "seconds": (8, 176)}[unit]
            assert low <= cell.value <= high
            assert cell.spread is None or 0 <= cell.spread < 6
    assert units == {"percent": 466 - 88, "l2": 80, "seconds": 8}


def test_suspect_cells_are_those_that_contradict_others():
    suspect = {(c.table, c.row, c.column, c.metric): c for c in all_cells() if c.reason}
    assert set(suspect) == SUSPECT
    assert len(suspect) == 36
    # A reason quotes the number it is about, or says what to set against it.
    for cell in suspect.values():
        assert f"{cell.value:g}" in cell.reason or any(
            words in cell.reason for words in ("six cells", "FGSM does", "said to be", "average to")
        ), cell
    assert suspect["l2p_table2", "ResNet-V1(56)", "Learn2Perturb", "pgd"].reason == (
        "54.62 ± 0.06 is printed in six cells of Table 2; they cannot all be measurements; "
        "PGD for ResNet-V1(56) is 54.84 in Table 1 and 54.62 in Table 2"
    )


@pytest.mark.parametrize("name", ["generator_table1", "generator_table2"])
def test_averages_of_the_generator_paper_follow_from_their_rows_or_are_suspect(name):
    cells = table(name).cells
    for column in table(name).columns:
        for statistic in ("accuracy", "mean_l2", "median_l2", "black_box"):
            scale = 1 if statistic.endswith("l2") else 100
            attacks = ("fgm", "mim", "deepfool", "cw")
            parts = [cells["All-convolutional", column, f"{attack}_{statistic}"].value for attack in attacks]
            cell = cells["All-convolutional", column, f"average_{statistic}"]
            # Four decimals are printed: the average is rounded, and so is each of what it averages.
            apart = abs(cell.value - statistics.fmean(parts)) / scale
            assert bool(cell.reason) == (apart > 1.0001e-4), cell.reference


def test_rows_of_table_4_say_where_they_come_from():
    whole = table("l2p_table4")
    assert {row: facts.network for row, facts in whole.facts.items()} == {
        "RSE": "ResNeXt", "DP": "28-10 wide ResNet", "Adv-BNN": "ResNet-V1(56)",
        "PGD adv. training": "ResNet-V1(20)[4x]", "PNI": "ResNet-V1(20)[4x]", "Learn2Perturb": "ResNet-V2(18)",
    }  # fmt: skip
    assert all(facts.source for facts in whole.facts.values())
    assert [row for row, facts in whole.facts.items() if "another paper" in facts.source] == ["RSE", "DP"]
    # What is said to be of Table 2 is what is printed there.
    for row in ("Adv-BNN", "PNI"):
        assert whole.facts[row].source == "the same numbers as in Table 2"
        for metric in ("clean", "pgd"):
            there = table("l2p_table2").cells[whole.facts[row].network, row, metric]
            assert there.value == whole.cells[row, "Result", metric].value


def parameters(name):
    return {row: facts.parameters for row, facts in table(name).facts.items() if facts.parameters}


def test_parameters_are_given_where_they_are_printed():
    counts = {"l2p_table1": 12_296_702, "l2p_table2": 19_384_456}
    assert {name: sum(parameters(name).values()) for name in TABLES if parameters(name)} == counts


@pytest.mark.parametrize("text", ["", '{"papers": {}}', "\x80"])
def test_a_damaged_file_is_one_line(text, tmp_path, monkeypatch):
    monkeypatch.setattr(printed, "FILE", tmp_path / "published.json")
    printed.FILE.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"published.json' should hold the papers' tables"):
        printed.load.__wrapped__()


# Against the papers themselves.


@papers
def test_every_number_and_sum_is_that_of_the_paper():
    texts = paper_tables.read(PAPERS)
    assert texts == {name: pairs(name) for name in TABLES}
    for name, cells in texts.items():
        assert sums(cells) == pytest.approx(SUMS[name], abs=1e-9)


@papers
def test_parameters_are_those_in_the_paper():
    text = (PAPERS / "learn2perturb.txt").read_text("utf-8")
    counts = paper_tables.parameters(text)
    for name, rows in paper_tables.NETWORKS.items():
        assert {row: {count} for row, count in parameters(name).items()} == {row: counts[row] for row in rows}
