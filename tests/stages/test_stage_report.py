"""The report stage as a user runs it."""

import shutil

import pytest

from support.reports import make_runs
from support.stages import report_stage, run_stage


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return make_runs(tmp_path_factory.mktemp("stage") / "runs")


def test_a_report_is_made_once_and_shown_each_time(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "all")
    first = report_stage("--run_dir=all", "--title=My title", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "PGD-20 EOT-10" in first.stdout
    assert "82.5 ± 0.4" in first.stdout
    assert "all/report/report.html" in first.stdout
    assert "<h1>My title</h1>" in (tmp_path / "all/report/report.html").read_text("utf-8")
    assert {p.name for p in (tmp_path / "all/report").iterdir()} == {
        "manifest.json", "plots", "report.html", "report.md",
        *(f"{name}.{kind}" for name in ("comparison", "strength", "parameters") for kind in ("csv", "tex")),
    }  # fmt: skip
    # The report itself now lies among the results and changes nothing.
    second = report_stage("--run_dir=all", "--title=My title", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert "up to date" in second.stdout
    assert "82.5 ± 0.4" in second.stdout


def test_a_report_of_other_runs_is_not_overwritten(runs, tmp_path):
    some = f"--runs={runs / 'train_pgd'},{runs / 'attack_pgd'}"
    assert report_stage(some, "--run_dir=made", cwd=tmp_path).returncode == 0
    refused = report_stage(f"--runs={runs}", "--run_dir=made", cwd=tmp_path)
    assert refused.returncode != 0
    assert "--overwrite" in refused.stderr
    assert "<h1>" in (tmp_path / "made/report/report.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--run_dir=nowhere",), "should name folders that exist. Received: 'nowhere'"),
        (("--runs=.", "--run_dir=made"), "should hold finished train and attack stages"),
    ],
)
def test_bad_flags_are_one_line_and_leave_nothing(flags, message, tmp_path):
    done = report_stage(*flags, cwd=tmp_path)
    assert done.returncode != 0
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_report_of_the_same_runs_is_made_anew_and_keeps_its_title(tmp_path, monkeypatch):
    make_runs(tmp_path / "all")
    report_stage("--run_dir=all", "--title=My title", cwd=tmp_path)
    again = report_stage("--run_dir=all", cwd=tmp_path)
    assert (again.returncode, "(up to date)" in again.stdout) == (0, True)
    from l2p_tf.reporting import report

    page = tmp_path / "all" / "report" / "report.html"
    page_before = page.stat().st_mtime_ns
    monkeypatch.setattr(report, "writer", lambda *_: "another version")
    made = report.make([tmp_path / "all"], tmp_path / "all" / "report")
    assert made.made
    assert page.stat().st_mtime_ns > page_before
    assert "<h1>My title</h1>" in page.read_text("utf-8")


def test_a_scale_needs_an_experiment():
    for flag in ("--scale=huge", "--dry_run"):
        done = run_stage("pipeline", ["--defense=none", flag], {})
        assert (done.returncode, "should be given with --experiment" in done.stderr) == (2, True)
