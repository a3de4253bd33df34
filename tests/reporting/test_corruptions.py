"""Accuracy on corrupted images, and calibration."""

import numpy as np
import pytest

from l2p_tf.reporting.stats import calibration_error, reliability
from support.reports import (
    CLEAN_ATTACK,
    PGD,
    make_data,
    make_stage,
    make_train,
    of_correct,
    records_of,
    rows_of,
    section_of,
    texts_of,
)  # fmt: skip

FOG, JPEG = (
    [(f"corruption(kind={kind}, severity={s})", f"{kind} {s}", None, None, 0, 1) for s in (1, 5)]
    for kind in ("fog", "jpeg")
)


def make_corrupted(root, **fields):
    """Twenty images, of which 20, 10, 16, 12, 8 and 4 are right: clean, under PGD, in fog, as JPEG."""
    data = make_data(root)
    rights = [np.arange(20) < right for right in (20, 10, 16, 12, 8, 4)]
    arrays = [of_correct(right, confidence=np.full(20, 0.75), brier=np.full(20, 0.5)) for right in rights]
    records = records_of("pgd", (CLEAN_ATTACK, PGD, *FOG, *JPEG), arrays, **fields)
    make_stage(root / "attack", "attack", {"train": make_train(root, data), "data": data}, records, arrays)
    return root


def test_means_are_over_corruptions_and_severities_beside_attacks(tmp_path):
    section = section_of(make_corrupted(tmp_path), "corruptions")
    overview, grid, calibration = section.tables
    (row,) = texts_of(overview)
    assert [lines[0] for lines in row] == ["pgd", "100.0", "50.0", "60.0", "40.0", "30.0", "50.0"]
    assert row[5][-1] == "jpeg"
    assert [[lines[0] for lines in row] for row in texts_of(grid)] == [
        ["fog", "80.0", "60.0", "70.0"], ["jpeg", "40.0", "20.0", "30.0"],
    ]  # fmt: skip
    assert [lines[0] for lines in texts_of(calibration)[0][1:]] == ["25.0", "0.500", "25.0", "0.500"]
    assert rows_of(section, "corruption", "severity", "accuracy")[:2] == [("fog", 1, 80.0), ("fog", 5, 60.0)]
    assert [plot.name for plot in section.plots] == ["reliability-clean", "reliability-corrupted"]


def test_corruptions_are_no_attacks_elsewhere(tmp_path):
    root = make_corrupted(tmp_path)
    columns = section_of(root, "comparison").tables[0].columns
    assert [column.label for column in columns[1:]] == ["Clean", "PGD-20"]
    assert section_of(tmp_path / "attack", "strength").tables[0].rows[0][0].text == "PGD-20"


def test_the_calibration_error_is_the_mean_gap():
    confidence = np.array([0.1, 0.1, 0.95, 0.95, 0.95, 0.95])
    correct = np.array([1, 0, 1, 1, 1, 0])
    assert calibration_error(confidence, correct) == pytest.approx((2 * 0.4 + 4 * 0.2) / 6)
    rng = np.random.default_rng(0)
    sure = rng.random(20_000)
    assert calibration_error(sure, rng.random(20_000) < sure) < 0.02
    counts, means, _ = reliability(sure, sure > 0.5)
    assert counts.sum() == 20_000
    assert (np.abs(means - (np.arange(15) + 0.5) / 15) < 1 / 30).all()
    assert reliability([0.0, 1.0, 1 / 15], [1, 1, 1])[0].tolist() == [2, *[0] * 13, 1]
