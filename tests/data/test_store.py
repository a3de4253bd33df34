"""Data sets, and the artifact of data."""

import json
import resource
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from l2p_tf.data import DATASETS, ImageData, prepare, stratified
from l2p_tf.types import UserError
from support.datasets import fake, noise


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    path = tmp_path_factory.mktemp("digits") / "data"
    prepare(DATASETS.parse("digits"), path, seed=3)
    return ImageData.open(path)


@settings(max_examples=50)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.floats(0, 1), st.integers(0, 2**40))
def test_stratified_keeps_every_class_share_to_within_one(labels, share, seed):
    labels = np.array(labels)
    count = round(share * len(labels))
    index = stratified(labels, count, seed)
    assert index.dtype == np.int64
    assert len(index) == count
    assert np.all(np.diff(index) > 0)
    for c in np.unique(labels):
        assert abs(np.sum(labels[index] == c) - count * np.mean(labels == c)) < 1
    np.testing.assert_array_equal(index, stratified(labels, count, seed))


def test_stratified_depends_on_the_seed():
    labels = np.arange(100) % 10
    assert not np.array_equal(stratified(labels, 50, 0), stratified(labels, 50, 1))
    with pytest.raises(ValueError, match="101"):
        stratified(labels, 101, 0)


def test_registry_finds_the_data_sets():
    assert DATASETS.names() == ["cifar10", "cifar100", "csv", "digits", "folder", "npz", "tfds"]
    assert "svhn_cropped" in DATASETS.help()
    cifar, other = DATASETS.parse("cifar10"), DATASETS.parse("tfds(dataset='cmaterdb/bangla', flip=True)")
    assert (cifar.crop_padding, cifar.flip, cifar.short_name) == (4, True, "cifar10")
    assert (other.crop_padding, other.flip, other.short_name) == (4, True, "cmaterdb_bangla")
    assert DATASETS.parse("cifar10(flip=False)").flip is False


def test_digits_source_is_complete_and_its_test_split_stratified():
    source = DATASETS.parse("digits").open("", False)
    train, test = (np.concatenate(list(part.batches())) for part in (source.train, source.test))
    assert (len(train), len(test), train.dtype) == (1438, 359, np.uint8)
    assert np.bincount(np.concatenate([source.train.labels, source.test.labels])).tolist() == [
        178, 182, 177, 183, 181, 182, 181, 179, 174, 180,
    ]  # fmt: skip
    assert np.ptp(np.bincount(source.test.labels)) <= 2
    assert DATASETS.parse("digits").crop_padding == 0


def test_digits_are_those_of_scikit_learn():
    whole = pytest.importorskip("sklearn.datasets").load_digits()
    source = DATASETS.parse("digits").open("", False)
    test = stratified(whole.target, 359, seed=0)
    for part, index in ((source.train, np.setdiff1d(np.arange(1797), test)), (source.test, test)):
        expected = np.round(whole.images[index] * 255 / 16).astype(np.uint8)
        np.testing.assert_array_equal(np.concatenate(list(part.batches()))[..., 0], expected)
        np.testing.assert_array_equal(part.labels, whole.target[index])


