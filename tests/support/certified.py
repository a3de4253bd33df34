"""Finished certify stages, made by hand."""

import numpy as np

from l2p_tf import artifacts
from l2p_tf.certification.records import CertificateRecord, write_certificates

LABEL = [0, 1, 2, 3, 4, 5, 6, 7]
# Five are right, one is wrong though its radius is the largest, two were abstained from.
PREDICTION = [0, 1, 2, 3, 4, 0, -1, -1]
RADIUS = [0.125, 0.25, 0.625, 1.0, 1.5, 2.0, 0.0, 0.0]


def arrays_of(radius=RADIUS, prediction=PREDICTION, label=LABEL):
    count = len(label)
    found = {"index": np.arange(count), "label": np.array(label, np.int32)}
    found |= {"prediction": np.array(prediction, np.int32), "radius": np.array(radius, np.float32)}
    return found | {name: np.full(count, 0.5, np.float32) for name in ("lower", "upper")}


def make_certify(root, train, data, arrays=None, folder="certify", checkpoint="best", **fields):
    """A finished certify stage of `{label: arrays}`; the spec of each is that of its sigma."""
    records = []
    arrays = {"smoothing 0.25": arrays_of()} if arrays is None else arrays
    with artifacts.produce(
        root / folder, "certify", {"checkpoint": checkpoint}, {"train": train, "data": data}, seed=5
    ) as work:
        (work.path / "arrays").mkdir()
        for i, (label, values) in enumerate(arrays.items()):
            np.savez_compressed(work.path / f"arrays/{i:02d}.npz", **values)
            prediction = values["prediction"]
            records.append(CertificateRecord(**{
                "model": train.options["name"], "dataset": "digits", "split": "test",
                "certificate": f"smoothing(n={i})",
                "label": label, "sigma": 0.25, "draws": 10_000, "confidence": 0.999, "seed": 5,
                "count": len(prediction),
                "correct": int((prediction == values["label"]).sum()), "abstained": int((prediction == -1).sum()),
                "seconds": 2.0, "arrays": f"arrays/{i:02d}.npz", **fields,
            }))  # fmt: skip
        write_certificates(work.path, records)
    return artifacts.read(root / folder)
