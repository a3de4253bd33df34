"""Results as others may have left them: what is read is as it was written, or refused in a line that names the file."""

import dataclasses
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2p_tf import artifacts
from l2p_tf.certification.records import CertificateRecord, read_certificates, read_certified, write_certificates
from l2p_tf.data.store import DataInfo
from l2p_tf.evaluation.masking.record import Finding, Inspection, Share, read_inspection, write_inspection
from l2p_tf.evaluation.records import COLUMNS, read_records, write_records
from l2p_tf.schema import Column, read_arrays
from l2p_tf.types import UserError
from support import damage
from support.reports import make_records

CERTIFICATE = CertificateRecord("a", "digits", "test", "smoothing", "s", 0.25, 9, 0.99, 1, 4, 2, 1, 0.5, "arrays/0.npz")
FINDINGS = (Finding("one_step", "pass", (Share("FGSM", 1, 4),), 0.5), Finding("loss", "not measured", reason="few"))
INSPECTION = Inspection("a", "digits", "test", "linf", 0.1, False, 1, 1, 5, 4, 3, 1.5, FINDINGS)
INFO = DataInfo(
    "digits", "Digits", "digits", (8, 8, 1), 2, ("zero", "one"), {"train": 4, "validation": 0, "test": 2},
    {"train": [2, 2]}, (0.5,), (0.25,), 0, False, "made", "here",
)  # fmt: skip
FILES = {
    "results.json": (lambda folder: write_records(folder, make_records("a")), read_records),
    "certificates.json": (lambda folder: write_certificates(folder, [CERTIFICATE]), read_certificates),
    "checks.json": (lambda folder: write_inspection(folder, INSPECTION), read_inspection),
    "info.json": (
        lambda folder: artifacts.write_json(folder / "info.json", dataclasses.asdict(INFO)),
        lambda folder: DataInfo.read(folder / "info.json"),
    ),
}
NUMBERS = {"correct": "count", "reached": "count", "count": 2**53, "abstained": "count", "draws": 2**53}


def plain(value):
    """As JSON, with each number's type."""
    return json.dumps(
        dataclasses.asdict(value) if dataclasses.is_dataclass(value) else [*map(dataclasses.asdict, value)]
    )


@pytest.mark.parametrize("name", FILES)
def test_files_are_read_as_values_of_their_types_or_refused(name, tmp_path):
    write, read = FILES[name]
    write(tmp_path)
    file = tmp_path / name
    whole, kept = file.read_bytes(), read(tmp_path)

    @settings(max_examples=60)
    @given(st.data())
    def check(data):
        file.write_bytes(damage.in_json(data.draw, whole))
        try:
            found = read(tmp_path)
        except UserError as error:
            assert str(file) in str(error)  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
        else:
            # Whatever it says now, it is of the types and within the bounds that the rest relies on.
            for one, like in zip(*(v if isinstance(v, list) else [v] for v in (found, kept)), strict=False):
                for field in dataclasses.fields(one):
                    value, other = getattr(one, field.name), getattr(like, field.name)
                    assert isinstance(value, type(other)) or None in (value, other), field.name
                    if field.name in NUMBERS:
                        most = NUMBERS[field.name]
                        assert 0 <= value <= (getattr(one, most) if isinstance(most, str) else most)

    check()
    file.write_bytes(whole)
    assert plain(read(tmp_path)) == plain(kept)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("correct", -1, r"Expected `int` >= 0 - at `\$.records\[0\].correct`"),
        ("correct", 361, "at most `count`, 360"),
        ("count", 0, ">= 1"),
        ("count", True, "got `bool`"),
        ("steps", 1.5, "got `float`"),
        ("seconds", "1", "got `str`"),
        ("norm", "l3", "Invalid enum value 'l3'"),
        ("arrays", "../0.npz", "should name files in its folder"),
        ("epsilon", -0.1, ">= 0"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, field, value, message):
    write_records(tmp_path, make_records("a"))
    held = json.loads((tmp_path / "results.json").read_text())
    held["records"][0][field] = value
    (tmp_path / "results.json").write_text(json.dumps(held))
    with pytest.raises(UserError, match=f"results.json' should hold the results of an attack stage: .*{message}"):
        read_records(tmp_path)


