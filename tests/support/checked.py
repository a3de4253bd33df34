"""Finished checks stages, and the attacks they are judged on, made by hand."""

import dataclasses

import numpy as np

from l2p_tf import artifacts
from l2p_tf.evaluation.masking.record import (
    FAIL,
    NOT_NEEDED,
    PASS,
    Finding,
    Inspection,
    Share,
    unmeasured,
    write_inspection,
)
from l2p_tf.evaluation.masking.rules import CHECKS
from l2p_tf.evaluation.records import write_records
from support.reports import make_records

COUNT = 100
FOUND = {
    "one_step": Finding("one_step", PASS, (Share("FGSM", 10, 98), Share("PGD-20", 15, 98)), 1.0),
    "black_box": Finding(
        "black_box", FAIL, (Share("PGD-20", 4, 98), Share("Square-500", 90, 98), Share("Square-500 alone", 86, 98)),
        1e-9,
    ),
    "random_search": Finding("random_search", PASS, (Share("noise x100, of the images left", 0, 0),), 1.0),
    "eot": Finding("eot", NOT_NEEDED, reason="no noise"),
    "gradients": Finding("gradients", FAIL, (Share("no usable gradient", 98, 98),), 1e-99),
}  # fmt: skip


def make_checks(root, train, data, found=None, folder="checks", checkpoint="best", count=COUNT, **fields):
    """A finished checks stage; what is not among `found` was not measured."""
    found = FOUND if found is None else found
    findings = tuple(found.get(check, unmeasured(check)) for check in CHECKS)
    with artifacts.produce(
        root / folder, "checks", {"checkpoint": checkpoint}, {"train": train, "data": data}, seed=5
    ) as work:
        write_inspection(work.path, Inspection(**{
            "model": train.options["name"], "dataset": "digits", "split": "test", "norm": "linf", "epsilon": 8 / 255,
            "randomized": False, "draws": 1, "prediction_draws": 1, "seed": 5, "count": count, "correct": 98,
            "seconds": 2.0, "findings": findings, **fields,
        }))  # fmt: skip
    return artifacts.read(root / folder)


def make_attacked(root, train, data, attacks, stage="attack", folder=None, wrong_when_clean=0, inputs=None, **fields):
    """An attack stage of `{(spec, label, norm, epsilon, steps, draws): images fooled}` with arrays; several lists of
    images are repeats."""
    fooled = {("clean", "clean", None, None, 0, 1): range(wrong_when_clean), **attacks}
    folder = folder or f"{train.path.name}_{stage}"
    inputs = inputs or {"train": train, "data": data}
    with artifacts.produce(root / folder, stage, {"checkpoint": "best"}, inputs, seed=5) as work:
        (work.path / "arrays").mkdir()
        records = []
        for number, (attack, images) in enumerate(fooled.items()):
            for repeat, mine in enumerate(images if isinstance(images, list) else [images]):
                correct = ~np.isin(np.arange(COUNT), [*mine, *range(wrong_when_clean)])
                file = f"arrays/{number}-{repeat}.npz"
                # Positions in the split, in an order of their own.
                order = np.random.default_rng(number).permutation(COUNT) if stage == "transfer" else np.arange(COUNT)
                np.savez(work.path / file, correct=correct[order], index=7 * order)
                right = int(correct.sum())
                (one,) = make_records(train.options["name"], [right], [attack], COUNT, **fields)
                records.append(dataclasses.replace(one, arrays=file, repeat=repeat, reached=COUNT - right))
        write_records(work.path, records)
    return artifacts.read(root / folder)
