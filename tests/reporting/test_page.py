"""The page and what lies beside it: self-contained, readable by ear, small, legible; LaTeX; the artifact itself."""

import base64
import hashlib
import itertools
import json
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from l2p_tf import artifacts
from l2p_tf.reporting import latex, page, report
from l2p_tf.reporting.images import FIRST
from l2p_tf.reporting.section import Section
from l2p_tf.reporting.sections.comparison import compare
from l2p_tf.reporting.series import CURVES, panels
from l2p_tf.reporting.table import NOTHING, Cell, Column, Table, figures, to_csv
from l2p_tf.types import UserError
from support.colors import DARK, LIGHT, PRINT, contrast, rgb
from support.pages import EVIL, Outline, own_script, without_own_script
from support.reports import CORRECT, make_runs
from support.ten import NAMES, make_ten


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    root = tmp_path_factory.mktemp("digits")
    return report.make([make_runs(root / "runs")], root / "report", "Digits")


@pytest.fixture(scope="module")
def ten(tmp_path_factory):
    root = tmp_path_factory.mktemp("ten")
    make_ten(root / "runs")
    begun = time.process_time()
    made = report.make([root / "runs"], root / "report", "Ten defenses")
    return made, time.process_time() - begun


def html_of(made):
    return (made.path / "report.html").read_text("utf-8")


def test_the_artifact_holds_page_tables_plots_and_what_it_was_made_of(digits):
    artifact = artifacts.read(digits.path, "report")
    assert {"report.html", "report.md", "comparison.csv", "comparison.tex", "plots/run-0-loss.svg"} <= set(
        artifact.manifest["outputs"]
    )
    assert sorted(artifact.options["runs"]) == sorted(CORRECT)
    assert len(artifact.manifest["inputs"]) == 7


def test_the_same_results_give_the_same_bytes_and_are_not_made_twice(digits, tmp_path):
    runs = digits.path.parent / "runs"
    again = report.make([runs], tmp_path / "report", "Digits")
    for name in ("report.html", "report.md", "comparison.csv", "plots/run-1-loss.svg"):
        assert (again.path / name).read_bytes() == (digits.path / name).read_bytes()
    before = (again.path / "manifest.json").stat().st_mtime_ns
    assert again.made
    assert not report.make([runs], tmp_path / "report", "Digits").made
    assert (again.path / "manifest.json").stat().st_mtime_ns == before
    for change in ({"title": "Another title"}, {"title": "Digits", "match": (0.7,)}):
        with pytest.raises(UserError, match="--overwrite"):
            report.make([runs], tmp_path / "report", **change)


def test_reports_never_import_tensorflow():
    code = "import sys, l2p_tf.reporting.report; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_page_is_self_contained_and_has_one_script(digits):
    text = html_of(digits)
    assert text.startswith("<!DOCTYPE html>")
    outline = Outline(without_own_script(text))
    assert not [tag for tag, _ in outline.tags if tag in ("script", "iframe", "object", "embed", "form", "base")]
    for tag, attributes in outline.tags:
        assert not [key for key in attributes if key.startswith("on")], tag
        for key in ("src", "href", "xlink:href"):
            assert attributes.get(key, "#").startswith(("#", "data:")), (tag, attributes)
    assert "url(http" not in text
    assert "@import" not in text
    policy = next(a["content"] for t, a in outline.tags if t == "meta" and "http-equiv" in a)
    script = own_script().removeprefix("<script>").removesuffix("</script>")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


@pytest.mark.parametrize("which", ["digits", "ten"])
def test_the_page_can_be_read_by_ear_and_keyboard(which, request):
    made = request.getfixturevalue(which)
    outline = Outline(without_own_script(html_of(made if which == "digits" else made[0])))
    assert len(outline.ids) == len(set(outline.ids))
    assert outline.headings[0] == 1
    assert outline.headings.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(outline.headings))
    for tag, attributes in outline.tags:
        assert tag != "th" or attributes.get("scope") in ("row", "col")
        assert tag != "img" or "alt" in attributes
        assert tag != "svg" or (attributes["role"] == "group" and attributes["aria-labelledby"] in outline.ids)
        assert "scroll" not in attributes.get("class", "").split() or attributes["tabindex"] == "0"
        assert attributes.get("href", "#").removeprefix("#") in ("", *outline.ids) or tag == "link"
        assert attributes.get("aria-labelledby", outline.ids[0]) in outline.ids
    tags = [tag for tag, _ in outline.tags]
    assert tags.count("caption") == tags.count("table")
    assert ("html", {"lang": "en"}) in outline.tags