def stored(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


GOOD = {
    "index": np.arange(4), "label": np.array([0, 1, 2, 3], np.int32), "prediction": np.array([0, 1, 2, 9], np.int32),
    "correct": np.array([True, True, True, False]), "probability": np.array([0.5, 1, np.nan, 0], np.float32),
    "success": np.array([0, 0, 0, 1], np.float32), "success_8bit": np.zeros(4, np.float32),
    "l0": np.zeros(4, np.float32), "l1": np.ones(4, np.float32), "l2": np.ones(4, np.float32),
    "linf": np.ones(4, np.float32), "gradients": np.zeros(4, np.int32), "forwards": np.ones(4, np.int32),
}  # fmt: skip


@settings(max_examples=60)
@given(st.data())
def test_arrays_are_read_as_they_were_written_or_refused(tmp_path_factory, data):
    file = tmp_path_factory.getbasetemp() / "arrays.npz"
    file.write_bytes(damage.in_bytes(data.draw, stored(**GOOD), data.draw(st.sampled_from(["flip", "cut"]))))
    try:
        found = read_arrays(file, COLUMNS, "hold arrays", 4)
    except UserError as error:
        assert str(file) in str(error)  # noqa: PT017
        assert len(str(error).splitlines()) == 1  # noqa: PT017
    else:
        for name, array in GOOD.items():
            np.testing.assert_array_equal(found[name], array)


BAD = [
    ("label", np.array([0, 1, 2, 2**31 - 1], np.int32)), ("label", np.array([-1, 0, 0, 0])),
    ("label", np.zeros(4)), ("label", np.zeros((4, 1), np.int32)), ("label", np.zeros(5, np.int32)),
    ("correct", np.zeros(4, np.int32)), ("probability", np.full(4, 1.5)), ("success", np.full(4, np.nan)),
    ("l2", np.full(4, np.inf)), ("l2", np.full(4, -1.0)), ("gradients", np.full(4, -1)),
    ("index", np.array(["a"] * 4)), ("index", np.array([None] * 4)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "array"), BAD, ids=lambda value: value if isinstance(value, str) else str(value.dtype)
)
def test_arrays_of_other_types_shapes_and_numbers_are_refused(tmp_path, name, array):
    file = tmp_path / "0.npz"
    file.write_bytes(stored(**{**GOOD, name: array}))
    with pytest.raises(UserError, match=f"0.npz' should hold arrays: `{name}`"):
        read_arrays(file, COLUMNS, "hold arrays", 4)


def test_what_a_header_promises_is_not_allocated(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**11,)})
    import zipfile

    with zipfile.ZipFile(tmp_path / "0.npz", "w") as archive:
        archive.writestr("l2.npy", header.getvalue())
    with pytest.raises(UserError, match=r"`l2` has shape \(100000000000,\) .* more than 1,073,741,824 bytes"):
        read_arrays(tmp_path / "0.npz", {"l2": Column("f")}, "hold arrays", 10**11)


def test_certificates_have_classes_and_finite_radii(tmp_path):
    (tmp_path / "arrays").mkdir()
    good = {
        "index": np.arange(4), "label": np.arange(4, dtype=np.int32), "prediction": np.array([-1, 1, 2, 3], np.int32),
        "radius": np.ones(4, np.float32), "lower": np.ones(4, np.float32), "upper": -np.ones(4, np.float32),
    }  # fmt: skip
    file = tmp_path / "arrays" / "0.npz"
    file.write_bytes(stored(**good))
    assert list(read_certified(tmp_path, CERTIFICATE)) == list(good)
    for name, value in (("label", -1), ("prediction", -2), ("radius", np.nan), ("radius", -1)):
        file.write_bytes(stored(**{**good, name: np.full(4, value, np.asarray(good[name]).dtype)}))
        with pytest.raises(UserError, match=f"should hold the per-example arrays of a certify stage: `{name}`"):
            read_certified(tmp_path, CERTIFICATE)
