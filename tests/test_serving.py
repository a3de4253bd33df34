import errno
import json
import textwrap
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from tensorflow.core.protobuf import saved_model_pb2

from l2p_tf import artifacts, inference
from l2p_tf.defenses import DEFENSES
from l2p_tf.layers.noise import set_noise
from l2p_tf.models import MODELS
from l2p_tf.models.saving import save_classifier
from l2p_tf.serving import Served, export
from l2p_tf.types import UserError
from support.models import linear
from support.stages import python

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
    for count in json.loads(sys.argv[3]):
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


def serve(path, tmp_path, counts):
    output = tmp_path / "answers.json"
    python(textwrap.dedent(PROGRAM), path, output, counts, cwd=tmp_path)
    return json.loads(output.read_text())


def test_served_where_neither_this_package_nor_keras_is(trained, tmp_path):
    artifact, model = trained
    # A training in the same process sets Keras's and TensorFlow's seeds, which are not in the file.
    keras.utils.set_random_seed(0)
    made = export(artifact, tmp_path / "export", draws=64, class_names=["a"] * 10)
    answers, others = (serve(made.path / "saved_model", tmp_path, counts) for counts in ([1, 50], [1]))
    assert answers["serve_uint8-1"]["probabilities"] != others["serve_uint8-1"]["probabilities"]
    rng = np.random.default_rng(0)
    for count in (1, 50):
        images = rng.integers(0, 256, (count, 8, 8, 1), np.uint8)
        expected = inference.predict(model, images, draws=2000)
        for name in ("serve_uint8", "serving_default"):
            answer = {k: np.array(v) for k, v in answers[f"{name}-{count}"].items()}
            probabilities, spread = answer["probabilities"], answer["spread"]
            assert probabilities.shape == spread.shape == (count, 10)
            assert answer["changed"]  # Fresh noise in every request.
            np.testing.assert_array_equal(answer["predictions"], probabilities.argmax(-1))
            # The mean of 64 draws lies within a few of its own standard errors of the long-run mean; of hundreds of
            # probabilities near 0, which few draws tell, one may be farther off.
            error = np.abs(probabilities - expected) / np.maximum(spread / np.sqrt(64), 1e-3)
            assert np.quantile(error, 0.99) < 5
            assert error.max() < 12
            assert spread.mean() > 1e-3
    card = json.loads((made.path / "serving.json").read_text())
    assert card["draws"] == 64
    assert card["signatures"]["serve_uint8"]["images"]["shape"] == [None, 8, 8, 1]


@pytest.mark.parametrize(
    ("told", "number"), [("x.tempstate1; No space left on device [Op:SaveV2]", errno.ENOSPC), ("broken", errno.EIO)]
)
def test_what_cannot_be_written_is_told_as_the_system_does(trained, tmp_path, monkeypatch, told, number):
    def fail(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, told)

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError, match=told[:6]) as error:
        export(trained[0], tmp_path / "export")
    assert (error.value.errno, error.value.filename) == (number, str(tmp_path / "export.partial" / "saved_model"))


def test_without_noise_the_answers_are_the_classifiers(trained, tmp_path):
    artifact, model = trained
    made = export(artifact, tmp_path / "export", checkpoint="last", draws=64)
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


def saved(model, folder, draws=1):
    """The signatures of a model that was saved for serving and loaded again."""
    served = Served(model, draws)
    tf.saved_model.save(served, str(folder), signatures=served.signatures())
    return tf.saved_model.load(str(folder)).signatures


class AlwaysNoisy(keras.layers.GaussianNoise):
    """Keras's noise, which it takes for something of training alone, at prediction too."""

    def call(self, inputs, training=False):
        del training
        return super().call(inputs, training=True)


def with_keras_noise():
    keras.utils.set_random_seed(0)
    layers = [AlwaysNoisy(0.5, seed=1), keras.layers.Flatten(), keras.layers.Dense(4)]
    return keras.Sequential([keras.Input((3, 3, 1)), *layers])


NOISY = {
    "ours": lambda: linear(np.random.default_rng(0).normal(size=(3, 3, 1, 4)), noise=0.5),
    "one draw a batch": lambda: linear(np.random.default_rng(0).normal(size=(3, 3, 1, 4)), noise=0.5, sharing="batch"),
    "of Keras": with_keras_noise,
}


