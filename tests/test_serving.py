import json
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

from l2p_tf import artifacts, inference
from l2p_tf.defenses import DEFENSES
from l2p_tf.layers.noise import set_noise
from l2p_tf.models import MODELS
from l2p_tf.models.saving import save_classifier
from l2p_tf.serving import export
from l2p_tf.types import UserError

# Runs where neither this package nor Keras can be imported.
PROGRAM = """
    import json, sys

    for name in ("l2p_tf", "keras", "stages"):
        sys.modules[name] = None
    for name in ("l2p_tf", "keras"):
        try:
            __import__(name)
            raise SystemExit(f"{name} can be imported")
        except ImportError:
            pass
    import numpy as np
    import tensorflow as tf

    loaded = tf.saved_model.load(sys.argv[1])
    rng = np.random.default_rng(0)
    answers = {}
    for count in (1, 3, 50):
        images = rng.integers(0, 256, (count, 8, 8, 1), np.uint8)
        for name, batch in (("serve_uint8", images), ("serving_default", images.astype(np.float32) / np.float32(255))):
            out = loaded.signatures[name](images=tf.constant(batch))
            answers[f"{name}-{count}"] = {key: value.numpy().tolist() for key, value in out.items()}
            again = loaded.signatures[name](images=tf.constant(batch))
            answers[f"{name}-{count}"]["changed"] = bool(np.any(again["probabilities"] != out["probabilities"]))
    json.dump(answers, open(sys.argv[2], "w"))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training's artifact, with a network that was not trained."""
    folder = tmp_path_factory.mktemp("trained") / "train"
    defense = DEFENSES.parse("learn2perturb(theta_initial=1.0)")
    model = MODELS.parse("resnet_v1(depth=8, width=0.25)").build((8, 8, 1), 10, defense.factory(0))
    with artifacts.produce(folder, "train", {"name": "x", "defense": "learn2perturb", "model": "m"}) as work:
        save_classifier(model, work.path / "best.keras")
        set_noise(model, False)
        save_classifier(model, work.path / "last.keras")
    set_noise(model, True)
    return artifacts.read(folder), model


def serve(path, tmp_path):
    output = tmp_path / "answers.json"
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(path), str(output)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(output.read_text())


def test_served_where_neither_this_package_nor_keras_is(trained, tmp_path):
    artifact, model = trained
    made = export(artifact, tmp_path / "export", draws=64, class_names=["a"] * 10)
    answers = serve(made.path / "saved_model", tmp_path)
    rng = np.random.default_rng(0)
    for count in (1, 3, 50):
        images = rng.integers(0, 256, (count, 8, 8, 1), np.uint8)
        expected = inference.predict(model, images, draws=2000)
        for name in ("serve_uint8", "serving_default"):
            answer = {k: np.array(v) for k, v in answers[f"{name}-{count}"].items()}
            probabilities, spread = answer["probabilities"], answer["spread"]
            assert probabilities.shape == spread.shape == (count, 10)
            assert answer["changed"]  # Fresh noise in every request.
            np.testing.assert_array_equal(answer["predictions"], probabilities.argmax(-1))
            # The mean of 64 draws lies within five of its own standard errors of the long-run mean.
            error = np.abs(probabilities - expected) / np.maximum(spread / np.sqrt(64), 1e-3)
            assert error.max() < 6
            assert spread.mean() > 1e-3
    card = json.loads((made.path / "serving.json").read_text())
    assert card["draws"] == 64
    assert card["signatures"]["serve_uint8"]["images"]["shape"] == [None, 8, 8, 1]


def test_the_noise_is_not_in_the_file(trained, tmp_path):
    # A training in the same process sets Keras's and TensorFlow's seeds.
    keras.utils.set_random_seed(0)
    made = export(trained[0], tmp_path / "export", draws=2)
    first, second = (serve(made.path / "saved_model", tmp_path)["serve_uint8-3"]["probabilities"] for _ in range(2))
    assert first != second


def test_without_noise_the_answers_are_the_classifiers(trained, tmp_path):
    artifact, model = trained
    made = export(artifact, tmp_path / "export", which="last", draws=64)
    assert json.loads((made.path / "serving.json").read_text())["draws"] == 1
    images = np.random.default_rng(1).random((5, 8, 8, 1)).astype(np.float32)
    loaded = tf.saved_model.load(str(made.path / "saved_model"))
    answer = loaded.signatures["serving_default"](images=tf.constant(images))
    set_noise(model, False)
    np.testing.assert_allclose(answer["probabilities"], inference.predict(model, images), atol=1e-5)
    np.testing.assert_array_equal(answer["spread"], np.zeros((5, 10)))
    set_noise(model, True)


def test_bad_options_are_named(trained, tmp_path):
    with pytest.raises(UserError, match="`draws` should be at least 1. Received: 0"):
        export(trained[0], tmp_path / "export", draws=0)
