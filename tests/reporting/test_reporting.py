"""The report, made from small synthetic artifacts."""

import base64
import csv
import hashlib
import html
import html.parser
import io
import pathlib
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from l2p_tf.reporting.comparison import compare
from l2p_tf.reporting.runs import find, from_records, gather
from PIL import Image
from rich.console import Console

from l2p_tf import artifacts
from l2p_tf.evaluation.records import wilson_interval
from l2p_tf.reporting import gallery, lines, plots, report, svg, text, words
from l2p_tf.reporting.history import read_history
from l2p_tf.types import UserError
from support.pages import FRAMES, Outline, browse, own_script, without_own_script
from support.reports import ATTACKS, CORRECT, make_attack, make_data, make_records, make_runs, make_train, write_history


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return make_runs(tmp_path_factory.mktemp("digits") / "runs")


@pytest.fixture(scope="module")
def digits_report(digits, tmp_path_factory):
    output = tmp_path_factory.mktemp("made") / "report"
    return report.make([digits], output, "Digits").path


def runs_by_name(root):
    return {run.name: run for run in gather(find([root]))}


# Finding and joining artifacts.


def test_runs_are_joined_by_fingerprint_not_by_folder_name(tmp_path):
    data = make_data(tmp_path)
    a = make_train(tmp_path, data, "none", folder="x/attack_b")
    b = make_train(tmp_path, data, "pgd", folder="x/data")
    make_attack(tmp_path, b, data, make_records("pgd"), folder="train_none")
    runs = runs_by_name(tmp_path)
    assert runs["pgd"].train.fingerprint == b.fingerprint
    assert len(runs["pgd"].records) == len(ATTACKS)
    assert runs["none"].train.fingerprint == a.fingerprint
    assert runs["none"].records == []
    assert runs["pgd"].info["name"] == "digits"


def test_several_attack_stages_of_a_run_are_joined(tmp_path):
    data = make_data(tmp_path)
    train = make_train(tmp_path, data)
    make_attack(tmp_path, train, data, make_records("pgd", attacks=ATTACKS[:2], correct=(350, 300)), "a")
    make_attack(tmp_path, train, data, make_records("pgd", attacks=ATTACKS[2:], correct=(290, 280)), "b")
    (row,) = compare(gather(find([tmp_path]))).rows
    assert [entry.accuracy for entry in row.entries.values()] == ["97.2", "83.3", "80.6", "77.8"]


def test_an_attack_without_its_training_is_reported_with_a_note(tmp_path):
    data = make_data(tmp_path / "a")
    train = make_train(tmp_path / "a", data)
    make_attack(tmp_path / "b", train, data, make_records("the pgd run"))
    result = report.make([tmp_path / "b"], tmp_path / "report")
    (row,) = result.comparison.rows
    assert (row.name, row.run.train, row.defense) == ("the pgd run", None, "")
    assert any("training of the pgd run was not given" in note for note in result.comparison.notes)
    assert "class 3" in (result.path / "report.html").read_text("utf-8")


def test_a_training_without_history_or_attacks_is_reported(tmp_path):
    make_train(tmp_path / "runs", make_data(tmp_path / "runs"), history=False)
    page = report.make([tmp_path / "runs"], tmp_path / "report").path / "report.html"
    html_text = page.read_text("utf-8")
    assert "Not attacked, so without accuracies: pgd." in html_text
    assert 'id="plots"' not in html_text
    assert 'id="gallery"' not in html_text


def test_runs_of_the_same_name_are_told_apart(tmp_path):
    data = make_data(tmp_path)
    trains = [make_train(tmp_path, data, "pgd", folder=f"t{seed}", learning_rate=seed) for seed in (1, 2)]
    for i, train in enumerate(trains):
        make_attack(tmp_path, train, data, make_records("pgd"), folder=f"a{i}")
    assert set(runs_by_name(tmp_path)) == {"pgd [t1]", "pgd [t2]"}