@pytest.mark.parametrize("kind", NOISY)
def test_requests_at_the_same_time_share_no_noise(kind, tmp_path):
    serve = saved(NOISY[kind](), tmp_path)["serving_default"]
    image = tf.fill([1, 3, 3, 1], 0.5)

    def ask(count, into):
        for _ in range(count):
            into.append(serve(images=image)["probabilities"].numpy()[0])

    one_by_one, together = [], []
    ask(2000, one_by_one)
    threads = [threading.Thread(target=ask, args=(125, together)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({answer.tobytes() for answer in one_by_one}) == len({answer.tobytes() for answer in together}) == 2000
    for former, latter in zip(np.transpose(one_by_one), np.transpose(together), strict=True):
        # Means, spreads and whole distributions are the same; of a million runs of a test one may fail by chance.
        assert stats.ttest_ind(former, latter).pvalue > 1e-6
        assert stats.levene(former, latter).pvalue > 1e-6
        assert stats.ks_2samp(former, latter).pvalue > 1e-6


@pytest.mark.parametrize("kind", NOISY)
def test_draws_of_one_request_differ_and_nothing_of_seeds_is_saved(kind, tmp_path):
    answer = saved(NOISY[kind](), tmp_path, draws=3)["serving_default"](images=tf.fill([2, 3, 3, 1], 0.5))
    assert np.all(answer["spread"] > 0)
    copies = np.ptp(answer["probabilities"], axis=0)
    assert np.all(copies == 0) if kind == "one draw a batch" else np.all(copies > 0)
    file = saved_model_pb2.SavedModel.FromString((tmp_path / "saved_model.pb").read_bytes())
    functions = {f.signature.name: f for f in file.meta_graphs[0].graph_def.library.function}
    # What restores the weights when the model is loaded is all that writes.
    writing = {name for name, f in functions.items() if any("Assign" in node.op for node in f.node_def)}
    assert {name for name in writing if "restore" not in name} == set()
    assert any(node.op == "StatelessRandomUniformFullIntV2" for f in functions.values() for node in f.node_def)
    weights = tf.train.load_checkpoint(str(tmp_path / "variables" / "variables"))
    # The states of seed generators would be of int64.
    assert tf.int64 not in weights.get_variable_to_dtype_map().values()


@pytest.fixture(scope="module")
def refusing(tmp_path_factory):
    keras.utils.set_random_seed(0)
    model = MODELS.parse("resnet_v1(depth=8, width=0.25)").build((8, 8, 1), 10)
    return saved(model, tmp_path_factory.mktemp("refusing"))


@pytest.mark.parametrize("name", ["serving_default", "serve_uint8"])
def test_wrong_shapes_are_refused_and_no_images_give_no_answers(refusing, name):
    dtype = tf.uint8 if name == "serve_uint8" else tf.float32
    for shape in ([1, 64, 1, 1], [2, 4, 16, 1], [8, 8, 1], [1, 8, 8, 3], [64]):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"images.* is not compatible with .*\[\?,8,8,1\]"):
            refusing[name](images=tf.zeros(shape, dtype))
    answer = refusing[name](images=tf.zeros([0, 8, 8, 1], dtype))
    assert answer["probabilities"].shape == answer["spread"].shape == (0, 10)
    assert answer["predictions"].shape == (0,)
    assert [answer[key].dtype for key in sorted(answer)] == [tf.int64, tf.float32, tf.float32]


@pytest.mark.parametrize("bad", [255.0, -0.01, np.nan, np.inf, -np.inf])
def test_numbers_out_of_range_are_refused(refusing, bad):
    images = np.full((3, 8, 8, 1), 0.5, np.float32)
    images[1, 2, 3] = bad
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"`images` should be finite and in \[0, 1\]. Received"):
        refusing["serving_default"](images=tf.constant(images))
    # What rounding may bring about is not.
    images[1, 2, 3] = np.nextafter(np.float32(1), np.float32(2))
    assert refusing["serving_default"](images=tf.constant(images))["probabilities"].shape == (3, 10)


class Logarithm(keras.layers.Layer):
    """No number where a pixel is 0."""

    def call(self, x):
        return tf.math.log(x) * 0.0


def test_what_is_served_is_what_was_judged(tmp_path):
    model = linear(np.zeros((2, 2, 1, 3)), bias=[0.0, 200.0, 200.00002])
    inputs = keras.Input((2, 2, 1))
    model = keras.Model(inputs, model(inputs + Logarithm()(inputs)))
    images = np.full((3, 2, 2, 1), 0.5, np.float32)
    images[1, 0, 0] = 0.0
    answer = saved(model, tmp_path)["serving_default"](images=tf.constant(images))
    # The second is no number, and of the others a softmax would have rounded two classes to the same.
    assert answer["predictions"].numpy().tolist() == [2, -1, 2]
    probabilities, votes = inference.predict_with_votes(model, images)
    np.testing.assert_array_equal(answer["predictions"], inference.decided(votes))
    np.testing.assert_allclose(answer["probabilities"], probabilities, atol=1e-6)
    assert not answer["probabilities"][1].numpy().any()
