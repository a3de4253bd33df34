"""Images left where TFDS has them: the same as copied ones, read by index, in bounded memory."""

import functools
import io
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st

from l2p_tf.data import DATASETS, ImageData, TrainBatches, prepare, streaming
from l2p_tf.data.crops import random_box
from l2p_tf.types import UserError
from support import ENVIRONMENT
from support.datasets import noise, write_tfds

MARKS = {"name": "marks", "version": "1.0.0", "shape": (9, 7, 3), "classes": 4}
SPEC = "tfds(dataset=marks, crop_padding=2, flip=True, train_split='test[:30%]+train[10%:]')"
SIZES = [(20 + 3 * i % 17, 20 + 5 * i % 13) for i in range(40)]
PHOTOS = "tfds(dataset=photos, image_size=8, center_crop=0.875, random_crop=0.1, crop_padding=0)"


def read(root, spec=SPEC, stream="on", name="out", **options):
    prepare(DATASETS.parse(spec), root / name, data_dir=str(root), download=False, stream=stream, **options)
    return ImageData.open(root / name)


def photos(root, **how):
    """Prepares images that differ in size; returns those for training."""
    images = [noise(1, (*size, 3), seed=i)[0] for i, size in enumerate(SIZES)]
    write_tfds(root, "photos", "1.0.0", (None, None, 3), 4, train=images, **how)
    return images


def batches_of(data, **how):
    """The batches of two epochs."""
    batches = TrainBatches(data, 8, seed=5, **how)
    return [batches.batch(epoch, step) for epoch in range(2) for step in range(batches.steps_per_epoch)]


def assert_same_batches(found, expected):
    assert len(found) == len(expected)
    for (images, labels), (others, their_labels) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(labels, their_labels)


@pytest.mark.parametrize("encoding", ["png", "jpeg"])
@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_streamed_images_are_those_that_are_copied(tmp_path, file_format, encoding):
    write_tfds(tmp_path, **MARKS, file_format=file_format, encoding=encoding)
    options = {"limit_train": 33, "limit_test": 15, "validation_share": 0.25, "seed": 4}
    streamed, copied = read(tmp_path, **options), read(tmp_path, stream="off", name="copied", **options)
    assert streamed.info == copied.info
    assert streamed.info.counts == {"train": 25, "validation": 8, "test": 15}
    for name in ("train", "validation", "test"):
        (images, labels), (others, their_labels) = streamed.split(name), copied.split(name)
        np.testing.assert_array_equal(images[:], others[:])
        np.testing.assert_array_equal(images[-1], others[-1])
        np.testing.assert_array_equal(labels, their_labels)
    expected = batches_of(copied)
    assert_same_batches(batches_of(streamed), expected)
    rest = [(x.numpy(), y.numpy()) for x, y in TrainBatches(streamed, 8, seed=5).dataset(0, 2).take(4)]
    assert_same_batches(rest, expected[2:])
    outputs = {file.name for file in streamed.artifact.path.iterdir()}
    assert "stream.json" in outputs
    assert not outputs & {"train_images.npy", "test_images.npy"}


def test_both_formats_hold_the_same_in_the_same_order(tmp_path):
    for file_format in ("array_record", "tfrecord"):
        write_tfds(tmp_path / file_format, **MARKS, file_format=file_format)
    one, other = (read(tmp_path / file_format) for file_format in ("array_record", "tfrecord"))
    assert_same_batches(batches_of(one), batches_of(other))


