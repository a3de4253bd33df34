"""Each thing that is looked at, by a small model that has it; what cannot be used is refused in a line."""

from __future__ import annotations

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from l2p_tf.certification.base import CERTIFICATES
from l2p_tf.contract import BEWARE, FITS, MENDED
from l2p_tf.evaluation.other_data import check_data
from l2p_tf.imported.opening import _range_of
from l2p_tf.layers import ranges
from l2p_tf.layers.noise import draws_per_example, is_randomized
from l2p_tf.types import UserError
from support import foreign
from support.foreign import assert_same, classifier_of, imported

layers = keras.layers
CODE = """
import keras
import tensorflow as tf

class Shaken(keras.layers.GaussianNoise):
    def call(self, inputs, training=None):
        return super().call(inputs, training=True)

class Saturated(keras.layers.Layer):
    def call(self, x):
        return tf.clip_by_value(1000.0 * x - 0.5, 0.0, 1.0)

class Whole(keras.layers.Layer):
    def call(self, x):
        return tf.cast(tf.cast(16.0 * x, tf.int32), tf.float32) / 16.0

class Rooted(keras.layers.Layer):
    def call(self, x):
        return tf.sqrt(x)

class Own(keras.Model):
    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def call(self, images, training=False):
        return {"classes": tf.nn.softmax(self.inner(images, training=training)), "constant": images[:, 0, 0]}

    def get_config(self):
        return {"inner": keras.saving.serialize_keras_object(self.inner)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["inner"]))
"""


@pytest.fixture
def code(tmp_path):
    """A module with layers of its own, and what it defines."""
    path = tmp_path / "own.py"
    path.write_text(CODE)
    found = {}
    exec(compile(CODE, str(path), "exec"), found)
    return path, found


def test_a_model_with_code_of_its_own_is_run_only_where_asked_and_kept_as_a_graph(code, data, judged, tmp_path):
    path, own = code
    model = own["Own"](foreign.made(), name="own")
    model(np.zeros((1, *foreign.SHAPE), np.float32))
    with pytest.raises(UserError, match=r"Could not locate.*; --custom_objects=FILE.py names a file"):
        imported(model, data, tmp_path)
    run, found = imported(model, data, tmp_path, custom_objects=str(path), output="classes")
    assert found["origin"].verdict == BEWARE
    assert "own.py, which was run" in found["origin"].text
    assert found["outputs"].verdict == MENDED
    assert_same(classifier_of(run), judged)


def test_code_in_a_lambda_layer_is_not_run(data, judged, tmp_path, code):
    model = foreign.made([layers.Lambda(lambda x: x / 255.0)])
    with pytest.raises(UserError, match=r"Lambda.*--custom_objects"):
        imported(model, data, tmp_path)
    run, found = imported(model, data, tmp_path, custom_objects=str(code[0]))
    assert_same(classifier_of(run), judged)
    assert "takes pixels in 0..255" in found["input range"].text


