"""Adversarial images in 8 bits: how they are rounded, what is left of an attack's success, and how they are kept."""

import numpy as np
import pytest

import l2p_tf
from l2p_tf.attacks import CarliniWagner
from l2p_tf.attacks.projection import norms
from l2p_tf.data import DATASETS
from l2p_tf.evaluation.chunked import in_8_bits
from l2p_tf.evaluation.records import images_of, read_records
from support import foreign

RNG = np.random.default_rng(0)
CLEAN = RNG.integers(0, 256, (40, 5, 4, 3)).astype(np.float32) / np.float32(255)


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 8 / 255), ("linf", 0.1), ("l2", 0.3), ("l2", 0.01)])
def test_images_in_8_bits_are_the_nearest_within_the_ball(norm, epsilon):
    delta = RNG.normal(size=CLEAN.shape).astype(np.float32)
    delta = np.clip(delta, -1, 1) * epsilon if norm == "linf" else delta
    if norm == "l2":
        delta *= (epsilon * RNG.random(40) / norms(delta)["l2"])[:, None, None, None]
    adversarial = np.clip(CLEAN + delta, 0, 1)
    stored = in_8_bits(adversarial, CLEAN, norm, epsilon)
    whole = 255 * stored
    np.testing.assert_allclose(whole, np.rint(whole), atol=1e-4)
    assert (norms(stored - CLEAN)[norm] <= epsilon * (1 + 1e-5) + 1e-5).all()
    # Never more than one step from where it was, and never on the other side of the clean image.
    assert np.abs(stored - adversarial).max() < 1 / 255 + 1e-6
    assert ((stored - CLEAN) * (adversarial - CLEAN) >= -1e-9).all()
    nearest = np.rint(255 * adversarial) / 255
    inside = norms(nearest - CLEAN)[norm] <= epsilon
    np.testing.assert_allclose(stored[inside], nearest[inside], atol=1e-6)
    np.testing.assert_array_equal(in_8_bits(stored, CLEAN, norm, epsilon), stored)


def test_what_lies_on_multiples_stays_but_for_its_last_bit():
    steps = RNG.integers(-8, 9, CLEAN.shape)
    exact = np.clip(np.rint(255 * CLEAN) + steps, 0, 255).astype(np.float32) / np.float32(255)
    for noise in (-1e-7, 1e-7):
        shaken = (exact + np.float32(noise)).clip(0, 1)
        np.testing.assert_array_equal(in_8_bits(shaken, CLEAN, "linf", 8 / 255), exact)
        np.testing.assert_array_equal(in_8_bits(shaken, CLEAN, None, None), exact)


def test_an_attack_of_smallest_norm_loses_success_and_a_sign_attack_none(tmp_path):
    source = DATASETS.parse("digits").open("", False).test
    images, labels = np.concatenate(list(source.batches()))[:60], source.labels[:60]
    model = foreign.made()
    attacks = [CarliniWagner(steps=60, learning_rate=0.02), "fgsm(epsilon=8/255)"]
    result = l2p_tf.evaluate(
        model, images, labels, attacks=attacks, checks=0, input_range="0..1", folder=tmp_path, save_images="float32"
    )
    clean, cw, fgsm = (row for _, row in result.records.iterrows())
    assert clean.reached == clean.reached_8bit > 0
    assert fgsm.reached == fgsm.reached_8bit
    assert cw.reached_8bit < cw.reached
    folder = tmp_path / "model" / "attack"
    record = read_records(folder)[1]
    arrays = np.load(folder / record.arrays)
    kept = np.load(folder / images_of(record))
    answers = np.asarray(model(in_8_bits(kept, images / np.float32(255), None, None))).argmax(-1)
    expected = (arrays["success"] >= 0.5) & (answers != labels)
    np.testing.assert_array_equal(arrays["success_8bit"] >= 0.5, expected)
    assert "in 8 bits on" in str(result)