@pytest.mark.parametrize(
    ("paths", "told"),
    [
        (["/a/one/pgd/train", "/a/two/pgd/train"], ["one", "two"]),
        (["/a/one/x/pgd/train", "/b/one/y/pgd/train", "/b/one/z/pgd/train"], ["a/one/x", "b/one/y", "b/one/z"]),
        (["/a/pgd/train", "/a/b/pgd/train"], []),
        (["/a/a/a/train", "/a/a/train"], []),
        (["/a/transfer", "/a/transfer"], []),
        (["/a/train", None], []),
    ],
)
def test_folders_are_told_by_what_sets_them_apart(paths, told):
    from l2p_tf.reporting import runs

    assert runs._apart([path and pathlib.Path(path) for path in paths]) == told


def test_an_artifact_found_twice_counts_once(digits):
    folders = [digits, digits / "train_pgd", digits.parent]
    assert len(find(folders)) == len(find([digits])) == 7


def test_folders_keep_their_order(digits):
    names = [run.name for run in gather(find([digits / "train_pgd", digits / "train_none", digits]))]
    assert names == ["pgd", "none", "learn2perturb"]


def test_bad_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"should name folders that exist\. Received: '.*nowhere'"):
        find([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="Stages found there: none"):
        find([tmp_path])
    with artifacts.produce(tmp_path / "x", "export", {}):
        pass
    with pytest.raises(UserError, match="Stages found there: export"):
        find([tmp_path])
    make_data(tmp_path)
    with pytest.raises(UserError, match="Only data was found"):
        gather(find([tmp_path]))
    with pytest.raises(UserError, match="at least one folder"):
        report.make([], tmp_path / "report")


def test_a_damaged_result_is_refused_and_nothing_is_made(tmp_path):
    make_runs(tmp_path / "runs")
    (tmp_path / "runs" / "attack_pgd" / "results.json").write_text("{}")
    with pytest.raises(UserError, match=r"results\.json' is missing or damaged"):
        report.make([tmp_path / "runs"], tmp_path / "report")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_unfinished_work_is_left_out_and_named(tmp_path, monkeypatch):
    make_runs(tmp_path / "runs")
    shutil.move(tmp_path / "runs" / "attack_pgd", tmp_path / "runs" / "attack_pgd.partial")
    # What a killed call or a tool left hidden is neither a result nor unfinished work.
    shutil.copytree(tmp_path / "runs" / "attack_none", tmp_path / "runs" / ".attack_none.old-abc" / "attack_none")
    shutil.copytree(tmp_path / "runs" / "attack_none", tmp_path / "runs" / ".ipynb_checkpoints" / "b.partial")
    monkeypatch.chdir(tmp_path)
    result = report.make(["runs", tmp_path / "runs"], tmp_path / "report")
    assert [path.resolve() for path in result.left_out] == [tmp_path / "runs" / "attack_pgd.partial"]
    assert {len(run.evaluations) for run in gather(find([tmp_path / "runs"]))} == {0, 1}
    assert [row.name for row in result.comparison.rows if not row.entries] == ["pgd"]


# The comparison.


def test_the_table_holds_accuracy_interval_spread_and_count(digits):
    table = compare(gather(find([digits])))
    assert [column.label for column in table.columns] == ["Clean", "FGSM", "PGD-7", "PGD-20 EOT-10"]
    rows = {row.name: row for row in table.rows}
    key = table.columns[2].key
    entry = rows["learn2perturb"].entries[key]
    mean = (301 + 303) / 2 / 360
    assert entry.summary.accuracy == pytest.approx(mean)
    assert (entry.summary.low, entry.summary.high) == wilson_interval(mean, 360)
    assert entry.summary.spread == pytest.approx(np.std([301 / 360, 303 / 360], ddof=1))
    assert (entry.accuracy, entry.interval, entry.spread, entry.count) == ("83.9", "79.7\N{EN DASH}87.3", "0.4", 360)
    assert rows["pgd"].entries[key].spread is None
    assert (rows["pgd"].model, rows["pgd"].dataset) == ("resnet_v1(depth=8)", "digits (8x8)")
    assert not [warning for warning in table.warnings if "EOT" in warning]


def test_best_and_last_weights_and_splits_are_rows_of_their_own(tmp_path):
    data = make_data(tmp_path)
    train = make_train(tmp_path, data)
    make_attack(tmp_path, train, data, make_records("pgd"), "a")
    make_attack(tmp_path, train, data, make_records("pgd"), "b", checkpoint="last")
    make_attack(tmp_path, train, data, make_records("pgd", split="validation"), "c")
    names = {row.name for row in compare(gather(find([tmp_path]))).rows}
    assert names == {"pgd (digits (8x8), test)", "pgd (last, digits (8x8), test)", "pgd (digits (8x8), validation)"}


def test_of_two_evaluations_the_one_with_more_evidence_is_shown(tmp_path):
    data = make_data(tmp_path)
    train = make_train(tmp_path, data)
    make_attack(tmp_path, train, data, make_records("pgd"), "a")
    make_attack(tmp_path, train, data, make_records("pgd", (97, 70, 60, 50), count=100), "b")
    table = compare(gather(find([tmp_path])))
    assert {entry.count for entry in table.rows[0].entries.values()} == {360}
    assert len([note for note in table.notes if "more than once" in note]) == len(ATTACKS)


def test_a_randomized_model_without_eot_is_warned_about():
    attacks = ATTACKS[:3]
    records = make_records("noisy", (350, 300, 290), attacks, randomized=True)
    records += make_records("plain", (350, 300, 290), attacks)
    records += make_records("only clean", (350,), ATTACKS[:1], randomized=True)
    warning = compare(from_records(records)).warnings[0]
    assert warning.startswith("noisy is randomized, and no attack on it averaged its gradients over draws")
    assert not [text for text in compare(from_records(records)).warnings[1:] if "EOT" in text]
    averaged = compare(from_records(make_records("noisy", randomized=True))).warnings
    assert not [text for text in averaged if "EOT" in text]


@pytest.fixture(scope="module")
def reproduction(tmp_path_factory):
    root = tmp_path_factory.mktemp("reproduction")
    data = make_data(root, name="cifar10")
    train = make_train(root, data, "learn2perturb", published="l2p_table2/ResNet-V1(32)/Learn2Perturb")
    correct = (8400, 6000, 5300, 5200)
    records = make_records("learn2perturb", correct, randomized=True, count=10_000, repeats=2, dataset="cifar10")
    make_attack(root, train, data, records)
    return root


def test_published_numbers_stand_beside_measured_ones(reproduction):
    table = compare(gather(find([reproduction])))
    entries = {column.label: table.rows[0].entries[column.key] for column in table.columns}
    assert entries["Clean"].comparison == "84.19 ± 0.06 (\N{MINUS SIGN}0.18)"
    assert entries["FGSM"].comparison == "59.94 ± 0.11 (+0.07)"
    assert entries["PGD-7"].comparison == "54.62 ± 0.06 † (\N{MINUS SIGN}1.61)"
    assert entries["PGD-20 EOT-10"].comparison is None
    assert entries["PGD-7"].difference == pytest.approx(53.01 - 54.62)
    assert [note for note in table.notes if note.startswith("†")] == [
        "† suspect: 54.62 ± 0.06 is printed in six cells of Table 2; they cannot all be measurements."
    ]


def test_a_published_number_without_its_setting_is_said_to_be_missing(tmp_path):
    data = make_data(tmp_path, name="cifar10")
    train = make_train(tmp_path, data, published="l2p_table1/ResNet-V1(20)/Vanilla")
    make_attack(tmp_path, train, data, make_records("pgd", (350,), ATTACKS[:1], dataset="cifar10"))
    (note,) = compare(gather(find([tmp_path]))).notes
    assert "Learn2Perturb, Table 1, ResNet-V1(20), Vanilla" in note
    assert "pgd(norm=linf, epsilon=8/255, steps=7, step_size=0.01) and fgsm(norm=linf, epsilon=8/255)" in note


def test_csv_has_a_line_per_run_and_attack(reproduction, digits):
    rows = list(csv.DictReader(io.StringIO(compare(gather(find([reproduction]))).all_sections[0].to_csv())))
    assert len(rows) == 4
    assert rows[2] == {
        "run": "learn2perturb", "defense": "learn2perturb(gamma=0.0001)", "model": "resnet_v1(depth=8)",
        "dataset": "cifar10 (8x8)", "attack": "pgd(step_size=0.01, steps=7)", "norm": "linf", "epsilon": repr(8 / 255),
        "steps": "7", "restarts": "1", "draws": "1", "prediction_draws": "1", "backend": "l2p_tf", "repeats": "2",
        "count": "10000", "accuracy": "53.01", "low": "52.0308", "high": "53.9869", "spread": "0.0141",
        "published": "54.62",
        "published_spread": "0.06", "difference": "-1.61", "suspect": "true",
    }  # fmt: skip
    assert rows[0]["suspect"] == "false"
    assert (rows[0]["norm"], rows[0]["epsilon"], rows[3]["published"], rows[3]["suspect"]) == ("", "", "", "")
    assert len(list(csv.DictReader(io.StringIO(compare(gather(find([digits]))).all_sections[0].to_csv())))) == 12


def test_markdown_has_as_many_cells_as_columns_and_escapes_markup():
    records = make_records("a|b_c*<script>[x](y)\n# z")
    text_of = compare(from_records(records)).to_markdown()
    lines = [line for line in text_of.splitlines() if line.startswith("|")]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in lines] == [6, 6, 6] + 5 * [11]
    assert r"a\|b\_c\*\<script\>\[x\](y) \# z" in lines[2]
    assert "80.3<br>75.9\N{EN DASH}84.1 |" in lines[2]


