import keras
import numpy as np
import pytest

from l2p_tf.defenses import DEFENSES
from l2p_tf.models import MODELS
from l2p_tf.models.base import trainable_parameters
from l2p_tf.models.saving import load_classifier, save_classifier
from l2p_tf.types import UserError

# Learn2Perturb, Tables 1 and 2; noise parameters not counted.
PARAMETERS = {
    "resnet_v1(depth=20)": 269_722,
    "resnet_v1(depth=32)": 464_154,
    "resnet_v1(depth=44)": 658_586,
    "resnet_v1(depth=56)": 853_018,
    "resnet_v1(depth=20, width=1.5)": 605_026,
    "resnet_v1(depth=20, width=2)": 1_073_962,
    "resnet_v1(depth=20, width=4)": 4_286_026,
    "resnet_v2(depth=18)": 11_173_962,
}


@pytest.mark.parametrize(("spec", "count"), PARAMETERS.items())
@pytest.mark.parametrize("defense", ["none", "learn2perturb"])
def test_parameters_are_the_papers(spec, count, defense):
    model = MODELS.parse(spec).build((32, 32, 3), 10, DEFENSES.parse(defense).factory(0))
    assert trainable_parameters(model) == count
    if defense == "learn2perturb" and spec == "resnet_v1(depth=20)":
        theta = sum(int(np.prod(v.shape)) for v in model.trainable_variables if v.name == "theta")
        assert theta == 4 * 32 * 32 * 16 + 3 * 16 * 16 * 32 + 3 * 8 * 8 * 64


@pytest.mark.parametrize("name", MODELS.names())
@pytest.mark.parametrize("defense", DEFENSES.names())
@pytest.mark.parametrize("shape", [(8, 8, 1), (15, 9, 3)])
def test_any_image_size_and_exact_saving(name, defense, shape, tmp_path):
    spec = f"{name}(width=0.125)"
    factory = DEFENSES.parse(defense).factory(0)
    model = MODELS.parse(spec).build(shape, 7, factory, mean=(0.5,), std=(0.25,))
    x = np.random.default_rng(0).random((3, *shape)).astype(np.float32)
    logits = model(x)
    assert logits.shape == (3, 7)
    assert logits.dtype == "float32"
    save_classifier(model, tmp_path / "m.keras")
    again = load_classifier(tmp_path / "m.keras")
    for a, b in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert [p.name for p in tmp_path.iterdir()] == ["m.keras"]


def test_bad_options_are_named():
    with pytest.raises(UserError, match=r"6k\+2.*Received: 21"):
        MODELS.parse("resnet_v1(depth=21)")
    with pytest.raises(UserError, match=r"one of 10, 18, 34. Received: 50"):
        MODELS.parse("resnet_v2(depth=50)")


def test_files_that_are_no_classifier_are_refused(tmp_path):
    path = tmp_path / "m.keras"
    with pytest.raises(UserError, match="should be a classifier"):
        load_classifier(path)
    path.write_bytes(b"not a zip")
    with pytest.raises(UserError, match="should be a classifier"):
        load_classifier(path)
    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save(path)
    with pytest.raises(UserError, match="from images"):
        load_classifier(path)
    save_classifier(MODELS.parse("resnet_v1(depth=8, width=0.1)").build((8, 8, 1), 2), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="should be a classifier"):
        load_classifier(path)


@pytest.mark.filterwarnings("ignore")
def test_code_in_a_file_is_not_run(tmp_path):
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.Lambda(lambda x: x * 2)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    model.save(tmp_path / "m.keras")
    with pytest.raises(UserError, match="should be a classifier"):
        load_classifier(tmp_path / "m.keras")
