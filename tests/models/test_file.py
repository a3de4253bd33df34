"""Models made elsewhere as architectures: what they answer, where noise is put into them, and what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from l2p_tf.defenses import DEFENSES
from l2p_tf.layers.activation_noise import FixedNoise
from l2p_tf.layers.batch_norm import frozen_statistics
from l2p_tf.layers.noise import noise_layers, set_noise
from l2p_tf.layers.perturbation_injection import PerturbationInjection
from l2p_tf.models.file import File
from l2p_tf.models.injection import points_of
from l2p_tf.types import UserError
from support.models import residual
from support.stages import error, stage

layers = keras.layers
SHAPE = (8, 8, 1)
RNG = np.random.default_rng(0)
IMAGES = RNG.random((6, *SHAPE), dtype=np.float32)


def sequential():
    body = [layers.Rescaling(1 / 255), layers.Conv2D(4, 3, name="conv"), layers.BatchNormalization(name="norm")]
    nested = keras.Sequential([keras.Input((6, 6, 4)), layers.Conv2D(4, 3, name="second", activation="relu")])
    return keras.Sequential(
        [keras.Input(SHAPE), *body, nested, layers.Flatten(), layers.Dense(4, activation="softmax")]
    )


def saved(model, folder, ending="keras"):
    """An architecture of the model in a file."""
    model.save(folder / f"mine.{ending}")
    return File(path=str(folder / f"mine.{ending}"), input_range="auto")


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.parametrize(("make", "scale"), [(lambda: residual(end="softmax"), 1.0), (sequential, 255.0)])
@pytest.mark.filterwarnings("ignore:No layer of")
def test_a_file_answers_as_it_did(make, scale, ending, tmp_path):
    model = make()
    built = saved(model, tmp_path, ending).build(SHAPE, 4, mean=(0.3,), std=(0.2,))
    np.testing.assert_allclose(tf.nn.softmax(built(IMAGES)), model(scale * IMAGES), atol=1e-6)
    assert built.output.dtype == "float32"


@pytest.mark.filterwarnings("ignore:No layer of")
def test_nothing_tells_the_range_but_the_option(tmp_path):
    model = residual()
    file = saved(model, tmp_path)
    with pytest.warns(UserWarning, match="No layer of .* tells which pixels"):
        file.build(SHAPE, 4)
    np.testing.assert_allclose(
        file.replace(input_range="-1..1").build(SHAPE, 4)(IMAGES), model(2 * IMAGES - 1), atol=1e-5
    )


def outputs(model):
    return {layer.name: type(layer) for layer in noise_layers(model)}


@pytest.mark.filterwarnings("ignore:No layer of")
@pytest.mark.parametrize(
    ("defense", "noise_after", "expected"),
    [
        ("learn2perturb", (), {"stem_output": PerturbationInjection, "sum_output": PerturbationInjection}),
        ("learn2perturb", ("re*", "inner_n*"), {"re_lu_output", "inner_norm_output"}),
        ("learn2perturb(points=convolutions)", (), {"stem_noise", "inner_norm_noise"}),
        ("learn2perturb(points=(input, blocks))", ("last",), {"input_noise", "last_output"}),
        ("rse", (), {"stem_noise": FixedNoise, "inner_conv_noise": FixedNoise}),
        ("smoothing", (), {"pixel_noise": FixedNoise}),
    ],
)
def test_noise_lies_where_it_is_asked_for(defense, noise_after, expected, tmp_path):
    model = residual()
    model.get_layer(index=-3).name = "re_lu"
    file = saved(model, tmp_path).replace(noise_after=noise_after)
    built = file.build(SHAPE, 4, DEFENSES.parse(defense).factory(0))
    found = outputs(built)
    assert found == expected if isinstance(expected, dict) else set(found) == expected
    assert np.any(np.asarray(built(IMAGES)) != np.asarray(built(IMAGES)))
    set_noise(built, False)
    np.testing.assert_allclose(built(IMAGES), model(IMAGES), atol=1e-6)


def test_default_points():
    def named(model, which):
        everything = {id(one): one.name for one in model._flatten_layers()}
        return {everything[key] for key in getattr(points_of(model), which)}

    plain = sequential()
    assert named(plain, "outputs") == named(plain, "normalized") == {"norm", "second"}
    assert named(plain, "convolutions") == {"conv", "second"}
    dense = keras.Sequential([keras.Input(SHAPE), layers.Flatten(), layers.Dense(4, name="a"), layers.Dense(4)])
    assert named(dense, "outputs") == {"a"}
    x = keras.Input((4, 4, 1))
    y = layers.Conv2D(1, 1, name="conv")(x)
    # A sum of tensors, however it is written, ends a block; one with a number does not.
    model = keras.Model(x, layers.Flatten()((x + y) + 1.0))
    assert len(points_of(model).outputs) == 2


def test_a_layer_that_is_called_twice_gets_noise_twice(tmp_path):
    x = images = keras.Input(SHAPE)
    conv = layers.Conv2D(1, 3, padding="same", name="conv")
    model = keras.Model(images, layers.Dense(4)(layers.Flatten()(conv(conv(x)))))
    built = (
        saved(model, tmp_path).replace(input_range="0..1").build(SHAPE, 4, DEFENSES.parse("learn2perturb").factory(0))
    )
    assert set(outputs(built)) == {"conv_output", "conv_output_2"}
    set_noise(built, False)
    np.testing.assert_allclose(built(IMAGES), model(IMAGES), atol=1e-6)


def test_a_network_of_keras_applications(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=4, classifier_activation=None)
    file = saved(model, tmp_path).replace(input_range="-1..1", noise_after=("*_add",))
    built = file.build((32, 32, 3), 4, DEFENSES.parse("pni(noise=activations)").factory(0))
    assert len(noise_layers(built)) == sum(layer.name.endswith("_add") for layer in model.layers) == 10
    images = RNG.random((2, 32, 32, 3), dtype=np.float32)
    set_noise(built, False)
    np.testing.assert_allclose(built(images), model(2 * images - 1), atol=1e-5)


def test_frozen_statistics_are_those_of_keras_layers_too():
    model = residual()
    moving = model.get_layer("block").get_layer("inner_norm").non_trainable_variables

    @tf.function
    def run():
        with frozen_statistics(model):
            return model(IMAGES, training=True)

    before = [np.array(variable) for variable in moving]
    run()
    for value, variable in zip(before, moving, strict=True):
        np.testing.assert_array_equal(value, variable)
    model(IMAGES, training=True)
    assert np.any(before[0] != np.asarray(moving[0]))


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(4)

    def call(self, x):
        return self.dense(keras.ops.reshape(x, (-1, 64)))


def frozen():
    model = residual()
    model.trainable = False
    return model


@pytest.mark.parametrize(
    ("make", "asked", "message"),
    [
        (residual, {"shape": (9, 9, 1)}, "should take images of 9x9x1 .* takes 8x8x1"),
        (residual, {"classes": 7}, "tell 7 classes apart.* tells 4"),
        (residual, {"noise_after": ("nowhere",)}, "fit the name of a layer, of stem, inner_conv.*'nowhere'"),
        (residual, {"path": ""}, "`path` should be"),
        (residual, {"path": "missing.keras"}, "missing.keras', no file"),
        (residual, {"path": "."}, "which holds none"),
        (frozen, {}, "all its layers are frozen"),
        (Own, {}, "should be a Keras model"),
    ],
)
def test_what_cannot_be_trained_is_refused(make, asked, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = make()
    model(IMAGES)
    shape, classes = asked.pop("shape", SHAPE), asked.pop("classes", 4)
    file = saved(model, tmp_path).replace(**{"input_range": "0..1", **asked})
    with pytest.raises(UserError, match=message):
        file.build(shape, classes)


def test_noise_on_weights_needs_a_network_of_this_package(tmp_path):
    defense = DEFENSES.parse("pni")
    built = saved(residual(), tmp_path).replace(input_range="0..1").build(SHAPE, 4, defense.factory(0))
    with pytest.raises(UserError, match="no layer of ParametricWeights"):
        defense.trainer(built, 0, 10)


DATA = ("--dataset=digits", "--limit_train=120", "--limit_test=20")
SHORT = ("--epochs=1", "--batch_size=60", "--validation_limit=10", "--validation_attack=fgsm(epsilon=0.1)")


def test_a_file_and_a_run_are_trained_on_by_command(tmp_path):
    model = residual(classes=10)
    model.save(tmp_path / "mine.keras")
    runs = f"--run_dir={tmp_path / 'runs'}"
    stage("importer", *DATA, runs, f"--model_file={tmp_path / 'mine.keras'}", "--input_range=0..1")
    given = (f"--model=file(path='{tmp_path / 'mine.keras'}', input_range='0..1')", "--noise_after=s*m")
    noisy = "--defense=learn2perturb(steps=1, warmup_epochs=0)"
    said = stage("train", *DATA, runs, *SHORT, *given, noisy)
    assert "learn2perturb: trained" in said.stdout
    stage("train", *DATA, runs, *SHORT, "--model=file(path=mine)", "--defense=none")
    manifest = (tmp_path / "runs" / "learn2perturb" / "train" / "manifest.json").read_text()
    assert "file(path='mine.keras', input_range='0..1', noise_after=('s*m',))" in manifest
    assert str(tmp_path / "mine") not in manifest
    residual(classes=10).save(tmp_path / "mine.keras")
    assert "was made with" in error("train", *DATA, runs, *SHORT, *given, noisy)
    assert "--noise_after" in error("train", *DATA, runs, *SHORT, noisy, "--noise_after=s*m")
