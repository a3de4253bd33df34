"""What a report says of certificates, of answers averaged over draws, and of the noise that a training learned."""

import csv
import dataclasses
import html
import io
import re
import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from rich.console import Console

from l2p_tf import artifacts
from l2p_tf.certification.records import RESULTS
from l2p_tf.evaluation.records import wilson_interval
from l2p_tf.reporting import certified, plots, report, svg
from l2p_tf.reporting.comparison import compare
from l2p_tf.reporting.history import read_history
from l2p_tf.reporting.runs import find, from_records, gather
from l2p_tf.types import UserError
from support.certified import LABEL, PREDICTION, RADIUS, arrays_of, make_certify
from support.pages import FRAMES, Outline, browse, texts_in
from support.reports import ATTACKS, make_attack, make_data, make_records, make_train

DASH = "\N{EN DASH}"
EIGHTHS = {0.0: 5, 0.25: 4, 0.5: 3, 0.75: 2, 1.0: 2, 1.5: 1}
"""How many of the eight above are right, by radius."""


def make_certified(root, name="smooth", **how):
    data = make_data(root)
    train = make_train(root, data, name, folder="train")
    make_certify(root, train, data, **how)
    return root


def runs_of(root):
    return gather(find([root]))


def texts_of(section):
    return [[field.text for field in row] for row in section.tables[0].rows]


def lines_of(section):
    return list(csv.DictReader(io.StringIO(section.to_csv())))


def paths_of(plot, color):
    """The points of each line of a color, as the SVG has them, with y upwards."""
    found = [p for p in ET.fromstring(plot.svg).iter("{http://www.w3.org/2000/svg}path") if color in p.get("style", "")]
    points = [re.findall(r"[ML] (-?[\d.]+) (-?[\d.]+)", path.get("d")) for path in found]
    return [np.array(one, float) * (1, -1) for one in points if len(one) > 1]


# Joining certificates with their runs.


def test_certificates_are_joined_with_their_training_by_fingerprint(tmp_path):
    data = make_data(tmp_path)
    first, second = (make_train(tmp_path, data, name) for name in ("a", "b"))
    make_certify(tmp_path, second, data, folder="train_a_certify")
    runs = {run.name: run for run in runs_of(tmp_path)}
    assert runs["a"].train.fingerprint == first.fingerprint
    assert runs["a"].certifications == ()
    (certification,) = runs["b"].certifications
    assert (certification.checkpoint, certification.detail, certification.artifact.stage) == ("best", "", "certify")
    assert [record.label for record in certification.records] == ["smoothing 0.25"]


def test_certificates_without_their_training_are_reported(tmp_path):
    make_certified(tmp_path / "runs")
    (tmp_path / "alone").mkdir()
    shutil.move(tmp_path / "runs" / "certify", tmp_path / "alone" / "certify")
    made = report.make([tmp_path / "alone"], tmp_path / "report")
    assert made.comparison.rows == ()
    assert texts_of(made.comparison.sections[0])[0][0] == "smooth"
    page = (made.path / "report.html").read_text("utf-8")
    assert "The training of smooth was not given" in page
    assert 'id="certified"' in page


def test_a_stage_without_certificates_is_left_out(tmp_path):
    (run,) = runs_of(make_certified(tmp_path, arrays={}))
    assert run.certifications == ()
    assert certified.section([run]) is None


def test_results_that_are_none_are_refused(tmp_path):
    data = make_data(tmp_path)
    with artifacts.produce(tmp_path / "certify", "certify", {}, {"data": data}) as work:
        (work.path / RESULTS).write_text('{"certificates": [{"model": "a"}]}')
    with pytest.raises(UserError, match=r"certificates\.json' should hold the results of a certify stage"):
        runs_of(tmp_path)


# The table.


