"""Which certificate fits which model, and the artifact of certificates."""

import dataclasses

import keras
import numpy as np
import pytest

from l2p_tf.certification import run as certification
from l2p_tf.certification.base import CERTIFICATES
from l2p_tf.certification.options import CertificationOptions
from l2p_tf.certification.pixeldp import PixelDP
from l2p_tf.certification.records import COLUMNS, certified_accuracy, read_certificates, read_certified
from l2p_tf.certification.run import certify_artifact, fitting
from l2p_tf.certification.smoothing import Smoothing
from l2p_tf.certification.wiring import stem
from l2p_tf.defenses import DEFENSES
from l2p_tf.layers.activation_noise import FixedNoise
from l2p_tf.layers.bounded_conv import BoundedConv
from l2p_tf.layers.image import ChannelNormalization
from l2p_tf.models.saving import load_classifier, save_classifier
from l2p_tf.types import UserError
from support.halves import DIRECTION, halves
from support.models import tiny
from support.trainings import digits, trained


def test_certificates_fit_the_defenses_of_their_names(tmp_path):
    for name, std in (("smoothing", 0.25), ("pixeldp", DEFENSES.parse("pixeldp").std)):
        save_classifier(tiny(DEFENSES.parse(name)), tmp_path / "it.keras")
        model = load_classifier(tmp_path / "it.keras")
        certificate = CERTIFICATES.parse(name)
        assert certificate.noise(model) == pytest.approx(std)
        other = CERTIFICATES.parse({"smoothing": "pixeldp", "pixeldp": "smoothing"}[name])
        with pytest.raises(UserError, match="Received"):
            other.check(model)
        assert certificate.replace(draws=20, selection_draws=10).certify(
            model, np.zeros((1, 6, 6, 1))
        ).radius.shape == (1,)
    assert [layer.name for layer in stem(model)][:3] == ["normalization", "stem", "stem_noise"]


