"""The figures of reports on typical results: `tests/golden/CASE/*.csv`, which `python tests/test_golden.py` writes."""

import datetime
import pathlib
import shutil
import sys
import tempfile
from unittest import mock

import numpy as np
import pytest
from test_reporting import make_attack, make_data, make_records, make_runs, make_train
from test_reporting_attacks import make_backends, make_minimal, make_transferred
from test_reporting_certified import RADIUS, arrays_of, make_certify
from test_reporting_checks import make_attacked, make_checks
from test_reporting_paired import judged
from test_reporting_sweeps import make_family, make_ladder, make_sweep

from l2p_tf.reporting import report

GOLDEN = pathlib.Path(__file__).with_name("golden")


def make_all_certified(root):
    """Two trainings, each attacked and certified at two levels of noise, one of them by its last weights."""
    data = make_data(root)
    for name, checkpoint in (("smooth", "best"), ("plain", "last")):
        train = make_train(root, data, name)
        make_attack(root, train, data, make_records(name), f"attack_{name}")
        arrays = {"smoothing 0.25": arrays_of(), "smoothing 0.5": arrays_of(RADIUS[::-1])}
        make_certify(root, train, data, arrays, f"certify_{name}", checkpoint)


def make_checked(root):
    """Two trainings, one with a checks stage, both with attacks that fool a number of images each."""
    data = make_data(root)
    attacks = {
        ("fgsm", "FGSM", "linf", 8 / 255, 1, 1): range(40),
        ("pgd", "PGD-20", "linf", 8 / 255, 20, 1): range(60),
        ("square", "Square", "linf", 8 / 255, 500, 1): range(5, 75),
    }
    for name in ("pgd", "none"):
        train = make_train(root, data, name)
        make_attacked(root, train, data, attacks, wrong_when_clean=2)
        if name == "pgd":
            make_checks(root, train, data)


def make_paired(root):
    """Four runs on the same 200 images, one of them randomized."""
    data = make_data(root)
    place = np.arange(200)
    for name, right in (("b", place < 100), ("a", (place < 125) & (place > 4)), ("c", np.roll(place < 100, 6))):
        judged(root, data, name, [place < 198], [[right]])
    judged(root, data, "noisy", [place < 190, place > 9], [[place < 90, place < 110]])


def make_repeated(root):
    """One training that was judged twice: without per-image results on more images, with them on fewer."""
    make_minimal(root)
    train, data = (report.artifacts.read(path) for path in (root / "train_pgd", root / "data"))
    make_attack(root, train, data, make_records("pgd", repeats=2))


CASES = {
    "comparison": make_runs, "transfer": make_transferred, "minimal": make_minimal, "backends": make_backends,
    "sweep": make_sweep, "radii": make_ladder, "derived": make_family, "certified": make_all_certified,
    "checks": make_checked, "paired": make_paired, "repeated": make_repeated,
}  # fmt: skip


class Clock(datetime.datetime):
    """A clock that stands still, as the order of runs is that in which they finished."""

    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 1, tzinfo=tz)


def tables(name, folder):
    """The CSVs of a report on one case, as text by their names."""
    with mock.patch.object(datetime, "datetime", Clock):
        CASES[name](folder / "runs")
    how = {"match": (0.8, 0.7), "match_tolerance": 0.05} if name == "sweep" else {}
    made = report.make([folder / "runs"], folder / "report", name, **how)
    return {path.name: path.read_text("utf-8") for path in sorted(made.path.glob("*.csv"))}


@pytest.mark.parametrize("name", CASES)
def test_the_figures_are_those_they_were(name, tmp_path):
    kept = {path.name: path.read_text("utf-8") for path in (GOLDEN / name).glob("*.csv")}
    assert tables(name, tmp_path) == kept


def main():
    shutil.rmtree(GOLDEN, ignore_errors=True)
    for name in CASES:
        with tempfile.TemporaryDirectory() as folder:
            found = tables(name, pathlib.Path(folder))
        (GOLDEN / name).mkdir(parents=True)
        for file, text in found.items():
            (GOLDEN / name / file).write_text(text, "utf-8")


if __name__ == "__main__":
    sys.exit(main())
