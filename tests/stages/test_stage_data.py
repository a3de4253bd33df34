"""The data stage, and what all stages share: flags, exit status, one-line errors."""

import subprocess
import sys

import numpy as np
import pytest

from l2p_tf.data import ImageData
from support import ROOT
from support.datasets import noise, write_tfds
from support.files import read_json
from support.stages import error, python, run, stage


def assert_all_in(line, *parts):
    for part in parts:
        assert part in line


def test_the_stage_makes_an_artifact_once(tmp_path):
    options = ["--dataset=digits(test_share=1/4)", f"--run_dir={tmp_path}", "--validation_share=1/5", "--seed=2"]
    first = stage("data", *options)
    assert "1,078 train, 270 validation, 449 test images of 8x8x1 in 10 classes" in first.stdout
    assert f"{tmp_path}/data" in first.stdout
    data = ImageData.open(tmp_path / "data")
    assert data.artifact.manifest["seed"] == 2
    assert data.artifact.options["validation_share"] == 0.2
    assert "is up to date" in stage("data", *options).stdout
    written = read_json(tmp_path / "data/manifest.json")
    assert len(written.pop("digest")) == 64
    assert data.artifact.manifest == written
    assert_all_in(error("data", *options, "--limit_train=100"), "limit_train=None (now 100)", "--overwrite")
    stage("data", *options, "--limit_train=100", "--overwrite")
    assert ImageData.open(tmp_path / "data").info.counts["train"] == 80


def test_images_may_stay_where_they_are(tmp_path):
    write_tfds(tmp_path, "marks", "1.0.0", (9, 7, 3), 4)
    options = ["--dataset=tfds(dataset=marks)", f"--data_dir={tmp_path}", f"--run_dir={tmp_path}", "--nodownload"]
    stage("data", *options, "--stream=on")
    data = ImageData.open(tmp_path / "data")
    np.testing.assert_array_equal(data.split("test")[0][:], noise(20, (9, 7, 3), seed=1))
    assert not (tmp_path / "data/test_images.npy").exists()
    assert "is up to date" in stage("data", *options).stdout
    assert_all_in(error("data", *options, "--stream=off"), "streamed=True (now False)", "--overwrite")


def test_a_streamed_image_damaged_since_stops_a_training_in_one_line(tmp_path):
    folder = write_tfds(tmp_path, "marks", "1.0.0", (9, 7, 3), 4)
    data = ["--dataset=tfds(dataset=marks)", f"--data_dir={tmp_path}", f"--run_dir={tmp_path}", "--stream=on"]
    stage("data", *data)
    file = sorted(folder.glob("*train*"))[1]
    file.write_bytes(file.read_bytes()[:-300] + bytes(300))
    training = ["--defense=none", "--model=basic_net(width=0.25)", "--batch_size=36", "--epochs=1"]
    assert_all_in(error("train", *data, *training), str(folder), "is damaged", "train image 39")


def test_images_of_ones_own_are_resized_by_a_flag_and_may_be_for_judging_alone(tmp_path):
    images = noise(4, (9, 7, 3))
    np.savez(tmp_path / "own.npz", x_test=images, y_test=np.arange(4) % 2)
    options = [f"--dataset=npz(path='{tmp_path}/own.npz')", f"--run_dir={tmp_path}", "--image_size=12"]
    printed = stage("data", *options).stdout
    assert_all_in(printed, "own.npz: 0 train, 0 validation, 4 test images of 12x12x3 in 2 classes", "not trained")
    assert_all_in(error("train", *options, "--defense=none"), "`data` should have training images", f"{tmp_path}/data")


def test_flags_may_come_from_a_file(tmp_path):
    file = tmp_path / "digits.flags"
    file.write_text(f"# Digits, in a second.\n--dataset=digits\n--run_dir={tmp_path}\n--limit_train=50\n")
    stage("data", f"--flagfile={file}")
    assert ImageData.open(tmp_path / "data").info.counts["train"] == 45


