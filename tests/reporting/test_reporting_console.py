"""What a console shows: one table in lines of 80 characters, no figure and no name cut off."""

import io
import re

import pytest
from l2p_tf.reporting.comparison import compare
from l2p_tf.reporting.runs import from_records
from rich.console import Console

from l2p_tf.reporting.table import Cell, Column, Table
from support.reports import make_records

ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
ATTACKS = (
    ("clean", "clean", None, None, 0, 1),
    ("fgsm", "FGSM", "linf", 48 / 255, 1, 1),
    ("pgd(steps=7, step_size=0.06)", "PGD-7", "linf", 48 / 255, 7, 1),
    ("pgd(steps=7, step_size=0.01)", "PGD-7", "linf", 48 / 255, 7, 1),
    ("pgd(draws=8)", "PGD-20 EOT-8", "linf", 48 / 255, 20, 8),
    ("few_pixel(epsilon=2)", "2 pixels", "l0", 2, 10, 1),
)
NAMES = [f"learn2perturb_with_a_long_name_v2_{i:02d}" for i in range(12)]


def printed(names, width=80):
    correct = [350, 301, 299, 298, 297, 296]
    records = [
        record
        for i, name in enumerate(names)
        for record in make_records(name, [n - i for n in correct], ATTACKS, randomized=True, repeats=2)
    ]
    console = Console(file=io.StringIO(), width=width, color_system=None)
    comparison = compare(from_records(records))
    comparison.to_console(console)
    text = console.file.getvalue()
    return comparison, text[: text.index("Warning")]


@pytest.mark.parametrize("width", [80, 120, 160])
@pytest.mark.parametrize("count", [1, 4, 12])
def test_one_table_holds_every_run(width, count):
    comparison, text = printed(NAMES[:count], width)
    lines = text.splitlines()
    assert ELLIPSIS not in text
    assert max(map(len, lines)) <= width
    assert text.count("┏") == 1
    # Names are folded, so they are sought in the head and the first column with the lines of a cell joined.
    head = zip(*(line.split("┃") for line in lines if line.startswith("┃")), strict=True)
    flat = "".join(part.strip() for cell in head for part in cell)
    flat += "".join(line.split("│")[1].strip() for line in lines if line.startswith("│"))
    hidden = text.partition("No room for:")[2]
    for row in comparison.rows:
        assert row.name in flat
        for column in comparison.columns:
            cell = row.entries[column.key].cell()
            assert cell.text in text or column.label in " ".join(hidden.split())
            assert (count > 8) or cell.below[0] in text or column.label in " ".join(hidden.split())


def test_attacks_that_leave_the_least_have_room_first():
    assert re.search("No room for:.*FGSM", printed(NAMES)[1], re.DOTALL)
    assert "2 pixels" in printed(NAMES)[1].partition("┡")[0]


def test_a_wide_and_low_table_is_turned():
    columns = (Column("Run", figures=False), *(Column(f"at {i}", "n = 9") for i in range(7)))
    rows = tuple((Cell(name, ("below",)), *(Cell(f"{name}{i}") for i in range(7))) for name in "ab")
    stream = io.StringIO()
    Console(file=stream, width=80).print(Table("", "It says.", columns, rows).to_rich(80))
    lines = stream.getvalue().splitlines()
    assert next(line for line in lines if "a6" in line).split() == ["│", "at", "6", "│", "a6", "│", "b6", "│"]
