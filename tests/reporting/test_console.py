"""What a console shows: one table in lines of 80 characters, no figure and no name cut off."""

import io
import re

import pytest
from rich.console import Console

from l2p_tf.reporting.console import show
from l2p_tf.reporting.sections.comparison import compare
from l2p_tf.reporting.table import Cell, Column, Table
from support.certified import make_certify
from support.reports import MATRIX, make_data, make_records, make_train, results_of, transferred

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


def printed(source, width=80):
    results = results_of(source)
    console = Console(file=io.StringIO(), width=width, color_system=None)
    show(results, console)
    return results.once(compare), console.file.getvalue()


def records_of(names):
    correct = [350, 301, 299, 298, 297, 296]
    return [
        record
        for i, name in enumerate(names)
        for record in make_records(name, [n - i for n in correct], ATTACKS, randomized=True, repeats=2)
    ]


@pytest.mark.parametrize("width", [80, 120, 160])
@pytest.mark.parametrize("count", [1, 4, 12])
def test_one_table_holds_every_run(width, count):
    comparison, text = printed(records_of(NAMES[:count]), width)
    text = text[: text.index("Warning")]
    lines = text.splitlines()
    assert ("95% interval" in lines[0]) is (count <= 8)
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
            cell = row.cell(column.key, [])
            assert cell.text in text or column.label in " ".join(hidden.split())
            assert (count > 8) or cell.below[0] in text or column.label in " ".join(hidden.split())


def test_attacks_that_leave_the_least_have_room_first():
    text = printed(records_of(NAMES))[1]
    assert re.search("No room for:.*FGSM", text, re.DOTALL)
    assert "2 pixels" in text.partition("┡")[0]


def test_a_wide_and_low_table_is_turned():
    columns = (Column("Run", figures=False), *(Column(f"at {i}", "n = 9") for i in range(7)))
    rows = tuple((Cell(name, ("below",)), *(Cell(f"{name}{i}") for i in range(7))) for name in "ab")
    stream = io.StringIO()
    Console(file=stream, width=80).print(Table("", "It says.", columns, rows).to_rich(80))
    lines = stream.getvalue().splitlines()
    assert next(line for line in lines if "a6" in line).split() == ["│", "at", "6", "│", "a6", "│", "b6", "│"]


def test_names_are_printed_as_they_are():
    text = printed(make_records("[bold red]run[/]\x1b[31m", randomized=True, repeats=2), 160)[1]
    assert "[bold red]run[/] [31m" in text
    assert "\x1b" not in text


def test_where_nothing_is_compared_the_first_other_table_is_shown(tmp_path):
    text = printed(transferred(MATRIX), 160)[1]
    assert "white-box" in text
    assert "Accuracy in percent" not in text
    both = printed(transferred(MATRIX) + make_records("a"), 160)[1]
    assert "Accuracy in percent" in both
    assert "white-box" not in both
    assert printed([])[1].strip() == ""
    data = make_data(tmp_path)
    make_certify(tmp_path, make_train(tmp_path, data, "smooth"), data)
    assert "smoothing 0.25" in printed(tmp_path, 160)[1]
