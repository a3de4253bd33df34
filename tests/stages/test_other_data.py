"""--data judges a run on other images than it was trained on."""

import numpy as np

from l2p_tf.data import ImageData
from support.files import read_json, records_in
from support.stages import SMALL, error, stage


def test_a_run_is_judged_on_other_data_where_the_command_names_them(tmp_path):
    run, flags = tmp_path / "run", [*SMALL, f"--run_dir={tmp_path}/run"]
    stage("train", *flags, "--defense=none", "--epochs=1")
    own = stage("attack", *flags, "--name=none").stdout
    assert "other images" not in own
    images, labels = ImageData.open(run / "data").split("test")
    np.savez(tmp_path / "own.npz", x_test=images[:], y_test=labels)
    np.savez(tmp_path / "half.npz", x_test=images[:][:, :4], y_test=labels)
    for name in ("own", "half"):
        stage("data", f"--dataset=npz(path='{tmp_path}/{name}.npz')", f"--run_dir={tmp_path}/{name}")
    flags += ["--name=none", f"--data={tmp_path}/own/data"]
    known = "none of the 40 images is among its training images, pixel by pixel"
    printed = stage("attack", *flags).stdout
    assert f"none: judged on other images, those of own.npz: {known}" in printed
    folder = run / "none" / "attack_own.npz"
    own_records, records = records_in(run / "none" / "attack"), records_in(folder)
    assert [(r["attack"], r["correct"]) for r in records] == [(r["attack"], r["correct"]) for r in own_records]
    assert read_json(folder / "manifest.json")["notes"]["other_data"] == {"none": {"images": 40, "trained_on": 0}}
    assert "(up to date)" in stage("attack", *flags).stdout
    stage("attack", *flags, "--certify=smoothing(sigma=0.1, draws=10, selection_draws=5)", "--limit=4")
    stage("attack", *flags, "--transfer=none", "--limit=4")
    assert (run / "none" / "certify_own.npz").is_dir()
    assert (run / "transfer_own.npz").is_dir()
    stage("report", f"--run_dir={run}", f"--runs={run},{tmp_path}/own")
    page = (run / "report" / "report.md").read_text()
    assert f"none was judged on other data than it was trained on (own.npz, test): {known}." in page.replace("\\", "")
    refused = error("attack", *SMALL, f"--run_dir={run}", "--name=none", f"--data={tmp_path}/half/data")
    assert "should have images of 8x8x1 in 10 classes" in refused
    assert "Received: 4x8x1 in 10" in refused
    assert not (run / "none" / "attack_half.npz").exists()