def test_the_table_of_certificates(tmp_path):
    section = certified.section(runs_of(make_certified(tmp_path)))
    (sheet,) = section.tables
    assert (section.name, section.title, section.file) == ("certified", "Certified robustness", "certified.csv")
    assert [f"{head.label} {head.detail}".strip() for head in sheet.columns] == [
        "Run", "Certificate", "Abstained %", "Radius ≥ 0", "Radius ≥ 0.25", "Radius ≥ 0.5", "Radius ≥ 0.75",
        "Radius ≥ 1", "Radius ≥ 1.5", "Mean radius",
    ]  # fmt: skip
    (row,) = sheet.rows
    assert row[0].lines == ("smooth", "digits (8x8), test", "n = 8")
    assert row[1].lines == ("smoothing 0.25", "confidence 99.9%", "10,000 draws")
    assert [field.text for field in row[2:]] == ["25.0", "62.5", "50.0", "37.5", "25.0", "25.0", "12.5", "0.7"]
    for said in (
        "no perturbation whose L2 norm is below the image's radius changes the prediction of the smoothed classifier",
        "with the confidence given",
        "says nothing of L∞ attacks",
        "abstained counts as wrong",
    ):
        assert said in sheet.caption


def test_the_csv_of_certificates_has_intervals(tmp_path):
    (line,) = lines_of(certified.section(runs_of(make_certified(tmp_path))))
    expected = {
        "run": "smooth", "dataset": "digits", "split": "test", "certificate": "smoothing(n=0)", "sigma": "0.25",
        "draws": "10000", "confidence": "0.999", "count": "8", "abstained": "25.0", "mean_radius": "0.7",
    }  # fmt: skip
    for radius, right in EIGHTHS.items():
        low, high = wilson_interval(right / 8, 8)
        expected[f"accuracy_{radius:g}"] = str(100 * right / 8)
        expected |= {f"low_{radius:g}": str(round(100 * low, 4)), f"high_{radius:g}": str(round(100 * high, 4))}
    assert line == expected
    assert (line["low_0"], line["high_0"]) == ("30.5742", "86.3156")


def test_weights_and_certificates_have_rows_of_their_own(tmp_path):
    data = make_data(tmp_path)
    train = make_train(tmp_path, data, "smooth")
    nothing_right = arrays_of(prediction=[-1] * 8, radius=[0] * 8)
    make_certify(tmp_path, train, data, {"smoothing 0.25": arrays_of(), "smoothing 0.5": nothing_right}, "a")
    make_certify(tmp_path, train, data, {"smoothing 0.25": arrays_of()}, "b", checkpoint="last")
    section = certified.section(runs_of(tmp_path))
    assert {tuple(row[:2]) for row in texts_of(section)} == {
        ("smooth", "smoothing 0.25"), ("smooth", "smoothing 0.5"), ("smooth (last)", "smoothing 0.25"),
    }  # fmt: skip
    (row,) = [row for row in texts_of(section) if row[1] == "smoothing 0.5"]
    assert row[2:] == ["100.0", *["0.0"] * 6, DASH]
    (line,) = [line for line in lines_of(section) if line["certificate"] == "smoothing(n=1)"]
    assert (line["mean_radius"], line["accuracy_0"], line["low_0"]) == ("", "0.0", "0.0")


@pytest.mark.parametrize("folders", [("few", "many"), ("many", "few")])
def test_of_a_certificate_given_twice_that_on_the_most_images_is_shown(tmp_path, folders):
    data = make_data(tmp_path)
    train = make_train(tmp_path, data, "smooth")
    arrays = {"few": arrays_of(RADIUS[:4], PREDICTION[:4], LABEL[:4]), "many": arrays_of()}
    for folder in folders:
        make_certify(tmp_path, train, data, {"smoothing 0.25": arrays[folder]}, folder)
    (one,) = certified.certificates(runs_of(tmp_path))
    assert one.record.count == 8


def test_without_certificates_nothing_is_said_or_drawn(tmp_path):
    data = make_data(tmp_path / "runs")
    train = make_train(tmp_path / "runs", data)
    make_attack(tmp_path / "runs", train, data, make_records("pgd"))
    made = report.make([tmp_path / "runs"], tmp_path / "report")
    assert certified.section(runs_of(tmp_path / "runs")) is None
    assert plots.of_certificates([]) == []
    assert [section.name for section in made.comparison.sections] == ["strength"]
    assert "ertified" not in (made.path / "report.html").read_text("utf-8")
    assert not [name for name in artifacts.read(made.path).manifest["outputs"] if "certified" in name]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "No such file"),
        ({"label": np.zeros(8)}, "`index` is not there"),
        (arrays_of(RADIUS[:3], PREDICTION[:3], LABEL[:3]), r"`index` has shape \(3,\) .*not \(8,\)"),
        (b"nothing", "should hold the per-example arrays of a certify stage"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path, values, message):
    runs = runs_of(make_certified(tmp_path))
    file = tmp_path / "certify" / "arrays" / "00.npz"
    file.unlink()
    if isinstance(values, bytes):
        file.write_bytes(values)
    elif values is not None:
        np.savez(file, **values)
    with pytest.raises(UserError, match=rf"00\.npz' should hold .*{message}|00\.npz' {message}"):
        certified.section(runs)


