"""Requirements: how they are read, what they are held against, what CI servers and the report are told."""

from xml.etree import ElementTree

import numpy as np
import pytest

from l2p_tf import artifacts
from l2p_tf.evaluation.gate import Bound, gate_artifact, judge, parse_bounds, read_outcomes
from l2p_tf.evaluation.records import wilson_interval
from l2p_tf.types import UserError
from support.models import residual
from support.reports import make_data, make_stage, make_train, of_correct, records_of, rows_of, section_of
from support.stages import error, stage

CLEAN, FGSM = ("clean", "clean", None, None, 0, 1), ("fgsm", "FGSM", "linf", 8 / 255, 1, 1)
PGD, STRONG = (
    ("pgd(steps=7)", "PGD-7", "linf", 8 / 255, 7, 1),
    ("pgd(steps=9)", "PGD-9", "linf", 8 / 255, 9, 1),
)
RIGHT = {"clean": [1] * 100, "fgsm": [1] * 80 + [0] * 20, "seven": [0] * 20 + [1] * 80, "nine": [1] * 70 + [0] * 30}


@pytest.fixture
def run(tmp_path):
    """A run under four attacks, and where it lies."""
    data = make_data(tmp_path)
    train = make_train(tmp_path, data, "a")
    arrays = [of_correct(right) for right in RIGHT.values()]
    records = records_of("a", (CLEAN, FGSM, PGD, STRONG), arrays)
    make_stage(tmp_path / "attack", "attack", {"train": train, "data": data}, records, arrays)
    return tmp_path


def attacked(run):
    return [artifacts.read(run / "attack")]


def test_requirements_are_read():
    text = "fgsm >= 0.45;clean>=9/10 ; a: worst>=0; b-1: pgd(step_size=0.01, steps=20)>=.5;"
    assert parse_bounds(text) == (
        Bound("", "fgsm", 0.45), Bound("", "clean", 0.9), Bound("a", "worst", 0),
        Bound("b-1", "pgd(step_size=0.01)", 0.5),
    )  # fmt: skip
    assert parse_bounds("") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fgsm", "should be ATTACK>=SHARE"),
        ("fgsm>0.4", "should be ATTACK>=SHARE"),
        ("fgsm>=45", "a share is from 0 to 1"),
        ("fgms>=0.4", "Did you mean 'fgsm'"),
        ("pgd(stepz=3)>=0.4", "Did you mean 'steps'"),
        ("fgsm>=much", "should be a number"),
    ],
)
def test_what_cannot_be_read_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        parse_bounds(text)


def test_the_lower_end_is_held_against_them(run):
    low = wilson_interval(0.8, 100)[0]
    found = judge(parse_bounds(f"fgsm>={low - 1e-9}; fgsm>={low + 1e-9}; clean>=0.9; b: clean>=1"), attacked(run), "a")
    assert [one.met for one in found] == [True, False, True]
    assert found[0].low == low < found[0].accuracy == 0.8
    # A name is all attacks of that name, a spec one of them.
    assert [one.attack for one in judge(parse_bounds("pgd>=0.1"), attacked(run), "a")] == [PGD[0], STRONG[0]]
    assert [one.label for one in judge(parse_bounds("pgd(steps=9)>=0.1"), attacked(run), "a")] == ["PGD-9"]


def test_the_worst_is_image_by_image(run):
    (worst,) = judge(parse_bounds("worst>=0.45"), attacked(run), "a")
    expected = np.mean(np.logical_and.reduce([np.array(right) == 1 for right in RIGHT.values()]))
    assert worst.accuracy == expected == 0.5
    assert not worst.met


def test_the_worst_leaves_out_attacks_without_a_limit(tmp_path):
    data = make_data(tmp_path)
    train = make_train(tmp_path, data, "a")
    arrays = [of_correct([1] * 50), of_correct([0] * 50)]
    records = records_of("a", (CLEAN, ("cw", "C&W", "l2", None, 9, 1)), arrays)
    make_stage(tmp_path / "attack", "attack", {"train": train, "data": data}, records, arrays)
    (worst,) = judge(parse_bounds("worst>=0.5"), attacked(tmp_path), "a")
    assert worst.accuracy == 1.0


def test_an_attack_that_was_not_run_is_told(run):
    with pytest.raises(UserError, match="attacks that a was under: clean, fgsm, .*Received: 'square'"):
        judge(parse_bounds("square>=0.1"), attacked(run), "a")


def test_outcomes_are_kept_for_ci_servers_and_the_report(run):
    outcomes = gate_artifact(parse_bounds("fgsm>=0.5; pgd(steps=9)>=0.7"), attacked(run), "a", run / "gate")
    assert read_outcomes(run / "gate") == outcomes
    suite = ElementTree.parse(run / "gate" / "junit.xml").getroot()
    assert dict(suite.attrib) == {"name": "a", "tests": "2", "failures": "1"}
    assert [test.get("name") for test in suite] == ["fgsm >= 0.5", "pgd(steps=9) >= 0.7"]
    assert "not surely the 70% required" in suite[1][0].get("message")
    section = section_of(run, "gate")
    assert rows_of(section, "run", "share", "accuracy", "met") == [("a", 50.0, 80.0, True), ("a", 70.0, 70.0, False)]
    (warning,) = section.warnings
    assert warning.startswith("A requirement is missed: a: PGD-9 70.0%")
    # Another call takes its place.
    gate_artifact(parse_bounds("clean>=0.5"), attacked(run), "a", run / "gate")
    assert [one.attack for one in read_outcomes(run / "gate")] == ["clean"]
    assert not section_of(run, "gate").warnings


def test_a_build_fails_and_passes_by_exit_status(tmp_path):
    residual(classes=10).save(tmp_path / "mine.keras")
    where = (f"--run_dir={tmp_path / 'runs'}", "--checks=0", "--limit=30", "--attacks=fgsm(epsilon=0.1)")
    model = ("--dataset=digits", f"--classifiers=mine={tmp_path / 'mine.keras'}", "--input_range=0..1")
    done = stage("pipeline", *where, *model, "--require=clean>=0.99", status=3)
    assert "failed: mine: clean" in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("failed")]) == 1
    assert "A requirement is missed" in (tmp_path / "runs" / "report" / "report.md").read_text()
    stage("attack", *where, "--require=clean>=0; fgsm>=0; mine: worst>=0")
    assert [one.met for one in read_outcomes(tmp_path / "runs" / "mine" / "gate")] == [True] * 3
    assert "Received: 'other'" in error("attack", *where, "--require=other: clean>=0.5")
    assert "Received: 'square'" in error("attack", *where, "--require=square>=0.5")
    assert "should be ATTACK>=SHARE" in error("attack", *where, "--require=clean")
