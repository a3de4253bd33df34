"""What holds for every section of a report, whatever it is of: names from outside stay text in all that is written."""

import csv
import dataclasses
import html
import io
import re

import numpy as np
import pytest
from rich.console import Console

from l2p_tf import artifacts
from l2p_tf.contract import BEWARE
from l2p_tf.contract import Finding as Trait
from l2p_tf.evaluation.gate import Outcome
from l2p_tf.evaluation.masking.record import FAIL, Finding, Share, unmeasured
from l2p_tf.reporting import report
from l2p_tf.reporting.format import escape_markdown
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import registered, sections_of
from support.certified import arrays_of, make_certify
from support.checked import make_checks
from support.judged import arrays_of as arrays_by_class
from support.judged import make_judged
from support.pages import EVIL, Outline, without_own_script
from support.reports import (
    ATTACKS,
    make_attack,
    make_data,
    make_records,
    make_stage,
    make_train,
    make_transfer,
    of_correct,
    records_of,
    transferred,
)
from support.sweeps import CLEAN, CW, bounded_arrays, clean_arrays, fgm, first, make_run, minimal_arrays

NAME = f"{EVIL} | a_b \\end{{tabular}}\n# x\x1b[31m"
"""Markup of HTML, Markdown, LaTeX and of terminals."""


def make_compared(root):
    data = make_data(root, names=[NAME] * 10, name=NAME)
    train = make_train(root, data, NAME, folder="t", defense=NAME, model=NAME, **{NAME: NAME})
    attacks = tuple((NAME if spec != "clean" else spec, NAME, *rest) for spec, _, *rest in ATTACKS[:2])
    records = make_records(NAME, (350, 300), attacks, dataset=NAME, split=NAME, backend=NAME, randomized=True)
    make_attack(root, train, data, records, folder="a")


def make_minimal(root):
    data = make_data(root, name=NAME)
    train = make_train(root, data, NAME, folder="t")
    attack = (NAME, NAME, "l2", None, 5, 1)
    for backend in ("l2p_tf", "cleverhans"):
        arrays = [of_correct([1, 1]), of_correct([0, 1])]
        records = records_of(NAME, (CLEAN, attack), arrays, dataset=NAME, split=NAME, backend=backend)
        records = [dataclasses.replace(record, reached=2, reached_8bit=1) for record in records]
        make_stage(root / backend, "attack", {"train": train, "data": data}, records, arrays, checkpoint=NAME)
    records = transferred({(NAME, NAME): 3, (f"{NAME}+b", NAME): 4}, attack, dataset=NAME, split=NAME)
    make_transfer(root, [train], data, records, checkpoint=NAME)


def make_certified(root):
    data = make_data(root, name=NAME)
    train = make_train(root, data, NAME, folder="t")
    make_certify(root, train, data, {NAME: arrays_of()}, checkpoint=NAME, certificate=NAME, dataset=NAME, split=NAME)


def make_checked(root):
    data = make_data(root)
    found = {"black_box": Finding("black_box", FAIL, (Share(NAME, 9, 98),), 0.0), "eot": unmeasured("eot", NAME)}
    make_checks(root, make_train(root, data, NAME, folder="train"), data, found)


def make_paired(root):
    data = make_data(root)
    for name in (NAME, f"{NAME}2"):
        train = make_train(root, data, name, folder=f"t{len(name)}", history=False)
        arrays = [of_correct([1] * 30), of_correct([1] * 10 + [0] * 20)]
        records = records_of(name, (CLEAN, (NAME, NAME, *ATTACKS[2][2:])), arrays)
        make_stage(root / f"a{len(name)}", "attack", {"train": train, "data": data}, records, arrays)


def make_classified(root):
    data = make_data(root, names=[NAME] * 10)
    labels = np.arange(20) % 2
    arrays = [arrays_by_class(labels, labels == labels, labels), arrays_by_class(labels, labels == 0, labels * 0)]
    train = make_train(root, data, NAME, "t", history=False)
    make_judged(root, data, "run", (CLEAN, (NAME, NAME, *ATTACKS[2][2:])), arrays, train=train)


def make_swept(root):
    data = make_data(root, name=NAME)
    attacks = [(NAME if s == "cw" else s, NAME, *rest) for s, _, *rest in (CLEAN, CW, *map(fgm, (1, 2, 3)))]
    arrays = [clean_arrays(), minimal_arrays(), *(bounded_arrays(first(3), 1, 0.5) for _ in range(3))]
    for i in range(3):
        options = {"defense": NAME, "model": NAME, "sweep": {f"defense.{NAME}": i, NAME: NAME}}
        make_run(root, data, f"{NAME}{i}", attacks, arrays, folder=str(i), checkpoint=NAME, **options)


def make_imported(root):
    data = make_data(root)
    with artifacts.produce(root / "t", "train", {"name": NAME, "model": NAME}, {"probe": data}) as work:
        (work.path / "best.keras").touch()
        work.notes["contract"] = [Trait(NAME, BEWARE, NAME).as_json()]
    make_attack(root, artifacts.read(root / "t"), data, make_records(NAME), folder="a")


def make_gated(root):
    data = make_data(root)
    train = make_train(root, data, NAME, folder="t", history=False)
    inputs = {"train": train, "data": data}
    outcomes = [Outcome(NAME, NAME, NAME, 0.5, 0.4, 0.3, 100)]
    with artifacts.produce(root / "gate", "gate", {"train": train.fingerprint}, inputs) as work:
        artifacts.write_json(work.path / "gate.json", [dataclasses.asdict(one) for one in outcomes])