def test_the_console_table_prints_names_as_they_are():
    records = make_records("[bold red]run[/]\x1b[31m", randomized=True, repeats=2)
    console = Console(file=io.StringIO(), width=160, color_system=None)
    compare(from_records(records)).to_console(console)
    shown = console.file.getvalue()
    assert "[bold red]run[/] [31m" in shown
    assert "\x1b" not in shown
    assert "80.6 ± 0.4" in shown.replace("80.8", "80.6")
    assert "PGD-20 EOT-10" in shown


def test_columns_with_the_same_label_are_told_apart():
    attacks = (ATTACKS[1], ("fgsm(epsilon=0.1)", "FGSM", "linf", 0.1, 1, 1))
    table = compare(from_records(make_records("a", (300, 200), attacks)))
    assert [column.label for column in table.columns] == ["FGSM, ε 8/255", "FGSM, ε 0.1"]
    assert [column.detail for column in table.columns] == ["L∞, ε 8/255, 1 step", "L∞, ε 0.1, 1 step"]
    attacks += (("fgsm(epsilon=0.1, loss=margin)", "FGSM", "linf", 0.1, 1, 1),)
    table = compare(from_records(make_records("a", (300, 200, 100), attacks)))
    specs = ("fgsm(epsilon=0.1)", "fgsm(epsilon=0.1, loss=margin)")
    assert [column.label for column in table.columns][1:] == [f"FGSM, ε 0.1: {spec}" for spec in specs]