def test_the_sections_come_in_their_order(ten):
    headings = re.findall(r'<h2 id="([\w-]+)"', html_of(ten[0]))
    assert headings[0] == "summary"
    assert headings[1:-3] == [section.name for section in ten[0].sections if section.visible]
    assert headings[-3:] == ["images", "settings", "lineage"]
    part = html_of(ten[0]).partition('id="summary"')[2].partition("</section>")[0]
    assert part.index('class="figures"') < part.index("<p>On the test split")


def test_the_page_shows_settings_and_lineage(digits):
    text = " ".join(Outline(html_of(digits)).text)
    for name in ("train_pgd", "attack_none", "data"):
        assert artifacts.read(digits.path.parent / "runs" / name).fingerprint[:8] in text
    for setting in ("batch_size", "tensorflow", "learn2perturb(gamma=0.0001)", "digits (8x8)", "78,330"):
        assert setting in text


def test_ten_runs_make_a_small_page_quickly(ten):
    made, seconds = ten
    assert len(made.results.once(compare).rows) == 10
    assert len(html_of(made).encode()) < 5_000_000
    assert seconds < 10


def test_one_plot_an_attack_has_the_curves_of_ten_defenses(ten):
    parts = panels(ten[0].results.evaluated)
    assert [len(part) for _, part in parts] == [9, 1]
    assert sorted(one.name for _, part in parts for one in part) == sorted(NAMES)
    assert all(len(part) <= CURVES for _, part in parts)
    (section,) = (section for section in ten[0].sections if section.name == "epsilons")
    assert len({plot.title for plot in section.plots}) == len(section.plots) == 4


def test_attacks_of_smallest_norm_show_their_median(ten):
    comparison = ten[0].results.once(compare)
    column = next(i for i, column in enumerate(comparison.columns) if column.minimal)
    cells = {row[0].text: row[1 + column] for row in comparison.table.rows}
    folder = ten[0].path.parent / "runs/attack_pgd/arrays"
    median = float(np.median(np.load(folder / "7.npz")["l2"][np.load(folder / "0.npz")["correct"]]))
    assert cells["pgd"].number == pytest.approx(median)
    assert cells["pgd"].lines == (f"{median:#.3g}", "median L2", "success 100.0%")
    assert cells["none"].number < cells["generator"].number
    assert "median norm of the perturbations that succeeded" in comparison.table.caption


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("81.5 ± 0.3", 81.5), ("1,234", 1234), ("\N{MINUS SIGN}0.5", -0.5), ("+2.0", 2), ("5 of 6", 5),
        ("\N{EN DASH}", None), ("", None), ("L2", None), ("1e-05", 1e-5),
    ],
)  # fmt: skip
def test_a_cell_is_sorted_by_the_number_it_begins_with(text, number):
    assert Cell(text).number == number
    assert Cell(text, value=7.0).number == 7


def test_the_page_has_the_numbers_of_figures_alone(ten):
    part = html_of(ten[0]).partition('id="norms"')[2].partition("</section>")[0]
    values = re.findall(r'data-value="([^"]*)"', part.partition("<tbody>")[2].partition("</tr>")[0])
    assert len(values) == 4  # Success, mean, median, mean L-infinity; "L2" and words are not numbers.
    assert float(values[0]) == 100.0
    assert 'class="words" data-value' not in html_of(ten[0])


