"""Ensembles on which transferred examples are made."""

import numpy as np

from l2p_tf import inference
from l2p_tf.attacks import ATTACKS
from l2p_tf.evaluation.transfer import ensemble
from support.models import images_and_labels, smooth


def test_an_ensemble_answers_with_the_mean_of_the_logits():
    models = [smooth(seed=seed) for seed in (1, 2)]
    images, labels = images_and_labels(5)
    expected = np.mean([model(images) for model in models], axis=0)
    both = ensemble(models)
    np.testing.assert_allclose(both(images), expected, atol=1e-6)
    assert ensemble(models[:1]) is models[0]
    found = ATTACKS.parse("pgd(epsilon=0.2, steps=4)")(both, images, labels)
    np.testing.assert_array_equal(found.prediction, inference.predict(both, found.adversarial).argmax(-1))
    noisy = ensemble([smooth(noise=0.2), smooth(seed=2)])
    assert np.abs(noisy(images) - noisy(images)).max() > 0