def test_images_of_any_size_are_resized_as_copied_ones_are(tmp_path):
    photos(tmp_path, file_format="array_record")
    spec = "tfds(dataset=photos, image_size=8, center_crop=0.875)"
    streamed, copied = read(tmp_path, spec), read(tmp_path, spec, stream="off", name="copied")
    assert streamed.info.image_shape == (8, 8, 3)
    assert_same_batches(batches_of(streamed), batches_of(copied))


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_only_the_central_square_is_seen(tmp_path, file_format):
    image = np.zeros((40, 60, 3), np.uint8)
    image[10:30, 20:40] = 200
    write_tfds(
        tmp_path, "photos", "1.0.0", (None, None, 3), 4, train=[image] * 40, test=[image] * 8, file_format=file_format
    )
    for share, least, most in ((0.5, 200, 200), (1.0, 0, 200)):
        found = read(tmp_path, f"tfds(dataset=photos, image_size=10, center_crop={share})", name=f"out{share}")
        pixels = found.split("test")[0][:]
        assert (pixels.min(), pixels.max()) == (least, most)
    # The square is 40 by 40, its middle of 20 by 20 bright.
    np.testing.assert_array_equal(pixels, pixels[:, ::-1, ::-1])
    assert (pixels[:, 3:7, 3:7] > 100).all()
    assert not pixels[:, :, [0, 1, 8, 9]].any()


def test_random_crops_are_cut_from_the_images_as_they_are_stored(tmp_path):
    images = photos(tmp_path, file_format="array_record")
    data = read(tmp_path, PHOTOS, stream="auto")  # smaller than what auto streams for its size
    assert data.artifact.options["streamed"]
    batches = TrainBatches(data, 8, seed=5)
    order, (found, _) = batches.order(1), batches.batch(1, 2)
    index = np.load(data.artifact.path / "train_index.npy")
    for position, crop in zip(order[16:24], found, strict=True):
        image = images[index[position]]
        random = np.random.Generator(np.random.Philox(key=[5, 1], counter=[0, 0, 1 + position, 0]))
        top, left, height, width = random_box(random, *image.shape[:2], 0.1)
        part = tf.image.resize(image[top : top + height, left : left + width], (8, 8), antialias=True)
        np.testing.assert_array_equal(crop, np.clip(np.round(part), 0, 255))
    whole = batches_of(data)
    assert_same_batches(batches_of(ImageData.open(data.artifact.path)), whole)
    rest = [(x.numpy(), y.numpy()) for x, y in TrainBatches(data, 8, seed=5).dataset(0, 3).take(5)]
    assert_same_batches(rest, whole[3:])
    plain = {image.tobytes() for batch, _ in batches_of(data, augment=False) for image in batch}
    assert not plain & {image.tobytes() for batch, _ in whole for image in batch}


def test_random_crops_of_images_of_one_size_do_not_depend_on_streaming(tmp_path):
    write_tfds(tmp_path, **MARKS)
    spec = "tfds(dataset=marks, random_crop=0.2, flip=True, crop_padding=0)"
    streamed, copied = read(tmp_path, spec), read(tmp_path, spec, stream="auto", name="copied")
    assert not copied.artifact.options["streamed"]
    assert_same_batches(batches_of(streamed), batches_of(copied))


def test_random_crops_before_resizing_need_streaming(tmp_path):
    photos(tmp_path)
    with pytest.raises(UserError, match="`stream` should be auto or on where random crops"):
        read(tmp_path, PHOTOS, stream="off")
    assert not (tmp_path / "out").exists()


@settings(max_examples=100)
@given(st.integers(1, 500), st.integers(1, 500), st.floats(0.01, 1), st.integers(0, 2**40))
def test_a_random_box_lies_in_the_image(height, width, least, seed):
    top, left, rows, columns = random_box(np.random.default_rng(seed), height, width, least)
    assert rows > 0
    assert columns > 0
    assert 0 <= top <= height - rows
    assert 0 <= left <= width - columns
    if min(height, width) > 50 and max(height, width) < 1.3 * min(height, width):
        assert rows * columns > 0.9 * min(least, 0.7) * height * width


def test_random_boxes_have_all_sizes_places_and_shapes():
    draw = functools.partial(random_box, np.random.default_rng(0), 300, 400, 0.1)
    top, left, rows, columns = np.array([draw() for _ in range(2000)]).T
    shares, aspects = rows * columns / 120_000, columns / rows
    assert 0.1 - 0.01 < shares.min() < 0.12
    assert shares.max() > 0.9
    assert 0.74 < aspects.min() < 0.78
    assert 1.29 < aspects.max() < 1.35
    assert 0.4 < np.mean(aspects < 1) < 0.6
    assert 0.45 < np.mean(top / np.maximum(300 - rows, 1)) < 0.55
    assert 0.45 < np.mean(left / np.maximum(400 - columns, 1)) < 0.55
    # Where nothing fits: the largest central part.
    assert random_box(np.random.default_rng(0), 10, 400, 1.0) == (0, 195, 10, 10)


