"""Exports as ONNX and LiteRT: they answer as the classifier does, and what has noise is refused."""

import importlib.util
import json

import numpy as np
import pytest

from l2p_tf import formats
from l2p_tf.defenses import DEFENSES
from l2p_tf.layers.noise import is_randomized, set_noise
from l2p_tf.models.saving import load_classifier
from l2p_tf.serving import export
from l2p_tf.types import UserError
from support.models import TRAINED, tiny
from support.serving import IMAGES, exported, trained

INSTALLED = {
    kind: all(importlib.util.find_spec(name) is not None for name in packages)
    for kind, packages in formats._PACKAGES.items()
}
EACH = [
    pytest.param(kind, marks=pytest.mark.skipif(not there, reason="needs pip install '.[onnx]'"))
    for kind, there in INSTALLED.items()
]


def ask(kind, folder, images):
    return formats._runtime(kind, folder / formats.FILES[kind])(images)


@pytest.mark.parametrize("kind", EACH)
def test_answers_are_those_of_the_classifier_for_any_batch(kind, tmp_path):
    run = trained(tmp_path, "none")
    made = export(run, tmp_path / "export", kinds=["savedmodel", kind])
    model = load_classifier(run.path / "best.keras")
    for count in (1, 5, 3):
        answer = ask(kind, made.path, IMAGES[:count])
        assert sorted(answer) == ["logits", "probabilities"]
        np.testing.assert_allclose(answer["logits"], model(IMAGES[:count]), atol=1e-4)
        np.testing.assert_allclose(answer["probabilities"].sum(-1), 1, atol=1e-5)
    card = json.loads((made.path / "serving.json").read_text())
    assert card["formats"][kind]["file"] == formats.FILES[kind]
    assert 0 <= card["formats"][kind]["difference"] <= 1e-4
    assert {formats.FILES[kind], "serving.json"} < set(made.manifest["outputs"])


@pytest.mark.parametrize("kind", EACH)
def test_noise_that_is_off_is_none(kind, tmp_path):
    model = tiny(DEFENSES.parse("learn2perturb"))
    set_noise(model, False)
    formats.check([kind], model)
    assert formats.write(model, tmp_path, kind) < 1e-4
    np.testing.assert_allclose(ask(kind, tmp_path, IMAGES)["logits"], model(IMAGES), atol=1e-4)


@pytest.mark.parametrize("kind", EACH)
def test_an_answer_that_differs_is_told(kind, tmp_path, monkeypatch):
    plain = formats._runtime

    def off(*arguments):
        run = plain(*arguments)
        return lambda images: {name: values + 2e-3 for name, values in run(images).items()}

    monkeypatch.setattr(formats, "_runtime", off)
    with pytest.raises(UserError, match="should answer as the model does; its logits differ by 0.002"):
        formats.write(tiny(DEFENSES.parse("none")), tmp_path, kind)


@pytest.mark.parametrize("name", TRAINED)
def test_every_layer_with_noise_is_refused_by_its_name(name, monkeypatch):
    monkeypatch.setattr(formats, "_PACKAGES", {})
    model = tiny(DEFENSES.get(name)())
    if not is_randomized(model):
        formats.check(["onnx", "litert"], model)
        return
    formats.check(["savedmodel"], model)
    with pytest.raises(UserError, match="savedmodel alone: onnx and litert cannot draw the noise of [A-Z]") as told:
        formats.check(["savedmodel", "onnx", "litert"], model)
    assert "\n" not in str(told.value)


def test_nothing_is_made_of_what_cannot_be(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="`formats` should be some of savedmodel, onnx, litert. Received: pb"):
        formats.check(["pb"])
    monkeypatch.setitem(formats._PACKAGES, "onnx", ("no_such_package",))
    with pytest.raises(UserError, match=r"pip install '\.\[onnx\]' \(No module named 'no_such_package'\)"):
        exported(tmp_path, "smoothing", kinds=["onnx"])
    monkeypatch.setattr(formats, "_PACKAGES", {})
    with pytest.raises(UserError, match="cannot draw the noise of"):
        exported(tmp_path, "smoothing", kinds=["litert"])
    assert [p.name for p in tmp_path.iterdir()] == ["train"]