def test_hidden_noise_makes_it_randomized_and_seeded(code, data, judged, tmp_path):
    path, own = code
    run, found = imported(foreign.made([own["Shaken"](0.3)]), data, tmp_path, custom_objects=str(path))
    model = classifier_of(run)
    assert "judged as a randomized model, with one draw a pass" in found["noise"].text
    assert run.manifest["notes"]["randomized"]
    assert is_randomized(model)
    assert not draws_per_example(model)
    with pytest.raises(UserError, match="so that votes are not independent"):
        CERTIFICATES.parse("smoothing(sigma=0.25)").check(model)
    images, labels, _ = judged
    first, again = (foreign.fallen(model, images, labels) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(model(images[:4] / 255.0), model(images[:4] / 255.0))


@pytest.mark.parametrize("nested", [False, True])
def test_noise_that_was_called_in_training_stays(nested, data, judged, tmp_path):
    x = keras.Input(foreign.SHAPE)
    model = keras.Model(x, foreign.made(end="softmax")(layers.GaussianNoise(0.3, name="noise")(x, training=True)))
    if nested:
        y = keras.Input(foreign.SHAPE)
        model = keras.Model(y, model(layers.Rescaling(1.0)(y)))
    run, found = imported(model, data, tmp_path)
    assert found["noise"].verdict == found["outputs"].verdict == MENDED
    assert "Its layers noise were called with training=True, and stay so" in found["noise"].text
    model, images, labels = classifier_of(run), *judged[:2]
    assert is_randomized(model)
    first, again = (foreign.fallen(model, images, labels) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    noise = np.asarray(model(np.repeat(images[:1] / 255, 400, 0)))
    assert np.std(noise, 0).min() > 0.1


@pytest.mark.parametrize(
    ("layer", "text"),
    [("Saturated", "is zero on 8 of 8 images"), ("Whole", "is missing"), ("Rooted", "is not finite on 8 of 8 images")],
)
def test_a_gradient_that_misleads_is_told(layer, text, code, data, tmp_path):
    path, own = code
    _, found = imported(foreign.made([own[layer]()]), data, tmp_path, custom_objects=str(path))
    assert found["gradient"].verdict == BEWARE
    assert text in found["gradient"].text


ORDER = [3, 1, 4, 5, 9, 2, 6, 8, 7, 0]


def shuffled(units=foreign.CLASSES):
    """The network with its classes at other outputs, and perhaps more outputs."""
    plain = foreign.made()
    kernel, bias = np.zeros((256, units), np.float32), np.full(units, -50.0, np.float32)
    kernel[:, ORDER], bias[ORDER] = plain.get_layer("dense").get_weights()
    model = keras.Model(plain.input, layers.Dense(units)(plain.get_layer("dropout").output))
    model.layers[-1].set_weights([kernel, bias])
    return model


def test_classes_in_another_order_are_noticed_and_mapped(data, judged, tmp_path):
    _, found = imported(shuffled(), data, tmp_path)
    assert found["classes"].verdict == BEWARE
    order = ",".join(map(str, ORDER))
    assert f"--class_map={order}" in found["classes"].text
    (tmp_path / "mapped").mkdir()
    run, found = imported(shuffled(), data, tmp_path / "mapped", class_map=tuple(ORDER))
    assert found["classes"].verdict == MENDED
    assert_same(classifier_of(run), judged)


def test_classes_of_many_outputs_are_mapped(data, judged, tmp_path):
    with pytest.raises(UserError, match=r"1000 outputs, the data 10 classes: `--class_map` should give"):
        imported(shuffled(1000), data, tmp_path)
    run, _ = imported(shuffled(1000), data, tmp_path, class_map=tuple(ORDER))
    assert_same(classifier_of(run), judged)


@pytest.mark.parametrize("wrap", ["list", "dictionary"])
def test_of_several_outputs_one_is_taken(wrap, data, judged, tmp_path):
    plain = foreign.made(end="softmax")
    features = plain.get_layer("dropout").output
    outputs = [features, plain.output] if wrap == "list" else {"features": features, "classes": plain.output}
    model = keras.Model(plain.input, outputs)
    name = "dense" if wrap == "list" else "classes"
    with pytest.raises(UserError, match=rf"`--output` should be one of the model's outputs: .*{name}"):
        imported(model, data, tmp_path)
    run, found = imported(model, data, tmp_path, output=name)
    assert_same(classifier_of(run), judged)
    assert found["outputs"].verdict == MENDED


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_other_precisions_become_float32_logits(policy, data, judged, tmp_path):
    weights = foreign.taught()
    keras.config.set_dtype_policy(policy)
    try:
        model = foreign.network([layers.Rescaling(1 / 255)], end="softmax")
        model.set_weights(weights)
    finally:
        keras.config.set_dtype_policy("float32")
    run, found = imported(model, data, tmp_path)
    model = classifier_of(run)
    images, labels, expected = judged
    answers = model(images.astype(np.float32) / 255)
    assert answers.dtype == tf.float32
    assert np.mean(np.asarray(answers).argmax(-1) == labels) > 0.85
    assert np.mean(foreign.fallen(model, images, labels) == expected) > 0.9
    assert found["outputs"].verdict == MENDED


def test_the_range_is_said_or_not_told(data, tmp_path):
    _, found = imported(foreign.made(), data, tmp_path, input_range="-1..1")
    assert "takes pixels in -1..1, as --input_range says. It is right on" in found["input range"].text
    (tmp_path / "raw").mkdir()
    keras.utils.set_random_seed(0)
    _, found = imported(foreign.network(), data, tmp_path / "raw")
    assert found["input range"].verdict == BEWARE
    assert "hardly better than chance" in found["input range"].text


@pytest.mark.parametrize(("mode", "name"), [("tf", "-1..1"), ("torch", "torch"), ("caffe", "caffe")])
def test_ranges_are_those_of_keras_applications(mode, name):
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 3)).astype(np.float32)
    expected = keras.applications.imagenet_utils.preprocess_input(images.copy(), mode=mode)
    x = keras.Input((5, 4, 3))
    found = keras.Model(x, ranges.in_range(x, name))(images / np.float32(255))
    np.testing.assert_allclose(found, expected, atol=1e-3 if mode == "caffe" else 1e-5)