def test_damaged_arrays_are_refused_and_nothing_is_made(tmp_path):
    make_certified(tmp_path / "runs")
    (tmp_path / "runs" / "certify" / "arrays" / "00.npz").write_bytes(b"")
    with pytest.raises(UserError, match=r"00\.npz' is missing or damaged"):
        report.make([tmp_path / "runs"], tmp_path / "report")
    assert not (tmp_path / "report").exists()


# The curves.


def test_the_curve_steps_down_at_each_radius(tmp_path):
    (plot,) = plots.of_certificates(certified.certificates(runs_of(make_certified(tmp_path))))
    assert plot.name == "certified"
    (points,) = paths_of(plot, f"stroke: {svg.BLUE}")[:1]
    points = points[np.append(True, np.diff(points, axis=0).any(1))]
    points = (points - points[-1]) / (points[0] - points[-1])
    # From the last point, where nothing is certified any more, to the first: radius 0 and all that are right.
    corners = np.stack([1.5 * (1 - points[:, 0]), 5 / 8 * points[:, 1]], axis=1)
    steps = [0, 5, 0.125, 5, 0.125, 4, 0.25, 4, 0.25, 3, 0.625, 3, 0.625, 2, 1, 2, 1, 1, 1.5, 1, 1.5, 0]
    np.testing.assert_allclose(corners, np.reshape(steps, (-1, 2)) / (1, 8), atol=1e-3)


def test_all_curves_are_in_one_plot_and_none_looks_like_another(tmp_path):
    names = ["_hidden", "$a^", "日本語", '<&">', *map(str, range(8, 20))]
    (run,) = runs_of(make_certified(tmp_path, arrays={name: arrays_of() for name in names}))
    (plot,) = plots.of_certificates(certified.certificates([run]))
    assert {f"smooth, {name}" for name in names} <= set(texts_in(plot))
    styles = {
        path.get("style")
        for path in ET.fromstring(plot.svg).iter("{http://www.w3.org/2000/svg}path")
        if len(re.findall("L", path.get("d"))) > 5
    }
    assert len(styles) == len(names)


def test_long_curves_are_thinned_and_never_say_too_much(tmp_path):
    count = 5000
    arrays = arrays_of(np.linspace(0.001, 2, count) ** 2, np.zeros(count), np.zeros(count))
    (one,) = certified.certificates(runs_of(make_certified(tmp_path, arrays={"a": arrays})))
    (plot,) = plots.of_certificates([one])
    assert len(plot.svg) < 20_000
    assert [plot] == plots.of_certificates([one])
    (points,) = paths_of(plot, f"stroke: {svg.BLUE}")[:1]
    points = (points - points[-1]) / (points[0] - points[-1])
    drawn = np.stack([4 * (1 - points[:, 0]), points[:, 1]], axis=1)
    assert all(share <= one.accuracy(radius - 0.02) + 1e-3 for radius, share in drawn)
    assert all(share >= one.accuracy(radius + 0.06) - 1e-3 for radius, share in drawn[:-1])


def test_a_curve_of_nothing_right_is_drawn(tmp_path):
    arrays = {"a": arrays_of(prediction=[-1] * 8, radius=[0] * 8)}
    (plot,) = plots.of_certificates(certified.certificates(runs_of(make_certified(tmp_path, arrays=arrays))))
    assert "smooth, a" in texts_in(plot)


# The page and the other files.


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("certified")
    data = make_data(root / "runs")
    for name, checkpoint in (("smooth", "best"), ("plain", "last")):
        train = make_train(root / "runs", data, name)
        make_attack(root / "runs", train, data, make_records(name), f"attack_{name}")
        arrays = {"smoothing 0.25": arrays_of(), "smoothing 0.5": arrays_of(RADIUS[::-1])}
        make_certify(root / "runs", train, data, arrays, f"certify_{name}", checkpoint)
    return report.make([root / "runs"], root / "report", "Certified")


