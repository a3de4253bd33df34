"""Models that were trained elsewhere, by command: imported, and then taken by every stage as any run."""

import itertools
import re

import keras
import numpy as np
import pytest

from support import foreign
from support.files import read_json, records_in
from support.stages import error, stage

RUNS = ("soft", "logits", "saved", "noisy")
JUDGED = [
    "--dataset=digits", "--limit_test=120", "--attacks=pgd(epsilon=0.1, steps=5); square(epsilon=0.1, queries=30)",
    "--repeats=2", "--checks=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Files as others leave them, of one network: with a softmax on [0, 255], as logits on [0, 1], as a SavedModel."""
    folder = tmp_path_factory.mktemp("models")
    soft = foreign.made([keras.layers.Rescaling(1 / 255)], end="softmax")
    soft.save(folder / "soft.keras")
    foreign.made().save(folder / "logits.keras")
    soft.export(folder / "saved", verbose=False)
    return folder


@pytest.fixture(scope="module")
def pipeline(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    names = f"soft={models / 'soft.keras'}; logits={models / 'logits.keras'}; saved={models / 'saved'}"
    flags = [
        *JUDGED, f"--run_dir={folder}", f"--classifiers={names}", "--certify=smoothing(draws=20, selection_draws=10)",
        "--defense=noise_at_prediction(run=saved)", "--name=noisy", "--transfer=saved", "--export=saved",
    ]  # fmt: skip
    return folder, flags, stage("pipeline", *flags)


def test_every_later_stage_takes_them_as_any_run(pipeline):
    folder, flags, done = pipeline
    made = {p.parent.relative_to(folder).as_posix() for p in folder.rglob("manifest.json")}
    runs = {f"{name}/{what}" for name in RUNS for what in ("train", "attack")}
    assert made == runs | {"noisy/certify", "saved/export", "data", "report", "transfer"}
    assert "soft: imported from soft.keras" in done.stdout
    assert re.search(r"input range \(mended\): The model takes pixels in 0..255, as rescaling\w* tells", done.stdout)
    again = stage("pipeline", *flags)
    assert len(re.findall("up to date", again.stdout)) == 12, again.stdout
    stage("attack", *JUDGED, f"--run_dir={folder}", "--name=saved", "--checks=20")
    assert (folder / "saved" / "checks" / "manifest.json").is_file()
    assert [r["randomized"] for r in records_in(folder / "noisy" / "attack")] == [True] * 6


def test_they_fall_as_the_same_network_as_logits_in_0_to_1(pipeline):
    folder, *_ = pipeline
    found = {
        name: [np.load(folder / name / "attack" / r["arrays"])["success"] for r in records_in(folder / name / "attack")]
        for name in RUNS[:3]
    }
    for name, (number, success) in itertools.product(("soft", "saved"), enumerate(found["logits"])):
        assert np.mean(found[name][number] == success) >= 0.99, (name, number)
    assert 0.2 < found["logits"][1].mean() < 1.0


def test_what_was_found_out_is_in_manifest_report_and_card(pipeline):
    folder, *_ = pipeline
    manifest = read_json(folder / "saved" / "train" / "manifest.json")
    told = {one["check"]: one["text"] for one in manifest["notes"]["contract"]}
    assert "answers probabilities; their logarithm serves as logits" in told["outputs"]
    assert set(manifest["inputs"]) == {"probe"}
    page = (folder / "report" / "report.html").read_text("utf-8")
    card = (folder / "report" / "cards" / "saved.md").read_text("utf-8")
    for text in (page, card):
        assert "Models from elsewhere" in text
        assert "answers probabilities; their logarithm serves as logits" in text
    assert "trained elsewhere, from which it was imported" in card
    assert "Not known here: the model was trained elsewhere." in card
    assert (folder / "report" / "contract.csv").read_text("utf-8").count("\n") == 1 + 4 * 5


def test_the_importer_makes_one_run(models, tmp_path):
    done = stage("importer", "--dataset=digits", f"--run_dir={tmp_path}", f"--model_file={models / 'soft.keras'}")
    assert "soft: imported from soft.keras" in done.stdout
    done = stage("importer", f"--run_dir={tmp_path}", f"--model_file={models / 'soft.keras'}")
    assert "(up to date)" in done.stdout
    other = [f"--run_dir={tmp_path}", "--name=soft", f"--model_file={models / 'logits.keras'}"]
    assert "was made with other options: model_file='soft.keras' (now 'logits.keras')" in error("importer", *other)
    assert "imported from logits.keras" in stage("importer", *other, "--overwrite").stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "`--model_file` should be given"),
        (["--model_file=none.keras"], "'none.keras', no such file"),
        (["--model_file=none.keras", "--name=data"], "`--name` should"),
        (["--model_file=none.keras", "--input_range=0..2"], "input_range"),
        (["--model_file=none.keras", "--class_map=1,x"], "'x' should be a number"),
    ],
)
def test_bad_flags_of_the_importer_are_told_in_a_line(flags, message, tmp_path):
    assert message in error("importer", "--dataset=digits", f"--run_dir={tmp_path}", *flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--classifiers=mine"], "`--classifiers` should be NAME=MODEL"),
        (["--classifiers=a=x.keras; a=y.keras"], "`--classifiers` should be NAME=MODEL"),
        (["--classifiers=none=x.keras", "--defense=none"], "A run is called 'none' already"),
        (["--classifiers=a=x.keras", "--model_file=x.keras"], "Give one of them"),
        (["--classifiers=a=x.keras", "--export=b"], "`--export` should name runs of a"),
    ],
)
def test_bad_flags_of_the_pipeline_are_told_in_a_line(flags, message, tmp_path):
    assert message in error("pipeline", *JUDGED, f"--run_dir={tmp_path}", *flags)
