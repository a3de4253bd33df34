"""What a report says of transferred examples, of two backends, and of attacks of smallest norm."""

import dataclasses
import html
import io
import re
import shutil

import numpy as np
import pytest
from rich.console import Console

from l2p_tf import artifacts
from l2p_tf.evaluation.records import CLEAN, wilson_interval
from l2p_tf.reporting import backends, norms, report, text, transfer, words
from l2p_tf.reporting.arrays import read_arrays
from l2p_tf.reporting.comparison import compare
from l2p_tf.reporting.runs import find, from_records, gather
from l2p_tf.types import UserError
from support.pages import FRAMES, Outline, browse, lines_of, runs_of
from support.reports import (
    CLEAN_ATTACK,
    DEEPFOOL,
    FAB,
    MATRIX,
    PGD,
    make_attack,
    make_backends,
    make_data,
    make_minimal,
    make_records,
    make_stage,
    make_train,
    make_transfer,
    make_transferred,
    of_correct,
    records_of,
    transferred,
)

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"


def printed(shown, width=200):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    shown.to_console(console) if hasattr(shown, "to_console") else console.print(shown)
    return console.file.getvalue()


def table_of(records):
    return compare(from_records(records))


# Words for attacks.


@pytest.mark.parametrize(
    ("attack", "fields", "shown"),
    [
        (DEEPFOOL, {}, "smallest L2, 50 steps"),
        (FAB, {"restarts": 5}, "smallest L∞, 100 steps, 5 restarts"),
        (DEEPFOOL, {"draws": 10}, "smallest L2, 50 steps, EOT over 10 draws"),
        (("pixel", "1-pixel", "l0", 1.0, 75, 1), {}, "1 pixel, 75 steps"),
        (("pixel", "2-pixel", "l0", 2, 75, 1), {}, "2 pixels, 75 steps"),
        (PGD, {"backend": "cleverhans"}, "L∞, ε 8/255, 20 steps, CleverHans"),
        (PGD, {"backend": "a\nb"}, "L∞, ε 8/255, 20 steps, a b"),
        (("own", "Own", None, None, 3, 1), {}, "3 steps"),
        (CLEAN_ATTACK, {}, "unperturbed images"),
    ],
)
def test_what_an_attack_was_allowed(attack, fields, shown):
    (record,) = make_records("a", (1,), (attack,))
    assert text.strength(dataclasses.replace(record, **fields)) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.00025, "0.25 ms"), (0.0123, "12 ms"), (0.0099, "9.9 ms"), (0.0, "0 ms"), (1.26, "1.3 s")]
)
def test_pace_is_written_in_the_unit_it_needs(seconds, shown):
    assert text.pace(seconds) == shown


def test_targeted_attacks_say_how_often_they_hit():
    attacks = (CLEAN_ATTACK, PGD, ("pgd(target=next)", "PGD-20 next", "linf", 8 / 255, 20, 1))
    records = make_records("a", (350, 90, 100), attacks)
    records[2] = dataclasses.replace(records[2], reached=36)
    table = compare(from_records(records))
    hits = [note for note in table.notes if "targeted" in note]
    assert hits == [
        "PGD-20 next on a is targeted: it reached its target class on 36 of 360 images (10.0%). "
        "The accuracy is still the share classified correctly."
    ]


def test_answers_that_are_no_numbers_are_warned_of():
    clean, pgd = make_records("a", (300, 90), (CLEAN_ATTACK, PGD))
    warnings = compare(from_records([clean, dataclasses.replace(pgd, invalid=7)])).warnings
    assert warnings[0].startswith("a answered 7 of 360 images (PGD-20) with numbers that are not finite")
    assert compare(from_records([clean, pgd])).warnings == warnings[1:]


def test_targeted_attacks_on_randomized_models_are_averaged():
    records = [dataclasses.replace(r, reached=36 + r.repeat) for r in make_records("a", (100,), (PGD,), repeats=2)]
    (hit,) = [note for note in compare(from_records(records)).notes if "targeted" in note]
    assert "36.5 of 360 images (10.1%, mean of 2 repeats)" in hit


# Warnings and summary.