def test_an_application_says_what_it_expects():
    names = {"ResNet50": "caffe", "MobileNetV2": "-1..1", "DenseNet121": "torch", "EfficientNetB0": "0..255"}
    assert {name: _range_of(getattr(keras.applications, name)) for name in names} == names


def test_an_imported_run_is_judged_on_any_data_that_fit(data, tmp_path):
    run, _ = imported(foreign.made(), data, tmp_path)
    assert "data" not in run.manifest["inputs"]
    check_data(run, data)
    other = type(data)(data.artifact)
    other.info = data.info.__class__(**{**vars(data.info), "num_classes": 9, "class_names": tuple("123456789")})
    with pytest.raises(UserError, match=r"images of 8x8x1 in 10 classes, as the model takes them.* 8x8x1 in 9"):
        check_data(run, other)


def reads_files(folder):
    """A SavedModel whose answers depend on a file."""
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec((None, *foreign.SHAPE), tf.float32)])
    def serve(images):
        return tf.zeros((tf.shape(images)[0], 10)) + tf.cast(
            tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32
        )

    module.serve = serve
    tf.saved_model.save(module, str(folder), signatures={"serving_default": serve})
    return folder


def flat(shape, *last):
    return keras.Sequential([keras.Input(shape), *last])


REFUSED = {
    "sigmoid": (lambda _: foreign.made(end="sigmoid"), {}, "It ends in a sigmoid"),
    "shape": (lambda _: flat((9, 8, 1), layers.Flatten(), layers.Dense(10)), {}, "8x8x1. It takes: 9x8x1"),
    "rank": (lambda _: flat((64,), layers.Dense(10)), {}, "put a Reshape or Flatten layer before"),
    "output": (lambda _: foreign.made(), {"output": "none"}, "`--output` should be one of the model's outputs: dense"),
    "nested": (lambda folder: nested(folder), {}, "holds a TFSMLayer, which reads a SavedModel from elsewhere"),
    "signature": (lambda folder: unsigned(folder / "saved"), {}, "should have the signature 'serving_default'.*: none"),
    "damaged saved": (lambda folder: damaged(folder / "saved"), {}, "should be the folder of a TensorFlow SavedModel"),
    "answers": (lambda _: flat((8, 8, 1), layers.Conv2D(10, 3)), {}, r"should answer \(batch, classes\)"),
    "map": (lambda _: foreign.made(), {"class_map": (0,) * 10}, "10 different numbers from 0 to 9"),
    "missing": (lambda folder: folder / "none.keras", {}, "none.keras', no such file"),
    "kind": (lambda folder: written(folder / "model.onnx"), {}, "a .onnx file"),
    "folder": (lambda folder: folder, {}, "a folder"),
    "damaged": (lambda folder: written(folder / "a.keras"), {}, "should be a Keras model: File is not a zip file"),
    "damaged h5": (lambda folder: written(folder / "a.h5"), {}, "should be a Keras model: .*signature not found"),
    "files": (lambda folder: reads_files(folder / "saved"), {}, "Its operations reach beyond it: ReadFile"),
    "network": (lambda _: "keras_application(name=Net)", {}, "`name` of keras_application should be one of .*VGG16"),
    "option": (lambda _: "keras_application(depth=3)", {}, "has no option 'depth'. Its options: name, weights"),
    "small": (lambda _: "keras_application(name=MobileNetV2)", {}, "cannot be made: "),
    "code": (lambda folder: written(folder / "a.keras"), {"custom_objects": "no.py"}, "`--custom_objects` should be"),
    "preset": (lambda _: "kaggle://keras/resnet", {}, "needs keras_hub"),
}


def nested(folder):
    foreign.made().export(folder / "saved", verbose=False)
    images = keras.Input(foreign.SHAPE)
    return keras.Model(images, layers.TFSMLayer(str(folder / "saved"), call_endpoint="serve")(images))


def unsigned(folder):
    tf.saved_model.save(tf.Module(), str(folder))
    return folder


def damaged(folder):
    foreign.made().export(folder, verbose=False)
    (folder / "saved_model.pb").write_bytes(b"no program")
    return folder


def written(path):
    pathlib.Path(path).write_bytes(b"no model")
    return path


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_used_is_refused_in_a_line(kind, data, tmp_path):
    make, how, message = REFUSED[kind]
    with pytest.raises(UserError, match=message) as told:
        imported(make(tmp_path), data, tmp_path, **how)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "train").exists()
    assert not (tmp_path / "train.partial").exists()


def test_a_good_model_has_nothing_to_mend(data, tmp_path):
    _, found = imported(foreign.made(), data, tmp_path)
    assert {finding.verdict for finding in found.values()} == {FITS}
