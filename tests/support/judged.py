"""Attack stages made of arrays, image by image."""

import dataclasses

import numpy as np

from support.reports import ATTACKS, make_records, make_stage, make_train, of_correct, records_of


def arrays_of(labels, right, prediction, probability=None, **more):
    """Per-example arrays as an attack stage writes them."""
    right, zeros = np.asarray(right, bool), np.zeros(len(labels), np.float32)
    found = {"index": np.arange(len(labels)), "label": np.asarray(labels, np.int32), "correct": right}
    found |= {"prediction": np.asarray(prediction, np.int32), "success": (~right).astype(np.float32)}
    found |= {"l0": zeros, "l2": zeros, "linf": zeros}
    return found | ({} if probability is None else {"probability": np.asarray(probability, np.float32)}) | more


def make_judged(root, data, name, attacks, arrays, repeats=1, train=None, **fields):
    """A training, and an attack stage with these arrays: those of all repeats of an attack, then of the next."""
    train = train or make_train(root, data, name)
    correct = [int(values["correct"].sum()) for values in arrays]
    records = make_records(name, [0] * len(attacks), attacks, count=len(arrays[0]["label"]), repeats=repeats, **fields)
    records = [dataclasses.replace(r, correct=c, reached=r.count - c) for r, c in zip(records, correct, strict=True)]
    make_stage(root / f"attack_{name}", "attack", {"train": train, "data": data}, records, arrays)
    return train


PGD = ATTACKS[2]


def judged(root, data, name, clean, attacked, attacks=(PGD,), index=None, **fields):
    """A training under attacks; `clean` and each of `attacked` say, repeat by repeat, which images are right."""
    train = make_train(root, data, name, history=False)
    records, arrays = [], []
    for repeat in range(len(clean)):
        values = [of_correct(one[repeat]) for one in (clean, *attacked)]
        for one in values:
            one["index"] = np.arange(len(one["correct"])) if index is None else index
        records += records_of(name, (ATTACKS[0], *attacks), values, repeat=repeat, **fields)
        arrays += values
    make_stage(root / f"attack_{name}", "attack", {"train": train, "data": data}, records, arrays)
    return train