# Words.


def test_the_summary_calls_no_run_better_without_results_per_image(digits):
    (paragraph,) = words.paragraphs(compare(gather(find([digits]))))
    assert "On the test split of digits (8x8), " in paragraph
    assert "learn2perturb is best (82.5%). Not tested against pgd and none" in paragraph
    assert "upper bound" in paragraph


def test_runs_without_a_common_attack_are_not_ordered():
    records = make_records("a", (300,), ATTACKS[1:2]) + make_records("b", (300,), ATTACKS[2:3])
    (paragraph,) = words.paragraphs(compare(from_records(records)))
    assert "No attack was run on all of them." in paragraph


def test_data_sets_are_summarized_apart():
    records = make_records("a") + make_records("b", dataset="cifar10")
    assert len(words.paragraphs(compare(from_records(records)))) == 2


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (8 / 255, "8/255"),
        (0.03, "0.03"),
        (0.5, "0.5"),
        (0.15, "0.15"),
        (1 / 255, "1/255"),
        (0.2, "0.2"),
        (0, "0"),
        (72 / 255, "72/255"),
    ],
)
def test_epsilon_is_written_as_people_do(value, shown):
    assert text.epsilon(value) == shown


def test_text_from_outside_becomes_one_printable_line():
    assert text.plain("a\n\x1b[31m\u202eb\x00") == "a [31m b"
    assert text.plain("\ud800x") == "?x"
    assert text.plain("") == "(no name)"
    assert text.plain("abcdef", 4) == "abc…"