def test_the_page_shows_table_and_curve_in_one_section(made):
    page = (made.path / "report.html").read_text("utf-8")
    outline = Outline(page)
    sections = [name for name in outline.ids if not re.search(r"-|main", name)]
    names = [
        "summary",
        "comparison",
        "certified",
        "strength",
        "training",
        "parameters",
        "gallery",
        "settings",
        "lineage",
    ]
    assert sections == names
    assert len(outline.ids) == len(set(outline.ids))
    section = page.partition('<section aria-labelledby="certified">')[2].partition("</section>")[0]
    inside = Outline(section)
    assert [attributes["role"] for tag, attributes in inside.tags if tag == "svg"] == ["group"]
    (title,) = re.findall(r'<title id="certified-title">(.*?)</title>', section)
    assert title.startswith("Certified accuracy against L2 radius")
    assert inside.text.count("62.5") == 4
    shown = " ".join(outline.text)
    for said in ("Certify (last)", "table.csv, certified.csv and strength.csv", "plain (last)"):
        assert said in shown
    lineage = page.partition('id="lineage"')[2]
    assert lineage.count('<th scope="row">certify</th>') == 2


def test_the_other_files_hold_the_same_table(made):
    outputs = set(artifacts.read(made.path).manifest["outputs"])
    assert {"certified.csv", "plots/certified.svg"} <= outputs
    lines = list(csv.DictReader(io.StringIO((made.path / "certified.csv").read_text("utf-8"))))
    specs = ("smoothing(n=0)", "smoothing(n=1)")
    assert {(line["run"], line["certificate"]) for line in lines} == {
        (name, spec) for name in ("smooth", "plain (last)") for spec in specs
    }
    assert len(lines) == 4
    markdown = (made.path / "report.md").read_text("utf-8")
    assert "## Certified robustness" in markdown
    row = (
        "| smooth<br>digits (8x8), test<br>n = 8 | smoothing 0.25<br>confidence 99.9%<br>10,000 draws "
        "| 25.0 | 62.5<br>30.6\N{EN DASH}86.3 |"
    )
    assert row in markdown


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
def test_the_section_fits_every_screen(made, tmp_path):
    source = html.escape((made.path / "report.html").read_text("utf-8"))
    frames = "".join(f'<iframe width="{width}" height="800" srcdoc="{source}"></iframe>' for width in (1280, 390))
    (tmp_path / "frames.html").write_text(FRAMES.format(frames=frames), "utf-8")
    dom, messages = browse(tmp_path / "frames.html", tmp_path / "profile")
    assert len(messages) == 1
    widths = [pair.split("/") for pair in re.search('<pre id="widths">(.*?)</pre>', dom)[1].split()]
    assert [int(inner) for _, inner in widths] == [1280, 390]
    assert all(int(scroll) <= int(inner) for scroll, inner in widths), widths


def test_a_run_that_was_only_certified_has_no_empty_table_on_the_console(tmp_path):
    console = Console(file=io.StringIO(), width=160, color_system=None)
    compare(runs_of(make_certified(tmp_path))).to_console(console)
    shown = console.file.getvalue()
    assert "smoothing 0.25" in shown
    assert "Accuracy in percent" not in shown


# Answers averaged over draws.


def test_a_note_says_how_many_draws_an_answer_averages():
    records = make_records("rse", randomized=True, prediction_draws=10) + make_records("plain")
    table = compare(from_records(records))
    assert [note for note in table.notes if "averages" in note] == [
        "rse: each answer averages 10 draws of the noise (mean softmax)."
    ]
    lines = csv.DictReader(io.StringIO(table.all_sections[0].to_csv()))
    assert [(line["run"], line["prediction_draws"]) for line in lines][:: len(ATTACKS)] == [
        ("rse", "10"),
        ("plain", "1"),
    ]


def test_a_note_says_where_answers_average_different_numbers_of_draws():
    records = make_records("bnn", (9,), ATTACKS[1:2], randomized=True)
    records += make_records("bnn", (9,), ATTACKS[2:3], randomized=True, prediction_draws=1000)
    assert compare(from_records(records)).notes[-1] == (
        "bnn: each answer averages 1 or 1,000 draws of the noise (mean softmax); column prediction_draws of the CSVs "
        "says where."
    )


