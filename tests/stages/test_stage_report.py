"""The report stage as a user runs it."""

import shutil

import pytest

from l2p_tf.reporting import report
from support.reports import make_runs
from support.stages import error, stage


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return make_runs(tmp_path_factory.mktemp("stage") / "runs")


def test_a_report_is_made_once_shown_each_time_and_keeps_its_title(runs, tmp_path, monkeypatch):
    folder = tmp_path / "all"
    shutil.copytree(runs, folder)
    first = stage("report", f"--run_dir={folder}", "--title=My title").stdout
    page = folder / "report" / "report.html"
    assert "PGD-20 EOT-10" in first
    assert "82.5 ± 0.4" in first
    assert f"Report: {page}\n" in first
    assert "<h1>My title</h1>" in page.read_text("utf-8")
    assert {p.name for p in page.parent.iterdir()} == {
        "manifest.json", "plots", "report.html", "report.md",
        *(f"{name}.{kind}" for name in ("comparison", "strength", "parameters") for kind in ("csv", "tex")),
    }  # fmt: skip
    # The report itself now lies among the results and changes nothing; a title need not be given again.
    for flags in (["--title=My title"], []):
        again = stage("report", f"--run_dir={folder}", *flags).stdout
        assert f"Report: {page} (up to date)" in again
        assert "82.5 ± 0.4" in again
    # Another version of this package makes it anew.
    before = page.stat().st_mtime_ns
    monkeypatch.setattr(report, "writer", lambda *_: "another version")
    assert report.make([folder], page.parent).made
    assert page.stat().st_mtime_ns > before
    assert "<h1>My title</h1>" in page.read_text("utf-8")


def test_a_report_of_other_runs_is_not_overwritten(runs, tmp_path):
    made = f"--run_dir={tmp_path / 'made'}"
    stage("report", f"--runs={runs / 'train_pgd'},{runs / 'attack_pgd'}", made)
    assert "--overwrite" in error("report", f"--runs={runs}", made)
    assert "<h1>" in (tmp_path / "made/report/report.html").read_text("utf-8")


def test_bad_flags_are_one_line_and_leave_nothing(tmp_path):
    nowhere = str(tmp_path / "nowhere")
    assert f"should name folders that exist. Received: {nowhere!r}" in error("report", f"--run_dir={nowhere}")
    empty = error("report", f"--runs={tmp_path}", f"--run_dir={tmp_path / 'made'}")
    assert "should hold finished train and attack stages" in empty
    assert list(tmp_path.iterdir()) == []
    for flag in ("--scale=huge", "--dry_run"):
        assert "should be given with --experiment" in error("pipeline", "--defense=none", flag)