def test_strong_attacks_without_eot_are_warned_about_all_the_same():
    auto = ("autoattack", "AutoAttack", "linf", 8 / 255, 100, 1)
    (warning,) = compare(from_records(make_records("a", (9,), (auto,), randomized=True))).warnings
    assert "averaged its gradients over draws" in warning
    square = make_records("a", (9,), (("square", "Square", "linf", 0.1, 5000, 1),), randomized=True, gradients=0.0)
    warning = compare(from_records(square)).warnings[0]
    assert "averaged its scores over draws" in warning
    averaged = ("apgd(draws=20)", "APGD EOT-20", "linf", 8 / 255, 100, 20)
    assert compare(from_records(square + make_records("a", (9,), (averaged,), randomized=True))).warnings == ()
    plain = make_records("a", (9, 9), (auto, PGD))
    assert compare(from_records(plain)).warnings == ()


def test_attacks_of_smallest_norm_are_shown_but_rank_no_one():
    attacks = (CLEAN_ATTACK, PGD, DEEPFOOL)
    table = compare(from_records(make_records("a", (350, 200, 3), attacks) + make_records("b", (350, 90, 0), attacks)))
    assert [column.detail for column in table.columns][2] == "smallest L2, 50 steps"
    assert table.rows[0].entries["deepfool", "l2p_tf"].accuracy == "0.8"
    (paragraph,) = words.paragraphs(table)
    assert "a 55.6% (PGD-20" in paragraph
    assert "(DeepFool" not in paragraph
    assert "leave little by construction" in paragraph
    assert [figure.label for figure in words.figures(table)][1] == "Highest under PGD-20"


def test_a_model_under_attacks_of_smallest_norm_alone_has_a_summary():
    table = compare(from_records(make_records("a", (350, 3), (CLEAN_ATTACK, DEEPFOOL))))
    (paragraph,) = words.paragraphs(table)
    assert "Lowest accuracy" not in paragraph
    assert "upper bound" not in paragraph
    assert [figure.label for figure in words.figures(table)] == ["Accuracy on clean images", "Images judged"]


def test_plain_results_have_no_further_tables():
    table = compare(from_records(make_records("a") + make_records("b")))
    assert [section.name for section in table.sections] == ["strength"]
    assert transfer.section([]) is norms.section([]) is backends.section([]) is None


# Transfer.


def test_a_transfer_is_a_matrix_of_sources_by_targets(tmp_path):
    runs = runs_of(make_transferred(tmp_path))
    assert [run.name for run in runs] == ["a", "b"]
    (sheet,) = transfer.section(runs).tables
    assert [head.label for head in sheet.columns] == ["Source", "a", "b"]
    assert sheet.title == "PGD-20"
    assert [[field.text for field in row] for row in sheet.rows] == [
        ["a", "10.0", "75.0"],
        ["b", "60.0", "40.0"],
        ["a + b", "20.0", "45.0"],
    ]
    assert [[field.marked for field in row] for row in sheet.rows] == [
        [False, True, False],
        [False, False, True],
        [False, False, False],
    ]
    low, high = wilson_interval(0.1, 200)
    assert sheet.rows[0][1].below == (f"{100 * low:.1f}{DASH}{100 * high:.1f}", "n = 200", "white-box")
    assert sheet.rows[2][1].below[-1] == "part of the source"
    assert "L∞, ε 8/255, 20 steps" in sheet.caption
    assert "on digits (8x8), test." in sheet.caption


def test_transferred_records_stay_out_of_the_comparison(tmp_path):
    table = compare(runs_of(make_transferred(tmp_path)))
    assert [row.name for row in table.rows] == ["a", "b"]
    assert [column.label for column in table.columns] == ["Clean", "FGSM", "PGD-7", "PGD-20 EOT-10"]
    assert [note.partition(",")[0] for note in table.notes] == ["Not compared in pairs"]
    assert table.transferred == ()


