"""Data sets, the data artifact and the training pipeline."""

import dataclasses
import errno
import json
import os
import pathlib
import resource
import shutil
import struct
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from l2p_tf import artifacts
from l2p_tf.data import DATASETS, Dataset, ImageData, Source, Split, TrainBatches, base, prepare, stratified
from l2p_tf.data.pipeline import augment
from l2p_tf.types import UserError


@dataclasses.dataclass(frozen=True)
class Fake(Dataset):
    """A data set of the images it is given."""

    def identity(self, data_dir):
        return "fake 1"

    def open(self, data_dir, download):
        return self.source


def fake(images, labels, num_classes=3, short=0, **options):
    thing = Fake(**options)
    labels = np.asarray(labels)

    def batches():
        for start in range(0, len(images) - short, 7):
            yield images[start : start + 7]

    part = Split(labels, batches)
    names = tuple(f"class {i}" for i in range(num_classes))
    shape = tuple(images.shape[1:])
    object.__setattr__(thing, "name", "fake")
    object.__setattr__(thing, "source", Source("Fake", "made up", shape, names, part, part))
    return thing


def noise(count, shape=(6, 5, 3), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    path = tmp_path_factory.mktemp("digits") / "data"
    prepare(DATASETS.parse("digits"), path, seed=3)
    return ImageData.open(path)


@pytest.fixture
def colors(tmp_path):
    """100 images of 6x5x3 and 10 classes, augmented by crops from 2 pixels of padding and by flips."""
    data = fake(np.maximum(noise(100), 1), np.arange(100) % 10, 10, crop_padding=2, flip=True)
    prepare(data, tmp_path / "colors")
    return ImageData.open(tmp_path / "colors")


# Drawing


@settings(max_examples=50, deadline=None)
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


# Data sets


def test_registry_finds_the_data_sets():
    assert DATASETS.names() == ["cifar10", "cifar100", "digits", "tfds"]
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


# The artifact


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
    monkeypatch.setattr("l2p_tf.data.store._CHUNK", 7)
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


# Training batches


def collect(dataset, count):
    return [(x.numpy(), y.numpy()) for x, y in dataset.take(count)]


def assert_same(left, right):
    assert len(left) == len(right)
    for (x, y), (u, v) in zip(left, right, strict=True):
        np.testing.assert_array_equal(x, u)
        np.testing.assert_array_equal(y, v)


def test_dataset_runs_through_the_epochs_with_static_shapes(colors):
    batches = TrainBatches(colors, 16, seed=1)
    dataset = batches.dataset()
    assert batches.steps_per_epoch == 90 // 16
    assert [tuple(spec.shape) for spec in dataset.element_spec] == [(16, 6, 5, 3), (16,)]
    assert [spec.dtype.name for spec in dataset.element_spec] == ["uint8", "int32"]
    expected = [batches.batch(epoch, step) for epoch in range(3) for step in range(5)]
    assert_same(collect(dataset, 15), expected)


def test_an_epoch_holds_every_image_at_most_once_and_exactly_without_augmentation(colors):
    images, labels = colors.split("train")
    batches = TrainBatches(colors, 15, seed=1, augment=False)
    found = collect(batches.dataset(), 6)
    order = batches.order(0)
    np.testing.assert_array_equal(np.sort(order), np.arange(90))
    np.testing.assert_array_equal(np.concatenate([x for x, _ in found]), images[order])
    np.testing.assert_array_equal(np.concatenate([y for _, y in found]), labels[order])
    assert not np.array_equal(order, np.arange(90))
    assert not np.array_equal(order, batches.order(1))


def test_a_batch_is_the_same_whatever_ran_before(colors):
    batches = TrainBatches(colors, 16, seed=1)
    dataset = batches.dataset()
    whole = collect(dataset, 20)
    assert_same(collect(dataset, 20), whole)
    next(iter(dataset))  # a pass that is given up
    for epoch, step in ((3, 0), (2, 3), (0, 4)):
        resumed = TrainBatches(colors, 16, seed=1).dataset(epoch, step)
        first = 5 * epoch + step
        assert_same(collect(resumed, 20 - first), whole[first:])


def test_batches_differ_by_seed_epoch_and_step(colors):
    batches, other = TrainBatches(colors, 16, seed=1), TrainBatches(colors, 16, seed=2)
    found = [batches.batch(0, 0), batches.batch(1, 0), batches.batch(0, 1), other.batch(0, 0)]
    assert len({x.tobytes() for x, _ in found}) == 4


def test_keras_fit_gets_every_epoch_and_the_rest_of_an_interrupted_one(colors):
    import keras

    seen = []

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.built = True

        def train_step(self, data):
            seen.append(data[1].numpy())
            return {"loss": keras.ops.zeros(())}

    batches = TrainBatches(colors, 30, seed=1)
    model = Model()
    model.compile(run_eagerly=True)
    model.fit(batches.dataset(1, 2), steps_per_epoch=1, initial_epoch=1, epochs=2, verbose=0, shuffle=False)
    np.testing.assert_array_equal(seen[-1:], [batches.batch(1, 2)[1]])
    model.fit(batches.dataset(2), steps_per_epoch=3, initial_epoch=2, epochs=4, verbose=0, shuffle=False)
    np.testing.assert_array_equal(seen[-6:], [batches.batch(e, s)[1] for e in (2, 3) for s in range(3)])


@pytest.mark.parametrize("size", [0, 91])
def test_batch_size_must_fit(colors, size):
    with pytest.raises(UserError, match=f"`batch_size` should be from 1 to 90 .* Received: {size}"):
        TrainBatches(colors, size, seed=0)


def test_crops_shift_and_pad_with_zeros():
    images = np.arange(1, 31, dtype=np.uint8).reshape(1, 6, 5, 1).repeat(400, axis=0)
    padded = np.pad(images[0], ((2, 2), (2, 2), (0, 0)))
    windows = {bytes(padded[t : t + 6, s : s + 5]): (t, s) for t in range(5) for s in range(5)}
    cropped = augment(images, 2, False, np.random.default_rng(0))
    assert cropped.shape == images.shape
    assert cropped.dtype == np.uint8
    assert {windows[bytes(image)] for image in cropped} == set(windows.values())
    assert bytes(augment(images, 0, False, np.random.default_rng(0))) == bytes(images)


def test_half_of_the_images_are_mirrored():
    images = noise(2000, (3, 4, 3))
    out = augment(images, 0, True, np.random.default_rng(0))
    kept = np.all(out == images, axis=(1, 2, 3))
    mirrored = np.all(out == images[:, :, ::-1], axis=(1, 2, 3))
    assert np.all(kept | mirrored)
    assert 0.45 < mirrored.mean() < 0.55


# TensorFlow Datasets


def write_tfds(
    root, name="cifar10", version="3.0.2", shape=(32, 32, 3), classes=10, encoding="png", train=None, label="label",
    named=True, first=0,
):  # fmt: skip
    """Prepares a data set as TFDS does: 40 training images in two files, 20 test images."""
    import tensorflow as tf
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import dataset_info

    folder = root / name / version
    folder.mkdir(parents=True)
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=shape, encoding_format=encoding),
            label: tfds.features.ClassLabel(num_classes=classes) if named else tfds.features.Scalar(np.int64),
        }
    )
    train = noise(40, shape) if train is None else train
    parts = {"train": [train[:25], train[25:]], "test": [noise(20, (*train[0].shape,), seed=1)]}
    splits = []
    for split, shards in parts.items():
        position = 0
        for number, images in enumerate(shards):
            file = folder / f"{name}-{split}.tfrecord-{number:05d}-of-{len(shards):05d}"
            with tf.io.TFRecordWriter(str(file)) as writer:
                for image in images:
                    example = features.encode_example({"image": image, label: first + position % classes})
                    writer.write(features.serialize_example(example))
                    position += 1
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name=name, split=split, filetype_suffix="tfrecord"
        )
        splits.append(
            tfds.core.SplitInfo(
                name=split, shard_lengths=[len(s) for s in shards], num_bytes=1, filename_template=template
            )
        )
    identity = dataset_info.DatasetIdentity(
        name=name, version=tfds.core.Version(version), data_dir=str(folder), module_name="__main__"
    )
    info = dataset_info.DatasetInfo(builder=identity, features=features, description="Ten kinds.\n\nMore.")
    info.set_splits(tfds.core.splits.SplitDict(splits))
    info.write_to_directory(folder)
    return folder


