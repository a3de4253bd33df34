"""The report's page as people meet it: sorting, plots that speak, the drill-down, every screen, print, LaTeX."""

import itertools
import json
import re
import shutil
import subprocess
import time

import numpy as np
import pytest
from l2p_tf.reporting.comparison import compare
from l2p_tf.reporting.matched import Match
from l2p_tf.reporting.plots import of_training
from l2p_tf.reporting.runs import find, gather
from l2p_tf.reporting.subjects import subjects
from l2p_tf.reporting.sweeps import CURVES, panels

from l2p_tf import artifacts
from l2p_tf.data import DATASETS
from l2p_tf.data.store import prepare
from l2p_tf.evaluation.records import wilson_interval
from l2p_tf.reporting import classes, drill, latex, lines, matched_table, outcomes, page, report, svg
from l2p_tf.reporting.gallery import data_uri
from l2p_tf.reporting.history import History
from l2p_tf.reporting.section import Section
from l2p_tf.reporting.table import NOTHING, Cell, Column, Table
from l2p_tf.types import UserError
from support.browser import Browser
from support.judged import arrays_of, make_judged
from support.pages import EVIL, Outline, with_browser, without_own_script
from support.reports import make_data, make_records, make_stage, make_train, make_transfer, transferred

COUNT, CLASSES = 200, 10
CLEAN = ("clean", "clean", None, None, 0, 1)
RADII = (0.05, 0.1, 0.2)
ATTACKS = (
    CLEAN,
    *((f"fgsm(epsilon={e})", "FGSM", "linf", e, 1, 1) for e in RADII),
    *((f"pgd(epsilon={e})", "PGD-20", "linf", e, 20, 1) for e in RADII),
    ("cw(steps=100)", "C&W", "l2", None, 100, 1),
)
NAMES = ("none", "fgsm", "pgd", "mat", "trades", "pni", "adv_bnn", "rse", "learn2perturb", "generator")


def make_ten(root):
    """Ten defenses, each clean and under FGSM and PGD at three radii and under C&W, and what transfers between four."""
    rng = np.random.default_rng(0)
    data = make_data(root)
    labels = np.arange(COUNT) % CLASSES
    hardness = rng.random(COUNT)
    trains = []
    for i, name in enumerate(NAMES):
        arrays = []
        for spec, *_, epsilon, steps, _ in ATTACKS:
            share = 0.98 if spec == "clean" else max(0.02, 0.95 - (epsilon or 9) * (6 - i / 3) - 0.005 * steps)
            right = hardness + rng.normal(0, 0.1, COUNT) < share
            wrong = (labels + rng.integers(1, 3, COUNT)) % CLASSES
            size = {"l2": 0.3 + 0.1 * i + hardness, "success": np.ones(COUNT)} if epsilon is None and steps else {}
            probability = np.where(right, 0.9, 0.2)
            arrays.append(arrays_of(labels, right, np.where(right, labels, wrong), probability, **size))
        trains.append(make_judged(root, data, name, ATTACKS, arrays))
    four = NAMES[:4]
    cells = {(a, b): 10 if a == b else 60 + 30 * four.index(b) for a in four for b in four}
    make_transfer(root, trains[:4], data, transferred(cells))
    return root


@pytest.fixture(scope="module")
def ten(tmp_path_factory):
    root = tmp_path_factory.mktemp("ten")
    make_ten(root / "runs")
    begun = time.process_time()
    made = report.make([root / "runs"], root / "report", "Ten defenses")
    return made, time.process_time() - begun


@pytest.fixture(scope="module")
def html(ten):
    return (ten[0].path / "report.html").read_text("utf-8")


def of(root):
    return gather(find([root]))


# Size and order.


def test_ten_runs_make_a_small_page_quickly(ten, html):
    made, seconds = ten
    assert len(made.comparison.rows) == 10
    assert len(html.encode()) < 5_000_000
    assert seconds < 10


def test_the_sections_come_in_their_order(html):
    found = re.findall(r'<h2 id="([\w-]+)"', html)
    assert found[:3] == ["summary", "comparison", "checks"]
    assert found[-4:] == ["parameters", "details", "settings", "lineage"]
    assert {"epsilons", "power", "norms", "transfer"} < set(found)
    for anchor in re.findall(r'<a href="#([\w-]+)"', html):
        assert html.count(f'id="{anchor}"') == 1


def test_the_summary_begins_with_figures_and_warnings(html):
    part = html.partition('id="summary"')[2].partition("</section>")[0]
    assert part.index('class="figures"') < part.index("<p>On the test split")


