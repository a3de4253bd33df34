"""What a bar shows, and the accuracy beside it."""

import io
import re

import numpy as np
import pytest
from models_for_tests import images_and_labels, smooth

from l2p_tf import progress
from l2p_tf.attacks import ATTACKS
from l2p_tf.evaluation.slices import Slices


@pytest.mark.parametrize("width", [80, 100, 200])
@pytest.mark.parametrize("length", [1, 30, 90])
def test_the_time_left_is_whole_on_one_line(monkeypatch, width, length):
    written = io.StringIO()
    console = progress.console.Console
    monkeypatch.setattr(
        progress.console,
        "Console",
        lambda **_: console(file=written, force_terminal=True, width=width, color_system=None),
    )
    with progress.bar("x" * length, 100_000, "images") as advance:
        advance(500, accuracy="53.2%", loss=0.3112)
    last = re.split(r"\r\x1b\[2K", written.getvalue())[-1].split("\n")[0]
    assert re.search(r" 500/100000 images \d:\d\d:\d\d left (\d+:\d\d:\d\d|-:--:--) accuracy", last), last
    assert len(last) <= width


def test_the_accuracy_starts_with_what_is_right_as_it_is(tmp_path):
    images, labels = images_and_labels(12)
    right = np.arange(12) < 5
    shown = []
    pgd = ATTACKS.parse("pgd(epsilon=0, steps=3)")
    pixels = np.round(images * 255).astype(np.uint8)
    job = Slices(smooth(), pgd, pixels, labels.astype(np.int32), np.arange(1), tmp_path, 0, 4, 6, False)
    job.run(1, 0, lambda n, accuracy: shown.append(float(accuracy[:-1])), right)
    assert shown[0] <= 100 * 5 / 6
