"""What a bar shows, and the accuracy beside it."""

import dataclasses
import io
import re

import numpy as np
import pytest

from l2p_tf import progress
from l2p_tf.attacks.corruption import answered
from l2p_tf.evaluation.chunked import ChunkedEvaluation
from l2p_tf.evaluation.options import EvaluationOptions
from support.models import images_and_labels, smooth


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


@pytest.mark.parametrize(
    ("right", "expected"),
    [
        # Of the first six images five are right as they are, of the others none; an attack of the second four finds out
        # only in the end.
        (np.arange(12) < 5, ["83.3%", "83.3%", "66.7%", "33.3%", "33.3%", "33.3%"]),
        (None, ["100.0%", "100.0%", "66.7%", "83.3%", "83.3%", "33.3%"]),
    ],
)
def test_the_accuracy_counts_what_is_misclassified_already(tmp_path, right, expected):
    images, labels = images_and_labels(12)
    wrong = ~(np.arange(12) < 4)
    starts = iter((0, 6))

    def slow(model, images, labels, seed, *, progress, **_):
        for share in (0.0, 0.5):
            progress(share, len(images))
        output = answered(model, images, images, labels, seed)
        start = next(starts)
        return dataclasses.replace(output, wrong=wrong[start : start + 6].astype(np.float32))

    slow.label = "slow"
    shown = []
    pixels = np.round(images * 255).astype(np.uint8)
    options = EvaluationOptions(batch_size=4, slice_size=6, jit_compile=False)
    job = ChunkedEvaluation(options, smooth(), slow, pixels, labels.astype(np.int32), tmp_path)
    job.run(1, 0, lambda n, accuracy: shown.append(accuracy), right)
    assert shown == expected