# What columns are sorted by.


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("81.5 ± 0.3", 81.5), ("1,234", 1234), ("\N{MINUS SIGN}0.5", -0.5), ("+2.0", 2), ("5 of 6", 5),
        ("\N{EN DASH}", None), ("", None), ("L2", None), ("1e-05", 1e-5),
    ],
)  # fmt: skip
def test_a_field_is_sorted_by_the_number_it_begins_with(text, number):
    assert Cell(text).number == number
    assert Cell(text, value=7.0).number == 7


def test_the_renderer_writes_the_numbers_of_figures_alone(html):
    part = html.partition('id="norms"')[2].partition("</section>")[0]
    row = part.partition("<tbody>")[2].partition("</tr>")[0]
    values = re.findall(r'data-value="([^"]*)"', row)
    assert len(values) == 4  # Success, mean, median, mean L-infinity; "L2" and words are not numbers.
    assert float(values[0]) == 100.0
    assert 'class="words" data-value' not in html


# The comparison.


def test_attacks_of_smallest_norm_show_their_median(ten):
    table = ten[0].comparison
    key = next(column.key for column in table.columns if column.minimal)
    entries = {row.name: row.entries[key] for row in table.rows}
    kept = np.load(ten[0].path.parent / "runs/attack_pgd/arrays/7.npz")["l2"]
    clean = np.load(ten[0].path.parent / "runs/attack_pgd/arrays/0.npz")["correct"]
    median = float(np.median(kept[clean]))
    assert entries["pgd"].cell().number == pytest.approx(median)
    assert entries["pgd"].cell().lines == (f"{median:#.3g}", "median L2", "success 100.0%", "n = 200")
    assert entries["none"].cell().number < entries["generator"].cell().number
    assert "median norm of the perturbations that succeeded" in table.table.caption
    bounded = next(column.key for column in table.columns if column.label.startswith("PGD"))
    assert table.rows[0].entries[bounded].cell().number == 100 * table.rows[0].entries[bounded].summary.accuracy


def test_a_black_box_column_of_dashes_is_left_out(tmp_path):
    data = make_data(tmp_path)
    ones = np.ones(10, bool)
    labels = np.arange(10)
    arrays = [arrays_of(labels, ones, labels), arrays_of(labels, ~ones, labels + 1)]
    for name in ("a", "b"):
        make_judged(tmp_path, data, name, ATTACKS[:2], arrays)
    heads = [(h.label, h.detail) for h in matched_table.section(of(tmp_path), Match((1.0,))).tables[0].columns]
    assert ("Accuracy", "black-box") not in heads
    trains = [artifacts.read(tmp_path / f"train_{name}") for name in ("a", "b")]
    make_transfer(tmp_path, trains, data, transferred({("a", "b"): 5}, ATTACKS[1], 10))
    section = matched_table.section(of(tmp_path), Match((1.0,)))
    heads = [(h.label, h.detail) for h in section.tables[0].columns]
    assert heads.index(("Accuracy", "black-box")) == 5
    assert all(len(row) == len(heads) for row in section.tables[0].rows)


# Plots.

