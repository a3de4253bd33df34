"""Sets of TensorFlow Datasets: read as they are, or refused in one line."""

import errno
import json
import os
import shutil
import struct

import numpy as np
import pytest

from l2p_tf.data import DATASETS, ImageData, prepare
from l2p_tf.types import UserError
from support.datasets import noise, write_tfds


def read_tfds(root, spec="cifar10", **options):
    return prepare(DATASETS.parse(spec), root / "out", data_dir=str(root), download=False, **options)


def assert_refused(root, *parts, spec="cifar10"):
    with pytest.raises(UserError) as caught:
        read_tfds(root, spec)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (root / "out").exists()
    assert not (root / "out.partial").exists()


def test_tfds_images_and_labels_are_read_in_order(tmp_path):
    write_tfds(tmp_path)
    read_tfds(tmp_path)
    data = ImageData.open(tmp_path / "out")
    np.testing.assert_array_equal(data.split("test")[0][:], noise(20, (32, 32, 3), seed=1))
    np.testing.assert_array_equal(np.load(tmp_path / "out/train_images.npy"), noise(40, (32, 32, 3)))
    np.testing.assert_array_equal(np.load(tmp_path / "out/train_labels.npy"), np.arange(40) % 10)
    assert data.info.title == "CIFAR-10"
    assert data.info.source == "tfds cifar10/3.0.2 (png)"
    assert data.info.note == "tfds cifar10/3.0.2 (png): Ten kinds."
    assert (data.info.crop_padding, data.info.flip) == (4, True)


def test_tfds_limits_pick_the_right_images(tmp_path):
    write_tfds(tmp_path)
    read_tfds(tmp_path, limit_train=20, validation_share=0)
    images, labels = np.load(tmp_path / "out/train_images.npy"), np.load(tmp_path / "out/train_labels.npy")
    position = {bytes(image): i for i, image in enumerate(noise(40, (32, 32, 3)))}
    kept = [position[bytes(image)] for image in images]
    assert kept == sorted(kept)
    np.testing.assert_array_equal(labels, np.array(kept) % 10)


def test_tfds_newest_version_is_read_and_jpeg_is_said(tmp_path):
    write_tfds(tmp_path, version="3.0.2")
    write_tfds(tmp_path, version="3.0.10", encoding="jpeg")
    read_tfds(tmp_path)
    info = ImageData.open(tmp_path / "out").info
    assert info.title == "CIFAR-10 (JPEG)"
    assert info.source == "tfds cifar10/3.0.10 (jpeg)"


def test_artifact_stays_up_to_date_without_its_source_but_not_with_another(tmp_path):
    folder = write_tfds(tmp_path)
    read_tfds(tmp_path)
    shutil.rmtree(folder)
    said = []
    read_tfds(tmp_path, say=said.append)
    assert said
    write_tfds(tmp_path, encoding="jpeg")
    with pytest.raises(UserError, match="jpeg"):
        read_tfds(tmp_path)


def test_any_tfds_set_gray_resized_or_not(tmp_path):
    write_tfds(tmp_path, "marks", "1.0.0", (12, 12, 1), 3)
    read_tfds(tmp_path, "tfds(dataset=marks, image_size=6, train_split='train[:50%]')", validation_share=0.2)
    data = ImageData.open(tmp_path / "out")
    assert data.info.image_shape == (6, 6, 1)
    assert data.info.counts == {"train": 16, "validation": 4, "test": 20}
    assert (data.info.name, data.info.title) == ("marks", "marks")
    whole = noise(20, (12, 12, 1), seed=1).mean()
    assert abs(data.split("test")[0][:].mean() - whole) < 3


def test_tfds_sizes_that_differ_ask_for_image_size_and_resizing_keeps_a_constant_image(tmp_path):
    images = [np.full((8 + i % 2, 7, 3), 200, np.uint8) for i in range(40)]
    write_tfds(tmp_path, "mixed", "1.0.0", (None, None, 3), 2, train=images)
    assert_refused(tmp_path, "`image_size` should be given", spec="tfds(dataset=mixed)")
    read_tfds(tmp_path, "tfds(dataset=mixed, image_size=4)")
    assert ImageData.open(tmp_path / "out").info.image_shape == (4, 4, 3)
    assert np.all(np.load(tmp_path / "out/train_images.npy") == 200)


def test_tfds_nothing_prepared(tmp_path):
    assert_refused(tmp_path, "`data_dir` should hold", "cifar10/VERSION", str(tmp_path), "downloads are off")
    (tmp_path / "cifar10/3.0.2").mkdir(parents=True)
    assert_refused(tmp_path, "`data_dir` should hold", str(tmp_path))


