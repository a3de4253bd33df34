"""The comparison on a console: many runs in lines of 80 characters, nothing cut off."""

import io
import re

import pytest
from rich.console import Console
from test_reporting import from_records, make_records

from l2p_tf.reporting.tables import comparison

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
    table = comparison(from_records(records))
    table.to_console(console)
    text = console.file.getvalue()
    return table, text[: text.index("Warning")]


@pytest.mark.parametrize("width", [80, 120])
def test_many_runs_are_printed_whole(width):
    table, text = printed(NAMES, width)
    assert ELLIPSIS not in text
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    # Names are folded, so they are sought in the first column with its lines joined.
    first = "".join(line.split("│")[1].strip() for line in lines if line.startswith("│"))
    for row in table.rows:
        assert first.count(row.name) >= 1
        for entry in row.entries.values():
            assert f" {entry.mean} " in text
    # Both attacks with the same label are told apart below the table, by their number.
    flat = re.sub(r"\s+", " ", text)
    for number, attack in ((3, ATTACKS[2]), (4, ATTACKS[3])):
        assert f"[{number}]" in flat.partition("┡")[0] + flat
        assert f"[{number}] PGD-7, ε 48/255: {attack[0]}" in flat
    assert "Intervals and numbers of images are on the page" in flat


def test_a_wider_console_has_fewer_blocks():
    assert printed(NAMES, 80)[1].count("┏") > printed(NAMES, 160)[1].count("┏") == 1


def test_few_runs_keep_their_intervals_and_whole_numbers():
    table, text = printed(NAMES[:4])
    assert ELLIPSIS not in text
    for row in table.rows:
        for entry in row.entries.values():
            assert f"({entry.interval})" in text