def test_prepare_writes_what_it_promises(digits):
    info, path = digits.info, digits.artifact.path
    assert {f.name for f in path.iterdir()} == {
        "info.json", "manifest.json", "samples.png", "test_images.npy", "test_labels.npy", "train_images.npy",
        "train_index.npy", "train_labels.npy", "validation_index.npy",
    }  # fmt: skip
    train, validation = np.load(path / "train_index.npy"), np.load(path / "validation_index.npy")
    assert sorted([*train, *validation]) == list(range(1438))
    assert info.counts == {"train": 1294, "validation": 144, "test": 359}
    assert info.image_shape == (8, 8, 1)
    assert info.class_names == tuple("0123456789")
    assert (info.name, info.spec, info.crop_padding, info.flip) == ("digits", "digits", 0, False)
    images, labels = digits.split("train")
    pixels = images[:].reshape(-1, 1) / 255
    np.testing.assert_allclose(info.mean, pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(info.std, pixels.std(axis=0), rtol=1e-9)
    assert info.class_counts["train"] == np.bincount(labels).tolist()
    with Image.open(path / "samples.png") as sheet:
        assert sheet.width > 640
        assert sheet.height > 640


def test_statistics_are_exact_across_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("l2p_tf.data.preparing._CHUNK_BYTES", 700)
    images = noise(50)
    prepare(fake(images, np.arange(50) % 3), tmp_path / "d", validation_share=0)
    info = ImageData.open(tmp_path / "d").info
    np.testing.assert_allclose(info.mean, (images / 255).mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(info.std, (images / 255).std(axis=(0, 1, 2)), rtol=1e-9)


def test_validation_is_fixed_by_the_seed_and_the_test_split_is_not_touched(tmp_path, digits):
    again = prepare(DATASETS.parse("digits"), tmp_path / "again", seed=3)
    other = prepare(DATASETS.parse("digits"), tmp_path / "other", seed=4)
    assert again.fingerprint == digits.artifact.fingerprint
    digests = digits.artifact.manifest["outputs"], other.manifest["outputs"]
    assert digests[0]["test_images.npy"] == digests[1]["test_images.npy"]
    assert digests[0]["validation_index.npy"] != digests[1]["validation_index.npy"]


def test_prepare_finds_finished_work_and_refuses_to_replace_it(tmp_path, monkeypatch):
    said = []
    options = {"limit_train": 50, "limit_test": 20, "say": said.append}
    first = prepare(DATASETS.parse("digits"), tmp_path / "d", **options)
    monkeypatch.setattr(type(DATASETS.parse("digits")), "open", None)  # not even opened again
    assert prepare(DATASETS.parse("digits"), tmp_path / "d", **options).manifest == first.manifest
    assert len(said) == 1
    assert said[0].endswith("is up to date")
    with pytest.raises(UserError, match=r"seed=0 \(now 1\)"):
        prepare(DATASETS.parse("digits"), tmp_path / "d", seed=1, **options)


def test_limits_take_stratified_subsets(tmp_path):
    prepare(DATASETS.parse("digits"), tmp_path / "d", limit_train=100, limit_test=20, validation_share=0.2)
    info = ImageData.open(tmp_path / "d").info
    assert info.counts == {"train": 80, "validation": 20, "test": 20}
    assert all(7 <= count <= 9 for count in info.class_counts["train"])
    assert info.class_counts["test"] == [2] * 10


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"validation_share": 1.0}, "1.0"),
        ({"validation_share": -0.1}, "-0.1"),
        ({"validation_share": 0.9999}, "0.9999"),
        ({"seed": -1}, "-1"),
        ({"limit_train": 0}, "0"),
        ({"limit_test": -5}, "-5"),
    ],
)
def test_prepare_names_a_bad_option(tmp_path, options, value):
    with pytest.raises(UserError, match=f"`{next(iter(options))}` should .*{value}"):
        prepare(DATASETS.parse("digits"), tmp_path / "d", **options)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda: fake(noise(20), np.zeros(20, int), num_classes=1), "should have at least two classes. Received: 1"),
        (lambda: fake(noise(20), np.arange(20) % 4), "labels should be from 0 to 2. Received: 0 to 3"),
        (lambda: fake(noise(20), np.arange(20) % 3 - 1), "Received: -1 to 1"),
        (lambda: fake(noise(0), np.arange(0)), "Received: none"),
        (lambda: fake(noise(20).astype(np.float32), np.arange(20) % 3), "float32"),
        (lambda: fake(noise(20), np.arange(20) % 3, short=7), "should be 20 images. Received: 14"),
    ],
)
def test_bad_data_are_named_and_leave_nothing(tmp_path, bad, message):
    with pytest.raises(UserError, match=message) as caught:
        prepare(bad(), tmp_path / "d")
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("room", "file"), [(1_000, "train_images.npy"), (3_000, "samples.png")])
def test_a_disk_without_room_names_the_file_and_nothing_is_left(tmp_path, room, file):
    """The system itself refuses: no file may grow beyond `room` bytes."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, usual[1]))
    try:
        with pytest.raises(OSError, match="too large") as full:
            prepare(fake(noise(20), np.arange(20) % 3), tmp_path / "d")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert full.value.filename == str(tmp_path / "d.partial" / file)
    assert not any(tmp_path.iterdir())


def test_work_left_by_a_killed_process_is_taken_over(tmp_path):
    options = fake(noise(20), np.arange(20) % 3), tmp_path / "d"
    whole = prepare(*options)
    request = {key: whole.manifest[key] for key in ("stage", "options", "inputs")}
    shutil.rmtree(tmp_path / "d")
    (tmp_path / "d.partial").mkdir()
    (tmp_path / "d.partial/request.json").write_text(json.dumps(request))
    (tmp_path / "d.partial/train_images.npy").write_bytes(b"half")
    (tmp_path / "d.partial/of_another_version.npy").write_bytes(b"half")
    assert prepare(*options).fingerprint == whole.fingerprint


def test_opening_names_missing_and_damaged_artifacts(tmp_path, digits):
    with pytest.raises(UserError, match="nothing"):
        ImageData.open(tmp_path / "nothing")
    copy = tmp_path / "copy"
    shutil.copytree(digits.artifact.path, copy)
    with (copy / "train_images.npy").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(UserError, match=r"train_images\.npy' is missing or damaged"):
        ImageData.open(copy)


def test_images_stay_on_disk(digits):
    for name in ("train", "validation", "test"):
        images, labels = digits.split(name)
        assert isinstance(images.base, np.memmap)
        assert labels.dtype == np.int32
        assert images.shape == (len(labels), 8, 8, 1) == (len(images), *images[0].shape)


def test_views_index_like_arrays(digits):
    images, _ = digits.split("validation")
    whole = np.load(digits.artifact.path / "train_images.npy")[np.load(digits.artifact.path / "validation_index.npy")]
    np.testing.assert_array_equal(np.asarray(images), whole)
    np.testing.assert_array_equal(images[5:9], whole[5:9])
    np.testing.assert_array_equal(images[np.array([7, 2, 2])], whole[[7, 2, 2]])
    np.testing.assert_array_equal(images[-1], whole[-1])
    assert not isinstance(images[3:4], np.memmap)
    with pytest.raises(IndexError):
        images[len(images)]


def test_sample_reads_all_or_a_stratified_part(digits):
    images, labels = digits.split("test")
    index, pixels, classes = digits.sample("test")
    np.testing.assert_array_equal(index, np.arange(359))
    np.testing.assert_array_equal(pixels, images[:])
    index, pixels, classes = digits.sample("test", limit=50, seed=7)
    assert (index.dtype, pixels.dtype, classes.dtype) == (np.int64, np.uint8, np.int32)
    assert np.all(np.diff(index) > 0)
    np.testing.assert_array_equal(pixels, images[index])
    np.testing.assert_array_equal(classes, labels[index])
    assert set(np.bincount(classes)) <= {4, 5, 6}
    np.testing.assert_array_equal(index, digits.sample("test", 50, 7)[0])
    assert not np.array_equal(index, digits.sample("test", 50, 8)[0])
    assert len(digits.sample("test", limit=10_000)[0]) == 359


def test_sample_and_split_name_bad_arguments(tmp_path, digits):
    with pytest.raises(UserError, match=r"train, validation, test\. Received: 'tset'"):
        digits.split("tset")
    with pytest.raises(UserError, match=r"`limit` .* Received: 0"):
        digits.sample("test", 0)
    prepare(fake(noise(20), np.arange(20) % 3), tmp_path / "d", validation_share=0)
    with pytest.raises(UserError, match="no validation images"):
        ImageData.open(tmp_path / "d").sample("validation")


def test_contact_sheet_shows_at_most_twenty_classes(tmp_path):
    prepare(fake(noise(60, (200, 100, 1)), np.arange(60) % 30, 30), tmp_path / "d")
    with Image.open(tmp_path / "d/samples.png") as sheet:
        assert sheet.height == 20 * 68 + 4
