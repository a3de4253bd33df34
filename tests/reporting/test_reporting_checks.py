"""What a report says of gradient masking: from checks stages, and from attacks where there are none."""

import csv
import dataclasses
import io

import numpy as np
import pytest

from l2p_tf import artifacts
from l2p_tf.evaluation.masking import CHECKS, FAIL, NOT_NEEDED, PASS, UNMEASURED
from l2p_tf.evaluation.records import write_records
from l2p_tf.reporting import checks, report
from l2p_tf.reporting.comparison import compare
from l2p_tf.reporting.runs import find, gather
from support.checked import COUNT, FOUND, make_attacked, make_checks
from support.reports import make_data, make_records, make_train

DASH = "\N{EN DASH}"


FGSM = ("fgsm", "FGSM", "linf", 8 / 255, 1, 1)
PGD = ("pgd", "PGD-20", "linf", 8 / 255, 20, 1)
EOT = ("pgd(draws=10)", "PGD-20 EOT-10", "linf", 8 / 255, 20, 10)
SQUARE = ("square", "Square-5000", "linf", 8 / 255, 5000, 1)
NOISE = ("noise(restarts=9)", "noise x9", "linf", 8 / 255, 1, 1)
FREE = ("pgd(epsilon=1.0)", "PGD-20", "linf", 1.0, 20, 1)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


def judged_on(root):
    return {one.name: one for one in checks.judged(gather(find([root])))}


def verdicts(root, name="pgd"):
    return {f.check: f for f in judged_on(root)[name].findings}


# A checks stage.


def test_the_table_of_checks(root):
    data = make_data(root)
    make_checks(root, make_train(root, data), data)
    table = compare(gather(find([root])))
    (section,) = table.sections
    assert (section.name, section.title, section.file) == ("checks", "Gradient-masking checks", "checks.csv")
    sheet, failures = section.tables
    assert [head.label for head in sheet.columns] == ["Check", "pgd"]
    assert sheet.columns[1].detail == "digits (8x8), test; L∞ ε 8/255; 98 right of 100"
    # Those that were measured on no run are left to the caption.
    assert [row[0].text for row in sheet.rows] == [CHECKS[check].title for check in CHECKS if check in FOUND]
    assert [row[0].below[0] for row in sheet.rows] == [CHECKS[check].expects for check in CHECKS if check in FOUND]
    assert sheet.caption.endswith("Measured on no run: Transfer, Unbounded, Budget and Loss.")
    by_check = dict(zip([c for c in CHECKS if c in FOUND], (row[1] for row in sheet.rows), strict=True))
    assert by_check["one_step"].lines == (PASS, "FGSM: 10, PGD-20: 15 of 98")
    assert by_check["black_box"].lines == (FAIL, "PGD-20: 4, Square-500: 90, Square-500 alone: 86 of 98")
    assert by_check["random_search"].lines == (PASS, "noise x100, of the images left: 0 of 0")
    assert by_check["eot"].lines == (NOT_NEEDED, "no noise")
    tones = {check: (field.tone, field.value) for check, field in by_check.items()}
    assert tones == {
        "one_step": ("good", 2), "random_search": ("good", 2), "black_box": ("bad", 0), "gradients": ("bad", 0),
        "eot": ("unknown", 1),
    }  # fmt: skip
    assert [[field.text for field in row[:2]] for row in failures.rows] == [["pgd", "Black box"], ["pgd", "Gradients"]]
    assert failures.rows[0][3].lines == (
        f"PGD-20: 4 of 98 (4.1; 1.6{DASH}10.0)", f"Square-500: 90 of 98 (91.8; 84.7{DASH}95.8)",
        f"Square-500 alone: 86 of 98 (87.8; 79.8{DASH}92.9)",
    )  # fmt: skip
    assert failures.rows[0][2].text.startswith("An attack without gradients fools images that PGD missed")
    assert "--checks=100" in section.note