def test_tfds_download_without_network_says_what_to_do(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def offline(*_, **__):
        raise ConnectionError("Name or service not known\nsecond line")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", offline)
    with pytest.raises(
        UserError, match=r"`data_dir` should hold .* the download failed: run once with a network"
    ) as caught:
        prepare(DATASETS.parse("cifar10"), tmp_path / "out", data_dir=str(tmp_path))
    assert "\n" not in str(caught.value)
    assert "Name or service not known" in str(caught.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("error", [ConnectionError("no network"), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_tfds_a_failed_download_leaves_what_was_there_and_no_more(tmp_path, monkeypatch, error):
    import tensorflow_datasets as tfds

    root = tmp_path / "home" / "tensorflow_datasets"
    monkeypatch.setenv("TFDS_DATA_DIR", str(root))

    def broken(*_, **__):
        (root / "cifar10" / "3.0.2.incomplete.AB").mkdir(parents=True)
        (root / "downloads").mkdir(exist_ok=True)
        (root / "downloads" / "archive.tmp.1").write_text("half")
        raise error

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", broken)
    kind = type(error) if not isinstance(error, ConnectionError) else UserError
    (tmp_path / "home").mkdir()
    with pytest.raises(kind):
        prepare(DATASETS.parse("cifar10"), tmp_path / "out")
    assert [p.name for p in tmp_path.rglob("*")] == ["home"]
    (root / "downloads").mkdir(parents=True)
    (root / "downloads" / "archive.zip").write_text("whole")
    (root / "cifar10" / "2.0.0").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(kind):
        prepare(DATASETS.parse("cifar10"), tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


def test_tfds_a_misspelled_folder_is_refused_and_not_made(tmp_path):
    with pytest.raises(UserError, match=r"`data_dir` should be a folder that exists; .* Received: '.*/tpyo'"):
        prepare(DATASETS.parse("cifar10"), tmp_path / "out", data_dir=str(tmp_path / "tpyo"))
    assert not any(tmp_path.iterdir())


def test_tfds_in_the_home_folder_and_in_one_with_brackets(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    root = tmp_path / "sets [1]*?"
    write_tfds(root, "marks", "1.0.0", (4, 4, 1), 3)
    prepare(DATASETS.parse("tfds(dataset=marks)"), "~/out [2]", data_dir="~/sets [1]*?", download=False)
    data = ImageData.open("~/out [2]")
    assert data.artifact.path == tmp_path / "out [2]"
    np.testing.assert_array_equal(data.split("test")[0][:], noise(20, (4, 4, 1), seed=1))
    with pytest.raises(UserError, match=r"`~` should name a home folder. Received: '~nobody-here/x'"):
        ImageData.open("~nobody-here/x")


@pytest.mark.parametrize("first", [0, 1, -3])
def test_tfds_labels_without_names_are_classes_named_by_their_numbers(tmp_path, first):
    write_tfds(tmp_path, "marks", "1.0.0", (4, 4, 1), 4, named=False, first=first)
    read_tfds(tmp_path, "tfds(dataset=marks)")
    info = ImageData.open(tmp_path / "out").info
    assert info.class_names == tuple(str(first + i) for i in range(4))
    np.testing.assert_array_equal(np.load(tmp_path / "out/train_labels.npy"), np.arange(40) % 4)
    np.testing.assert_array_equal(np.load(tmp_path / "out/test_labels.npy"), np.arange(20) % 4)


def test_tfds_download_is_used_when_it_comes(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", lambda _: write_tfds(tmp_path))
    artifact = prepare(DATASETS.parse("cifar10"), tmp_path / "out", data_dir=str(tmp_path))
    assert artifact.options["source"] == "tfds cifar10/3.0.2 (png)"


def test_tfds_unknown_names(tmp_path):
    for spec, message in (
        ("svhn_croped", r"Received: 'svhn_croped'\. Near: .*svhn_cropped"),
        ("'../x'", r"NAME, NAME/CONFIG or NAME:VERSION as in TFDS\. Received: '\.\./x'"),
    ):
        with pytest.raises(UserError, match=message):
            prepare(DATASETS.parse(f"tfds(dataset={spec})"), tmp_path / "out", data_dir=str(tmp_path))


def test_tfds_configurations_must_be_named(tmp_path):
    for config in ("small", "large"):
        folder = write_tfds(tmp_path / config, "sets", "1.0.0", (4, 4, 1), 2)
        shutil.move(folder, tmp_path / "sets" / config / "1.0.0")
    assert_refused(tmp_path, "large, small", spec="tfds(dataset=sets)")
    read_tfds(tmp_path, "tfds(dataset='sets/small')")
    assert ImageData.open(tmp_path / "out").info.name == "sets_small"


def truncate_within(file):
    file.write_bytes(file.read_bytes()[:-50])


def truncate_between(file):
    data = file.read_bytes()
    file.write_bytes(data[: struct.unpack("<Q", data[:8])[0] + 16])


def scramble(file):
    data = bytearray(file.read_bytes())
    data[200:220] = bytes(20)
    file.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate_within, truncate_between, scramble, os.remove])
@pytest.mark.parametrize("split", ["train", "test"])
def test_tfds_damaged_files(tmp_path, damage, split):
    folder = write_tfds(tmp_path)
    damage(sorted(folder.glob(f"*{split}*"))[-1])
    assert_refused(tmp_path, str(folder), "is damaged", split)


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_tfds_damaged_metadata(tmp_path, name):
    folder = write_tfds(tmp_path)
    (folder / name).write_text('{"name": "cifar10", "ver')
    assert_refused(tmp_path, str(folder), "is damaged")


MARKS = {"name": "marks", "version": "1.0.0", "shape": (4, 4, 1), "classes": 3}


@pytest.mark.parametrize(
    ("written", "spec", "parts"),
    [
        ({"shape": (28, 28, 1)}, "cifar10", ["(32, 32, 3) in 10 classes", "(28, 28, 1)"]),
        ({"classes": 7}, "cifar10", ["in 10 classes", "7 classes"]),
        ({"label": "kind"}, "cifar10", ["should have the features image and label", "kind"]),
        (MARKS | {"shape": (8, 8, 4)}, "tfds(dataset=marks)", ["1 or 3 channels", "(8, 8, 4)"]),
        (MARKS, "tfds(dataset=marks, test_split=tets)", ["train, test", "'tets'"]),
    ],
)
def test_tfds_other_data_sets_are_refused(tmp_path, written, spec, parts):
    write_tfds(tmp_path, **written)
    assert_refused(tmp_path, *parts, spec=spec)


def test_tfds_a_data_set_of_another_name_is_refused(tmp_path):
    shutil.move(write_tfds(tmp_path / "other", "mnist"), tmp_path / "name/cifar10/3.0.2")
    assert_refused(tmp_path / "name", "should hold the data set 'cifar10'. It holds: 'mnist'")


def test_tfds_labels_out_of_range(tmp_path):
    folder = write_tfds(tmp_path, "marks", "1.0.0", (4, 4, 1), 9)
    features = json.loads((folder / "features.json").read_text())
    features["featuresDict"]["features"]["label"]["classLabel"]["numClasses"] = "5"
    (folder / "features.json").write_text(json.dumps(features))
    assert_refused(tmp_path, "labels should be from 0 to 4. Received: 0 to 8", spec="tfds(dataset=marks)")


@pytest.mark.skipif("L2P_TF_DATA_DIR" not in os.environ, reason="L2P_TF_DATA_DIR names no folder of TFDS")
def test_real_cifar10(tmp_path):
    options = {"limit_train": 2000, "limit_test": 1000, "download": False}
    prepare(DATASETS.parse("cifar10"), tmp_path / "out", data_dir=os.environ["L2P_TF_DATA_DIR"], **options)
    info = ImageData.open(tmp_path / "out").info
    assert info.counts == {"train": 1800, "validation": 200, "test": 1000}
    assert info.class_counts["train"] == [180] * 10
    np.testing.assert_allclose(info.mean, (0.491, 0.482, 0.447), atol=0.02)
    np.testing.assert_allclose(info.std, (0.247, 0.243, 0.262), atol=0.02)


@pytest.mark.parametrize("stream", ["off", "on"])
def test_a_configuration_without_training_images_is_for_judging(tmp_path, stream):
    """Such as `cifar10_corrupted/fog_3`."""
    write_tfds(tmp_path, "marks", "1.0.0", (12, 12, 1), 3, config="fog_3", only="test")
    read_tfds(tmp_path, "tfds(dataset='marks/fog_3')", stream=stream)
    data = ImageData.open(tmp_path / "out")
    assert (data.info.name, data.info.source) == ("marks_fog_3", "tfds marks/fog_3/1.0.0 (png)")
    assert data.info.counts == {"train": 0, "validation": 0, "test": 20}
    np.testing.assert_array_equal(data.split("test")[0][:], noise(20, (12, 12, 1), seed=1))
    assert len(data.split("train")[0]) == 0


@pytest.mark.parametrize("stream", ["off", "on"])
def test_sets_prepared_from_croissant_have_features_and_splits_of_their_own(tmp_path, stream):
    """Text for classes, no shape, and one split of all, as TFDS's CroissantBuilder prepares them."""
    images = [*noise(20, (9, 7, 3))]
    how = {"label": "kind", "named": ("dog", "ant", "cat"), "image": "picture", "only": "default", "config": "all"}
    how |= {"file_format": "array_record", "train": images, "test": images}
    write_tfds(tmp_path, "pets", "1.0.0", (None, None, 3), encoding=None, classes=3, **how)
    splits = "train_split='default[:75%]', test_split='default[75%:]'"
    spec = f"tfds(dataset='pets/all', image=picture, label=kind, {splits})"
    read_tfds(tmp_path, spec, stream=stream, validation_share=0)
    data = ImageData.open(tmp_path / "out")
    assert data.info.class_names == ("ant", "cat", "dog")
    np.testing.assert_array_equal(data.split("test")[0][:], images[15:])
    np.testing.assert_array_equal(data.split("test")[1], [2, 0, 1, 2, 0])
    np.testing.assert_array_equal(data.split("train")[1], [2, 0, 1] * 5)