def test_each_attack_and_each_transfer_stage_has_a_matrix(tmp_path):
    data = make_data(tmp_path)
    trains = [make_train(tmp_path, data, name) for name in ("a", "b")]
    stronger = ("pgd(steps=100)", "PGD-100", "linf", 8 / 255, 100, 1)
    make_transfer(tmp_path, trains, data, transferred(MATRIX) + transferred(MATRIX, stronger))
    make_transfer(tmp_path, trains, data, transferred({("a", "b"): 150}), "transfer2", checkpoint="last")
    section = transfer.section(runs_of(tmp_path))
    # Two of the same name are told apart by all in which they differ.
    assert [sheet.title.partition(" (")[0] for sheet in section.tables] == ["PGD-20", "PGD-100", "PGD-20"]
    assert "last weights" in section.tables[2].title
    assert len({sheet.title for sheet in section.tables}) == 3
    assert [head.label for head in section.tables[2].columns] == ["Source", "b"]
    assert len(lines_of(section)) == 13


def test_repeats_of_a_randomized_target_have_a_spread():
    records = transferred({("a", "b"): 100, ("c", "b"): 50}, repeats=3, randomized=True)
    (sheet,) = transfer.section(from_records(records)).tables
    field = sheet.rows[0][1]
    assert field.text == "51.0 ± 1.0"
    assert field.below[1] == "n = 200, 3 repeats"
    assert not any(field.marked for row in sheet.rows for field in row)
    assert "white-box" not in [line for row in sheet.rows for field in row for line in field.lines]


def test_gaps_of_a_matrix_are_dashes():
    (sheet,) = transfer.section(from_records(transferred({("a", "b"): 1, ("b", "a"): 2}))).tables
    assert {row[0].text: [f.text for f in row[1:]] for row in sheet.rows} == {"b": ["1.0", DASH], "a": [DASH, "0.5"]}


def test_targeted_transfers_say_how_often_they_hit():
    records = [dataclasses.replace(r, reached=7) for r in transferred({("a", "b"): 100})]
    section = transfer.section(from_records(records))
    assert "target class reached 3.5%" in section.tables[0].rows[0][1].below
    assert lines_of(section)[0]["reached"] == "3.5"


def test_a_transfer_alone_is_reported(tmp_path):
    data = make_data(tmp_path / "a")
    trains = [make_train(tmp_path / "a", data, name) for name in ("a", "b")]
    made = make_transfer(tmp_path / "b", trains, data, transferred(MATRIX))
    result = report.make([made.path], tmp_path / "report")
    assert result.comparison.rows == ()
    page = (result.path / "report.html").read_text("utf-8")
    assert "Judged on transferred examples only, so not in the comparison: a and b." in page
    assert "The training of a was not given" in page
    assert 'id="comparison"' not in page
    assert 'href="#comparison"' not in page
    assert 'id="transfer"' in page
    markdown = (result.path / "report.md").read_text("utf-8")
    assert markdown.count("\n| ---") == 1
    assert {p.name for p in result.path.iterdir()} == {
        "manifest.json", "report.html", "report.md", "transfer.csv", "transfer.tex",
    }  # fmt: skip
    console = Console(file=io.StringIO(), width=120, color_system=None)
    result.comparison.to_console(console)
    assert "white-box" in console.file.getvalue()


def test_trainings_without_attacks_of_their_own_are_listed(tmp_path):
    data = make_data(tmp_path)
    trains = [make_train(tmp_path, data, name) for name in ("a", "b", "c")]
    make_transfer(tmp_path, trains, data, transferred(MATRIX))
    assert words.paragraphs(compare(runs_of(tmp_path))) == [
        "Not attacked, so without accuracies: c.",
        "Judged on transferred examples only, so not in the comparison: a and b.",
    ]


def test_sources_are_named_as_the_report_names_their_runs(tmp_path):
    data = make_data(tmp_path)
    first = make_train(tmp_path, data, "a", folder="one", seed=1)
    make_train(tmp_path, data, "a", folder="two", seed=2)
    make_transfer(tmp_path, [first], data, transferred({("a", "a"): 20}))
    assert {run.name for run in runs_of(tmp_path)} == {"a [one]", "a [two]"}
    (sheet,) = transfer.section(runs_of(tmp_path)).tables
    assert sheet.rows[0][0].text == sheet.columns[1].label == "a [one]"
    assert sheet.rows[0][1].marked