def test_many_runs_go_down_and_checks_across(root):
    data = make_data(root)
    for i in range(6):
        make_checks(root, make_train(root, data, f"pgd{i}"), data, folder=f"checks{i}")
    section = next(one for one in compare(gather(find([root]))).sections if one.name == "checks")
    sheet, expected, failures = section.tables
    titles = [CHECKS[check].title for check in CHECKS if check in FOUND]
    assert [head.label for head in sheet.columns] == ["Run", *titles]
    assert sheet.rows[0][0].lines == ("pgd0", "digits (8x8), test", "L∞ ε 8/255", "98 right of 100")
    assert [row[1].text for row in sheet.rows] == [PASS] * 6
    assert len(failures.rows) == 12
    assert [row[0].text for row in expected.rows] == titles


def test_a_failed_check_is_a_warning_in_one_sentence(root):
    data = make_data(root)
    make_checks(root, make_train(root, data), data)
    (warning,) = compare(gather(find([root]))).warnings
    assert warning.startswith("pgd fails 2 of the 4 checks for gradient masking that were made, so its accuracy")
    assert "may be overstated (Black box: an attack without gradients" in warning
    assert "; Gradients: images have a gradient that is zero" in warning
    assert warning.count(". ") == 0


def test_where_nothing_fails_nothing_warns(root):
    data = make_data(root)
    make_checks(root, make_train(root, data), data, {"one_step": FOUND["one_step"]})
    table = compare(gather(find([root])))
    assert table.warnings == ()
    assert [sheet.title for sheet in table.sections[0].tables] == ["Verdicts"]


def test_the_csv_of_checks_has_counts_and_intervals(root):
    data = make_data(root)
    make_checks(root, make_train(root, data), data)
    lines = list(csv.DictReader(io.StringIO(compare(gather(find([root]))).sections[0].to_csv())))
    assert len(lines) == 2 + 3 + 1 + 1 + 5
    assert lines[0] == {
        "run": "pgd", "dataset": "digits", "split": "test", "epsilon": "0.0313725", "check": "one_step",
        "verdict": "pass", "p": "1.0", "figure": "FGSM", "hits": "10", "count": "98", "share": "10.2041",
        "low": "5.6376", "high": "17.7728", "reason": "", "expects": CHECKS["one_step"].expects,
    }  # fmt: skip
    (eot,) = [line for line in lines if line["check"] == "eot"]
    assert (eot["verdict"], eot["hits"], eot["p"], eot["reason"]) == (NOT_NEEDED, "", "", "no noise")


def test_weights_have_rows_of_their_own_and_the_most_images_count(root):
    data = make_data(root)
    train = make_train(root, data)
    make_checks(root, train, data, {"one_step": FOUND["one_step"]}, "few", count=20, correct=19)
    make_checks(root, train, data)
    make_checks(root, train, data, {}, "last", checkpoint="last")
    found = judged_on(root)
    assert set(found) == {"pgd", "pgd (last)"}
    assert found["pgd"].inspection.count == COUNT
    assert not found["pgd (last)"].those(FAIL)


def test_checks_without_their_training_are_reported(root, tmp_path):
    data = make_data(root)
    make_checks(root, make_train(root, data), data, folder="alone/checks")
    made = report.make([root / "alone"], tmp_path / "report")
    page = (made.path / "report.html").read_text("utf-8")
    assert 'id="checks"' in page
    assert "The training of pgd was not given" in page
    assert (made.path / "checks.csv").is_file()


# What attacks tell.


def test_attacks_tell_what_they_can(root):
    data = make_data(root)
    attacks = {FGSM: range(20), PGD: range(40), SQUARE: range(30), NOISE: range(10), FREE: range(COUNT)}
    make_attacked(root, make_train(root, data), data, attacks, wrong_when_clean=5)
    found = verdicts(root)
    assert {check for check, f in found.items() if f.verdict == UNMEASURED} == {"transfer", "loss", "gradients"}
    assert found["eot"].verdict == NOT_NEEDED
    assert {f.verdict for f in found.values()} == {PASS, UNMEASURED, NOT_NEEDED}
    # Of the 95 images that are right when clean.
    assert [(share.label, share.hits, share.count) for share in found["one_step"].shares] == [
        ("FGSM", 15, 95), ("PGD-20", 35, 95),
    ]  # fmt: skip
    assert [share.hits for share in found["black_box"].shares] == [35, 25, 0]
    assert [(share.hits, share.count) for share in found["random_search"].shares] == [(0, 60)]
    assert [(share.label, share.hits) for share in found["budget"].shares] == [("ε 8/255", 35), ("ε 1", 95)]
    head = compare(gather(find([root]))).sections[0].tables[0].columns[1]
    assert (head.label, head.detail) == ("pgd", "digits (8x8), test; from its attacks")