def test_names_and_labels():
    assert CERTIFICATES.names() == ["pixeldp", "smoothing"]
    for spec, label in (("smoothing(sigma=0.25)", "smoothing 0.25"), ("pixeldp(draws=50)", "PixelDP"),
                        ("pixeldp(bound=hoeffding)", "PixelDP softmax"), ("smoothing", "smoothing")):  # fmt: skip
        certificate = CERTIFICATES.parse(spec)
        assert certificate.spec == spec
        assert certificate.label == label
        assert certificate.confidence == 1 - certificate.alpha


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run directory with data and one model that every certificate fits, as if it had been trained."""
    folder = tmp_path_factory.mktemp("runs")
    data = digits(folder / "data", limit_train=50, limit_test=90)
    keras.utils.set_random_seed(1)
    inputs = keras.Input(data.info.image_shape)
    x = FixedNoise(0.1, seed=3)(BoundedConv(4, 3, normalize=False)(ChannelNormalization([0.5], [1.0])(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(x)))
    return folder, trained(folder / "run" / "train", model, data), data


OPTIONS = CertificationOptions(
    tuple(CERTIFICATES.parse_list("smoothing(sigma=0.05, draws=150); pixeldp(draws=150)")),
    limit=70,
    batch_size=64,
    seed=3,
)


@pytest.fixture(scope="module")
def certified(made):
    """Both certificates of the model: the folder and the records."""
    folder, training, data = made
    return folder / "certified", certify_artifact(OPTIONS, training, data, folder / "certified")


def test_an_interrupted_certification_goes_on_to_the_same_arrays(made, certified, tmp_path, monkeypatch):
    _, training, data = made
    folder, whole = certified
    calls = []
    certify = Smoothing.certify

    def failing(self, model, images, *arguments, **how):
        calls.append(len(images))
        if len(calls) == 3:
            raise RuntimeError("power cut")
        return certify(self, model, images, *arguments, **how)

    monkeypatch.setattr(Smoothing, "certify", failing)
    with pytest.raises(RuntimeError, match="power cut"):
        certify_artifact(OPTIONS, training, data, tmp_path / "cut")
    assert not (tmp_path / "cut").exists()
    again = certify_artifact(OPTIONS, training, data, tmp_path / "cut")
    assert calls == [32, 32, 6, 6]
    assert [dataclasses.replace(r, seconds=0) for r in again] == [dataclasses.replace(r, seconds=0) for r in whole]
    for record in whole:
        one, other = (read_certified(place, record) for place in (folder, tmp_path / "cut"))
        for name in COLUMNS:
            np.testing.assert_array_equal(one[name], other[name])
    left = {p.relative_to(tmp_path / "cut").as_posix() for p in (tmp_path / "cut").rglob("*") if p.is_file()}
    assert left == {"manifest.json", "certificates.json", "arrays/00.npz", "arrays/01.npz"}
    # Done is done; other options are not the same work.
    assert certify_artifact(OPTIONS, training, data, tmp_path / "cut") == again
    assert len(calls) == 4
    with pytest.raises(UserError, match="Pass --overwrite"):
        certify_artifact(dataclasses.replace(OPTIONS, seed=4), training, data, tmp_path / "cut")


def test_records_say_what_the_arrays_hold(made, certified, tmp_path):
    _, _, data = made
    folder, records = certified
    assert read_certificates(folder) == records
    assert [(r.label, r.sigma, r.draws, r.confidence) for r in records] == [
        ("smoothing 0.05", 0.05, 150, 0.999), ("PixelDP", 0.1, 150, 0.95),
    ]  # fmt: skip
    for record in records:
        arrays = read_certified(folder, record)
        kinds = {"index": np.int64, "label": np.int32, "prediction": np.int32}
        assert {name: array.dtype for name, array in arrays.items()} == {
            name: np.dtype(kinds.get(name, np.float32)) for name in COLUMNS
        }
        np.testing.assert_array_equal(arrays["label"], data.split("test")[1][arrays["index"]])
        assert record.count == 70
        assert record.correct == (arrays["prediction"] == arrays["label"]).sum()
        assert record.abstained == (arrays["prediction"] == -1).sum()
        assert ((arrays["radius"] == 0) == (arrays["prediction"] == -1)).all()
        assert (record.model, record.dataset, record.split, record.seed) == ("run", "digits", "test", 3)
    (tmp_path / "certificates.json").write_text("{}")
    with pytest.raises(UserError, match="should hold the results of a certify stage"):
        read_certificates(tmp_path)
    with pytest.raises(UserError, match="should hold the per-example arrays"):
        read_certified(tmp_path, records[0])


def test_certified_accuracy_counts_all_examples():
    label, prediction, radius = [0, 1, 2, 2], [0, 1, -1, 1], [0.5, 0.2, 0.0, 0.9]
    for least, share in ((0.0, 0.5), (0.2, 0.5), (0.3, 0.25), (0.5, 0.25), (0.6, 0.0)):
        assert certified_accuracy(label, prediction, radius, least) == share


def test_the_certificates_that_fit_are_told_from_the_others(made, monkeypatch):
    _, training, _ = made
    kept, reasons = fitting(CERTIFICATES.parse_list("smoothing; pixeldp"), training)
    assert [certificate.spec for certificate in kept] == ["pixeldp"]
    assert len(reasons) == 1
    assert "`sigma` of smoothing should be given" in reasons[0]
    monkeypatch.setattr(certification, "load_classifier", lambda path: halves(DIRECTION))
    assert fitting([PixelDP()], training)[0] == []


def test_the_stages_certify(made, capsys, monkeypatch):
    from stages import attack, calls, pipeline, settings

    read = settings.read

    def flags(*arguments):
        monkeypatch.setattr(settings, "read", lambda: read(arguments))
        return read(arguments)

    folder, training, data = made
    common = [f"--run_dir={folder}", "--name=run", "--limit=20", "--checks=0"]
    flags(*common, "--certify=smoothing(sigma=0.1, draws=60); pixeldp(draws=60)")
    attack.main([])
    shown = capsys.readouterr().out
    assert "Certified accuracy in percent" in shown
    assert "smoothing 0.1" in shown
    assert "n = 20" in shown
    assert "0.25" in shown
    assert len(read_certificates(folder / "run" / "certify")) == 2
    assert not (folder / "run" / "attack").exists()
    attack.main([])
    assert "certified (up to date)" in capsys.readouterr().out
    given = flags(*common, "--certify=smoothing; pixeldp(draws=60)", "--overwrite")
    with pytest.raises(UserError, match="`sigma` of smoothing should be given"):
        attack.main([])
    records = calls.certify(given, "run", training, data, fitting_only=True)
    assert [record.label for record in records] == ["PixelDP"]
    assert "run: not certified: `sigma` of smoothing should be given" in capsys.readouterr().out
    given = flags(*common, "--certify=smoothing")
    assert calls.certify(given, "run", training, data, fitting_only=True) == []
    # Told before the first training.
    monkeypatch.setattr(calls, "train", lambda *_: pytest.fail("trained"))
    monkeypatch.setattr(calls, "data", lambda *_: pytest.fail("prepared"))
    flags("--certify=magic", "--defense=none", f"--run_dir={folder}")
    with pytest.raises(UserError, match="Unknown certificate 'magic'"):
        pipeline.main([])