def test_the_csv_of_a_transfer_has_a_line_per_cell(tmp_path):
    lines = lines_of(transfer.section(runs_of(make_transferred(tmp_path))))
    assert len(lines) == 6
    low, high = wilson_interval(0.1, 200)
    assert lines[0] == {
        "source": "a", "target": "a", "white_box": "true", "relation": "white-box", "dataset": "digits",
        "split": "test", "attack": "pgd",
        "norm": "linf", "epsilon": repr(8 / 255), "steps": "20", "restarts": "1", "draws": "1",
        "prediction_draws": "1", "backend": "l2p_tf", "repeats": "1", "count": "200", "accuracy": "10.0",
        "low": str(round(100 * low, 4)),
        "high": str(round(100 * high, 4)), "spread": "", "reached": "90.0",
    }  # fmt: skip
    assert {(line["source"], line["white_box"]) for line in lines if line["target"] == "b"} == {
        ("a", "false"), ("b", "true"), ("a + b", "false"),
    }  # fmt: skip


def test_matrices_of_one_attack_are_told_apart_by_no_more_than_it_takes():
    attacks = [(f"fgsm(epsilon={e}, norm=l2)", "FGM l2", "l2", e, 1, 1) for e in (0.1, 0.2)]
    attacks.append(("fgsm(epsilon=0.2, norm=l2, loss=margin)", *attacks[1][1:]))
    section = table_of(make_records("a", (1, 1, 1), attacks, source="b")).sections[0]
    assert [sheet.title for sheet in section.tables] == [
        "FGM l2 (L2, ε 0.1, 1 step)",
        "FGM l2 (L2, ε 0.2, 1 step; fgsm(epsilon=0.2, norm=l2))",
        "FGM l2 (L2, ε 0.2, 1 step; fgsm(epsilon=0.2, norm=l2, loss=margin))",
    ]


def test_the_console_of_a_transfer_stage_shows_the_matrix():
    shown = printed(table_of(transferred(MATRIX)))
    assert "PGD-20" in shown
    assert "white-box" in shown
    both = printed(table_of(transferred(MATRIX) + make_records("a")))
    assert "Accuracy in percent" in both
    assert "white-box" not in both
    assert printed(table_of([])).strip() == ""


# Size of perturbations.


def test_sizes_are_over_what_was_right_before_and_fell(tmp_path):
    (run,) = runs_of(make_minimal(tmp_path))
    (evaluation,) = run.evaluations
    found = norms.sizes_of(evaluation, [evaluation.records[1]])
    fallen = [1.0, 2.0, 3.0, 6.0, 10.0]
    assert (found.tried, found.succeeded) == (6, 5)
    assert (found.mean, found.median) == (np.mean(fallen), np.median(fallen)) == (4.4, 3.0)
    assert found.mean_linf == pytest.approx(0.044)
    assert found.rate == 5 / 6
    nothing = norms.sizes_of(evaluation, [evaluation.records[2]])
    assert nothing == norms.Sizes(6, 0, None, None, None)


def test_the_table_of_sizes(tmp_path):
    section = norms.section(runs_of(make_minimal(tmp_path)))
    (sheet,) = section.tables
    assert "classified correctly when clean and on which the attack succeeded" in sheet.caption
    deepfool, fab = ([field.lines for field in row] for row in sheet.rows)
    assert deepfool[1:] == [
        ("DeepFool", "smallest L2, 50 steps"), ("83.3", "5 of 6"), ("L2",), ("4.4",), ("3",), ("0.044", "11.2/255"),
    ]  # fmt: skip
    assert fab[2:] == [("0.0", "0 of 6"), ("L∞",), (DASH,), (DASH,), ("",)]
    first, second = lines_of(section)
    assert first == {
        "run": "pgd", "dataset": "digits", "split": "test", "attack": "deepfool", "norm": "l2", "steps": "50",
        "restarts": "1", "draws": "1", "prediction_draws": "1", "backend": "l2p_tf", "repeats": "1", "tried": "6",
        "succeeded": "5", "success": "83.3333", "mean": "4.4", "median": "3.0", "mean_linf": "0.044",
    }  # fmt: skip
    assert (second["success"], second["mean"], second["median"], second["mean_linf"]) == ("0.0", "", "", "")


