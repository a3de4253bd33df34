"""Judging a model on data other than it was trained on."""

import dataclasses
import functools
import shutil

import numpy as np
import pytest

from l2p_tf import artifacts
from l2p_tf.attacks import ATTACKS
from l2p_tf.certification.options import CertificationOptions
from l2p_tf.certification.run import certify_artifact
from l2p_tf.data import DATASETS, ImageData, prepare
from l2p_tf.evaluation.evaluate import attack_artifact
from l2p_tf.evaluation.masking import battery
from l2p_tf.evaluation.masking.stage import check_artifact
from l2p_tf.evaluation.options import CheckOptions, EvaluationOptions
from l2p_tf.evaluation.other_data import check_data, is_other, notes_on
from l2p_tf.evaluation.transfer import transfer_artifact
from l2p_tf.types import UserError
from support.trainings import digits, nearest_mean, trained

FGSM = EvaluationOptions((ATTACKS.parse("fgsm(epsilon=0.1)"),), limit=20)


def arrays(folder, images, labels, **options):
    """A data artifact of these images for judging alone."""
    folder.mkdir(parents=True)
    np.savez(folder / "own.npz", x_test=images, y_test=labels)
    given = "".join(f", {key}={value!r}" for key, value in options.items())
    prepare(DATASETS.parse(f"npz(path='{folder}/own.npz'{given})"), folder / "data")
    return ImageData.open(folder / "data")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A classifier as a training leaves it, its data, and the images and labels of both splits."""
    root = tmp_path_factory.mktemp("made")
    data = digits(root / "data", limit_train=100, limit_test=60)
    run = trained(root / "train", nearest_mean(data), data)
    return (
        run,
        data,
        {split: (images[:], labels[:]) for split in ("train", "test") for images, labels in [data.split(split)]},
    )


def test_the_same_images_give_the_same_figures_and_are_counted_among_those_trained_on(made, tmp_path):
    run, data, splits = made
    own = attack_artifact(FGSM, run, data, tmp_path / "own")
    mixed = np.concatenate([splits["test"][0][:50], splits["train"][0][:10]])
    labels = np.concatenate([splits["test"][1][:50], splits["train"][1][:10]])
    for name, images, numbers, among in [("same", *splits["test"], 0), ("mixed", mixed, labels, 10)]:
        other = arrays(tmp_path / name, images, numbers)
        assert is_other(run, other)
        assert notes_on([run], other, "test", None, 0) == {"other_data": {"run": {"images": 60, "trained_on": among}}}
    with pytest.raises(UserError, match="`data` should be what the model was trained on: .*`--data` names others"):
        attack_artifact(FGSM, run, ImageData.open(tmp_path / "same/data"), tmp_path / "refused")
    found = attack_artifact(FGSM, run, ImageData.open(tmp_path / "same/data"), tmp_path / "attack", other_data=True)
    figures = [(record.attack, record.correct, record.count) for record in found]
    assert figures == [(record.attack, record.correct, record.count) for record in own]
    assert {record.dataset for record in found} == {"own.npz"}
    notes = artifacts.read(tmp_path / "attack").manifest["notes"]
    assert notes["other_data"] == {"run": {"images": 20, "trained_on": 0}}
    assert "other_data" not in artifacts.read(tmp_path / "own").manifest["notes"]


CHECKS = CheckOptions(count=12, epsilon=0.1)
CERTIFICATES = CertificationOptions("smoothing(sigma=0.1, draws=10, selection_draws=5)", limit=12)
ATTACKED = dataclasses.replace(FGSM, limit=12)
EVALUATIONS = {
    "checks": functools.partial(check_artifact, CHECKS),
    "certify": functools.partial(certify_artifact, CERTIFICATES),
    "transfer": lambda run, *data, **how: transfer_artifact(ATTACKED, ["run"], {"run": run}, *data, **how),
}


@pytest.mark.parametrize("name", EVALUATIONS)
def test_every_evaluation_refuses_other_data_or_says_so(made, tmp_path, name, monkeypatch):
    monkeypatch.setattr(battery, "rounds", lambda *_: [])  # What the attacks find is nothing to this.
    run, _, splits = made
    other = arrays(tmp_path / "other", *splits["train"])
    with pytest.raises(UserError, match="`data` should be what the model was trained on"):
        EVALUATIONS[name](run, other, tmp_path / name)
    assert not (tmp_path / name).exists()
    EVALUATIONS[name](run, other, tmp_path / name, other_data=True)
    notes = artifacts.read(tmp_path / name).manifest["notes"]
    assert notes["other_data"] == {"run": {"images": 12, "trained_on": 12}}


def test_what_was_trained_on_is_not_known_where_it_is_gone_or_was_made_anew(tmp_path):
    data = digits(tmp_path / "data", limit_train=50, limit_test=20)
    run = trained(tmp_path / "train", nearest_mean(data), data)
    other = digits(tmp_path / "other", limit_test=20)
    assert notes_on([run], other, "test", 5, 0)["other_data"]["run"] == {"images": 5, "trained_on": 0}
    shutil.rmtree(tmp_path / "data")
    assert notes_on([run], other, "test", 5, 0)["other_data"]["run"] == {"images": 5, "trained_on": None}
    digits(tmp_path / "data", limit_train=60)
    assert notes_on([run], other, "test", 5, 0)["other_data"]["run"]["trained_on"] is None
    check_data(run, other, other=True)


def test_data_that_do_not_fit_the_model_are_refused(made, tmp_path):
    run, _, splits = made
    images, labels = splits["test"]
    wide = arrays(tmp_path / "wide", np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0))), labels)
    few = arrays(tmp_path / "few", images[labels < 9], labels[labels < 9])
    for other, received in ((wide, "10x10x1 in 10"), (few, "8x8x1 in 9")):
        with pytest.raises(UserError, match=f"8x8x1 in 10 classes, as the model takes them.*Received: {received}"):
            check_data(run, other, other=True)
    names = tuple("abcdefghij")
    check_data(run, arrays(tmp_path / "named", images, labels, class_names=names), other=True)


def test_classes_of_other_names_are_refused(made, tmp_path):
    _, _, splits = made
    names, swapped = tuple("abcdefghij"), tuple("abdcefghij")
    home = arrays(tmp_path / "home", *splits["test"], class_names=names)
    run = trained(tmp_path / "train", nearest_mean(made[1]), home)
    check_data(run, arrays(tmp_path / "numbers", *splits["test"]), other=True)
    check_data(run, arrays(tmp_path / "same", *splits["train"], class_names=names), other=True)
    with pytest.raises(UserError, match="Class 2 is 'c' there, and 'd' in .*`class_names`"):
        check_data(run, arrays(tmp_path / "swapped", *splits["test"], class_names=swapped), other=True)
