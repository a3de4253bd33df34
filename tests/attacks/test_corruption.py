"""Common corruptions: strengths as published, the same from the same seed, evaluated like attacks."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import l2p_tf
from l2p_tf import inference
from l2p_tf.attacks import ATTACKS
from l2p_tf.attacks.corrupting import CORRUPTIONS, SEVERITIES, corrupted, zoom_blur
from l2p_tf.attacks.corruption import corruptions
from l2p_tf.types import UserError
from stages import settings
from support.models import images_and_labels, smooth

SHAPES = [(32, 32, 3), (8, 8, 1), (20, 33, 3), (70, 66, 3)]


def pictures(shape, count=6):
    """Smooth images away from black and white."""
    rng = np.random.default_rng(1)
    waves = ndimage.gaussian_filter(rng.normal(size=(count, *shape)), (0, shape[0] / 8, shape[1] / 8, 0), mode="wrap")
    return (0.5 + 0.12 * waves / waves.std()).clip(0.1, 0.9).astype(np.float32)


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_images_stay_images_in_8_bits_and_follow_from_the_seed(kind, shape):
    images = pictures(shape, 3)
    for severity in (1, SEVERITIES):
        found = corrupted(images, kind, severity, seed=4)
        assert found.shape == images.shape
        assert found.dtype == np.float32
        assert found.min() >= 0
        assert found.max() <= 1
        np.testing.assert_allclose(255 * found, np.rint(255 * found), atol=1e-4)
        np.testing.assert_array_equal(found, corrupted(images, kind, severity, seed=4))
    assert np.abs(found - images).max() > 0.01


@pytest.mark.parametrize("kind", ["gaussian_noise", "shot_noise", "impulse_noise", "contrast", "brightness", "fog"])
def test_more_severe_is_farther_from_the_image(kind):
    images = pictures((32, 32, 3))
    sizes = [np.square(corrupted(images, kind, severity, 0) - images).mean() for severity in range(1, SEVERITIES + 1)]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(("severity", "small", "large"), [(1, 0.04, 0.08), (3, 0.08, 0.18)])
def test_noise_has_the_published_strengths(severity, small, large):
    for side, std, photons, share in ((32, small, {1: 500, 3: 100}, {1: 0.01, 3: 0.03}),
                                      (64, large, {1: 60, 3: 12}, {1: 0.03, 3: 0.09})):  # fmt: skip
        gray = np.full((20, side, side, 3), 0.5, np.float32)
        noise = corrupted(gray, "gaussian_noise", severity, 0)
        assert noise.std() == pytest.approx(std, rel=0.03)
        shot = corrupted(gray, "shot_noise", severity, 0)
        assert shot.std() == pytest.approx(np.sqrt(0.5 / photons[severity]), rel=0.04)
        changed = corrupted(gray, "impulse_noise", severity, 0)
        black, white = (changed == 0).mean(), (changed == 1).mean()
        assert black + white == pytest.approx(share[severity], rel=0.1)
        assert black == pytest.approx(white, rel=0.2)


def test_contrast_brightness_and_compression_are_what_they_say():
    images = pictures((32, 32, 3))
    flat = corrupted(images, "contrast", 5, 0)
    mean = images.mean((1, 2), keepdims=True)
    np.testing.assert_allclose(flat, mean + 0.15 * (images - mean), atol=0.51 / 255)
    bright = corrupted(images, "brightness", 2, 0)
    np.testing.assert_allclose(bright.max(-1), np.minimum(images.max(-1) + 0.1, 1), atol=0.51 / 255)
    hue = np.asarray(Image.fromarray(np.uint8(255 * bright[0])).convert("HSV"))[..., 0].astype(int)
    before = np.asarray(Image.fromarray(np.uint8(255 * images[0])).convert("HSV"))[..., 0].astype(int)
    assert np.median(np.abs(hue - before)) <= 2
    coarse = corrupted(pictures((64, 64, 3)), "pixelate", 5, 0)
    np.testing.assert_array_equal(coarse[:, ::4, ::4], coarse[:, 3::4, 3::4])
    assert corrupted(np.zeros((1, 8, 8, 1), np.float32), "brightness", 1, 0).max() == pytest.approx(13 / 255)


def test_blurs_keep_flat_images_and_the_zoom_is_bilinear():
    flat = np.full((2, 32, 32, 3), 128 / 255, np.float32)
    for kind in ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "elastic", "pixelate", "contrast"):
        np.testing.assert_allclose(corrupted(flat, kind, 5, 0), flat, atol=1e-6)
    images = pictures((32, 32, 1), 2).astype(float)
    # The factors are 1 and 1.25, of which the latter enlarges the middle 26 to 32; the image counts once more.
    enlarged = ndimage.zoom(images[:, 3:29, 3:29], (1, 1.25, 1.25, 1), order=1)
    blurred = zoom_blur(images, np.random.default_rng(0), 1.3, 0.25)
    np.testing.assert_allclose(blurred, (2 * images + enlarged) / 3, atol=1e-9)


def test_every_image_is_corrupted_and_the_answers_to_it_count():
    model = smooth((8, 8, 1))
    images, labels = images_and_labels(20, (8, 8, 1))
    attack = ATTACKS.parse("corruption(kind=fog, severity=5)")
    output = attack(model, images, labels, seed=3, batch_size=8)
    probabilities = inference.predict(model, output.adversarial)
    np.testing.assert_array_equal(output.prediction, probabilities.argmax(-1))
    np.testing.assert_array_equal(output.wrong, output.prediction != labels)
    np.testing.assert_allclose(output.confidence, probabilities.max(-1), rtol=1e-6)
    truth = np.eye(4)[labels]
    np.testing.assert_allclose(output.brier, np.square(probabilities - truth).sum(-1), rtol=1e-5)
    assert (output.l2 > 0).all()
    assert not output.gradients.any()
    other = attack(smooth((8, 8, 1), seed=5), images, labels, seed=3)
    np.testing.assert_array_equal(output.adversarial, other.adversarial)


def test_lists_of_them_and_all(tmp_path):
    assert len(corruptions(["all"], range(1, 6))) == 75
    assert [one.label for one in corruptions(["fog", "jpeg"], [2])] == ["fog 2", "jpeg 2"]
    with pytest.raises(UserError, match="`kind` should be one of gaussian_noise, .*Received: 'rain'"):
        corruptions(["rain"], [1])
    with pytest.raises(UserError, match="`severity` should be at most 5"):
        ATTACKS.parse("corruption(kind=fog, severity=6)")
    model = smooth((8, 8, 1), noise=0.1)
    images = np.round(255 * images_and_labels(24, (8, 8, 1))[0]) / 255
    labels = inference.predict(model, images, draws=20).argmax(-1)
    result = l2p_tf.evaluate(
        model, images, labels, attacks="pgd(epsilon=0.05, steps=2); corruption(kind=[fog, snow], severity=[1, 5])",
        checks=0, repeats=2, folder=tmp_path, slice_size=10,
    )  # fmt: skip
    assert [*result.records.kind] == ["clean"] * 2 + ["bounded"] * 2 + ["corruption"] * 8
    assert "fog" not in str(result)
    assert set(result.attacks.kind) == {"clean", "bounded"}


def test_flags_put_them_behind_the_attacks():
    flags = ["--run_dir=x", "--attacks=fgsm", "--corruptions=fog,jpeg"]
    read = settings.read([*flags, "--severities=2,4"])
    assert [a.label for a in read.evaluation.attacks] == ["FGSM", "fog 2", "fog 4", "jpeg 2", "jpeg 4"]
    assert len(settings.read([*flags[:2], "--corruptions=all"]).evaluation.attacks) == 76
    with pytest.raises(UserError, match="`--severities` should be some of 1, 2, 3, 4, 5. Received: '7'"):
        _ = settings.read([*flags, "--severities=7"]).evaluation