def test_sizes_of_repeats_are_taken_together_each_with_its_own_clean_images(tmp_path):
    data = make_data(tmp_path)
    train = make_train(tmp_path, data)
    arrays = [of_correct([1, 1, 0]), of_correct([0, 1, 1])]
    arrays += [of_correct([0, 0, 0], l2=sizes) for sizes in ([1, 2, 100], [100, 3, 4])]
    records = make_records("pgd", (1, 0), (CLEAN_ATTACK, DEEPFOOL), count=3, repeats=2, randomized=True)
    make_stage(tmp_path / "attack", "attack", {"train": train, "data": data}, records, arrays)
    (run,) = runs_of(tmp_path)
    found = norms.sizes_of(run.evaluations[0], run.evaluations[0].records[2:])
    assert (found.tried, found.succeeded, found.mean, found.median) == (4, 4, 2.5, 2.5)


def test_where_nothing_was_right_before_nothing_is_divided(tmp_path):
    data = make_data(tmp_path)
    train = make_train(tmp_path, data)
    arrays = [of_correct([0, 0]), of_correct([0, 0])]
    records = records_of("pgd", (CLEAN_ATTACK, DEEPFOOL), arrays)
    make_stage(tmp_path / "attack", "attack", {"train": train, "data": data}, records, arrays)
    section = norms.section(runs_of(tmp_path))
    assert section.tables[0].rows[0][2].lines == (DASH, "0 of 0")
    assert lines_of(section)[0]["success"] == ""


def test_sizes_of_bare_records_are_not_asked_for():
    assert norms.section(from_records(make_records("a", (9, 1), (CLEAN_ATTACK, DEEPFOOL)))) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "No such file"),
        ({"success": np.zeros(8)}, "`l2` is not there"),
        (of_correct([1] * 3), r"`success` has shape \(3,\) .*not \(8,\)"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path, values, message):
    (run,) = runs_of(make_minimal(tmp_path))
    file = tmp_path / "attack" / "arrays" / "1.npz"
    file.unlink()
    if values is not None:
        np.savez(file, **values)
    with pytest.raises(UserError, match=rf"1\.npz' should hold the per-example arrays.*{message}"):
        norms.section([run])


def test_bare_records_have_no_arrays():
    (run,) = from_records(make_records("a"))
    with pytest.raises(ValueError, match="bare records"):
        read_arrays(run.evaluations[0], run.records[0], "correct")


# Backends.


def test_backends_stand_side_by_side(tmp_path):
    (run,) = runs_of(make_backends(tmp_path))
    ((_, pair),) = backends.pairs_of(run)
    assert (pair.own.accuracy, pair.other.accuracy, pair.disagree) == (0.4, 0.5, 3)
    section = backends.section([run])
    (row,) = section.tables[0].rows
    assert [field.text for field in row] == ["pgd", "PGD-20", "40.0", "50.0", "+10.0", "3", "50 ms", "2.0 s"]
    assert row[5].below == ("30.0%",)
    (line,) = lines_of(section)
    assert line == {
        "run": "pgd", "dataset": "digits", "split": "test", "attack": "pgd", "norm": "linf", "epsilon": repr(8 / 255),
        "steps": "20", "restarts": "1", "draws": "1", "prediction_draws": "1", "count": "10", "repeats": "1",
        "repeats_cleverhans": "1",
        "accuracy": "40.0", "accuracy_cleverhans": "50.0", "difference": "10.0", "disagree": "3", "seconds": "0.05",
        "seconds_cleverhans": "2.0",
    }  # fmt: skip


def test_backends_on_other_images_are_not_compared(tmp_path):
    runs = runs_of(make_backends(tmp_path, other_index=np.arange(10) + 1))
    assert backends.section(runs) is None
    assert [column.label for column in compare(runs).columns] == ["Clean", "PGD-20", "PGD-20 (CleverHans)"]


def test_one_backend_alone_is_compared_with_nothing(tmp_path):
    root = make_backends(tmp_path / "runs")
    assert backends.section(gather(find([root / "attack_cleverhans"]))) is None
    records = make_records("a", (9,), (PGD,)) + make_records("a", (8,), (PGD,), backend="cleverhans")
    assert backends.section(from_records(records)) is None


