"""What holds for every section of a report, whatever it is of: names from outside stay text in all that is written."""

import csv
import dataclasses
import io
import re

import pytest
from rich.console import Console

from l2p_tf.evaluation.masking import FAIL, Finding, Share, unmeasured
from l2p_tf.reporting import report
from support.certified import arrays_of, make_certify
from support.checked import make_checks
from support.pages import EVIL, without_own_script
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
        records = [dataclasses.replace(record, reached=2) for record in records]
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


def make_swept(root):
    data = make_data(root, name=NAME)
    attacks = [(NAME if s == "cw" else s, NAME, *rest) for s, _, *rest in (CLEAN, CW, *map(fgm, (1, 2, 3)))]
    arrays = [clean_arrays(), minimal_arrays(), *(bounded_arrays(first(3), 1, 0.5) for _ in range(3))]
    for i in range(3):
        options = {"defense": NAME, "model": NAME, "sweep": {f"defense.{NAME}": i, NAME: NAME}}
        make_run(root, data, f"{NAME}{i}", attacks, arrays, folder=str(i), checkpoint=NAME, **options)


CASES = {
    make_compared: ["comparison", "strength"],
    make_minimal: ["comparison", "power", "norms", "transfer", "backends", "strength"],
    make_certified: ["comparison", "certified"],
    make_checked: ["comparison", "checks"],
    make_paired: ["comparison", "paired", "strength"],
    make_swept: ["comparison", "paired", "sweep", "matched", "epsilons", "power", "norms", "strength"],
}


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_names_from_outside_stay_text(make, tmp_path):
    make(tmp_path / "runs")
    made = report.make([tmp_path / "runs"], tmp_path / "report", NAME, match=(0.8,) if make is make_swept else ())
    sections = made.comparison.all_sections
    assert [section.name for section in sections] == CASES[make]
    page = (made.path / "report.html").read_text("utf-8")
    assert "<script" not in without_own_script(page)
    assert page.count("&lt;script&gt;") > 10
    for path in (made.path / "plots").glob("*.svg"):
        assert "<script" not in path.read_text("utf-8")
    markdown = (made.path / "report.md").read_text("utf-8")
    assert not re.search(r"(?<!\\)<script", markdown)
    assert "\n# x" not in markdown
    for block in markdown.split("\n\n"):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines() if line.startswith("|")}) <= 1
    for section in sections:
        lines = list(csv.DictReader(io.StringIO((made.path / section.file).read_text("utf-8"))))
        assert len(lines) == len(section.lines)
        assert all(None not in line and None not in line.values() for line in lines)
        latex = (made.path / section.latex_file).read_text("utf-8")
        assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == len(section.tables)
        for table in section.tables:
            console = Console(file=io.StringIO(), width=300)
            console.print(table.to_rich(300))
            assert "\x1b[31m" not in console.file.getvalue()
