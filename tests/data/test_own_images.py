"""Images of one's own, in folders, lists and arrays: the same as a data set of the package, or refused in one line."""

import csv
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from l2p_tf.data import DATASETS, ImageData, TrainBatches, prepare
from l2p_tf.types import UserError
from support.datasets import noise


def opened(tmp_path, spec, name="out", **options):
    prepare(DATASETS.parse(spec), tmp_path / name, **options)
    return ImageData.open(tmp_path / name)


def assert_refused(tmp_path, spec, *parts, **options):
    with pytest.raises(UserError) as caught:
        prepare(DATASETS.parse(spec), tmp_path / "bad", **options)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "bad").exists()
    assert not (tmp_path / "bad.partial").exists()


def save(image, file, **how):
    file.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image.squeeze())).save(file, **how)


def write_folder(root, per_class=4, splits=("train", "test"), classes=("ant", "bee", "cat"), shape=(6, 5, 3)):
    """A folder of images for each class of each split; its images by split, in the order of their files."""
    images = {}
    for seed, split in enumerate(splits):
        images[split] = noise(per_class * len(classes), shape, seed)
        for i, image in enumerate(images[split]):
            save(image, root / split / classes[i // per_class] / f"{i:02d}.png")
    return images


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The digits of the package as a folder, a list and arrays, and as the package prepares them."""
    root = tmp_path_factory.mktemp("digits")
    source = DATASETS.parse("digits").open("", False)
    arrays, rows = {}, []
    for split, part in (("train", source.train), ("test", source.test)):
        images = np.concatenate(list(part.batches()))
        arrays |= {f"x_{split}": images, f"y_{split}": part.labels}
        for i, (image, label) in enumerate(zip(images, part.labels, strict=True)):
            file = f"png/{split}/{label}/{i:04d}.png"
            save(image, root / file)
            rows.append((file, label, split))
    np.savez(root / "digits.npz", **arrays)
    with (root / "digits.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label", "split"), *rows])
    prepare(DATASETS.parse("digits"), root / "data")
    return root


@pytest.mark.parametrize("spec", ["folder(path='{}/png')", "csv(path='{}/digits.csv')", "npz(path='{}/digits.npz')"])
def test_the_same_images_give_the_same_data(tmp_path, digits, spec):
    expected, data = ImageData.open(digits / "data"), opened(tmp_path, spec.format(digits))
    assert data.info.class_names == expected.info.class_names
    assert data.info.counts == expected.info.counts
    for split in ("train", "test"):
        whole = [np.load(one.artifact.path / f"{split}_images.npy") for one in (data, expected)]
        labels = [np.load(one.artifact.path / f"{split}_labels.npy") for one in (data, expected)]
        if spec.startswith("folder"):  # Class after class.
            order = np.argsort(labels[1], kind="stable")
            whole[1], labels[1] = whole[1][order], labels[1][order]
        np.testing.assert_array_equal(*whole)
        np.testing.assert_array_equal(*labels)
    assert (data.info.crop_padding, data.info.flip) == (0, False)


def test_a_set_is_the_same_at_another_place_and_another_where_a_file_differs(tmp_path):
    write_folder(tmp_path / "a/photos")
    write_folder(tmp_path / "b/photos")
    first = opened(tmp_path, f"folder(path='{tmp_path}/a/photos')", "first").artifact
    assert opened(tmp_path, f"folder(path='{tmp_path}/b/photos/')", "second").artifact.fingerprint == first.fingerprint
    assert str(tmp_path) not in str(first.options)
    save(noise(1, (6, 5, 3), 9)[0], tmp_path / "b/photos/test/bee/05.png")
    with pytest.raises(UserError, match="source="):
        opened(tmp_path, f"folder(path='{tmp_path}/b/photos')", "second")


def test_class_folders_alone_are_for_judging_unless_some_are_held_out(tmp_path):
    images = write_folder(tmp_path / "photos", 10, [""])[""]
    save(images[0], tmp_path / "photos/.thumbnails/x.png")
    (tmp_path / "photos/README.txt").write_text("about")
    data = opened(tmp_path, f"folder(path='{tmp_path}/photos')")
    assert data.info.counts == {"train": 0, "validation": 0, "test": 30}
    assert data.info.class_names == ("ant", "bee", "cat")
    assert (data.info.mean, data.info.std) == ((), ())
    assert "not trained" in data.info.summary()
    np.testing.assert_array_equal(data.split("test")[0][:], images)
    np.testing.assert_array_equal(data.split("test")[1], np.repeat(range(3), 10))
    with pytest.raises(UserError, match=r"`data` should have training images; models are only judged on photos"):
        TrainBatches(data, 4, 0)
    held_out = opened(tmp_path, f"folder(path='{tmp_path}/photos', test_share=0.2)", "held_out", seed=1)
    assert held_out.info.counts == {"train": 22, "validation": 2, "test": 6}
    assert held_out.info.class_counts["test"] == [2, 2, 2]


def test_validation_images_of_their_own_are_kept_apart(tmp_path):
    images = write_folder(tmp_path / "photos", 4, ("train", "validation", "test"))
    data = opened(tmp_path, f"folder(path='{tmp_path}/photos')", validation_share=0.5)
    for split, expected in images.items():
        np.testing.assert_array_equal(data.split(split)[0][:], expected)
    few = opened(tmp_path, f"folder(path='{tmp_path}/photos')", "few", limit_train=12)
    assert few.info.counts == {"train": 6, "validation": 6, "test": 12}
    assert few.info.class_counts["validation"] == [2, 2, 2]


def test_folders_may_have_other_names(tmp_path):
    write_folder(tmp_path / "photos", 4, ("train", "val"))
    assert_refused(tmp_path, f"folder(path='{tmp_path}/photos')", "photos/val'", "train, validation, test", "`test`")
    assert opened(tmp_path, f"folder(path='{tmp_path}/photos', test=val)").info.counts["test"] == 12


def test_pixels_of_every_kind_follow_their_rule(tmp_path):
    shade = np.arange(0, 240, 8, dtype=np.uint8).reshape(6, 5)
    deep = (shade.astype(np.uint16) << 8) + 200
    clear = np.stack([shade, np.where(shade < 40, 0, 255).astype(np.uint8)], -1)
    exif = Image.Exif()
    exif[0x0112] = 6
    palette = Image.fromarray(shade).convert("P")
    kinds = {
        "a8.png": Image.fromarray(shade), "b16.png": Image.fromarray(deep), "c16.tiff": Image.fromarray(deep),
        "d16.pgm": Image.fromarray(deep), "e_clear.png": Image.fromarray(clear, "LA"), "f_palette.gif": palette,
        "g_bits.png": Image.fromarray(shade > 100),
    }  # fmt: skip
    for name, image in kinds.items():
        save(image, tmp_path / "gray/x" / name)
    save(Image.fromarray(np.rot90(shade)), tmp_path / "gray/x/h_turned.png", exif=exif)
    save(shade, tmp_path / "gray/y/0.png")
    data = opened(tmp_path, f"folder(path='{tmp_path}/gray')")
    assert data.info.image_shape == (6, 5, 1)
    found = data.split("test")[0][:][..., 0]
    expected = [shade] * 4 + [np.where(shade < 40, 255, shade), shade, np.where(shade > 100, 255, 0), shade, shade]
    np.testing.assert_array_equal(found, expected)

    color = noise(1, (6, 5, 4))[0]
    save(color, tmp_path / "color/x/0.png")
    save(shade, tmp_path / "color/y/0.png")
    mixed = opened(tmp_path, f"folder(path='{tmp_path}/color')", "mixed").split("test")[0][:]
    share = color[..., 3:] / 255
    np.testing.assert_allclose(mixed[0], color[..., :3] * share + 255 * (1 - share), atol=1)
    np.testing.assert_array_equal(mixed[1], np.repeat(shade[..., None], 3, -1))
    gray = opened(tmp_path, f"folder(path='{tmp_path}/color', channels=gray)", "gray_").split("test")[0][:]
    np.testing.assert_allclose(gray[0, ..., 0], mixed[0] @ [0.299, 0.587, 0.114], atol=1)
    assert opened(tmp_path, f"folder(path='{tmp_path}/gray', channels=color)", "three").info.image_shape == (6, 5, 3)


def test_a_gray_level_may_stand_for_transparency(tmp_path):
    levels = np.arange(0, 30000, 1000, dtype=np.uint16).reshape(6, 5)
    save(Image.fromarray(levels), tmp_path / "p/x/0.png", transparency=3000)
    save(Image.fromarray(levels), tmp_path / "p/y/0.png")
    first, second = opened(tmp_path, f"folder(path='{tmp_path}/p')").split("test")[0][:][..., 0]
    np.testing.assert_array_equal(second, levels >> 8)
    np.testing.assert_array_equal(first, np.where(levels == 3000, 255, levels >> 8))


def test_images_of_any_size_are_resized(tmp_path):
    for i, (height, width) in enumerate([(6, 5), (40, 60), (17, 9)]):
        save(np.full((height, width, 3), 10 * i, np.uint8), tmp_path / "p" / "xyz"[i] / "0.png")
    spec = f"folder(path='{tmp_path}/p'"
    assert_refused(tmp_path, f"{spec})", "`image_size` should be given", "x/0.png' has 6x5", "y/0.png' 40x60")
    data = opened(tmp_path, f"{spec}, image_size=8)", "square")
    assert data.info.image_shape == (8, 8, 3)
    np.testing.assert_array_equal(data.split("test")[0][:][:, 3, 3, 0], [0, 10, 20])
    assert opened(tmp_path, f"{spec}, image_size=(8, 4))", "oblong").info.image_shape == (8, 4, 3)
    with pytest.raises(UserError, match=r"`image_size` should be one number or \(height, width\)"):
        DATASETS.parse(f"{spec}, image_size=(1, 2, 3))")


def test_the_center_is_what_is_resized(tmp_path):
    """A frame of the image is dropped; what shrinks by a whole factor is near its mean."""
    image = np.zeros((20, 40, 1), np.uint8)
    image[2:18, 12:28] = np.kron(noise(1, (4, 4, 1))[0], np.ones((4, 4, 1))).astype(np.uint8)
    for name in "xy":
        save(image, tmp_path / "p" / name / "0.png")
    spec = f"folder(path='{tmp_path}/p', image_size=16, center_crop=0.8)"
    np.testing.assert_array_equal(opened(tmp_path, spec).split("test")[0][0], image[2:18, 12:28])


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("notes.txt", b"no image", ["notes.txt' should be a whole image", "no such image"]),
        ("cut.png", None, ["cut.png' should be a whole image", "PNG, JPEG"]),
        ("float.tiff", Image.fromarray(np.ones((6, 5), np.float32)), ["float.tiff'", "32 bits"]),
        ("drawing.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 6\n", ["drawing.eps' should be a whole image"]),
    ],
)
def test_files_that_are_no_images_are_named(tmp_path, name, content, parts):
    write_folder(tmp_path / "photos", shape=(6, 5, 1))
    file = tmp_path / "photos/test/bee" / name
    if isinstance(content, Image.Image):
        save(content, file)
    else:
        whole = (tmp_path / "photos/test/bee/05.png").read_bytes()
        file.write_bytes(content or whole[: len(whole) - 30])
    assert_refused(tmp_path, f"folder(path='{tmp_path}/photos')", *parts)


def test_images_that_would_fill_the_memory_are_not_read(tmp_path, monkeypatch):
    write_folder(tmp_path / "photos")
    for most, pixels in ((16, "16"), (8, "8")):  # Beyond once and twice as much.
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
        assert_refused(tmp_path, f"folder(path='{tmp_path}/photos')", "00.png' should have at most", f"{pixels} pixels")


def test_folders_of_another_kind_are_refused(tmp_path):
    spec = f"folder(path='{tmp_path}/photos')"
    assert_refused(tmp_path, spec, "`path` should be a folder with a folder for each class", "photos'")
    (tmp_path / "photos/ant").mkdir(parents=True)
    assert_refused(tmp_path, spec, "photos' should hold images. It holds: none")
    save(noise(1)[0], tmp_path / "photos/loose.png")
    assert_refused(tmp_path, spec, "loose.png' should lie in a folder that is named like its class")
    assert_refused(tmp_path, "folder", "`path` should be given: folder(path=...)")


def test_splits_that_do_not_fit_are_refused(tmp_path):
    write_folder(tmp_path / "a", splits=("train",))
    assert_refused(tmp_path, f"folder(path='{tmp_path}/a')", "`test_share` should be above 0")
    assert opened(tmp_path, f"folder(path='{tmp_path}/a', test_share=0.25)", "ok").info.counts["test"] == 3
    write_folder(tmp_path / "a", splits=("test",), classes=("ant", "dgo"))
    assert_refused(tmp_path, f"folder(path='{tmp_path}/a')", "Class 'dgo' has test images alone")
    assert_refused(tmp_path, f"folder(path='{tmp_path}/a', test_share=0.1)", "`test_share` should be 0")
    write_folder(tmp_path / "b", splits=("validation", "test"))
    assert_refused(tmp_path, f"folder(path='{tmp_path}/b')", "should hold training images")


def test_classes_may_be_those_of_a_model(tmp_path):
    write_folder(tmp_path / "photos", splits=[""], classes=("cat", "ant"))
    data = opened(tmp_path, f"folder(path='{tmp_path}/photos', class_names=(dog, cat, ant))")
    assert data.info.class_counts["test"] == [0, 4, 4]
    assert data.info.num_classes == 3
    assert_refused(tmp_path, f"folder(path='{tmp_path}/photos', class_names=(dog, cat))", "Missing: 'ant'")
    with pytest.raises(UserError, match="each class once"):
        DATASETS.parse("folder(path=x, class_names=(dog, dog))")


def write_list(file, rows, head="file,label"):
    file.write_text("\n".join([head, *(",".join(map(str, row)) for row in rows)]), "utf-8-sig")
    return f"csv(path='{file}')"


def test_a_list_names_classes_by_text_or_number(tmp_path):
    for i in range(3):
        save(noise(1, (6, 5, 1), i)[0], tmp_path / f"{i}.png")
    named = write_list(tmp_path / "named.csv", [("2.png", "b"), ("0.png", "a"), ("1.png", "b")])
    data = opened(tmp_path, named, "named")
    assert data.info.class_names == ("a", "b")
    np.testing.assert_array_equal(data.split("test")[1], [1, 0, 1])
    np.testing.assert_array_equal(data.split("test")[0][0], noise(1, (6, 5, 1), 2)[0])
    numbered = write_list(tmp_path / "n.csv", [("x", "0.png", 10), ("", "1.png", 2)], "note,file,label")
    assert opened(tmp_path, numbered, "numbered").info.class_names == tuple(map(str, range(11)))
    few = numbered.replace(")", ", class_names=(a, b))")
    assert_refused(tmp_path, few, "`class_names` should name 11 classes", "Received: 2")


@pytest.mark.parametrize(
    ("head", "rows", "parts"),
    [
        ("image,label", [("0.png", 1)], ["the columns file and label", "names image, label"]),
        ("file,label", [("0.png", 1), ("0.png", 0)], ["line 3 names '0.png' again"]),
        ("file,label", [("0.png", "")], ["line 2 names no file or no label"]),
        ("file,label,split", [("0.png", 1, "dev")], ["line 2 is 'dev'", "train, validation, test"]),
        ("file,label", [], ["should hold images"]),
        ("file,label", [("0.png", 123456)], ["labels below 10000"]),
        ('file,"label', [], ["the columns file and label"]),
    ],
)
def test_bad_lists_are_refused(tmp_path, head, rows, parts):
    save(noise(1)[0], tmp_path / "0.png")
    assert_refused(tmp_path, write_list(tmp_path / "list.csv", rows, head), *parts)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    spec = write_list(tmp_path / "list.csv", [("gone.png", 1), ("0.png", 0)])
    assert_refused(tmp_path, spec, "list.csv' should be a CSV file", "line 2 names 'gone.png', which is no file there")
    assert_refused(tmp_path, write_list(tmp_path / "list.csv", [("/dev/zero", 1)]), "line 2 names '/dev/zero'")
    write_folder(tmp_path / "photos")
    os.mkfifo(tmp_path / "photos/test/ant/pipe.png")
    assert_refused(tmp_path, f"folder(path='{tmp_path}/photos')", "pipe.png' should be an image file")


def test_arrays_may_be_gray_floats_and_labels_a_column(tmp_path):
    images, labels = noise(12, (6, 5)), np.arange(12).reshape(-1, 1) % 3
    np.savez_compressed(tmp_path / "a.npz", test_images=images / 255.0, test_labels=labels.astype(np.uint8))
    data = opened(tmp_path, f"npz(path='{tmp_path}/a.npz')")
    assert data.info.image_shape == (6, 5, 1)
    assert data.info.counts == {"train": 0, "validation": 0, "test": 12}
    np.testing.assert_array_equal(data.split("test")[0][:][..., 0], images)
    np.testing.assert_array_equal(data.split("test")[1], labels[:, 0])
    parts = {"x_train": noise(6, (9, 9, 3)), "y_train": np.arange(6) % 3, "x_val": noise(3, (9, 9, 3), 1)}
    parts |= {"y_val": np.arange(3), "x_test": noise(3, (7, 7, 3), 2), "y_test": np.arange(3)}
    np.savez(tmp_path / "b.npz", **parts)
    assert_refused(tmp_path, f"npz(path='{tmp_path}/b.npz')", "images of one shape", "(7, 7, 3), (9, 9, 3)")
    data = opened(tmp_path, f"npz(path='{tmp_path}/b.npz', image_size=9)", "b")
    assert data.info.counts == {"train": 6, "validation": 3, "test": 3}
    np.testing.assert_array_equal(data.split("validation")[0][:], parts["x_val"])
    assert data.info.image_shape == (9, 9, 3)


IMAGES, LABELS = noise(4), np.array([0, 1, 2, 0])


@pytest.mark.parametrize(
    ("arrays", "parts"),
    [
        ({"x": IMAGES, "y": LABELS}, ["should be x_test and y_test, or x_train and y_train. There are: x, y"]),
        ({"x_test": IMAGES}, ["`y_test` is not there, but `x_test` is"]),
        ({"x_test": IMAGES, "y_test": LABELS[:3]}, ["`y_test`", "(4,)", "of shape (3,)"]),
        ({"x_test": IMAGES, "y_test": np.eye(4)}, ["`y_test`", "of shape (4, 4)"]),
        ({"x_test": IMAGES, "y_test": LABELS - 1}, ["`y_test`", "from 0, not -1"]),
        ({"x_test": IMAGES, "y_test": LABELS * 10_000}, ["labels below 10000", "20000"]),
        ({"x_test": IMAGES / 1.0, "y_test": LABELS}, ["`x_test`", "floats in [0, 1]", "to 25"]),
        ({"x_test": np.full((4, 6, 5), np.nan), "y_test": LABELS}, ["`x_test`", "floats in [0, 1]", "nan"]),
        ({"x_test": IMAGES.astype(int), "y_test": LABELS}, ["`x_test` should be uint8", "int64"]),
        ({"x_test": IMAGES.transpose(0, 3, 1, 2).copy(), "y_test": LABELS}, ["channels", "(4, 3, 6, 5)"]),
        ({"x_test": np.asfortranarray(IMAGES), "y_test": LABELS}, ["`x_test` should be in C order"]),
        ({"x_test": np.array([{}] * 4), "y_test": LABELS}, ["`x_test`", "(4,)"]),
        ({"x_test": IMAGES, "y_test": np.array([{}] * 4)}, ["`y_test` should be whole numbers"]),
    ],
)
def test_bad_arrays_are_refused_and_nothing_is_unpickled(tmp_path, arrays, parts):
    np.savez(tmp_path / "a.npz", **arrays)
    assert_refused(tmp_path, f"npz(path='{tmp_path}/a.npz')", "a.npz'", *parts)


def test_training_images_alone(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=IMAGES, y_train=LABELS)
    data = ImageData.open(prepare(DATASETS.parse(f"npz(path='{tmp_path}/a.npz')"), tmp_path / "data").path)
    assert data.info.counts == {"train": 4, "validation": 0, "test": 0}
    with pytest.raises(UserError, match="has no test images"):
        data.select("test")


def test_damaged_arrays_are_refused(tmp_path):
    assert_refused(tmp_path, f"npz(path='{tmp_path}/a.npz')", "`path` should be an .npz file")
    (tmp_path / "a.npz").write_bytes(b"no zip")
    assert_refused(tmp_path, f"npz(path='{tmp_path}/a.npz')", "a.npz' should hold images and labels", "not a zip file")
    np.savez(tmp_path / "b.npz", x_test=IMAGES, y_test=LABELS)
    with zipfile.ZipFile(tmp_path / "b.npz") as whole, zipfile.ZipFile(tmp_path / "c.npz", "w") as cut:
        for name in whole.namelist():
            cut.writestr(name, whole.read(name)[: -9 if name == "x_test.npy" else None])
    assert_refused(tmp_path, f"npz(path='{tmp_path}/c.npz')", "c.npz'", "`x_test` ends within")