def test_transferred_examples_are_answered_over_draws_too():
    records = [dataclasses.replace(r, source="a") for r in make_records("rse", prediction_draws=10, randomized=True)]
    table = compare(from_records(records))
    assert "rse: each answer averages 10 draws of the noise (mean softmax)." in table.notes
    assert {line["prediction_draws"] for line in lines_of(table.sections[0])} == {"10"}


# The noise that a training learned.


def write_noise(path, parameter, values, layers=("block_0", "block_1")):
    """A history of a parameter with these means, and less and more by a fifth as smallest and largest."""
    columns = {"epoch": np.arange(len(values))}
    for i, layer in enumerate(layers):
        mean = np.asarray(values, float) + 0.01 * i
        columns |= {f"{parameter}/{layer}/min": mean - 0.2, f"{parameter}/{layer}/mean": mean}
        columns |= {f"{parameter}/{layer}/max": mean + 0.2}
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return read_history(path)


def shapes_in(plot):
    return [path.get("d") for path in ET.fromstring(plot.svg).iter("{http://www.w3.org/2000/svg}path")]


def test_alpha_is_drawn_as_theta_is(tmp_path):
    values = np.linspace(0.25, 0.75, 6)
    (theta,) = plots.of_training(write_noise(tmp_path / "theta.csv", "theta", values), "x", "run")
    (alpha,) = plots.of_training(write_noise(tmp_path / "alpha.csv", "alpha", values), "x", "run")
    assert (theta.name, alpha.name) == ("x-theta", "x-alpha")
    assert theta.title == "Evolution of theta of run, mean over layers, by epoch"
    assert alpha.title == "Evolution of alpha of run, mean over layers, by epoch"
    assert shapes_in(alpha) == shapes_in(theta)
    assert "alpha" in texts_in(alpha)
    assert "theta" not in texts_in(alpha)


def test_an_alpha_below_zero_is_seen(tmp_path):
    (plot,) = plots.of_training(write_noise(tmp_path / "h.csv", "alpha", np.linspace(0.25, -0.5, 6)), "x", "run")
    assert any(text and text.startswith("\N{MINUS SIGN}0.") for text in texts_in(plot))
    mean = paths_of(plot, f"stroke: {svg.INK}")[0]
    assert (np.diff(mean[:, 1]) < 0).all()


def test_of_a_posterior_the_deviation_of_its_kernels_is_drawn(tmp_path):
    history = write_noise(tmp_path / "log.csv", "kernel_log_std", np.log(np.linspace(0.08, 0.04, 6)))
    (plot,) = plots.of_training(history, "x", "bnn")
    assert plot.name == "x-kernel-log-std"
    assert plot.title == "Evolution of posterior std of kernels of bnn, mean over layers, by epoch"
    logs = {name: values for name, values in history.columns.items() if name != "epoch"}
    stds = {name.replace("kernel_log_std", "theta"): np.exp(values) for name, values in logs.items()}
    same = dataclasses.replace(history, columns={"epoch": history.epochs, **stds})
    (theta,) = plots.of_training(same, "x", "bnn")
    assert shapes_in(plot) == shapes_in(theta)


@pytest.mark.parametrize("parameter", ["bias_log_std", "gamma_log_std", "beta_log_std", "../../theta"])
def test_no_other_parameter_is_drawn(tmp_path, parameter):
    assert plots.of_training(write_noise(tmp_path / "h.csv", parameter, [0.1, 0.2]), "x", "run") == []


def test_a_deviation_beyond_all_numbers_is_left_out(tmp_path):
    (plot,) = plots.of_training(write_noise(tmp_path / "h.csv", "kernel_log_std", [-3.0, -2.0, 1000.0]), "x", "run")
    assert not re.search("inf|nan", "".join(shapes_in(plot)))


def test_each_plot_of_a_training_is_a_file(tmp_path):
    data = make_data(tmp_path / "runs")
    train = make_train(tmp_path / "runs", data, "pni", history=False)
    with artifacts.produce(tmp_path / "other" / "train", "train", train.options | {"seed": 9}, {"data": data}) as work:
        write_noise(work.path / "history.csv", "alpha", [0.25, 0.2, 0.1])
    made = report.make([tmp_path / "other"], tmp_path / "report")
    assert "plots/run-0-alpha.svg" in artifacts.read(made.path).manifest["outputs"]
    page = (made.path / "report.html").read_text("utf-8")
    assert page.count("Evolution of alpha of pni, mean over layers, by epoch") == 2
