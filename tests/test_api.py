"""From Python: models are judged and hardened by one call each, whatever they are and in whatever form images come."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import l2p_tf
from l2p_tf.attacks import FGSM, PGD
from l2p_tf.data import DATASETS
from l2p_tf.defenses import Learn2Perturb, PGDTraining
from l2p_tf.layers.noise import is_randomized
from l2p_tf.types import UserError
from support import foreign

layers = keras.layers
ATTACKS = (FGSM(epsilon=0.1), PGD(epsilon=0.1, steps=2, random_start=False))
PLAIN = {"checks": 0, "input_range": "0..1"}


@pytest.fixture(scope="module")
def digits():
    """Test images, their labels, training images and theirs."""
    source = DATASETS.parse("digits").open("", False)
    parts = (source.test, source.train)
    return tuple(part for split in parts for part in (np.concatenate(list(split.batches())), split.labels))


def test_a_softmax_in_0_to_255_is_judged_as_its_logits(digits, tmp_path):
    images, labels = digits[0][:150], digits[1][:150]
    model = foreign.made([layers.Rescaling(1 / 255)], end="softmax")
    names = [layer.name for layer in model.layers]
    with pytest.warns(UserWarning, match="in a softmax"), pytest.warns(UserWarning, match="takes pixels in 0..255"):
        result = l2p_tf.evaluate(model, images, labels, attacks=foreign.PGD, checks=20, seed=1)
    frame = result.records.set_index("attack")
    expected = foreign.fallen(foreign.made(), images, labels)
    assert abs(frame.loc["pgd(epsilon=0.1, steps=5)", "accuracy"] - (1 - expected.mean())) <= 0.02
    assert len(result.checks) > 5
    assert set(result.checks.epsilon) == {0.1}
    assert [layer.name for layer in model.layers] == names
    assert "Clean" in str(result)
    assert "PGD-5" in str(result)
    assert [one.met for one in result.require("clean>=0.5; worst>=0.9")] == [True, False]
    page = result.report(tmp_path / "page")
    assert "ends in a softmax" in page.read_text("utf-8")


def test_images_come_in_any_form(digits):
    images, labels = digits[0][:70], digits[1][:70]
    forms = {
        "uint8": (images, labels),
        "floats": (images / 255, labels),
        "batches": (tf.data.Dataset.from_tensor_slices((images, labels)).batch(32),),
        "one by one": (tf.data.Dataset.from_tensor_slices((images / 255, labels)),),
        "tensors": (tf.constant(images), tf.constant(labels)),
    }
    model, expected = foreign.made(), _expected(images, labels, ATTACKS)
    for form, given in forms.items():
        assert int(FGSM(epsilon=0.1)(model, *given).wrong.sum()) == 70 - expected[1], form
    for form in ("batches", "floats", "tensors"):
        records = l2p_tf.evaluate(model, *forms[form], attacks=ATTACKS, **PLAIN).records
        assert records["count"].tolist() == [70, 70, 70], form
        assert records.correct.tolist() == expected, form


def _expected(images, labels, attacks):
    """On how many images the model is right, as they are and under each attack."""
    model = foreign.made()
    clean = int((np.asarray(model(images / 255)).argmax(-1) == labels).sum())
    return [clean, *(len(labels) - int(attack(model, images, labels).wrong.sum()) for attack in attacks)]


def test_a_folder_keeps_what_is_done(digits, tmp_path):
    images, labels = digits[0][:40], digits[1][:40]
    how = {**PLAIN, "folder": tmp_path, "name": "mine"}
    first = l2p_tf.evaluate(foreign.made(), images, labels, attacks="fgsm(epsilon=0.1)", **how)
    made = (tmp_path / "mine" / "attack" / "results.json").read_bytes()
    more = l2p_tf.evaluate(foreign.made(), images, labels, attacks=FGSM(epsilon=0.1), **how)
    assert (tmp_path / "mine" / "attack" / "results.json").read_bytes() == made
    assert more.records.seconds.tolist() == first.records.seconds.tolist()
    more = l2p_tf.evaluate(foreign.made(), images, labels, attacks=["mim(epsilon=0.1)"], **how)
    assert more.records.family.tolist() == ["clean", "fgsm", "mim"]
    assert l2p_tf.results(tmp_path).records.family.tolist() == ["clean", "fgsm", "mim"]


class Own(keras.Model):
    """Of a class that this process alone has."""

    def __init__(self):
        super().__init__()
        self.network = foreign.made()

    def call(self, images):
        return {"logits": self.network(images)}


def test_a_subclassed_model_and_functions_of_ones_own(digits):
    images, labels = digits[0][:60], digits[1][:60]
    own = Own()
    own(images[:1] / np.float32(255))
    x = keras.Input(foreign.SHAPE)
    scaled = layers.Activation(lambda y: y * 1.0)(foreign.made()(x))
    attack = PGD(epsilon=0.1, steps=2, random_start=False)
    expected = _expected(images, labels, [attack])
    for model in (own, keras.Model(x, scaled)):
        assert l2p_tf.evaluate(model, images, labels, attacks=attack, **PLAIN).records.correct.tolist() == expected


def test_hardened_models_withstand_more_and_the_first_stays_as_it_was(digits):
    images, labels, train, train_labels = digits
    model = foreign.made([layers.Rescaling(1 / 255)], end="softmax")
    before = [np.array(weight) for weight in model.get_weights()]
    attack = PGD(epsilon=0.1, steps=5)
    defense = PGDTraining(epsilon=0.1, step_size=0.06, steps=3)
    with pytest.warns(UserWarning, match="softmax"), pytest.warns(UserWarning, match="0..255"):
        hard = l2p_tf.harden(model, train, train_labels, defense=defense, epochs=3, batch_size=32, learning_rate=0.02)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    first, second = (attack(one, images, labels).wrong.mean() for one in (foreign.made(), hard))
    assert second < first - 0.05
    with pytest.warns(UserWarning, match="softmax"), pytest.warns(UserWarning, match="0..255"):
        noisy = l2p_tf.harden(
            model, tf.data.Dataset.from_tensor_slices((train[:600], train_labels[:600])).batch(100), epochs=1,
            defense=Learn2Perturb(epsilon=0.1, warmup_epochs=0, steps=2), noise_after=["re_lu*"],
        )  # fmt: skip
    assert is_randomized(noisy)
    assert (np.asarray(noisy(images / 255)).argmax(-1) == labels).mean() > 0.8


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"labels": None}, "`labels` should be given"),
        ({"labels": [0, 1]}, "`labels` should be integers"),
        ({"labels": np.full(30, 12)}, "10 outputs, the data 13 classes"),
        ({"images": np.zeros((30, 8, 8, 1)) - 1}, "in \\[0, 1\\]"),
        ({"images": tf.data.Dataset.range(4), "labels": None}, "a Dataset of"),
        ({"images": tf.data.Dataset.from_tensors((np.zeros((8, 8, 1)), 1)).repeat(), "labels": None}, "that ends"),
        ({"model": "nowhere.keras"}, "no such file"),
        ({"model": 3.0}, "os.PathLike|path"),
        ({"attacks": "unknown"}, "Unknown attack 'unknown'"),
        ({"checks": 3}, "`checks` should be 0"),
        ({"limit": 0}, "`limit` should be at least 1"),
    ],
)
def test_bad_arguments(how, message):
    given = {"model": foreign.made(), "images": np.zeros((30, 8, 8, 1), np.uint8), "labels": np.arange(30) % 10, **how}
    with pytest.raises((UserError, TypeError), match=message):
        l2p_tf.evaluate(given.pop("model"), given.pop("images"), given.pop("labels"), **given)


def test_a_model_with_code_of_its_own_is_not_hardened(digits):
    own = Own()
    own(digits[0][:1] / np.float32(255))
    with pytest.raises(UserError, match="holds a graph, which cannot be trained"):
        l2p_tf.harden(own, digits[0], digits[1], input_range="0..1")


def test_unknown_names():
    assert {"evaluate", "harden", "results"} <= set(dir(l2p_tf))
    assert {"PGD", "AutoAttack"} <= set(dir(__import__("l2p_tf.attacks", fromlist=["x"])))
    for module in ("l2p_tf", "l2p_tf.attacks", "l2p_tf.defenses"):
        with pytest.raises(AttributeError, match="no attribute 'Unknown'"):
            getattr(__import__(module, fromlist=["x"]), "Unknown")  # noqa: B009