def test_attacks_that_mislead_fail(root):
    data = make_data(root)
    attacks = {FGSM: range(30), PGD: range(10), SQUARE: range(60), NOISE: range(50, 70), FREE: range(50)}
    make_attacked(root, make_train(root, data), data, attacks)
    failing = {check for check, f in verdicts(root).items() if f.verdict == FAIL}
    assert failing == {"one_step", "black_box", "unbounded", "random_search"}


def test_a_checks_stage_counts_more_than_attacks(root):
    data = make_data(root)
    train = make_train(root, data)
    make_attacked(root, train, data, {FGSM: range(10), PGD: range(10), SQUARE: range(5), FREE: range(COUNT)})
    make_checks(root, train, data)
    found = verdicts(root)
    for check in ("one_step", "black_box"):
        assert found[check] == FOUND[check]
    # What it left open the attacks may still tell.
    assert (found["unbounded"].verdict, found["unbounded"].reason) == (PASS, "from its attacks")


def test_what_attacks_show_no_checks_stage_hides(root):
    data = make_data(root)
    train = make_train(root, data)
    make_attacked(root, train, data, {FGSM: range(30), PGD: range(10), FREE: range(COUNT)})
    make_checks(root, train, data)
    one_step = verdicts(root)["one_step"]
    assert (one_step.verdict, one_step.reason) == (FAIL, "from its attacks; the checks stage passes it")
    assert [share.hits for share in one_step.shares] == [30, 10]
    assert any("pgd fails 3 of the 6 checks" in warning for warning in compare(gather(find([root]))).warnings)


def at(attack, epsilon, **options):
    """The same attack at another radius, or with other options."""
    name, label, norm, _, steps, draws = attack
    told = ", ".join(f"{key}={value}" for key, value in {"epsilon": epsilon, **options}.items())
    return f"{name.split('(')[0]}({told})", label, norm, epsilon, options.get("steps", steps), draws


def test_every_budget_is_judged_and_the_worst_is_told(root):
    data = make_data(root)
    small = {at(FGSM, 0.01): range(5), at(PGD, 0.01): range(10), at(SQUARE, 0.01): range(5)}
    make_attacked(root, make_train(root, data), data, small | {FGSM: range(60), PGD: range(10), SQUARE: range(90)})
    found = verdicts(root)
    assert [(s.label, s.hits) for s in found["one_step"].shares] == [
        ("FGSM, L∞ ε 8/255", 60),
        ("PGD-20, L∞ ε 8/255", 10),
    ]
    assert {check: found[check].verdict for check in ("one_step", "black_box")} == {"one_step": FAIL, "black_box": FAIL}
    assert found["one_step"].p == pytest.approx(2 * 2.0**-50)


def test_the_worst_of_several_is_told_at_its_part_of_the_level(root):
    # 7 of 7 at one radius alone would be one in 128.
    data = make_data(root)
    other = {at(FGSM, 0.01): range(5), at(PGD, 0.01): range(10)}
    for name, attacks in (("one", {}), ("two", other)):
        make_attacked(root, make_train(root, data, name), data, attacks | {FGSM: range(17), PGD: range(10)})
    found = {name: verdicts(root, name)["one_step"] for name in ("one", "two")}
    assert {name: (f.verdict, f.p) for name, f in found.items()} == {"one": (FAIL, 1 / 128), "two": (PASS, 1 / 64)}