def read_tfds(root, spec="cifar10", **options):
    return prepare(DATASETS.parse(spec), root / "out", data_dir=str(root), download=False, **options)


def assert_refused(root, *parts, spec="cifar10", left=()):
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


def test_tfds_resizing_keeps_a_constant_image(tmp_path):
    write_tfds(tmp_path, "flat", "1.0.0", (9, 7, 3), 2, train=np.full((40, 9, 7, 3), 200, np.uint8))
    read_tfds(tmp_path, "tfds(dataset=flat, image_size=4)")
    assert np.all(np.load(tmp_path / "out/train_images.npy") == 200)


def test_tfds_sizes_that_differ_ask_for_image_size(tmp_path):
    images = [noise(1, (8 + i % 2, 8, 3))[0] for i in range(40)]
    write_tfds(tmp_path, "mixed", "1.0.0", (None, None, 3), 2, train=images)
    assert_refused(tmp_path, "`image_size` should be given", spec="tfds(dataset=mixed)")
    read_tfds(tmp_path, "tfds(dataset=mixed, image_size=8)")
    assert ImageData.open(tmp_path / "out").info.image_shape == (8, 8, 3)


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


def test_tfds_unknown_name_and_split(tmp_path):
    with pytest.raises(UserError, match=r"Received: 'svhn_croped'\. Near: .*svhn_cropped"):
        prepare(DATASETS.parse("tfds(dataset=svhn_croped)"), tmp_path / "out", data_dir=str(tmp_path))
    with pytest.raises(UserError, match=r"NAME, NAME/CONFIG or NAME:VERSION as in TFDS\. Received: '\.\./x'"):
        prepare(DATASETS.parse("tfds(dataset='../x')"), tmp_path / "out", data_dir=str(tmp_path))
    write_tfds(tmp_path, "marks", "1.0.0", (4, 4, 1), 3)
    assert_refused(tmp_path, "train, test", "'tets'", spec="tfds(dataset=marks, test_split=tets)")


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