def test_auto_streams_what_is_large_and_keeps_to_what_was_made(tmp_path, monkeypatch):
    folder = write_tfds(tmp_path, **MARKS)
    one = read(tmp_path, stream="auto", name="small")
    size = 60 * 9 * 7 * 3
    monkeypatch.setattr("l2p_tf.data.preparing.STREAM_BYTES", size)
    spec = "tfds(dataset=marks)"
    assert not read(tmp_path, spec, stream="auto", name="at").artifact.options["streamed"]
    monkeypatch.setattr("l2p_tf.data.preparing.STREAM_BYTES", size - 1)
    assert read(tmp_path, spec, stream="auto", name="above").artifact.options["streamed"]
    limited = read(tmp_path, spec, stream="auto", name="limited", limit_train=39)
    assert not limited.artifact.options["streamed"]
    shutil.move(folder, tmp_path / "aside")
    again = read(tmp_path, stream="auto", name="small")
    assert again.artifact.fingerprint == one.artifact.fingerprint
    with pytest.raises(UserError, match=r"streamed=False \(now True\)"):
        read(tmp_path, stream="on", name="small")


def test_the_fingerprint_is_that_of_what_is_read_wherever_it_lies(tmp_path):
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        write_tfds(tmp_path / name, **MARKS, train=noise(40, (9, 7, 3), seed=seed))
    one, same, other = (read(tmp_path / name).artifact.fingerprint for name in ("one", "same", "other"))
    assert one == same
    assert one != other


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_files_that_are_gone_or_changed_are_named(tmp_path, file_format):
    folder = write_tfds(tmp_path, **MARKS, file_format=file_format)
    data = read(tmp_path)
    file = sorted(folder.glob("*train*"))[1]
    content = file.read_bytes()
    # Of the same size, which is noticed when an image is read.
    file.write_bytes(content[:50] + bytes(len(content) - 50))
    with pytest.raises(UserError, match="is damaged: delete it and prepare it again") as caught:
        ImageData.open(data.artifact.path).split("train")[0][:]
    assert "\n" not in str(caught.value)
    for damage in (lambda: file.write_bytes(content[:-1]), file.unlink):
        damage()
        with pytest.raises(UserError, match=rf"'.*{file.name}', from which images are streamed, should be there"):
            ImageData.open(data.artifact.path)
    if file_format == "tfrecord":
        file.write_bytes(content[:-1])
        with pytest.raises(UserError, match="is damaged"):
            read(tmp_path, name="again")
        assert not (tmp_path / "again").exists()


def not_installed(*_, **__):
    raise ImportError("No module named 'array_record'")


def test_what_cannot_be_streamed_is_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="`stream` should be auto or off for digits, which is no set of TFDS"):
        read(tmp_path, "digits")
    with pytest.raises(UserError, match="`stream` should be one of auto, on, off. Received: 'maybe'"):
        read(tmp_path, "digits", stream="maybe")
    photos(tmp_path)
    with pytest.raises(UserError, match=r"`image_size` should be given: .* Received: 0"):
        read(tmp_path, "tfds(dataset=photos)")
    write_tfds(tmp_path, **MARKS, file_format="array_record")
    monkeypatch.setattr(tfds.core.DatasetBuilder, "as_data_source", not_installed)
    with pytest.raises(UserError, match=r"prepared as ArrayRecord, .*: pip install 'l2p_tf\[stream\]'"):
        read(tmp_path)
    monkeypatch.setattr(streaming.records, "file_format", lambda _: "riegeli")
    with pytest.raises(UserError, match=r"`stream` should be off for photos, .* riegeli: .*file_format='array_record'"):
        read(tmp_path, "tfds(dataset=photos, image_size=8)")