def test_stages_are_judged_one_by_one(root):
    data = make_data(root)
    train = make_train(root, data)
    make_attacked(root, train, data, {PGD: range(40), EOT: range(45)}, folder="sound", randomized=True)
    assert verdicts(root)["eot"].verdict == PASS
    make_attacked(root, train, data, {PGD: range(40), EOT: range(10)}, folder="odd", randomized=True)
    assert verdicts(root)["eot"].verdict == FAIL
    # Another without noise changes nothing.
    make_attacked(root, train, data, {FGSM: range(40), PGD: range(45)}, folder="quiet")
    assert verdicts(root)["eot"].verdict == FAIL


APGD = ("apgd(restarts=5)", "APGD-100 x5", "linf", 8 / 255, 100, 1)
AUTO = ("autoattack", "AutoAttack", "linf", 8 / 255, 100, 1)
RAND = ("autoattack(version=rand)", "AutoAttack rand", "linf", 8 / 255, 100, 1)
MIXED = ("worst_case(attacks=('pgd', 'square'))", "worst of PGD-20, Square-5000", "linf", 8 / 255, 1, 1)
BOTH = ("worst_case(attacks=('pgd', 'apgd'))", "worst of PGD-20, APGD-100", "linf", 8 / 255, 1, 1)
SHORT = at(PGD, 8 / 255, steps=2)
TIMID = at(PGD, 8 / 255, step_size=0.0005)


@pytest.mark.parametrize("weak", [SHORT, TIMID])
def test_what_goes_nowhere_is_nothing_to_hold_one_step_against(root, weak):
    data = make_data(root)
    attacks = {FGSM: range(30), weak: range(5)}
    for name, more in (("alone", {}), ("beside", {PGD: range(40)}), ("astray", {PGD: range(10)})):
        make_attacked(root, make_train(root, data, name), data, attacks | more)
    found = {name: verdicts(root, name)["one_step"].verdict for name in ("alone", "beside", "astray")}
    assert found == {"alone": UNMEASURED, "beside": PASS, "astray": FAIL}


def test_a_step_size_that_just_reaches_is_enough(root):
    data = make_data(root)
    fgsm = at(FGSM, 0.1)
    for name, size in (("enough", 0.005), ("short", 0.0049)):
        attacks = {fgsm: range(30), at(PGD, 0.1, step_size=size): range(10)}
        make_attacked(root, make_train(root, data, name), data, attacks)
    found = {name: verdicts(root, name)["one_step"].verdict for name in ("enough", "short")}
    assert found == {"enough": FAIL, "short": UNMEASURED}


@pytest.mark.parametrize("more", [APGD, RAND, BOTH])
def test_a_black_box_is_held_against_all_that_follows_gradients(root, more):
    data = make_data(root)
    averaged = ("pgd(draws=4, steps=5)", "PGD-5 EOT-4", "linf", 8 / 255, 5, 4)
    attacks = {averaged: range(10), SQUARE: range(30), NOISE: range(30)}
    for name, added in (("weak", {}), ("strong", {more: range(5, 40)})):
        make_attacked(root, make_train(root, data, name), data, attacks | added)
    found = {name: verdicts(root, name) for name in ("weak", "strong")}
    for check in ("black_box", "random_search"):
        assert {name: f[check].verdict for name, f in found.items()} == {"weak": FAIL, "strong": PASS}
    # Image by image: what either fooled.
    (white, *_) = found["strong"]["black_box"].shares
    assert (white.label, white.hits) == (f"any of PGD-5 EOT-4, {more[1]}", 40)


@pytest.mark.parametrize("mixed", [AUTO, MIXED])
def test_a_cascade_with_searches_does_not_speak_for_gradients(root, mixed):
    data = make_data(root)
    found = {}
    for name, gradients in (("thorough", PGD), ("short", SHORT)):
        attacks = {FGSM: range(5), gradients: range(10), SQUARE: range(60), mixed: range(65)}
        make_attacked(root, make_train(root, data, name), data, attacks)
        found[name] = verdicts(root, name)
    assert {name: f["black_box"].verdict for name, f in found.items()} == {"thorough": FAIL, "short": UNMEASURED}
    # Many steps it has in any case.
    assert [f["one_step"].verdict for f in found.values()] == [PASS, PASS]


