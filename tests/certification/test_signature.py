"""Certified radii from a SavedModel."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from l2p_tf import artifacts
from l2p_tf.certification.base import CERTIFICATES, Certified
from l2p_tf.certification.bounds import clopper_pearson
from l2p_tf.certification.signature import certifier
from l2p_tf.defenses import DEFENSES
from l2p_tf.models.saving import save_classifier
from l2p_tf.serving import CARD, CERTIFY, export
from l2p_tf.types import UserError
from support.files import read_json
from support.halves import DIRECTION, allowed, at, distances, halves, too_large
from support.models import tiny

SIGMA, DRAWS = 0.25, 2000


def exported(tmp_path, model, spec, defense="none"):
    with artifacts.produce(tmp_path / "train", "train", {"name": "x", "defense": defense, "model": "m"}) as work:
        save_classifier(model, work.path / "best.keras")
    made = export(artifacts.read(tmp_path / "train"), tmp_path / "export", certificate=CERTIFICATES.parse(spec))
    return tf.saved_model.load(str(made.path / "saved_model")), read_json(made.path / CARD)


def test_every_number_of_votes_has_the_papers_radius():
    certificate = CERTIFICATES.parse(f"smoothing(sigma={SIGMA}, draws=300)")
    lower = clopper_pearson(np.arange(301), 300, certificate.alpha)[0]
    expected = np.where(lower > 0.5, SIGMA * stats.norm.ppf(lower), 0)
    radii = certificate.radii(halves(DIRECTION))
    np.testing.assert_allclose(radii, expected, rtol=1e-6)
    assert (radii <= expected).all()


def test_half_spaces_are_certified_as_in_python(tmp_path):
    # For a linear classifier the true radius is the distance to its edge.
    true = distances(200, 0.02, 0.6)
    images = at(true, DIRECTION)
    spec = f"smoothing(sigma={SIGMA}, draws={DRAWS}, alpha=0.01)"
    loaded, card = exported(tmp_path, halves(DIRECTION), spec)
    assert card[CERTIFY]["left_out"] == ""
    answer = {key: value.numpy() for key, value in loaded.signatures[CERTIFY](images=tf.constant(images)).items()}
    found = Certified(answer["predictions"], answer["radius"], answer["radius"], answer["radius"])
    assert too_large(found, true) <= allowed(len(true), 0.01)
    here = CERTIFICATES.parse(spec).certify(halves(DIRECTION), images)
    # Both are means of many independent radii around the same expectation.
    error = (answer["radius"] - here.radius).std() / np.sqrt(len(true))
    assert abs(answer["radius"].mean() - here.radius.mean()) < 4 * error
    assert (np.abs(answer["predictions"] - here.prediction) > 0).mean() < 0.05
    assert loaded.signatures[CERTIFY](images=tf.zeros([0, *images.shape[1:]]))["radius"].shape == (0,)


def test_noise_of_the_model_is_used_or_refused(tmp_path):
    def network(defense):
        return tiny(DEFENSES.parse(defense))

    images = tf.random.uniform((3, 6, 6, 1), seed=0)
    loaded, _ = exported(tmp_path / "own", network("smoothing(sigma=0.25)"), "smoothing(draws=200)", "smoothing")
    first, second = (loaded.signatures[CERTIFY](images=images)["radius"].numpy() for _ in range(2))
    assert first.shape == second.shape == (3,)
    with pytest.raises(UserError, match="own noise off"):
        certifier(network("smoothing(sigma=0.25)"), CERTIFICATES.parse("smoothing(sigma=0.5)"))
    loaded, card = exported(tmp_path / "other", network("learn2perturb"), "smoothing(sigma=0.25)", "learn2perturb")
    assert CERTIFY not in loaded.signatures
    assert "switches the model's own noise off" in card[CERTIFY]["left_out"]