# Curves.


def test_history_reads_empty_fields_and_finds_the_noise(tmp_path):
    write_history(tmp_path / "history.csv", 12, 2)
    history = read_history(tmp_path / "history.csv")
    assert history.noise_start == 4
    assert history.layers("theta") == ["noise_0", "noise_1"]
    epochs, values = history.curve("validation_robust_accuracy")
    np.testing.assert_array_equal(epochs, np.arange(0, 12, 2))
    assert np.isfinite(values).all()
    assert history.curve("nothing") is None
    assert history.noise("theta", "noise_1", "max")[0] == pytest.approx(0.25 * 1.7)


def test_history_of_a_run_without_noise(tmp_path):
    write_history(tmp_path / "history.csv", 3, 0)
    history = read_history(tmp_path / "history.csv")
    assert (history.noise_start, history.layers("theta")) == (None, [])
    assert read_history(tmp_path / "nothing.csv") is None


@pytest.mark.parametrize(
    "content", ["epoch,loss\n0,abc\n", "loss\n1\n", "epoch,loss\n0\n", "epoch,loss\n0,1,2\n", "epoch,loss\n,1\n"]
)
def test_a_broken_history_is_refused(tmp_path, content):
    (tmp_path / "history.csv").write_text(content)
    with pytest.raises(UserError, match=r"history\.csv' should be the CSV of a training"):
        read_history(tmp_path / "history.csv")


def test_a_history_of_one_epoch_with_gaps_is_drawn(tmp_path):
    (tmp_path / "history.csv").write_text("epoch,loss,clean_loss,theta/a/mean,noise_active\n0,nan,inf,0.3,1\n")
    drawn = plots.of_training(read_history(tmp_path / "history.csv"), "x", "run")
    assert [plot.name for plot in drawn] == ["x-theta"]


def test_long_histories_are_thinned_and_plots_are_reproducible(tmp_path):
    write_history(tmp_path / "history.csv", 2000, 20)
    history = read_history(tmp_path / "history.csv")
    drawn = plots.of_training(history, "x", "run")
    assert [plot.name for plot in drawn] == ["x-loss", "x-accuracy", "x-theta"]
    assert len(drawn[2].svg) < 120_000
    assert drawn == plots.of_training(history, "x", "run")


def test_plots_hold_names_of_any_kind():
    names = ["_hidden", "$a^", "日本語 שלום", '<&">', "x" * 300, "\x00"]
    curves = [lines.Curve(name, np.arange(2), np.arange(2)) for name in names]
    plot = lines.plot_of("p", "t", curves, ("x", "y"))
    texts = [element.text for element in ET.fromstring(plot.svg).iter("{http://www.w3.org/2000/svg}text")]
    assert {"_hidden", "$a^", "日本語 שלום", '<&">'} <= set(texts)
    ET.fromstring(svg.inline(plot.svg, "p", "<title> & more"))


# Gallery.


@pytest.mark.parametrize(
    ("change", "factor"), [(8 / 255, 15), (0.031, 16), (0.5, 1), (1.0, 0.5), (0.3, 1.66), (0.0, 1), (np.nan, 1)]
)
def test_the_factor_of_differences_is_round_and_does_not_clip(change, factor):
    assert gallery.scale_of(np.array([0.0, -change], np.float32)) == pytest.approx(factor)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "L")])