def test_help_shows_the_docstring_the_flags_and_the_data_sets():
    printed = run("data", "--help")
    assert printed.startswith("Prepares a data set")
    assert_all_in(printed, "--dataset", "--run_dir", "--seed", "--[no]overwrite", "--validation_share")
    assert_all_in(stage("data", "--dataset=help").stdout, "cifar10: ", "image_size=0")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--dataset=digit"], ["'digit'", "digits", "cifar10"]),
        (["--dataset=digits(test_share=2)"], ["`test_share` should be at most 0.9", "2"]),
        (["--dataset=digits", "--run_dir="], ["`--run_dir` should be given"]),
        ([], ["`--dataset` should be given"]),
        (["--dataset=digits", "--validation_share=many"], ["validation_share", "'many'", "8/255"]),
        (["--dataset=digits", "--validation_share=1"], ["validation_share", "below 1", "1.0"]),
        (["--dataset=digits", "--seed=-1"], ["seed", "-1"]),
        (["--dataset=digits", "--limit_test=0"], ["limit_test", "0"]),
        (["--datasets=digits"], ["datasets", "dataset"]),
        (["--dataset=digits", "--image_size=9"], ["`--image_size` is no option of digits"]),
        (["--dataset=folder(path='/nowhere')"], ["`path` should be a folder", "/nowhere"]),
        (["--dataset=npz(path='/nowhere.npz')"], ["`path` should be an .npz", "/nowhere.npz"]),
        (["--dataset=csv(path='/nowhere.csv')"], ["`path` should be a CSV", "/nowhere.csv"]),
        (["--dataset=digits", "more"], ["--name=value", "'more'"]),
        (["--flagfile=/nowhere.flags"], ["/nowhere.flags"]),
        (["--dataset=cifar10", "--nodownload", "--data_dir=/nowhere"], ["`data_dir`", "cifar10/VERSION", "/nowhere"]),
    ],
)
def test_bad_flags_give_one_line(tmp_path, arguments, parts):
    assert_all_in(error("data", f"--run_dir={tmp_path}", *arguments), *parts)
    assert not any(tmp_path.iterdir())


def test_an_output_that_cannot_be_made_gives_one_line(tmp_path):
    (tmp_path / "file").touch()
    assert f"{tmp_path}/file" in error("data", "--dataset=digits", f"--run_dir={tmp_path}/file")


RAISE = """from stages import common
from l2p_tf.types import Interrupted, UserError
def main(_): raise {}
common.run(main)"""


@pytest.mark.parametrize(
    ("raised", "message", "status"),
    [
        ("UserError('two\\nlines')", "error: two lines", 2),
        ("OSError(28, 'No space left on device', 'x.npy')", "error: disk full: 'x.npy'", 2),
        ("OSError(28, 'No space left on device', 'x', None, 'copy')", "error: disk full: 'copy'", 2),
        ("PermissionError(13, 'Permission denied', 'y')", "error: Permission denied: 'y'", 2),
        ("MemoryError()", "error: out of memory; take smaller batches", 2),
        (
            "type('ResourceExhaustedError', (Exception,), {})('at x\\nOOM when allocating tensor with shape[8]')",
            "error: out of memory for a tensor of shape[8]; take",
            2,
        ),
        ("KeyboardInterrupt", "error: interrupted", 130),
        ("Interrupted(15, 'stopped')", "error: stopped", 143),
    ],
)
def test_errors_of_main(raised, message, status):
    (line,) = python(RAISE.format(raised), status=status).stderr.splitlines()
    assert message in line


def test_tracebacks_can_be_asked_for_and_bugs_always_show_theirs():
    asked = python(RAISE.format("UserError('bad')"), status=1, L2P_TF_TRACEBACK="1")
    bug = python(RAISE.format("KeyError('bug')"), status=1)
    assert "Traceback" in asked.stderr
    assert "Traceback" in bug.stderr


@pytest.mark.parametrize("say", ["", "--help"])
def test_a_reader_who_has_seen_enough_is_no_error(say):
    many = "'help ' * 1_000_000"
    code = f"__doc__ = {many}\nfrom stages import common\ndef main(_): common.say({many})\ncommon.run(main)"
    with subprocess.Popen(
        [sys.executable, "-c", code, *say.split()], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.read(4) == b"help"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
