"""What a report says of gradient masking: verdicts, figures, warnings, and where nobody looked for its signs."""

from l2p_tf.evaluation.masking.record import FAIL, NOT_NEEDED, PASS
from l2p_tf.evaluation.masking.rules import CHECKS
from l2p_tf.reporting import report
from support.checked import COUNT, FOUND, make_attacked, make_checks
from support.reports import make_data, make_records, make_train, results_of, rows_of, section_of, texts_of

MEASURED = [check for check in CHECKS if check in FOUND]
PGD = ("pgd", "PGD-20", "linf", 8 / 255, 20, 1)


def make_checked(root, found=None, name="pgd", **how):
    data = make_data(root)
    make_checks(root, make_train(root, data, name), data, found, **how)
    return section_of(root, "checks")


def test_verdicts_have_the_figures_they_were_decided_by(tmp_path):
    section = make_checked(tmp_path)
    verdicts, expected = section.tables
    assert [column.label for column in verdicts.columns] == ["Run", *(CHECKS[check].title for check in MEASURED)]
    assert [column.detail for column in verdicts.columns[1:]] == [CHECKS[check].figures for check in MEASURED]
    ((run, *cells),) = texts_of(verdicts)
    assert run == ("pgd", "digits (8x8), test", "L∞ ε 8/255", "98 right of 100")
    assert dict(zip(MEASURED, cells, strict=True)) == {
        "one_step": (PASS, "FGSM: 10, PGD-20: 15 of 98"),
        "black_box": (FAIL, "PGD-20: 4, Square-500: 90, Square-500 alone: 86 of 98"),
        "random_search": (PASS, "noise x100, of the images left: 0 of 0"),
        "eot": (NOT_NEEDED, "no noise"),
        "gradients": (FAIL, "no usable gradient: 98 of 98"),
    }
    # Failures are sorted first, and told in words and in color.
    assert {cell.text: (cell.tone, cell.value) for cell in verdicts.rows[0][1:]} == {
        PASS: ("good", 2), FAIL: ("bad", 0), NOT_NEEDED: ("unknown", 1),
    }  # fmt: skip
    assert verdicts.caption.endswith("Measured on no run: Transfer, Unbounded, Budget and Loss.")
    assert texts_of(expected) == [[(CHECKS[check].title,), (CHECKS[check].expects,)] for check in MEASURED]
    assert "A check fails if its test rejects at the 1% level" in section.note


def test_figures_have_counts_and_intervals(tmp_path):
    section = make_checked(tmp_path)
    assert len(section.figures) == 2 + 3 + 1 + 1 + 5
    first, *_ = section.figures.to_dict("records")
    assert first == {
        "run": "pgd", "dataset": "digits", "split": "test", "epsilon": 0.0313725, "check": "one_step",
        "verdict": "pass", "p": 1.0, "figure": "FGSM", "hits": 10, "count": 98, "share": 10.2041, "low": 5.6376,
        "high": 17.7728, "reason": "", "expects": CHECKS["one_step"].expects,
    }  # fmt: skip
    (eot,) = section.figures[section.figures.check == "eot"].to_dict("records")
    assert (eot["verdict"], eot["hits"], eot["reason"]) == (NOT_NEEDED, None, "no noise")


def test_a_failed_check_is_a_warning_in_one_sentence(tmp_path):
    (warning,) = make_checked(tmp_path).warnings
    assert warning.startswith("pgd fails 2 of the 4 checks for gradient masking that were made, so its accuracy")
    assert "may be overstated (Black box: an attack without gradients" in warning
    assert "; Gradients: images have a gradient that is zero" in warning
    assert warning.count(". ") == 0


def test_where_nothing_fails_nothing_warns(tmp_path):
    section = make_checked(tmp_path, {"one_step": FOUND["one_step"]})
    assert section.warnings == section.remarks == ()
    assert [len(row) for row in section.tables[0].rows] == [2]


def test_weights_have_rows_of_their_own_and_the_most_images_count(tmp_path):
    data = make_data(tmp_path)
    train = make_train(tmp_path, data)
    make_checks(tmp_path, train, data, {"one_step": FOUND["one_step"]}, "few", count=20, correct=19)
    make_checks(tmp_path, train, data)
    make_checks(tmp_path, train, data, {"eot": FOUND["eot"]}, "last", checkpoint="last")
    verdicts = section_of(tmp_path, "checks").tables[0]
    heads = {row[0][0]: row[0][-1] for row in texts_of(verdicts)}
    assert heads == {"pgd": f"98 right of {COUNT}", "pgd (last)": f"98 right of {COUNT}"}
    assert len(section_of(tmp_path, "checks").warnings) == 1


def test_where_nobody_looked_one_line_says_so(tmp_path):
    data = make_data(tmp_path)
    train, other = (make_train(tmp_path, data, name) for name in ("pgd", "none"))
    for run in (train, other):
        make_attacked(tmp_path, run, data, {PGD: range(40)})
    section = section_of(tmp_path, "checks")
    assert section.tables == section.warnings == ()
    assert section.note == (
        "Signs of gradient masking were not looked for on pgd and none; --checks=100 of stages.attack and "
        "stages.pipeline does so on 100 images."
    )
    # With a table of those that were checked it is a remark on the rest.
    make_checks(tmp_path, train, data)
    section = section_of(tmp_path, "checks")
    assert len(section.tables) == 2
    (remark,) = section.remarks
    assert remark.startswith("Signs of gradient masking were not looked for on none; --checks=100")


def test_attacks_alone_decide_no_check(tmp_path):
    """One step that fools more than many, and a search that fools all: only the checks' own attacks are judged."""
    data = make_data(tmp_path)
    attacks = {("fgsm", "FGSM", "linf", 8 / 255, 1, 1): range(60), PGD: range(10)}
    make_attacked(tmp_path, make_train(tmp_path, data), data, attacks)
    assert section_of(tmp_path, "checks").tables == ()
    assert results_of(tmp_path).checks.empty


def test_a_run_that_was_not_attacked_needs_no_line(tmp_path):
    make_train(tmp_path, make_data(tmp_path))
    assert section_of(tmp_path, "checks") is None
    assert section_of(make_records("a"), "checks").note


def test_checks_without_their_training_are_reported(tmp_path):
    data = make_data(tmp_path)
    make_checks(tmp_path, make_train(tmp_path, data), data, folder="alone/checks")
    made = report.make([tmp_path / "alone"], tmp_path / "report")
    page = (made.path / "report.html").read_text("utf-8")
    assert 'id="checks"' in page
    assert "The training of pgd was not given" in page
    assert (made.path / "checks.csv").is_file()
    assert rows_of(section_of(tmp_path / "alone", "checks"), "run")[0] == "pgd"
