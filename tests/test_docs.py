"""The documentation: the site is whole without a network, and its notebooks run."""

import re
import subprocess
import sys

import pytest

from support import ENVIRONMENT, ROOT
from support.browser import Browser
from support.pages import with_browser

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
SHORTER = {
    "judge_your_model": {"epochs=12": "epochs=2", "epochs=8": "epochs=1", "queries=300": "queries=30"},
    "learn2perturb": {
        "EPOCHS = 10": "EPOCHS = 2", "warmup_epochs=3": "warmup_epochs=1", "[0.06, 0.12, 0.18, 0.24]": "[0.18]",
    },
}  # fmt: skip
"""What is shown of the notebooks was computed with more of these, which changes none of the code that is run."""
LOADED = re.compile(r"<(?:link|script|img|iframe)\b[^>]*?(?:href|src)=\"?(?:https?:)?//|url\(['\"]?(?:https?:)?//")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_loads_nothing_from_elsewhere(site):
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        assert not LOADED.search(path.read_text("utf-8")), path


def test_what_is_not_typed_is_there(site):
    for path in site.rglob("*.html"):
        assert not re.search(r"\{\{ |\$`|<p>\|", path.read_text("utf-8")), path
    page = (site / "defenses" / "learn2perturb.html").read_text("utf-8")
    assert "<math" in page
    for text in ("theta_minimum", "0.01", "PGD-20 at 0.18", "Learn2Perturb"):
        assert text in page
    assert 'id="l2p_tf.api.evaluate"' in (site / "api" / "index.html").read_text("utf-8")


@with_browser
def test_pages_fit_narrow_screens_and_show_their_pictures(site):
    with Browser() as browser:
        browser.size(390, 844)
        for name in (
            "index",
            "getting-started",
            "speed",
            "defenses/learn2perturb",
            "notebooks/learn2perturb",
            "papers",
        ):
            browser.open(site / f"{name}.html")
            assert browser.run("document.documentElement.scrollWidth") == 390, name
            assert browser.run("[...document.images].every(image => image.naturalWidth)"), name
        assert not browser.messages


def test_every_method_has_a_page():
    from l2p_tf.defenses import DEFENSES

    pages = {path.stem for path in (ROOT / "docs" / "defenses").glob("*.md")} - {"index"}
    assert pages == set(DEFENSES.names())


def test_figures_say_how_they_were_measured():
    for path in (ROOT / "docs" / "data").glob("*.csv"):
        lines = path.read_text("utf-8").splitlines()
        assert re.match(r"# .{30,}\.$", lines[0]), path
        assert len({line.count('"') % 2 for line in lines[1:]}) == 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path, tmp_path):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(path, 4)
    kept = [_kinds(cell) for cell in notebook.cells]
    for long, short in SHORTER[path.stem].items():
        assert any(long in cell.source for cell in notebook.cells), long
        for cell in notebook.cells:
            cell.source = cell.source.replace(long, short)
    assert any(kept)
    assert path.stat().st_size < 200_000
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert [_kinds(cell) for cell in notebook.cells] == kept


def _kinds(cell):
    """The kinds of outputs of a cell, but for messages on standard error."""
    return {one["output_type"] for one in cell.get("outputs", []) if one.get("name") != "stderr"}