CIRCLE = re.compile(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="[\d.]+" role="img"><title>(.*?)</title></circle>')


def test_the_points_of_a_plot_say_their_values_where_they_are():
    x, y = np.array([0.0, 1.0, 2.0]), np.array([10.0, 50.0, 90.0])
    curve = lines.Curve("<b>pgd</b>", x, y, low=y - 2, high=y + 2)
    plot = lines.plot_of("p", "t", [curve], ("L2 radius", "accuracy, %"), percent=True)
    marks = CIRCLE.findall(plot.svg)
    assert [text for _, _, text in marks] == [
        f"&lt;b&gt;pgd&lt;/b&gt;: accuracy {v}% ({v - 2}\N{EN DASH}{v + 2}) at L2 radius {r}"
        for v, r in ((10, 0), (50, 1), (90, 2))
    ]
    inside = svg.inline(plot.svg, "p", "t")
    assert 'role="group"' in inside
    assert inside.count("<circle") == 3
    assert inside.index('aria-hidden="true"') < inside.index('class="marks"')


def test_marks_lie_on_the_points_that_were_drawn():
    curve = lines.Curve("a", np.array([0.0, 1.0, 2.0]), np.array([10.0, 50.0, 20.0]))
    plot = lines.plot_of("p", "t", [curve], ("x", "y"))
    drawn = re.findall(r'<use xlink:href="#\w+" x="([\d.]+)" y="([\d.]+)" style="fill: #0072b2', plot.svg)
    marks = [(float(a), float(b)) for a, b, _ in CIRCLE.findall(plot.svg)]
    np.testing.assert_allclose(marks, np.array(drawn[:3], float), atol=0.1)


def test_marks_outside_of_the_axes_are_left_out():
    curve = lines.Curve("a", np.array([0.0, 1.0, 5.0]), np.array([1.0, 2.0, np.nan]))
    assert len(CIRCLE.findall(lines.plot_of("p", "t", [curve], ("x", "y"), right=2.0).svg)) == 2


def test_texts_beside_points_do_not_cover_each_other():
    x, y = np.array([1.0, 1.0, 1.0, 2.0]), np.array([1.0, 1.001, 1.002, 5.0])
    texts = ("0.125", "0.25", "0.5", "0.75")
    plot = lines.plot_of("p", "t", [lines.Curve("a", x, y, texts=texts)], ("x", "y"))
    found = re.findall(r'text-anchor: (\w+);[^>]* x="([\d.]+)" y="([\d.]+)"[^>]*>([\d.]+)</text>', plot.svg)
    boxes = {}
    for anchor, left, bottom, text in found:
        if text in texts:
            width = 4.5 * len(text)
            start = float(left) - {"start": 0, "middle": width / 2, "end": width}[anchor]
            boxes[text] = (start, float(bottom) - 7, start + width, float(bottom))
    assert {"0.125", "0.25", "0.75"} <= set(boxes)
    assert not [pair for pair in itertools.combinations(boxes.values(), 2) if lines._overlap(*pair)]
    # Whatever had no room is said by its mark.
    assert {text.rpartition(", ")[2] for _, _, text in CIRCLE.findall(plot.svg)} == set(texts)


def test_one_plot_an_attack_has_the_curves_of_ten_defenses(ten):
    runs = of(ten[0].path.parent / "runs")
    parts = panels(subjects(runs))
    assert [(label, len(mine)) for label, mine in parts] == [("1 of 2", 5), ("2 of 2", 5)]
    assert sorted(one.name for _, mine in parts for one in mine) == sorted(NAMES)
    assert all(len(mine) <= CURVES for _, mine in parts)
    titles = [plot.title for plot in page.epsilons.plots(runs)]
    assert [title.partition(" against")[0] for title in titles] == [
        "Accuracy under FGSM", "Accuracy under FGSM", "Accuracy under PGD-20", "Accuracy under PGD-20",
    ]  # fmt: skip
    assert len(set(titles)) == 4


def history_of(robust):
    epochs = np.arange(len(robust), dtype=float)
    return History({"epoch": epochs, "validation_robust_accuracy": np.array(robust)})


def test_best_and_last_epoch_are_marked_where_the_training_overfits():
    robust = [0.2, 0.5, 0.6, 0.45, 0.4, 0.35]
    (plot,) = of_training(history_of(robust), "x", "pgd", best=2)
    said = [text for _, _, text in CIRCLE.findall(plot.svg)]
    assert "accuracy 60% at the best epoch, adversarial, validation, epoch 3" in said
    assert "accuracy 35% at the last epoch, adversarial, validation, epoch 6" in said
    assert {"60.0", "35.0"} <= set(re.findall(r">([\d.]+)</text>", plot.svg))
    (plot,) = of_training(history_of(robust), "x", "pgd", best=5)
    assert "at the best epoch" not in plot.svg


@with_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_transfer_matrix_is_tinted_and_stays_legible(browser, ten, scheme):
    browser.scheme(scheme)
    browser.open(ten[0].path / "report.html")
    cells = browser.run("""[...document.querySelectorAll("#transfer ~ .scroll td, [aria-labelledby=transfer] td")].map(
      cell => [cell.style.getPropertyValue("--share"), cell.querySelector(".value").textContent])""")
    assert len(cells) == 16
    assert all(float(share) == pytest.approx(float(text) / 100, abs=0.006) for share, text in cells)
    tint, page_ = (rgb((LIGHT if scheme == "light" else DARK)[name]) for name in ("blue", "page"))
    darkest = tuple(0.2 * a + 0.8 * b for a, b in zip(tint, page_, strict=True))
    assert contrast(darkest, rgb((LIGHT if scheme == "light" else DARK)["ink"])) >= 4.5


# By class and by image.


@pytest.fixture
def small(tmp_path):
    """Six images of two classes and one that is not predicted right; a run with two repeats and one with one."""
    data = make_data(tmp_path, names=["cat", EVIL, *"23456789"])
    labels = [0, 0, 0, 0, 1, 1]
    pgd = ("pgd", "PGD-20", "linf", 0.1, 20, 1)
    noisy = [
        arrays_of(labels, [1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 1, 0], [0.9] * 6),
        arrays_of(labels, [1, 1, 1, 0, 1, 0], [0, 0, 0, 1, 1, 0], [0.8] * 6),
        arrays_of(labels, [1, 0, 0, 0, 0, 0], [0, 1, 1, 2, 0, 0], [0.6, 0.1, 0.2, 0.3, 0.4, 0.5]),
        arrays_of(labels, [0, 0, 0, 0, 0, 0], [1, 1, 1, 2, 0, 0], [0.5] * 6),
    ]
    make_judged(tmp_path, data, "noisy", (CLEAN, pgd), noisy, repeats=2, randomized=True)
    plain = [
        arrays_of(labels, [1] * 6, labels),
        arrays_of(labels, [1, 1, 0, 0, 1, 1], [0, 0, 1, 1, 1, 1]),
    ]
    make_judged(tmp_path, data, "plain", (CLEAN, pgd), plain)
    return tmp_path


def test_accuracy_by_class_is_that_of_its_images(small):
    (place,) = outcomes.outcomes(of(small))
    by_class, _ = classes.sections([place])
    assert [sheet.title for sheet in by_class.tables] == ["Clean", "PGD-20"]
    cat, evil = by_class.tables[1].rows
    assert cat[0].lines == ("cat", "n = 4")
    low, high = wilson_interval(1 / 8, 4)
    assert cat[1].lines == ("12.5", f"{100 * low:.1f}\N{EN DASH}{100 * high:.1f}")
    assert [field.text for field in evil[1:]] == ["0.0", "100.0"]
    assert [field.marked for field in (*cat[1:], *evil[1:])] == [False, True, True, False]
    line = next(one for one in by_class.lines if (one["run"], one["attack"], one["class"]) == ("noisy", "pgd", 0))
    assert (line["count"], line["accuracy"], line["repeats"], line["name"]) == (4, 12.5, 2, "cat")


def test_confusions_are_counted_over_all_repeats(small):
    (place,) = outcomes.outcomes(of(small))
    outcome = place.found[0, ("pgd", "l2p_tf")]
    assert classes.confusions(outcome) == [(0, 1, 5, 8), (1, 0, 4, 4), (0, 2, 2, 8)]
    _, confused = classes.sections([place])
    row = confused.tables[0].rows[0]
    evil = place.class_name(1)
    assert row[2].lines == (f"cat → {evil}: 5 of 8", f"{evil} → cat: 4 of 4", "cat → 2: 2 of 8")
    assert confused.tables[0].rows[1][1].text == "no mistakes"
    assert [(one["class"], one["predicted"], one["times"], one["of"]) for one in confused.lines][-1] == (0, 1, 2, 4)


def test_images_on_which_runs_differ_come_first(small):
    (place,) = outcomes.outcomes(of(small))
    found = drill.drill(place, 1000)
    # Runs differ on 1, 4 under PGD, and on 5 clean and under PGD; of the others they get 2 and 3 wrong.
    assert [example.index for example in found.examples] == [5, 1, 4, 2, 3, 0]
    assert (found.total, found.differ, found.attacks[found.hardest]) == (6, 3, "PGD-20")
    assert found.examples[1].cells[1] == (drill.Answer(1, False, 10), drill.Answer(0, True, -1))
    packed = json.loads(found.json)
    assert packed["examples"][1] == {
        "index": 1, "label": 0, "source": "", "cells": [[[0, 1, 90], [0, 1, -1]], [[1, 0, 10], [0, 1, -1]]],
    }  # fmt: skip
    assert packed["classes"][:2] == ["cat", EVIL[:39] + "…" if len(EVIL) > 40 else EVIL]
    assert not set(found.json) & set("<>&")


def test_all_images_are_kept_while_their_results_have_room(tmp_path, monkeypatch):
    data = make_data(tmp_path)
    labels = np.arange(500) % 10
    right = np.arange(500) >= 69
    make_judged(tmp_path, data, "one", (CLEAN,), [arrays_of(labels, right, np.where(right, labels, (labels + 1) % 10))])
    (place,) = outcomes.outcomes(of(tmp_path))
    found = drill.drill(place, 0)
    assert len(found.examples) == found.total == 500
    assert sum(not example.cells[0][0].right for example in found.examples) == 69
    monkeypatch.setattr(drill, "_CELLS", 100)
    found = drill.drill(place, 0)
    assert (len(found.examples), found.total, json.loads(found.json)["total"]) == (100, 500, 500)


def test_images_are_those_of_the_split(tmp_path):
    data = prepare(DATASETS.parse("digits"), tmp_path / "data", limit_train=60, limit_test=20)
    labels = np.load(data.path / "test_labels.npy")
    right = np.arange(len(labels)) % 3 > 0
    arrays = [arrays_of(labels, right, np.where(right, labels, (labels + 1) % 10))]
    make_judged(tmp_path, data, "none", (CLEAN,), arrays, dataset="digits")
    (place,) = outcomes.outcomes(of(tmp_path))
    images = np.load(data.path / "test_images.npy")
    for example in drill.drill(place, 10_000).examples:
        assert example.source == data_uri(images[example.index] / np.float32(255))
    few = [example.source for example in drill.drill(place, 500).examples]
    assert few[0].startswith("data:image/png")
    assert sum(map(len, few)) <= 500
    assert few[-1] == ""


def test_a_run_judged_on_fewer_images_has_gaps(small):
    data = artifacts.read(small / "data")
    part = arrays_of([0, 1], [1, 0], [0, 0])
    part["index"] = np.array([2, 5])
    make_judged(small, data, "part", (CLEAN,), [part])
    (place,) = outcomes.outcomes(of(small))
    found = drill.drill(place, 0)
    run = found.runs.index("part")
    assert {e.index for e in found.examples if e.cells[0][run] is not None} == {2, 5}
    assert {e.index for e in found.examples if e.cells[1][run] is not None} == set()
    assert classes.sections([place])[0].tables[1].rows[0][1 + run] is NOTHING


def test_runs_without_arrays_are_named_and_damaged_ones_refused(small):
    data = artifacts.read(small / "data")
    train = make_train(small, data, "bare")
    make_stage(small / "attack_bare", "attack", {"train": train, "data": data}, make_records("bare", (5,), (CLEAN,)))
    runs = of(small)
    assert page.detail(runs).missing == ("bare",)
    assert "Without bare, whose per-example results were not kept." in report_of(small)
    path = small / "attack_plain" / "arrays" / "1.npz"
    np.savez(path, **{**np.load(path), "label": np.zeros(5)})
    with pytest.raises(UserError, match=r"arrays.1\.npz' should hold the per-example arrays.*`label` has shape \(5,\)"):
        page.detail(runs)


def report_of(root):
    made = report.make([root], root.parent / f"{root.name}-report")
    return (made.path / "report.html").read_text("utf-8")


def test_class_names_from_outside_stay_text(small):
    text = report_of(small)
    rest = without_own_script(text)
    assert "<script" not in rest
    assert rest.count("&lt;script&gt;") > 4
    outside = (small.parent / f"{small.name}-report" / "classes.tex").read_text("utf-8")
    assert r"\textless{}script\textgreater{}" in outside


def test_json_in_the_page_ends_no_element():
    text = drill.escaped_json({"a": "</script><!--&\u2028"})
    assert text == r'{"a":"\u003c/script\u003e\u003c!--\u0026\u2028"}'
    assert json.loads(text) == {"a": "</script><!--&\u2028"}


def test_the_first_images_are_in_the_page_without_its_script(html):
    part = html.partition('class="drill"')[2]
    static = part.partition("<tbody")[2].partition("</tbody>")[0]
    assert static.count("<tr>") == drill.FIRST
    assert "Here are 200" not in part
    assert "with scripts allowed, all 200" in part
    data = json.loads(re.search(r'<script type="application/json">(.*?)</script>', part)[1])
    indices = re.findall(r'<th scope="row">(\d+)</th>', static)
    assert [int(i) for i in indices] == [e["index"] for e in data["examples"][: drill.FIRST]]


# LaTeX.

SPECIAL = r"a_b & 50% #1 $x$ {y} \z ~ ^ < > | -- ''"


def test_text_is_escaped_for_latex():
    assert latex.escape(SPECIAL) == (
        r"a\_b \& 50\% \#1 \$x\$ \{y\} \textbackslash{}z \textasciitilde{} \textasciicircum{} "
        r"\textless{} \textgreater{} \textbar{} -{}- '{}'"
    )
    assert latex.escape("ε 8/255, ± 0.1, 1\N{EN DASH}2") == r"$\varepsilon$ 8/255, $\pm$ 0.1, 1--2"


def rows_of(text):
    """The rows of each table."""
    for body in re.findall(r"\\toprule\n(.*?)\\bottomrule", text, re.DOTALL):
        yield [line for line in body.splitlines() if line != r"\midrule"]


def test_every_table_is_latex_with_as_many_cells_as_columns(ten):
    files = sorted(ten[0].path.glob("*.tex"))
    assert {f.stem for f in files} == {f.stem for f in ten[0].path.glob("*.csv")}
    for file in files:
        text = file.read_text("utf-8")
        columns = [len(spec) for spec in re.findall(r"\\begin\{tabular\}\{([lr]+)\}", text)]
        assert columns
        for width, rows in zip(columns, rows_of(text), strict=True):
            assert len(rows) > 1
            for row in rows:
                assert row.startswith("{}")
                assert row.endswith(r" \\")
                assert len(re.findall(r"(?<!\\)&", row)) == width - 1, row


def test_a_sheet_of_evil_names_is_still_a_table():
    heads = (Column("[Run]", figures=False), Column("A & B", "50%"))
    sheet = Table("T_1", "C#", heads, ((Cell("[x]"), Cell("1", ("2_3",))), (Cell(r"\end{tabular}"), NOTHING)))
    text = Section("s", "S", (sheet,), ()).to_latex()
    assert r"\caption{T\_1. C\#}" in text
    (rows,) = rows_of(text)
    assert rows == [
        r"{}[Run] & A \& B \\", r"{} & \footnotesize 50\% \\", r"{}[x] & 1 \\", r"{} & \footnotesize 2\_3 \\",
        r"{}\textbackslash{}end\{tabular\} & -- \\",
    ]  # fmt: skip


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_the_tables_compile(ten, tmp_path):
    inputs = "".join(rf"\input{{{file}}}" for file in sorted(ten[0].path.glob("*.tex")))
    (tmp_path / "all.tex").write_text(
        rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{inputs}\end{{document}}", "utf-8"
    )
    done = subprocess.run(["pdflatex", "-halt-on-error", "all.tex"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


# Colors.

CSS = (page._TEMPLATES / "style.css").read_text("utf-8")
LIGHT, DARK, PRINT = (
    dict(re.findall(r"--([\w-]+): (#\w+)", block)) for block in re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
)


def rgb(color):
    digits = color.removeprefix("#")
    digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
    return tuple(int(digits[i : i + 2], 16) for i in (0, 2, 4))


def luminance(color):
    parts = np.array(color) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [LIGHT, DARK, LIGHT | PRINT], ids=["light", "dark", "print"])
def test_text_and_curves_stand_out(scheme):
    for ground in ("page", "panel", "warn"):
        for text in ("ink", "muted", "link", "right", "wrong"):
            assert contrast(rgb(scheme[text]), rgb(scheme[ground])) >= 4.5, (text, ground)
    for curve in ("blue", "vermillion", "green"):
        assert contrast(rgb(scheme[curve]), rgb(scheme["page"])) >= 3, curve


def test_contrast_is_that_of_black_and_white():
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert rgb("#fff") == (255, 255, 255)


# In a browser.


@pytest.fixture(scope="module")
def browser():
    with Browser() as opened:
        yield opened


@with_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_every_screen_without_complaint(browser, ten, scheme, tmp_path):
    browser.scheme(scheme)
    for width in (1280, 768, 390):
        browser.size(width)
        browser.open(ten[0].path / "report.html")
        assert browser.run("document.documentElement.scrollWidth") <= width
        assert browser.messages == []
        browser.screenshot(tmp_path / f"{width}.png")
        assert (tmp_path / f"{width}.png").stat().st_size > 10_000
    ground = browser.run("getComputedStyle(document.body).backgroundColor")
    expected = rgb((LIGHT if scheme == "light" else DARK)["page"])
    assert ground == f"rgb{expected}"


@pytest.fixture
def shown(browser, ten):
    browser.scheme("light")
    browser.size(1280)
    browser.open(ten[0].path / "report.html")
    return browser


@with_browser
def test_the_policy_lets_nothing_else_run(shown, ten, tmp_path):
    text = (ten[0].path / "report.html").read_text("utf-8").replace("</main>", "<script>evil = 1</script></main>")
    (tmp_path / "evil.html").write_text(text, "utf-8")
    shown.open(tmp_path / "evil.html")
    assert shown.run("typeof evil") == "undefined"
    assert any("Content Security Policy" in json.dumps(message) for message in shown.messages)
    assert shown.run("document.querySelectorAll('button.sort').length") > 10


COLUMN = """[...document.querySelectorAll("#comparison ~ .scroll tbody tr")].map(
  row => [row.cells[0].firstChild.textContent.trim(), row.cells[%d].dataset.value])"""


@with_browser
def test_tables_are_sorted_by_keyboard(shown, ten):
    table = ten[0].comparison
    at = 1 + next(i for i, column in enumerate(table.columns) if column.minimal)
    head = f"document.querySelectorAll('#comparison ~ .scroll thead th')[{at}]"
    original = shown.run(COLUMN % at)
    assert [name for name, _ in original] == [row.name for row in table.rows]
    shown.run(f"{head}.querySelector('button').focus()")
    values = []
    for wanted in ("ascending", "descending", None):
        shown.press("Enter", 13)
        assert shown.run(f"{head}.getAttribute('aria-sort')") == wanted
        values.append(shown.run(COLUMN % at))
    assert [float(v) for _, v in values[0]] == sorted(float(v) for _, v in original)
    assert [float(v) for _, v in values[1]] == sorted((float(v) for _, v in original), reverse=True)
    assert values[2] == original
    assert shown.run("document.querySelectorAll('[aria-sort]').length") == 0


@with_browser
def test_sorting_is_stable_and_dashes_come_last(shown):
    shown.run("""
      document.querySelector("main").insertAdjacentHTML("afterbegin", `<table id="t"><thead><tr><th>a<th>b</tr></thead>
        <tbody><tr><th>x<td data-value="2">2<tr><th>y<td>\\u2013
        <tr><th>z<td data-value="-1">1<tr><th>w<td data-value="2">2
        <tr><th>x10<td>\\u2013</table>`);
      sortable(document.getElementById("t"));""")

    def order(column, times):
        shown.run(f"for (let i = 0; i < {times}; i++) document.querySelectorAll('#t button')[{column}].click()")
        return shown.run("[...document.querySelectorAll('#t tbody th')].map(cell => cell.textContent.trim()).join(' ')")

    assert order(1, 1) == "z x w y x10"
    assert order(1, 1) == "x w z y x10"
    assert order(1, 1) == "x y z w x10"
    assert order(0, 1) == "w x x10 y z"


@with_browser
def test_marks_of_plots_speak_to_keyboard_and_finger(shown):
    svg_ = "document.querySelector('#epsilons ~ .plots svg .marks')"
    count = shown.run(f"{svg_}.children.length")
    assert count > 10
    assert shown.run(f"[...{svg_}.children].filter(mark => mark.tabIndex === 0).length") == 1
    assert shown.run(f"{svg_}.querySelectorAll('title').length") == 0
    shown.run(f"{svg_}.firstChild.focus()")
    tip = "(t => t.hidden ? null : t.textContent)(document.querySelector('.tip'))"
    assert re.fullmatch(r"\w+: accuracy [\d.]+% \([\d.]+.[\d.]+\) at L∞ radius, ε 0", shown.run(tip))
    shown.press("ArrowRight", 39)
    assert shown.run(f"[...{svg_}.children].indexOf(document.activeElement)") == 1
    assert "ε 0.05" in shown.run(tip)
    shown.press("End", 35)
    assert shown.run(f"[...{svg_}.children].indexOf(document.activeElement)") == count - 1
    shown.press("Escape", 27)
    assert shown.run(tip) is None
    shown.run("document.querySelector('#power ~ .plots').scrollIntoView({block: 'center'})")
    marks = "document.querySelector('#power ~ .plots .marks').children"
    place = "(r => [r.x + r.width / 2, r.y + r.height / 2])(%s[%d].getBoundingClientRect())"
    # Where curves meet, one mark covers another.
    free = shown.run(f"""[...{marks}].map((mark, i) => [mark.getBoundingClientRect(), mark, i]).filter(([r, mark]) =>
      document.elementFromPoint(r.x + r.width / 2, r.y + r.height / 2) === mark).map(found => found[2])""")
    x, y = shown.run(place % (marks, free[0]))
    shown.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
    first = shown.run(f"{marks}[{free[0]}].getAttribute('aria-label')")
    assert shown.run(tip) == first
    shown.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    x, y = shown.run(place % (marks, free[-1]))
    shown.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    assert shown.run(tip) == shown.run(f"{marks}[{free[-1]}].getAttribute('aria-label')") != first


SET = """((label, value) => {
  const select = [...document.querySelectorAll(".filters label")].find(l => l.textContent.startsWith(label)).lastChild;
  select.value = [...select.options].findIndex(option => option.textContent === value);
  select.dispatchEvent(new Event("change"));
})(%s, %s)"""


@with_browser
def test_images_are_found_by_class_run_and_outcome(shown, html):
    data = json.loads(re.search(r'<script type="application/json">(.*?)</script>', html)[1])
    count = "Number(document.querySelector('.count').textContent.split(' ')[0])"
    rows = "document.querySelectorAll('.examples tbody tr').length"
    assert (shown.run(count), shown.run(rows)) == (len(data["examples"]), 25)
    options = "[...document.querySelectorAll('.filters label')].at(-1).querySelectorAll('option')"
    names = f"[...{options}].map(o => o.textContent)"
    assert shown.run(names) == ["any", "all right", "all wrong", "runs differ"]
    shown.run("document.querySelector('.more').click()")
    assert shown.run(rows) == 50
    attack = data["attacks"].index("PGD-20, ε 0.1")
    for label, value in (("Attack", "PGD-20, ε 0.1"), ("Class", "3"), ("Run", "pgd"), ("Outcome", "wrong")):
        shown.run(SET % (json.dumps(label), json.dumps(value)))
    run = data["runs"].index("pgd")
    wanted = [e["index"] for e in data["examples"] if e["label"] == 3 and not e["cells"][attack][run][1]]
    assert 0 < len(wanted) <= 25
    found = shown.run("[...document.querySelectorAll('.examples tbody th')].map(cell => Number(cell.textContent))")
    assert (found, shown.run(count)) == (wanted, len(wanted))
    assert shown.run("document.querySelector('.more').hidden")
    # One run cannot differ from others.
    assert shown.run(names)[1:3] == ["right", "wrong"]
    assert shown.run("document.querySelectorAll('.filters option:disabled').length") == 1
    shown.run(SET % ('"Run"', '"every run"'))
    shown.run(SET % ('"Outcome"', '"runs differ"'))
    differ = [e for e in data["examples"] if e["label"] == 3 and len({cell[1] for cell in e["cells"][attack]}) == 2]
    assert shown.run(count) == len(differ) > 0


@with_browser
def test_every_control_has_a_name_and_is_reached_by_keyboard(shown):
    unnamed = shown.run("""[...document.querySelectorAll("button, select, summary, a, [tabindex='0']")].filter(e =>
      !(e.textContent.trim() || e.getAttribute("aria-label") || e.getAttribute("aria-labelledby")
        || e.closest("label"))).length""")
    assert unnamed == 0
    assert shown.run("[...document.querySelectorAll('button, select')].filter(e => e.tabIndex < 0).length") == 0
    assert shown.run("[...document.querySelectorAll('th')].filter(e => !e.scope).length") == 0
    shown.press("Tab", 9)
    assert shown.run("document.activeElement.textContent") == "Skip to the report"


@with_browser
def test_the_page_can_be_printed(shown):
    pdf = shown.pdf()
    assert pdf.startswith(b"%PDF")
    assert len(pdf) < 10_000_000


@with_browser
def test_without_its_script_the_page_says_the_same(shown, ten):
    shown.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        shown.open(ten[0].path / "report.html")
        assert shown.run("document.querySelectorAll('button').length") == 0
        assert shown.run("document.querySelector('.filters').hidden")
        assert shown.run("document.querySelectorAll('.examples tbody tr').length") == drill.FIRST
        assert shown.run("document.querySelectorAll('.marks title').length") > 100
    finally:
        shown.call("Emulation.setScriptExecutionDisabled", value=False)


def test_the_page_is_heard_in_full(html):
    outline = Outline(without_own_script(html))
    assert len(outline.ids) == len(set(outline.ids))
    assert all(b - a <= 1 for a, b in itertools.pairwise(outline.headings))
    for tag, attributes in outline.tags:
        assert tag != "th" or attributes.get("scope") in ("row", "col")
        assert attributes.get("aria-labelledby", outline.ids[0]) in outline.ids
        assert tag != "img" or "alt" in attributes
    tags = [tag for tag, _ in outline.tags]
    assert tags.count("caption") == tags.count("table")
    assert compare([]).rows == ()
