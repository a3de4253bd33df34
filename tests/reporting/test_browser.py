"""The page in a browser: on every screen, on paper, by keyboard and finger, with and without its script."""

import json
import re

import pytest

from l2p_tf.reporting import report
from l2p_tf.reporting.images import FIRST
from l2p_tf.reporting.sections.comparison import compare
from support.browser import Browser
from support.colors import DARK, LIGHT, contrast, rgb
from support.pages import with_browser
from support.reports import make_runs
from support.sweeps import make_sweep
from support.ten import MANY, make_many, make_ten

pytestmark = with_browser


@pytest.fixture(scope="module")
def browser():
    with Browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def ten(tmp_path_factory):
    root = tmp_path_factory.mktemp("ten")
    return report.make([make_ten(root / "runs")], root / "report", "Ten defenses")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    root = tmp_path_factory.mktemp("many")
    return report.make([make_many(root / "runs")], root / "report")


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Reports with galleries and with sweeps."""
    root = tmp_path_factory.mktemp("others")
    makers = {"plain": make_runs, "sweep": make_sweep}
    return [report.make([make(root / name / "runs")], root / name / "report") for name, make in makers.items()]


@pytest.fixture
def shown(browser, ten):
    browser.scheme("light")
    browser.size(1280)
    browser.open(ten.path / "report.html")
    return browser


@pytest.fixture
def crowded(browser, many):
    browser.scheme("light")
    browser.size(1280)
    browser.open(many.path / "report.html")
    return browser


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_every_screen_without_complaint(browser, ten, many, others, scheme, tmp_path):
    browser.scheme(scheme)
    for number, made in enumerate((ten, many, *others)):
        for width in (1280, 768, 390):
            browser.size(width)
            browser.open(made.path / "report.html")
            assert browser.run("document.documentElement.scrollWidth") <= width
            assert browser.messages == []
            browser.screenshot(tmp_path / f"{number}-{width}.png")
            assert (tmp_path / f"{number}-{width}.png").stat().st_size > 10_000
    ground = browser.run("getComputedStyle(document.body).backgroundColor")
    assert ground == f"rgb{rgb((LIGHT if scheme == 'light' else DARK)['page'])}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_transfer_matrix_is_tinted_and_stays_legible(browser, ten, scheme):
    browser.scheme(scheme)
    browser.open(ten.path / "report.html")
    cells = browser.run("""[...document.querySelectorAll("#transfer ~ .scroll td, [aria-labelledby=transfer] td")].map(
      cell => [cell.style.getPropertyValue("--share"), cell.querySelector(".value").textContent])""")
    assert len(cells) == 16
    assert all(float(share) == pytest.approx(float(text) / 100, abs=0.006) for share, text in cells)
    tint, page_ = (rgb((LIGHT if scheme == "light" else DARK)[name]) for name in ("blue", "page"))
    darkest = tuple(0.2 * a + 0.8 * b for a, b in zip(tint, page_, strict=True))
    assert contrast(darkest, rgb((LIGHT if scheme == "light" else DARK)["ink"])) >= 4.5


def test_the_policy_lets_nothing_else_run(shown, ten, tmp_path):
    text = (ten.path / "report.html").read_text("utf-8").replace("</main>", "<script>evil = 1</script></main>")
    (tmp_path / "evil.html").write_text(text, "utf-8")
    shown.open(tmp_path / "evil.html")
    assert shown.run("typeof evil") == "undefined"
    assert any("Content Security Policy" in json.dumps(message) for message in shown.messages)
    assert shown.run("document.querySelectorAll('button.sort').length") > 10


COLUMN = """[...document.querySelectorAll("#comparison ~ .scroll tbody tr")].map(
  row => [row.cells[0].firstChild.textContent.trim(), row.cells[%d].dataset.value])"""


def test_tables_are_sorted_by_keyboard(shown, ten):
    table = ten.results.once(compare)
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


def test_images_are_found_by_class_run_and_outcome(shown, ten):
    html = (ten.path / "report.html").read_text("utf-8")
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


def test_every_control_has_a_name_and_is_reached_by_keyboard(shown):
    unnamed = shown.run("""[...document.querySelectorAll("button, select, summary, a, [tabindex='0']")].filter(e =>
      !(e.textContent.trim() || e.getAttribute("aria-label") || e.getAttribute("aria-labelledby")
        || e.closest("label"))).length""")
    assert unnamed == 0
    assert shown.run("[...document.querySelectorAll('button, select')].filter(e => e.tabIndex < 0).length") == 0
    assert shown.run("[...document.querySelectorAll('th')].filter(e => !e.scope).length") == 0
    shown.press("Tab", 9)
    assert shown.run("document.activeElement.textContent") == "Skip to the report"


def test_the_page_can_be_printed(shown):
    pdf = shown.pdf()
    assert pdf.startswith(b"%PDF")
    assert len(pdf) < 10_000_000


def test_without_its_script_the_page_says_the_same(shown, ten):
    shown.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        shown.open(ten.path / "report.html")
        assert shown.run("document.querySelectorAll('button').length") == 0
        assert shown.run("document.querySelector('.filters').hidden")
        assert shown.run("document.querySelectorAll('.examples tbody tr').length") == FIRST
        assert shown.run("document.querySelectorAll('.marks title').length") > 100
    finally:
        shown.call("Emulation.setScriptExecutionDisabled", value=False)


def test_pairs_of_many_runs_are_folded_but_for_the_hardest_attack(crowded):
    titles = (
        "[...document.querySelectorAll('section[aria-labelledby=paired] details%s summary')].map(e => e.textContent)"
    )
    assert len(crowded.run(titles % "")) == len(MANY)
    assert crowded.run(titles % "[open]") == ["PGD-7, ε 60/255"]


def test_nothing_printed_is_cut_off(crowded):
    crowded.size(703)  # A4 within its margins.
    crowded.call("Emulation.setEmulatedMedia", media="print")
    try:
        over = """[...document.querySelectorAll("table")].filter(e => e.checkVisibility({contentVisibilityAuto: true})
          && e.getBoundingClientRect().right > innerWidth + 1).length"""
        assert crowded.run(over) == 0
        assert crowded.run("document.documentElement.scrollWidth") <= 703
        inside = "document.querySelector('%s').checkVisibility({contentVisibilityAuto: true})"
        assert not crowded.run(inside % "details.settings dl")
        assert crowded.run(inside % "section[aria-labelledby=paired] details:not([open]) table")
        named = "getComputedStyle(document.querySelector('#comparison ~ .scroll td'), '::before').content"
        assert crowded.run(named) == json.dumps("Clean unperturbed images")
    finally:
        crowded.call("Emulation.setEmulatedMedia", media="")
        crowded.size(1280)


def test_columns_of_text_are_stacked_on_a_phone(crowded):
    cell = "document.querySelector('.wordy td')"
    assert crowded.run(f"getComputedStyle({cell}).display") == "table-cell"
    crowded.size(390)
    try:
        assert crowded.run(f"getComputedStyle({cell}).display") == "block"
        assert crowded.run(f"getComputedStyle({cell}, '::before').content") != "none"
        assert crowded.run("[...document.querySelectorAll('.wordy')].every(e => e.scrollWidth <= 390)")
    finally:
        crowded.size(1280)


def test_names_of_runs_stay_whole_on_a_phone(shown):
    shown.size(390)
    lines = """[...document.querySelectorAll("#comparison ~ .scroll tbody th")].map(head => {
      const range = document.createRange();
      range.selectNode(head.firstChild);
      return [head.firstChild.textContent, new Set([...range.getClientRects()].map(line => line.top)).size];
    })"""
    heads = dict(shown.run(lines))
    assert heads["learn2perturb"] == 1
    assert set(heads.values()) == {1}


def test_buttons_in_heads_are_named_and_large_enough(crowded):
    small = """[...document.querySelectorAll("button.sort")].filter(e => e.checkVisibility()
      && e.getBoundingClientRect().height < 24).length"""
    assert crowded.run(small) == 0
    made = """(() => {
      const table = document.createElement("table");
      table.innerHTML = "<thead><tr><th></th><th>b</th></tr></thead><tbody><tr><th>a</th><td>1</td></tr></tbody>";
      sortable(table);
      return table.querySelector("button").getAttribute("aria-label");
    })()"""
    assert crowded.run(made) == "first column"