def test_tfds_other_data_sets_are_refused(tmp_path):
    folder = write_tfds(tmp_path / "other", "mnist")
    shutil.move(folder, tmp_path / "name/cifar10/3.0.2")
    assert_refused(tmp_path / "name", "should hold the data set 'cifar10'. It holds: 'mnist'")
    write_tfds(tmp_path / "shape", shape=(28, 28, 1))
    assert_refused(tmp_path / "shape", "(32, 32, 3) in 10 classes", "(28, 28, 1)")
    write_tfds(tmp_path / "classes", classes=7)
    assert_refused(tmp_path / "classes", "in 10 classes", "7 classes")
    write_tfds(tmp_path / "keys", label="kind")
    assert_refused(tmp_path / "keys", "should have the features image and label", "kind")
    write_tfds(tmp_path / "channels", "alpha", "1.0.0", (8, 8, 4))
    assert_refused(tmp_path / "channels", "1 or 3 channels", "(8, 8, 4)", spec="tfds(dataset=alpha)")


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


def test_scanning_the_package_imports_no_tensorflow():
    import subprocess

    code = "import sys; from l2p_tf.data import DATASETS; DATASETS.help(); print('tensorflow' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "False\n"
    assert base.DATASETS is DATASETS
    assert pathlib.Path(artifacts.__file__).is_file()
