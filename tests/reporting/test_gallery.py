"""The gallery of perturbed images, and images on the page."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from l2p_tf.reporting.examples import data_uri
from l2p_tf.reporting.gallery import galleries, scale_of
from l2p_tf.types import UserError
from support.reports import make_attack, make_data, make_records, make_runs, make_train, results_of


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return make_runs(tmp_path_factory.mktemp("digits") / "runs")


def pixels(uri):
    assert uri.startswith("data:image/png;base64,")
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


@pytest.mark.parametrize(
    ("change", "factor"), [(8 / 255, 15), (0.031, 16), (0.5, 1), (1.0, 0.5), (0.3, 1.66), (0.0, 1), (np.nan, 1)]
)
def test_the_factor_of_differences_is_round_and_does_not_clip(change, factor):
    assert scale_of(np.array([0.0, -change], np.float32)) == pytest.approx(factor)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "L")])
def test_images_are_pngs_of_the_same_pixels(channels, mode):
    image = np.random.default_rng(0).random((8, 6, channels))
    picture = pixels(data_uri(image))
    assert (picture.size, picture.mode) == ((6, 8), mode)
    if channels != 4:
        np.testing.assert_array_equal(np.array(picture).reshape(8, 6, channels), np.round(255 * image))
    assert pixels(data_uri(np.zeros((224, 112, channels)))).size == (48, 96)


def test_the_gallery_says_what_the_model_made_of_each_image(digits):
    gallery = {one.title: one for one in galleries(results_of(digits).all_runs, 10_000_000)}["pgd"]
    assert [(head["label"], head["detail"], head["factor"]) for head in gallery.heads] == [
        ("FGSM", "L∞, ε 8/255, 1 step", "15"),
        ("PGD-7", "L∞, ε 8/255, 7 steps", "15"),
        ("PGD-20 EOT-10", "L∞, ε 8/255, 20 steps, EOT over 10 draws", "15"),
    ]
    assert (len(gallery.examples), gallery.total) == (6, 6)
    arrays = np.load(digits / "attack_pgd" / "gallery.npz")
    for i, example in enumerate(gallery.examples):
        clean = example["clean"]
        assert (example["label"], clean["right"], clean["confidence"]) == (str(i), True, "98%")
        for a, attacked in enumerate(example["attacked"]):
            picture = attacked["adversarial"]
            assert picture["prediction"] == str(arrays["prediction"][a, i])
            assert picture["right"] == (arrays["prediction"][a, i] == i)


def test_the_gallery_keeps_to_its_budget(digits):
    runs = results_of(digits).all_runs
    assert all(1 <= len(one.examples) < one.total for one in galleries(runs, 3 * 3000))
    assert [len(one.examples) for one in galleries(runs, 0)] == [1, 1, 1]


@pytest.mark.parametrize(
    "change", [{"label": np.zeros((2, 2))}, {"attacks": np.array(["a"])}, {"clean": None}, {"clean": np.zeros(())}]
)
def test_a_wrong_gallery_is_refused(tmp_path, change):
    data = make_data(tmp_path)
    path = make_attack(tmp_path, make_train(tmp_path, data), data, make_records("pgd")).path / "gallery.npz"
    arrays = {name: value for name, value in {**np.load(path), **change}.items() if value is not None}
    runs = results_of(tmp_path).all_runs
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=r"gallery\.npz' should hold the gallery of an attack stage"):
        galleries(runs, 1000)
