"""The figures in results/README.md are those of the tables beside it."""

import csv
import pathlib
import re

import pytest

from support import ROOT

FOLDERS = sorted(path.parent for path in (ROOT / "results").glob("*/comparison.csv"))


def rows_in(text):
    """The rows of the first table, by the heads of its columns."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    head, _, *rows = cells
    return [dict(zip(head, row, strict=True)) for row in rows if len(row) == len(head)]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_table_shows_what_was_measured(folder: pathlib.Path):
    text = (folder.parent / "README.md").read_text("utf-8")
    with (folder / "comparison.csv").open(encoding="utf-8", newline="") as file:
        measured = list(csv.DictReader(file))
    seen = 0
    for row in rows_in(text):
        run = row["run"].strip("`")
        for head, cell in row.items():
            match = re.match(r"([\d.]+)(?: ± ([\d.]+))? \(([\d.]+)-([\d.]+)\)", cell)
            if match:
                shown = [match[1], match[3], match[4], *([match[2]] if match[2] else [])]
                keys = ["accuracy", "low", "high", *(["spread"] if match[2] else [])]
                found = [
                    [f"{float(one[key]):.1f}" for key in keys]
                    for one in measured
                    if one["run"] == run and one[keys[-1]]
                ]
                assert shown in found, f"{run}, {head}: {cell}"
                seen += 1
    assert seen >= 2 * len({row["run"] for row in measured})


@pytest.mark.parametrize(
    "file", [f for f in (ROOT / "results").rglob("*") if f.suffix in (".md", ".csv", ".json")], ids=str
)
def test_no_folder_of_the_machine_is_named(file):
    assert not re.search(r"(?<![\w.])/(?:tmp|home|work|root)/", file.read_text("utf-8"))
