"""Certificates: which count, what is certified at which radius, and the curves."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from l2p_tf import artifacts
from l2p_tf.certification.records import RESULTS
from l2p_tf.evaluation.records import wilson_interval
from l2p_tf.reporting import report
from l2p_tf.reporting.sections.certified import RADII, Certified, steps
from l2p_tf.types import UserError
from support.certified import LABEL, PREDICTION, RADIUS, arrays_of, make_certify
from support.pages import texts_in
from support.reports import make_data, make_train, results_of, rows_of, section_of, texts_of

DASH = "\N{EN DASH}"
EIGHTHS = (5, 4, 3, 2, 2, 1)
"""How many of the eight are right, by radius."""


def make_certified(root, **how):
    data = make_data(root)
    make_certify(root, make_train(root, data, "smooth", folder="train"), data, **how)
    return root


def of_arrays(arrays):
    return Certified(None, "a", None, *(np.asarray(arrays[name]) for name in ("label", "prediction", "radius")))


def test_certificates_are_joined_with_their_training_by_fingerprint(tmp_path):
    data = make_data(tmp_path)
    _, second = (make_train(tmp_path, data, name) for name in ("a", "b"))
    make_certify(tmp_path, second, data, folder="train_a_certify")
    runs = results_of(tmp_path).by_key
    assert [run.name for run in runs.values() if run.certifications] == ["b"]
    assert section_of(make_certified(tmp_path / "none", arrays={}), "certified") is None


def test_certificates_without_their_training_are_reported(tmp_path):
    make_certified(tmp_path / "runs")
    made = report.make([tmp_path / "runs" / "certify"], tmp_path / "report")
    assert [section.name for section in made.sections if section.tables] == ["certified"]
    assert "The training of smooth was not given" in (made.path / "report.html").read_text("utf-8")


def test_the_table_and_the_figures_of_certificates(tmp_path):
    section = section_of(make_certified(tmp_path), "certified")
    (row,) = texts_of(section.tables[0])
    assert row[:2] == [
        ("smooth", "digits (8x8), test", "n = 8"), ("smoothing 0.25", "confidence 99.9%", "10,000 draws"),
    ]  # fmt: skip
    assert [lines[0] for lines in row[2:]] == ["25.0", "62.5", "50.0", "37.5", "25.0", "25.0", "12.5", "0.7"]
    for radius, right in zip(RADII, EIGHTHS, strict=True):
        low, high = wilson_interval(right / 8, 8)
        names = (f"{name}_{radius:g}" for name in ("accuracy", "low", "high"))
        assert rows_of(section, *names) == [(100 * right / 8, round(100 * low, 4), round(100 * high, 4))]
    assert rows_of(section, "low_0", "high_0", "mean_radius", "abstained") == [(30.5742, 86.3156, 0.7, 25)]


def test_weights_and_certificates_have_rows_of_their_own(tmp_path):
    data = make_data(tmp_path)
    train = make_train(tmp_path, data, "smooth")
    nothing_right = arrays_of(prediction=[-1] * 8, radius=[0] * 8)
    make_certify(tmp_path, train, data, {"smoothing 0.25": arrays_of(), "smoothing 0.5": nothing_right}, "a")
    make_certify(tmp_path, train, data, {"smoothing 0.25": arrays_of()}, "b", checkpoint="last")
    section = section_of(tmp_path, "certified")
    rows = {
        tuple(lines[0] for lines in row[:2]): [lines[0] for lines in row[2:]] for row in texts_of(section.tables[0])
    }
    assert set(rows) == {
        ("smooth", "smoothing 0.25"), ("smooth", "smoothing 0.5"), ("smooth (last)", "smoothing 0.25"),
    }  # fmt: skip
    assert rows["smooth", "smoothing 0.5"] == ["100.0", *["0.0"] * 6, DASH]
    assert ("smoothing(n=1)", None, 0, 0) in rows_of(section, "certificate", "mean_radius", "accuracy_0", "low_0")


@pytest.mark.parametrize("folders", [("few", "many"), ("many", "few")])
def test_of_a_certificate_given_twice_that_on_the_most_images_is_shown(tmp_path, folders):
    data = make_data(tmp_path)
    train = make_train(tmp_path, data, "smooth")
    arrays = {"few": arrays_of(RADIUS[:4], PREDICTION[:4], LABEL[:4]), "many": arrays_of()}
    for folder in folders:
        make_certify(tmp_path, train, data, {"smoothing 0.25": arrays[folder]}, folder)
    assert rows_of(section_of(tmp_path, "certified"), "count") == [8]


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
    results = results_of(make_certified(tmp_path))
    file = tmp_path / "certify" / "arrays" / "00.npz"
    file.unlink()
    if isinstance(values, bytes):
        file.write_bytes(values)
    elif values is not None:
        np.savez(file, **values)
    with pytest.raises(UserError, match=rf"00\.npz' should hold .*{message}|00\.npz' {message}"):
        section_of(results, "certified")


def test_damaged_results_are_refused_and_nothing_is_made(tmp_path):
    make_certified(tmp_path / "runs")
    (tmp_path / "runs" / "certify" / "arrays" / "00.npz").write_bytes(b"")
    with pytest.raises(UserError, match=r"00\.npz' is missing or damaged"):
        report.make([tmp_path / "runs"], tmp_path / "report")
    assert not (tmp_path / "report").exists()
    data = make_data(tmp_path / "b")
    with artifacts.produce(tmp_path / "b" / "certify", "certify", {}, {"data": data}) as work:
        (work.path / RESULTS).write_text('{"certificates": [{"model": "a"}]}')
    with pytest.raises(UserError, match=r"certificates\.json' should hold the results of a certify stage"):
        results_of(tmp_path / "b")


def test_the_curve_steps_down_at_each_radius():
    x, y = steps(of_arrays(arrays_of()))
    # A share holds from the radius before up to its own; behind the last nothing is certified.
    assert x.tolist() == [0, 0.125, 0.25, 0.625, 1, 1.5, 1.5]
    assert (y * 8 / 100).tolist() == [5, 5, 4, 3, 2, 1, 0]
    x, y = steps(of_arrays(arrays_of(prediction=[-1] * 8, radius=[0] * 8)))
    assert (x.tolist(), y.tolist()) == ([0, 0], [0, 0])


def test_long_curves_are_thinned_and_never_say_too_much(tmp_path):
    count = 5000
    arrays = arrays_of(np.linspace(0.001, 2, count) ** 2, np.zeros(count), np.zeros(count))
    one = of_arrays(arrays)
    x, y = steps(one)
    assert len(x) <= 152
    for radius in np.linspace(0.01, 3.9, 60):
        drawn = y[np.searchsorted(x, radius)] / 100
        assert one.accuracy(radius) - 0.02 <= drawn <= one.accuracy(radius) + 1e-9
    (plot,) = section_of(make_certified(tmp_path, arrays={"a": arrays}), "certified").plots
    assert len(plot.svg) < 20_000


def test_all_curves_are_in_one_plot_and_none_looks_like_another(tmp_path):
    names = ["_hidden", "$a^", "日本語", '<&">', *map(str, range(8, 20))]
    (plot,) = section_of(make_certified(tmp_path, arrays={name: arrays_of() for name in names}), "certified").plots
    assert {f"smooth, {name}" for name in names} <= set(texts_in(plot))
    paths = ET.fromstring(plot.svg).iter("{http://www.w3.org/2000/svg}path")
    assert len({path.get("style") for path in paths if len(re.findall("L", path.get("d"))) > 5}) == len(names)
