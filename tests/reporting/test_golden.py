"""The figures of reports on typical results, `golden/CASE/*.csv`; `PYTHONPATH=tests python` this file writes them."""

import pathlib
import shutil
import sys
import tempfile

import numpy as np
import pytest

from l2p_tf.reporting import report
from support.golden import make_all_certified, make_checked, make_repeated
from support.judged import judged
from support.reports import make_backends, make_data, make_minimal, make_runs, make_transferred
from support.sweeps import make_family, make_ladder, make_sweep

GOLDEN = pathlib.Path(__file__).with_name("golden")


def make_paired(root):
    """Four runs on the same 200 images, one of them randomized."""
    data = make_data(root)
    place = np.arange(200)
    for name, right in (("b", place < 100), ("a", (place < 125) & (place > 4)), ("c", np.roll(place < 100, 6))):
        judged(root, data, name, [place < 198], [[right]])
    judged(root, data, "noisy", [place < 190, place > 9], [[place < 90, place < 110]])


CASES = {
    "comparison": make_runs, "transfer": make_transferred, "minimal": make_minimal, "backends": make_backends,
    "sweep": make_sweep, "radii": make_ladder, "derived": make_family, "certified": make_all_certified,
    "checks": make_checked, "paired": make_paired, "repeated": make_repeated,
}  # fmt: skip


def tables(name, folder):
    """The CSVs of a report on one case, as text by their names."""
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