def test_images_are_pngs_of_the_same_pixels(channels, mode):
    image = np.random.default_rng(0).random((8, 6, channels))
    uri = gallery.data_uri(image)
    assert uri.startswith("data:image/png;base64,")
    shown = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert (shown.size, shown.mode) == ((6, 8), mode)
    if channels != 4:
        np.testing.assert_array_equal(np.array(shown).reshape(8, 6, channels), np.round(255 * image))


def test_large_images_are_reduced():
    shown = Image.open(io.BytesIO(base64.b64decode(gallery.data_uri(np.zeros((224, 112, 3))).partition(",")[2])))
    assert shown.size == (48, 96)


def test_the_gallery_says_what_the_model_made_of_each_image(digits):
    runs = gather(find([digits]))
    shown = {g.title: g for g in gallery.galleries(runs, 10_000_000)}["pgd"]
    assert [head.label for head in shown.heads] == ["FGSM", "PGD-7", "PGD-20 EOT-10"]
    assert [head.detail for head in shown.heads][1:] == [
        "L∞, ε 8/255, 7 steps",
        "L∞, ε 8/255, 20 steps, EOT over 10 draws",
    ]
    assert {head.factor for head in shown.heads} == {"15"}
    assert (len(shown.examples), shown.total) == (6, 6)
    arrays = np.load(digits / "attack_pgd" / "gallery.npz")
    for i, example in enumerate(shown.examples):
        assert (example.label, example.clean.right, example.clean.confidence) == (str(i), True, "98%")
        for a, attacked in enumerate(example.attacked):
            assert attacked.picture.prediction == str(arrays["prediction"][a, i])
            assert attacked.picture.right == (arrays["prediction"][a, i] == i)


def test_the_gallery_keeps_to_its_budget(digits):
    runs = gather(find([digits]))
    shown = gallery.galleries(runs, 3 * 3000)
    assert all(1 <= len(g.examples) < g.total for g in shown)
    assert [len(g.examples) for g in gallery.galleries(runs, 0)] == [1, 1, 1]


@pytest.mark.parametrize(
    "change", [{"label": np.zeros((2, 2))}, {"attacks": np.array(["a"])}, {"clean": None}, {"clean": np.zeros(())}]
)
def test_a_wrong_gallery_is_refused(tmp_path, change):
    data = make_data(tmp_path)
    train = make_train(tmp_path, data)
    path = make_attack(tmp_path, train, data, make_records("pgd")).path / "gallery.npz"
    arrays = {k: v for k, v in {**np.load(path), **change}.items() if v is not None}
    runs = gather(find([tmp_path]))
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=r"gallery\.npz' should hold the gallery of an attack stage"):
        gallery.galleries(runs, 1000)


# The page.


def test_the_artifact_holds_page_tables_and_plots(digits_report, digits):
    artifact = artifacts.read(digits_report, "report")
    assert {"report.html", "report.md", "table.csv", "plots/run-0-loss.svg"} <= set(artifact.manifest["outputs"])
    assert sorted(artifact.options["runs"]) == sorted(CORRECT)
    assert len(artifact.manifest["inputs"]) == 7