def test_the_first_images_are_in_the_page_without_its_script(ten):
    part = html_of(ten[0]).partition('class="images"')[2]
    static = part.partition("<tbody")[2].partition("</tbody>")[0]
    assert static.count("<tr>") == FIRST
    assert "with scripts allowed, all 200" in part
    data = json.loads(re.search(r'<script type="application/json">(.*?)</script>', part)[1])
    indices = [int(index) for index in re.findall(r'<th scope="row">(\d+)</th>', static)]
    assert indices == [example["index"] for example in data["examples"][:FIRST]]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words", "plain words"),
        ("fgsm(epsilon=8/255) and", '<span class="token">fgsm(epsilon=8/255)</span> and'),
        ("L∞, ε 8/255", 'L∞, ε <span class="token">8/255</span>'),
        ("adv_bnn_v1_20, b", '<span class="token">adv_bnn_v1_20,</span> b'),
        ("a_" * 13, "a_" * 13),
        ("<b>/</b>", '<span class="token">&lt;b&gt;/&lt;/b&gt;</span>'),
    ],
)
def test_short_words_stay_whole_and_escaped(text, shown):
    assert page.tokens(text) == shown
    assert not set(page.tokens(EVIL).replace('<span class="token">', "").replace("</span>", "")) & {"<", ">", '"'}


def test_a_table_of_text_alone_is_wordy():
    words, figures = Column("Check", figures=False), Column("Runs")
    row = ((Cell("a"), Cell("b")),)
    assert Table("", "", (words, words), row).wordy
    assert not Table("", "", (words, figures), row).wordy


def test_names_are_no_formulas_of_a_spreadsheet():
    assert to_csv(figures([{"run": "=1+1", "x": -0.5}, {"run": "@a"}])) == "run,x\n'=1+1,-0.5\n'@a,\n"


SPECIAL = r"a_b & 50% #1 $x$ {y} \z ~ ^ < > | -- ''"


def test_text_is_escaped_for_latex():
    assert latex.escape(SPECIAL) == (
        r"a\_b \& 50\% \#1 \$x\$ \{y\} \textbackslash{}z \textasciitilde{} \textasciicircum{} "
        r"\textless{} \textgreater{} \textbar{} -{}- '{}'"
    )
    assert latex.escape("ε 8/255, ± 0.1, 1\N{EN DASH}2") == r"$\varepsilon$ 8/255, $\pm$ 0.1, 1--2"


def latex_rows(text):
    """The rows of each table."""
    for body in re.findall(r"\\toprule\n(.*?)\\bottomrule", text, re.DOTALL):
        yield [line for line in body.splitlines() if line != r"\midrule"]


def test_every_table_is_latex_with_as_many_cells_as_columns(ten):
    files = sorted(ten[0].path.glob("*.tex"))
    assert {file.stem for file in files} == {file.stem for file in ten[0].path.glob("*.csv")}
    for file in files:
        text = file.read_text("utf-8")
        columns = [len(spec) for spec in re.findall(r"\\begin\{tabular\}\{([lr]+)\}", text)]
        for width, rows in zip(columns, latex_rows(text), strict=True):
            assert len(rows) > 1
            for row in rows:
                assert row.startswith("{}")
                assert row.endswith(r" \\")
                assert len(re.findall(r"(?<!\\)&", row)) == width - 1, row


def test_names_that_are_latex_are_text():
    columns = (Column("[Run]", figures=False), Column("A & B", "50%"))
    table = Table("T_1", "C#", columns, ((Cell("[x]"), Cell("1", ("2_3",))), (Cell(r"\end{tabular}"), NOTHING)))
    text = dict(Section((table,), name="s").files)["s.tex"]
    assert r"\caption{T\_1. C\#}" in text
    (rows,) = latex_rows(text)
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


@pytest.mark.parametrize("scheme", [LIGHT, DARK, LIGHT | PRINT], ids=["light", "dark", "print"])
def test_text_and_curves_stand_out(scheme):
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    for ground in ("page", "panel", "warn"):
        for text in ("ink", "muted", "link", "right", "wrong"):
            assert contrast(rgb(scheme[text]), rgb(scheme[ground])) >= 4.5, (text, ground)
    for curve in ("blue", "vermillion", "green"):
        assert contrast(rgb(scheme[curve]), rgb(scheme["page"])) >= 3, curve