def test_columns_settings_and_galleries_say_whose_attack_it_was(tmp_path):
    data = make_data(tmp_path / "runs")
    train = make_train(tmp_path / "runs", data)
    make_attack(tmp_path / "runs", train, data, make_records("pgd"), "a")
    cleverhans = [
        dataclasses.replace(record, backend="l2p_tf" if record.attack == CLEAN else "cleverhans", arrays="x")
        for record in make_records("pgd")
    ]
    make_attack(tmp_path / "runs", train, data, cleverhans, "b", checkpoint="last", backends=["cleverhans"])
    page = (report.make([tmp_path / "runs"], tmp_path / "report").path / "report.html").read_text("utf-8")
    for shown in ("PGD-7 (CleverHans)", ">pgd (last, CleverHans)</h3>", "<h3>Attack (last, CleverHans)</h3>"):
        assert shown in page
    assert "<h3>Attack</h3>" in page


# The page and the other files.


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    root = tmp_path_factory.mktemp("everything")
    make_transferred(root / "runs" / "transferred")
    make_minimal(root / "runs" / "minimal")
    make_backends(root / "runs" / "backends")
    folders = [root / "runs" / name for name in ("transferred", "minimal", "backends")]
    return report.make(folders, root / "report", "Everything").path


def test_the_page_has_a_section_for_each_table(everything):
    outline = Outline((everything / "report.html").read_text("utf-8"))
    sections = [name for name in outline.ids if not re.search(r"-|main", name)]
    assert sections[:9] == [
        "summary", "comparison", "power", "norms", "transfer", "backends", "strength", "training", "parameters",
    ]  # fmt: skip
    assert len(outline.ids) == len(set(outline.ids))
    assert all(b - a <= 1 for a, b in zip(outline.headings, outline.headings[1:], strict=False))
    tags = [tag for tag, _ in outline.tags]
    assert tags.count("caption") == tags.count("table")
    for tag, attributes in outline.tags:
        assert tag != "th" or attributes.get("scope") in ("row", "col")
        assert attributes.get("aria-labelledby", "main") in outline.ids
        assert "scroll" not in attributes.get("class", "").split() or attributes["tabindex"] == "0"
        assert attributes.get("href", "#").removeprefix("#") in ("", *outline.ids) or tag == "link"
    shown = " ".join(outline.text)
    assert "table.csv, power.csv, norms.csv, transfer.csv, backends.csv and strength.csv" in shown
    assert "white-box" in shown


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
def test_no_table_makes_the_page_wider_than_the_screen(everything, tmp_path):
    source = html.escape((everything / "report.html").read_text("utf-8"))
    frames = "".join(f'<iframe width="{width}" height="800" srcdoc="{source}"></iframe>' for width in (1280, 390))
    (tmp_path / "frames.html").write_text(FRAMES.format(frames=frames), "utf-8")
    dom, messages = browse(tmp_path / "frames.html", tmp_path / "profile")
    assert len(messages) == 1
    widths = [pair.split("/") for pair in re.search('<pre id="widths">(.*?)</pre>', dom)[1].split()]
    assert [int(inner) for _, inner in widths] == [1280, 390]
    assert all(int(scroll) <= int(inner) for scroll, inner in widths), widths


def test_each_table_is_a_csv_and_part_of_the_markdown(everything):
    assert {"power.csv", "norms.csv", "transfer.csv", "backends.csv"} <= set(
        artifacts.read(everything).manifest["outputs"]
    )
    markdown = (everything / "report.md").read_text("utf-8")
    headings = [line for line in markdown.splitlines() if line.startswith("#")]
    assert headings == [
        "# Everything", "## Comparison", "## Accuracy by size of perturbation", "### DeepFool", "### FAB linf",
        "## Size of perturbations", "## Transfer of adversarial examples", "### PGD-20",
        "## Backends side by side", "## What they were attacked with",
    ]  # fmt: skip
    for block in markdown.split("\n\n"):
        bars = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines() if line.startswith("|")}
        assert len(bars) <= 1, block
    assert f"| 40.0<br>16.8{DASH}68.7<br>n = 10 | 50.0<br>23.7{DASH}76.3<br>n = 10 | +10.0 |" in markdown


def test_the_console_prints_names_as_they_are():
    name = "[bold red]run[/]\x1b[31m"
    shown = printed(table_of(transferred({(name, name): 1, (f"{name}+x", name): 1})))
    assert "[bold red]run[/] [31m + x" in shown
    assert "\x1b" not in shown