def make_libraries(root):
    data = make_data(root)
    train = make_train(root, data, NAME, "t", history=False)
    arrays = [of_correct([1] * 30), of_correct([1] * 10 + [0] * 20), of_correct([1] * 20 + [0] * 10)]
    records = records_of(NAME, (CLEAN, (NAME, NAME, *ATTACKS[2][2:]), (f"{NAME}2", NAME, *ATTACKS[2][2:])), arrays)
    records[2] = dataclasses.replace(records[2], backend=NAME)
    make_stage(root / "a", "attack", {"train": train, "data": data}, records, arrays)


def make_corrupted(root):
    data = make_data(root)
    arrays = [of_correct([1] * n + [0] * (20 - n), confidence=[0.5] * 20, brier=[0.5] * 20) for n in (20, 9, 5)]
    fog = [(f"corruption({s}", f"{NAME} {s}", *CLEAN[2:]) for s in (1, 2)]
    records = records_of(NAME, (CLEAN, *fog), arrays)
    train = make_train(root, data, NAME, "t", history=False)
    make_stage(root / "a", "attack", {"train": train, "data": data}, records, arrays)


CASES = {
    make_corrupted: ["comparison", "corruptions", "parameters"],
    make_gated: ["gate", "comparison", "parameters"],
    make_libraries: ["comparison", "libraries", "strength", "parameters"],
    make_imported: ["comparison", "contract", "strength", "parameters"],
    make_compared: ["comparison", "strength", "training", "parameters"],
    make_minimal: [
        "comparison", "eightbits", "power", "norms", "transfer", "backends", "strength", "training", "parameters",
    ],
    make_certified: ["comparison", "certified", "training", "parameters"],
    make_checked: ["comparison", "checks", "training", "parameters"],
    make_paired: ["comparison", "paired", "strength", "parameters"],
    make_swept: [
        "comparison", "sweep", "matched", "paired", "epsilons", "power", "norms", "strength", "training", "parameters",
    ],
    make_classified: ["comparison", "strength", "parameters", "classes", "confusions"],
}  # fmt: skip


@pytest.fixture(scope="module", params=CASES, ids=lambda make: make.__name__)
def made(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("sections")
    request.param(root / "runs")
    match = (0.8,) if request.param is make_swept else ()
    return report.make([root / "runs"], root / "report", NAME, match=match), CASES[request.param]


def test_the_cases_have_every_section():
    registered_names = [entry.name for entry in registered()]
    assert sorted(registered_names) == sorted({name for names in CASES.values() for name in names})
    assert all(name.isalpha() for name in registered_names)
    assert len({entry.order for entry in registered()}) == len(registered_names)


def test_nothing_gives_no_sections():
    assert [section.name for section in sections_of(Results([])) if section.visible] == []


def test_sections_come_in_their_order_and_say_what_their_figures_are(made):
    report_made, names = made
    shown = [section for section in report_made.sections if section.tables or section.plots]
    assert [section.name for section in shown] == names
    for section in shown:
        assert section.note or section.plots or all(table.caption for table in section.tables)
        assert len({table.title for table in section.tables}) == len(section.tables)
        assert section.opened is None or 0 <= section.opened < len(section.tables)


def test_tables_are_rectangles_of_text(made):
    for table in (table for section in made[0].sections for table in section.tables):
        assert table.rows
        assert all(len(row) == len(table.columns) for row in table.rows)
        console = Console(file=io.StringIO(), width=80)
        console.print(table.to_rich(80))
        lines = console.file.getvalue().splitlines()
        assert "\x1b[31m" not in console.file.getvalue()
        assert max(map(len, lines)) <= 80


def test_the_page_shows_names_from_outside_as_text(made):
    page = (made[0].path / "report.html").read_text("utf-8")
    assert "<script" not in without_own_script(page)
    assert page.count("&lt;script&gt;") > 10
    outline = Outline(page)
    assert len(outline.ids) == len(set(outline.ids))
    links = {a["href"][1:] for tag, a in outline.tags if tag == "a" and a["href"].startswith("#")}
    assert links <= set(outline.ids)
    for section in made[0].sections:
        if section.tables or section.plots:
            assert section.name in links
            assert f">{html.escape(section.title)}</h2>" in page
    assert all("<script" not in path.read_text("utf-8") for path in (made[0].path / "plots").glob("*.svg"))


def test_markdown_has_as_many_cells_as_columns(made):
    markdown = (made[0].path / "report.md").read_text("utf-8")
    assert not re.search(r"(?<!\\)<script", markdown)
    assert "\n# x" not in markdown
    for block in markdown.split("\n\n"):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines() if line.startswith("|")}) <= 1
    for section in made[0].sections:
        assert (f"## {escape_markdown(section.title)}" in markdown) is bool(section.tables or section.note)


def test_figures_and_latex_lie_beside_the_page(made):
    for section in (section for section in made[0].sections if section.tables):
        rows = list(csv.DictReader(io.StringIO((made[0].path / f"{section.name}.csv").read_text("utf-8"))))
        assert len(rows) == len(section.figures)
        assert all(None not in row and None not in row.values() for row in rows)
        # No spreadsheet takes a name for a formula.
        assert not any(value.startswith(("=", "+", "@")) for row in rows for value in row.values())
        latex = (made[0].path / f"{section.name}.tex").read_text("utf-8")
        assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == len(section.tables)