@pytest.fixture
def read_places(monkeypatch):
    """The places that are read, one after another."""
    places, plain = [], streaming.records.Records.read
    monkeypatch.setattr(
        streaming.records.Records, "read", lambda self, place: places.append(place) or plain(self, place)
    )
    return places


def test_a_selection_is_read_when_it_is_asked_for(tmp_path, read_places):
    write_tfds(tmp_path, **MARKS)
    data = read(tmp_path)
    read_places.clear()
    index, images, labels = data.select("test", 12, seed=3)
    assert not read_places
    part = images[4:9]
    assert len(read_places) == 5
    again, pixels, the_same = data.sample("test", 12, seed=3)
    np.testing.assert_array_equal(part, pixels[4:9])
    np.testing.assert_array_equal(index, again)
    np.testing.assert_array_equal(labels, the_same)


def test_the_last_images_are_kept_in_memory_and_no_more(tmp_path, monkeypatch, read_places):
    write_tfds(tmp_path, **MARKS)
    monkeypatch.setattr(streaming, "_KEPT_BYTES", 10 * 9 * 7 * 3)
    images = read(tmp_path).split("test")[0]
    read_places.clear()
    for _ in range(3):
        images[:8]
    assert len(read_places) == 8
    images[:]
    assert len(read_places) == 20
    images[:]
    assert len(read_places) > 30


LARGE = """
import pathlib, re, sys, time
import tensorflow as tf
from l2p_tf.data import DATASETS, ImageData, TrainBatches, prepare

def peak():
    # Of this program alone; what `resource` tells includes the process that it was started from.
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text()).group(1))

tf.io.decode_jpeg(tf.io.encode_jpeg(tf.zeros((8, 8, 3), tf.uint8)))
baseline = peak()
root = sys.argv[1]
spec = "tfds(dataset=large, image_size=224, center_crop=0.875, random_crop=0.08, flip=True, crop_padding=0)"
prepare(DATASETS.parse(spec), f"{root}/out", data_dir=root, download=False)
data = ImageData.open(f"{root}/out")
prepared = peak()
batches = TrainBatches(data, 64, seed=1)
seen, begun = 0, time.monotonic()
for images, labels in batches.dataset().take(batches.steps_per_epoch):
    seen += len(labels)
print(seen, baseline, prepared, peak(), round(seen / (time.monotonic() - begun)))
"""


@pytest.fixture
def root(tmp_path):
    """A folder that is emptied also where a test fails, whatever pytest keeps."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.mark.slow
def test_memory_stays_flat_on_a_set_of_two_gigabytes(root):
    """JPEG images of 3.1 megapixels, 9.4 MB each when decoded."""
    random = np.random.default_rng(0)
    encoded = []
    for _ in range(50):
        small = random.integers(0, 256, (96, 128, 3), dtype=np.uint8)
        image = tf.image.resize(small, (1536, 2048), method="bicubic") + random.normal(0, 12, (1536, 2048, 3))
        encoded.append(tf.io.encode_jpeg(tf.cast(tf.clip_by_value(image, 0, 255), tf.uint8), quality=85).numpy())
    train = [io.BytesIO(encoded[i % 50]) for i in range(2_100_000_000 // (sum(map(len, encoded)) // 50))]
    how = {"encoding": "jpeg", "train": train, "test": train[:40], "file_format": "array_record"}
    folder = write_tfds(root, "large", "1.0.0", (None, None, 3), 10, **how)
    assert sum(file.stat().st_size for file in folder.iterdir()) > 2_000_000_000
    command = [sys.executable, "-c", LARGE, str(root)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    seen, baseline, prepared, peak, speed = map(int, done.stdout.split())
    assert seen > 0.85 * len(train)
    above = [round((one - baseline) / 1e6) for one in (prepared, peak)]
    print(f"{seen} images at {speed}/s; {baseline / 1e6:.0f} MB, above that {above[0]} prepared, {above[1]} in all")
    # Decoding one large image takes its 9.4 MB: a figure of nothing would be no measurement.
    assert peak - baseline > 9.4e6
    assert peak - baseline < 1e9