def test_radii_that_steps_do_not_reach_make_no_ladder(root):
    data = make_data(root)
    radii = (0.1, 0.2, 0.4)
    for name, options in (("reaching", {}), ("short", {"step_size": 0.001})):
        attacks = {at(PGD, radius, **options): range(30) for radius in radii}
        make_attacked(root, make_train(root, data, name), data, attacks)
    found = {name: verdicts(root, name)["budget"].verdict for name in ("reaching", "short")}
    assert found == {"reaching": FAIL, "short": UNMEASURED}


def test_attacks_of_other_budgets_are_not_compared(root):
    data = make_data(root)
    other = ("pgd(norm=l2)", "PGD-20 l2", "l2", 8 / 255, 20, 1)
    larger = ("square(epsilon=0.5)", "Square-5000", "linf", 0.5, 5000, 1)
    make_attacked(root, make_train(root, data), data, {FGSM: range(30), other: range(10), larger: range(90)})
    assert checks.section(list(judged_on(root).values())) is None


def test_of_a_randomized_model_gradients_with_and_without_draws_are_compared(root):
    data = make_data(root)
    for name, averaged in (("sound", range(40)), ("odd", range(10))):
        make_attacked(root, make_train(root, data, name), data, {PGD: range(30), EOT: averaged}, randomized=True)
    found = {name: verdicts(root, name)["eot"] for name in ("sound", "odd")}
    assert {name: f.verdict for name, f in found.items()} == {"sound": PASS, "odd": FAIL}
    assert [(s.label, s.hits) for s in found["odd"].shares] == [
        ("PGD-20", 30), ("PGD-20 EOT-10", 10), ("PGD-20 EOT-10 alone", 0),
    ]  # fmt: skip
    # One evaluation cannot tell what random points found from what other draws did.
    assert verdicts(root, "sound")["random_search"].verdict == UNMEASURED


def test_of_a_randomized_model_random_points_are_held_against_other_draws(root):
    data = make_data(root)
    for name, again in (("chance", range(40, 60)), ("sign", range(40))):
        attacks = {PGD: [range(40), again], NOISE: [range(10), range(40, 60)]}
        make_attacked(root, make_train(root, data, name), data, attacks, randomized=True)
    found = {name: verdicts(root, name)["random_search"] for name in ("chance", "sign")}
    assert {name: f.verdict for name, f in found.items()} == {"chance": PASS, "sign": FAIL}
    assert [(f.shares[0].hits, f.shares[0].count) for f in found.values()] == [(20, 60)] * 2


def test_transferred_examples_are_compared_image_by_image(root):
    data = make_data(root)
    trains = {name: make_train(root, data, name, seed=i) for i, name in enumerate(("pgd", "none"))}
    for name, train in trains.items():
        make_attacked(root, train, data, {PGD: range(20)}, folder=f"{name}_attack", wrong_when_clean=2)
    shown = {"pgd": range(10, 40), "none": range(15)}
    inputs = {"data": data, **{f"train:{name}": train for name, train in trains.items()}}
    with artifacts.produce(root / "transfer", "transfer", {"checkpoint": "best"}, inputs, seed=5) as work:
        (work.path / "arrays").mkdir()
        records = []
        for number, (target, images) in enumerate(shown.items()):
            order = np.random.default_rng(number).permutation(COUNT)
            np.savez(work.path / f"arrays/{number}.npz", correct=~np.isin(order, [*images]), index=7 * order)
            (source,) = {*shown} - {target}
            (one,) = make_records(target, [COUNT - len(images)], [PGD], COUNT, source=source)
            records.append(dataclasses.replace(one, arrays=f"arrays/{number}.npz"))
        write_records(work.path, records)
    found = {name: verdicts(root, name)["transfer"] for name in trains}
    assert [(s.label, s.hits, s.count) for s in found["pgd"].shares] == [
        ("PGD-20", 18, 98), ("from none", 30, 98), ("from none alone", 20, 98),
    ]  # fmt: skip
    assert [s.hits for s in found["none"].shares] == [18, 13, 0]
    assert {name: f.verdict for name, f in found.items()} == {"pgd": FAIL, "none": PASS}