def test_the_page_is_self_contained_and_has_one_script(digits_report):
    page = (digits_report / "report.html").read_text("utf-8")
    assert page.startswith("<!DOCTYPE html>")
    outline = Outline(without_own_script(page))
    assert not [tag for tag, _ in outline.tags if tag in ("script", "iframe", "object", "embed", "form", "base")]
    for tag, attributes in outline.tags:
        assert not [key for key in attributes if key.startswith("on")], tag
        for key in ("src", "href", "xlink:href"):
            assert attributes.get(key, "#").startswith(("#", "data:")), (tag, attributes)
    assert "url(http" not in page
    assert "@import" not in page
    policy = next(a["content"] for t, a in outline.tags if t == "meta" and "http-equiv" in a)
    script = own_script().removeprefix("<script>").removesuffix("</script>")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def test_the_page_can_be_read_by_ear_and_keyboard(digits_report):
    outline = Outline((digits_report / "report.html").read_text("utf-8"))
    assert len(outline.ids) == len(set(outline.ids))
    assert outline.headings[0] == 1
    assert outline.headings.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(outline.headings, outline.headings[1:], strict=False))
    for tag, attributes in outline.tags:
        assert tag != "th" or attributes.get("scope") in ("row", "col")
        assert tag != "img" or attributes.get("alt")
        assert tag != "svg" or (attributes["role"] == "group" and attributes["aria-labelledby"] in outline.ids)
        assert "scroll" not in attributes.get("class", "").split() or attributes["tabindex"] == "0"
        assert attributes.get("href", "#").removeprefix("#") in ("", *outline.ids) or tag == "link"
        assert attributes.get("aria-labelledby", outline.ids[0]) in outline.ids
    tags = [tag for tag, _ in outline.tags]
    assert tags.count("caption") == tags.count("table")
    assert ("html", {"lang": "en"}) in outline.tags


def test_the_sections_come_in_their_order(digits_report):
    outline = Outline((digits_report / "report.html").read_text("utf-8"))
    sections = [name for name in outline.ids if name in outline.ids and not re.search(r"-|main", name)]
    assert sections == ["summary", "comparison", "strength", "training", "parameters", "gallery", "settings", "lineage"]


def test_the_page_shows_settings_and_lineage(digits_report, digits):
    shown = " ".join(Outline((digits_report / "report.html").read_text("utf-8")).text)
    for name in ("train_pgd", "attack_none", "data"):
        assert artifacts.read(digits / name).fingerprint[:8] in shown
    for setting in ("batch_size", "tensorflow", "learn2perturb(gamma=0.0001)", "digits (8x8)", "78,330"):
        assert setting in shown


def test_the_same_results_give_the_same_bytes_and_are_not_made_twice(digits, digits_report, tmp_path):
    again = report.make([digits], tmp_path / "report", "Digits")
    for name in ("report.html", "report.md", "table.csv", "plots/run-1-loss.svg"):
        assert (again.path / name).read_bytes() == (digits_report / name).read_bytes()
    before = (again.path / "manifest.json").stat().st_mtime_ns
    assert again.made
    assert not report.make([digits], tmp_path / "report", "Digits").made
    assert (again.path / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="--overwrite"):
        report.make([digits], tmp_path / "report", "Another title")


def test_parameters_that_differ_from_the_papers_are_marked(reproduction, tmp_path):
    page = (report.make([reproduction], tmp_path / "report").path / "report.html").read_text("utf-8")
    assert "464,154 (differs)" in page
    assert "published 54.62 ± 0.06 † (\N{MINUS SIGN}1.61)" in page


def test_reports_never_import_tensorflow():
    code = "import sys, l2p_tf.reporting.report; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# In a browser.


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
def test_the_page_in_a_browser(digits_report, tmp_path):
    dom, messages = browse(digits_report / "report.html", tmp_path / "profile1")
    assert "<h1>Digits</h1>" in dom
    assert messages == []
    source = html.escape((digits_report / "report.html").read_text("utf-8"))
    frames = "".join(f'<iframe width="{width}" height="800" srcdoc="{source}"></iframe>' for width in (1280, 768, 390))
    (tmp_path / "frames.html").write_text(FRAMES.format(frames=frames), "utf-8")
    dom, messages = browse(tmp_path / "frames.html", tmp_path / "profile2")
    assert len(messages) == 1
    assert "control" in messages[0]
    widths = re.search('<pre id="widths">(.*?)</pre>', dom)[1].split()
    assert [int(pair.split("/")[1]) for pair in widths] == [1280, 768, 390]
    assert all(int(scroll) <= int(inner) for scroll, inner in (pair.split("/") for pair in widths)), widths
