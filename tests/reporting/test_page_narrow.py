"""The page where there is little room: on a phone, on paper, and in tables of many runs."""

import json

import numpy as np
import pytest

from l2p_tf.reporting import page, report
from l2p_tf.reporting.table import Cell, Column, Table
from support.browser import Browser
from support.judged import arrays_of, make_judged
from support.pages import EVIL, with_browser
from support.reports import make_data, make_train

RADII = [12 * i / 255 for i in range(1, 6)]
ATTACKS = (("clean", "clean", None, None, 0, 1), *(("pgd", "PGD-7", "linf", radius, 7, 1) for radius in RADII))
ATTACKS = tuple((f"pgd(epsilon={row[3]})" if row[3] else "clean", *row[1:]) for row in ATTACKS)


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


def test_evil_text_stays_text_in_tokens():
    assert not set(page.tokens(EVIL).replace('<span class="token">', "").replace("</span>", "")) & {"<", ">", '"'}


def test_a_table_of_text_alone_is_wordy():
    words, figures = Column("Check", figures=False), Column("Runs")
    row = ((Cell("a"), Cell("b")),)
    assert Table("", "", (words, words), row).wordy
    assert not Table("", "", (words, figures), row).wordy


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A page of twelve runs under five attacks."""
    root = tmp_path_factory.mktemp("many")
    data = make_data(root / "runs")
    for i in range(12):
        right = [np.arange(120) < 110 - 12 * k - i for k in range(len(ATTACKS))]
        labels = np.arange(120) % 10
        arrays = [arrays_of(labels, mine, np.where(mine, labels, (labels + 1) % 10)) for mine in right]
        name = f"adversarially_bayesian_v1_{i:02d}"
        train = make_train(root / "runs", data, name, history=False)
        make_judged(root / "runs", data, name, ATTACKS, arrays, train=train)
    made = report.make([root / "runs"], root / "report")
    with Browser() as opened:
        opened.size(1280)
        opened.open(made.path / "report.html")
        yield opened


@with_browser
def test_pairs_of_many_runs_are_folded_but_for_the_hardest_attack(shown):
    titles = (
        "[...document.querySelectorAll('section[aria-labelledby=paired] details%s summary')].map(e => e.textContent)"
    )
    assert len(shown.run(titles % "")) == len(ATTACKS)
    assert shown.run(titles % "[open]") == ["PGD-7, ε 60/255"]


@with_browser
def test_nothing_printed_is_cut_off(shown):
    shown.size(703)  # A4 within its margins.
    shown.call("Emulation.setEmulatedMedia", media="print")
    try:
        over = """[...document.querySelectorAll("table")].filter(e => e.checkVisibility({contentVisibilityAuto: true})
          && e.getBoundingClientRect().right > innerWidth + 1).length"""
        assert shown.run(over) == 0
        assert shown.run("document.documentElement.scrollWidth") <= 703
        inside = "document.querySelector('%s').checkVisibility({contentVisibilityAuto: true})"
        assert not shown.run(inside % "details.settings dl")
        assert shown.run(inside % "section[aria-labelledby=paired] details:not([open]) table")
        named = "getComputedStyle(document.querySelector('#comparison ~ .scroll td'), '::before').content"
        assert shown.run(named) == json.dumps("Clean unperturbed images")
    finally:
        shown.call("Emulation.setEmulatedMedia", media="")
        shown.size(1280)


@with_browser
def test_columns_of_text_are_stacked_on_a_phone(shown):
    cell = "document.querySelector('.wordy td')"
    assert shown.run(f"getComputedStyle({cell}).display") == "table-cell"
    shown.size(390)
    try:
        assert shown.run(f"getComputedStyle({cell}).display") == "block"
        assert shown.run(f"getComputedStyle({cell}, '::before').content") != "none"
        assert shown.run("[...document.querySelectorAll('.wordy')].every(e => e.scrollWidth <= 390)")
    finally:
        shown.size(1280)


@with_browser
def test_buttons_in_heads_are_named_and_large_enough(shown):
    small = """[...document.querySelectorAll("button.sort")].filter(e => e.checkVisibility()
      && e.getBoundingClientRect().height < 24).length"""
    assert shown.run(small) == 0
    made = """(() => {
      const table = document.createElement("table");
      table.innerHTML = "<thead><tr><th></th><th>b</th></tr></thead><tbody><tr><th>a</th><td>1</td></tr></tbody>";
      sortable(table);
      return table.querySelector("button").getAttribute("aria-label");
    })()"""
    assert shown.run(made) == "first column"
