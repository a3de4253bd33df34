"""Batches of a training, and how they are augmented."""

from types import SimpleNamespace

import numpy as np
import pytest

from l2p_tf.data import ImageData, TrainBatches, prepare
from l2p_tf.data.pipeline import augment
from l2p_tf.devices import Devices
from l2p_tf.types import UserError
from support.datasets import fake, noise
from support.training import assert_same


@pytest.fixture
def colors(tmp_path):
    """100 images of 6x5x3 and 10 classes, augmented by crops from 2 pixels of padding and by flips."""
    data = fake(np.maximum(noise(100), 1), np.arange(100) % 10, 10, crop_padding=2, flip=True)
    prepare(data, tmp_path / "colors")
    return ImageData.open(tmp_path / "colors")


def collect(dataset, count):
    """The images and labels of so many batches, in one list."""
    return [array.numpy() for batch in dataset.take(count) for array in batch]


def test_dataset_runs_through_the_epochs_with_static_shapes(colors):
    batches = TrainBatches(colors, 16, seed=1)
    dataset = batches.dataset()
    assert batches.steps_per_epoch == 90 // 16
    assert [tuple(spec.shape) for spec in dataset.element_spec] == [(16, 6, 5, 3), (16,)]
    assert [spec.dtype.name for spec in dataset.element_spec] == ["uint8", "int32"]
    expected = [array for epoch in range(3) for step in range(5) for array in batches.batch(epoch, step)]
    assert_same(collect(dataset, 15), expected)


def test_an_epoch_holds_every_image_at_most_once_and_exactly_without_augmentation(colors):
    images, labels = colors.split("train")
    batches = TrainBatches(colors, 15, seed=1, augment=False)
    found = collect(batches.dataset(), 6)
    order = batches.order(0)
    np.testing.assert_array_equal(np.sort(order), np.arange(90))
    np.testing.assert_array_equal(np.concatenate(found[::2]), images[order])
    np.testing.assert_array_equal(np.concatenate(found[1::2]), labels[order])
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
        assert_same(collect(resumed, 20 - first), whole[2 * first :])


@pytest.mark.parametrize("random_crop", [0.0, 0.3])
def test_a_worker_reads_the_images_of_its_replicas_and_no_others(tmp_path, random_crop):
    data = fake(noise(100), np.arange(100) % 10, 10, crop_padding=2, flip=True, random_crop=random_crop)
    prepare(data, tmp_path / "colors")
    colors = ImageData.open(tmp_path / "colors")
    whole, labels = TrainBatches(colors, 13, seed=1).batch(2, 3)
    shared = np.zeros_like(whole)
    for worker in range(3):
        strategy = SimpleNamespace(num_replicas_in_sync=6)
        rows = Devices(strategy, worker, workers=3).own_rows(13)
        images, all_labels = TrainBatches(colors, 13, seed=1, rows=rows).batch(2, 3)
        np.testing.assert_array_equal(all_labels, labels)
        np.testing.assert_array_equal(images[rows], whole[rows])
        assert not np.delete(images, np.arange(13)[rows], 0).any()
        shared += images
    np.testing.assert_array_equal(shared, whole)


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
