"""Artifacts of data, trainings and attacks, as their stages leave them, made by hand: what a report is of."""

import csv
import dataclasses

import numpy as np

from l2p_tf import artifacts
from l2p_tf.evaluation.records import CLEAN, Record, write_records
from l2p_tf.reporting.format import plain
from l2p_tf.reporting.load import Evaluation, Run, find, gather
from l2p_tf.reporting.measured import Match
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import registered

ATTACKS = (
    ("clean", "clean", None, None, 0, 1),
    ("fgsm", "FGSM", "linf", 8 / 255, 1, 1),
    ("pgd(step_size=0.01, steps=7)", "PGD-7", "linf", 8 / 255, 7, 1),
    ("pgd(draws=10)", "PGD-20 EOT-10", "linf", 8 / 255, 20, 10),
)


# Correct answers of 360 for each attack above.
CORRECT = {"none": (354, 90, 20, 20), "pgd": (350, 300, 290, 289), "learn2perturb": (349, 310, 301, 296)}


def make_data(root, names=None, name="digits"):
    options = {"dataset": name, "seed": 0}
    with artifacts.produce(root / "data", "data", options, seed=0) as work:
        info = {"name": name, "title": f"{name} (8x8)", "image_shape": [8, 8, 1], "num_classes": 10}
        info["class_names"] = names or [str(i) for i in range(10)]
        info["counts"] = {"train": 1000, "validation": 200, "test": 360}
        artifacts.write_json(work.path / "info.json", info)
    return artifacts.read(root / "data")


def make_train(root, data, name="pgd", folder=None, epochs=12, layers=3, history=True, **options):
    noisy = name.startswith("learn2perturb")
    resolved = {
        "name": name, "defense": "learn2perturb(gamma=0.0001)" if noisy else name, "model": "resnet_v1(depth=8)",
        "epochs": epochs, "batch_size": 128, "learning_rate": 0.1, "seed": 3, "published": "", **options,
    }  # fmt: skip
    path = root / (folder or f"train_{name}")
    with artifacts.produce(path, "train", resolved, {"data": data}, seed=3) as work:
        (work.path / "best.keras").write_bytes(b"weights of " + name.encode("utf-8", "replace"))
        if history:
            write_history(work.path / "history.csv", epochs, layers if noisy else 0)
        work.notes.update(parameters=78_330, noise_parameters=4_096 if noisy else 0, best_epoch=epochs - 1)
        work.notes.update(images_per_second=1234.5, seconds_per_epoch=1.2)
    return artifacts.read(path)


def write_history(path, epochs, layers):
    t = np.arange(epochs)
    columns = {"epoch": t, "learning_rate": 0.1 + 0 * t, "seconds": 1.0 + 0 * t, "loss": 2.3 * np.exp(-t / epochs)}
    columns |= {"clean_loss": columns["loss"] * 0.8, "adversarial_loss": columns["loss"] * 1.2}
    columns |= {
        "clean_accuracy": 1 - np.exp(-4 * t / epochs),
        "adversarial_accuracy": 0.8 * (1 - np.exp(-3 * t / epochs)),
    }
    columns |= {"validation_accuracy": columns["clean_accuracy"] * 0.97}
    robust = 0.78 * columns["adversarial_accuracy"]
    columns |= {"validation_robust_accuracy": ["" if i % 2 else v for i, v in enumerate(robust)]}
    columns |= {"noise_active": (t >= (epochs // 3 if layers else epochs)).astype(int), "tau": 1 + 0.1 * t}
    for i in range(layers):
        mean = 0.25 + (i + 1) * 0.02 * np.maximum(0, t - epochs // 3) / epochs * 3
        columns |= {
            f"theta/noise_{i}/min": mean * 0.4,
            f"theta/noise_{i}/mean": mean,
            f"theta/noise_{i}/max": mean * 1.7,
        }
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def make_records(name, correct=CORRECT["pgd"], attacks=ATTACKS, count=360, randomized=False, repeats=1, **fields):
    return [
        Record(**{
            "model": name, "dataset": "digits", "split": "test", "attack": spec, "label": label, "norm": norm,
            "epsilon": epsilon, "steps": steps, "restarts": 1, "draws": draws,
            "prediction_draws": 1, "backend": "l2p_tf", "source": None, "repeat": repeat,
            "seed": repeat, "randomized": randomized, "count": count, "correct": right + 2 * repeat,
            "reached": count - right - 2 * repeat, "invalid": 0,
            "gradients": 1.0, "forwards": 1.0, "seconds": 0.5, "arrays": "arrays/0.npz", **fields,
        })
        for (spec, label, norm, epsilon, steps, draws), right in zip(attacks, correct, strict=True)
        for repeat in range(repeats)
    ]  # fmt: skip


def make_attack(
    root, train, data, records, folder=None, checkpoint="best", examples=6, shape=(8, 8, 1), notes=(), **options
):
    specs = list(dict.fromkeys(record.attack for record in records if record.attack != CLEAN))
    labels = [next(record.label for record in records if record.attack == spec) for spec in specs]
    resolved = {
        "attacks": specs,
        "split": "test",
        "limit": 0,
        "repeats": 2,
        "seed": 5,
        "checkpoint": checkpoint,
        **options,
    }
    path = root / (folder or train.path.name.replace("train", "attack"))
    rng = np.random.default_rng(0)
    with artifacts.produce(path, "attack", resolved, {"train": train, "data": data}, seed=5) as work:
        work.notes.update(notes)
        write_records(work.path, records)
        clean = rng.random((examples, *shape), np.float32)
        noise = rng.uniform(-8 / 255, 8 / 255, (len(specs), *clean.shape)).astype(np.float32)
        np.savez(
            work.path / "gallery.npz",
            clean=clean, label=np.arange(examples, dtype=np.int32) % 10,
            clean_prediction=np.arange(examples, dtype=np.int32) % 10,
            clean_confidence=np.full(examples, 0.98, np.float32), attacks=np.array(labels, dtype=np.str_),
            adversarial=np.clip(clean + noise, 0, 1),
            prediction=rng.integers(0, 10, (len(specs), examples)).astype(np.int32),
            confidence=rng.random((len(specs), examples), np.float32),
        )  # fmt: skip
    return artifacts.read(path)


def make_runs(root):
    """Three runs on digits: none, pgd, learn2perturb (randomized, two repeats), each under three attacks."""
    data = make_data(root)
    for name, correct in CORRECT.items():
        train = make_train(root, data, name)
        noisy = name == "learn2perturb"
        make_attack(root, train, data, make_records(name, correct, randomized=noisy, repeats=2 if noisy else 1))
    return root


PGD = ("pgd", "PGD-20", "linf", 8 / 255, 20, 1)
DEEPFOOL = ("deepfool", "DeepFool", "l2", None, 50, 1)
FAB = ("fab(norm=linf)", "FAB linf", "linf", None, 100, 1)
CLEAN_ATTACK = ATTACKS[0]


def make_stage(folder, stage, inputs, records, arrays=None, **options):
    """A finished attack or transfer stage; `arrays` are those of each record, in order."""
    kept = [dataclasses.replace(record, arrays=f"arrays/{i}.npz") for i, record in enumerate(records)]
    with artifacts.produce(folder, stage, {"seed": 5, **options}, inputs, seed=5) as work:
        write_records(work.path, kept)
        for i, values in enumerate(arrays or []):
            (work.path / "arrays").mkdir(exist_ok=True)
            np.savez(work.path / f"arrays/{i}.npz", **values)
    return artifacts.read(folder)


def of_correct(correct, **more):
    """Per-example arrays in which these examples are classified correctly and everything else follows."""
    correct = np.array(correct, bool)
    zeros = np.zeros(len(correct), np.float32)
    found = {"index": np.arange(len(correct)), "correct": correct, "success": (~correct).astype(np.float32)}
    return found | {"l0": zeros, "l2": zeros, "linf": zeros} | {k: np.asarray(v, np.float32) for k, v in more.items()}


def records_of(name, attacks, arrays, **fields):
    """One record for each attack, with the counts of its arrays."""
    correct = [int(values["correct"].sum()) for values in arrays]
    return make_records(name, correct, attacks, count=len(arrays[0]["correct"]), **fields)


def make_transfer(root, trains, data, records, folder="transfer", **options):
    inputs = {"data": data, **{f"train:{train.options['name']}": train for train in trains}}
    return make_stage(root / folder, "transfer", inputs, records, **options)


def transferred(cells, attack=PGD, count=200, **fields):
    """Records of `{(source, target): correct}`."""
    return [
        record
        for (source, target), correct in cells.items()
        for record in make_records(target, (correct,), (attack,), count=count, source=source, **fields)
    ]


MATRIX = {("a", "a"): 20, ("a", "b"): 150, ("b", "a"): 120, ("b", "b"): 80, ("a+b", "a"): 40, ("a+b", "b"): 90}


def make_transferred(root, records=None):
    """Two trainings, each attacked, and a transfer between the two."""
    data = make_data(root)
    trains = [make_train(root, data, name) for name in ("a", "b")]
    for train in trains:
        make_attack(root, train, data, make_records(train.options["name"]))
    make_transfer(root, trains, data, transferred(MATRIX) if records is None else records)
    return root


def make_minimal(root):
    """One training under DeepFool and FAB: eight images, of which two are wrong before and one withstands."""
    data = make_data(root)
    train = make_train(root, data)
    clean = of_correct([1, 1, 1, 1, 1, 1, 0, 0])
    sizes = [1.0, 2.0, 3.0, 6.0, 10.0, 99.0, 50.0, 0.0]
    deepfool = of_correct([0, 0, 0, 0, 0, 1, 0, 0], l2=sizes, linf=np.array(sizes) / 100)
    deepfool["success"] = np.array([1, 1, 1, 0.5, 1, 0.49, 1, 1], np.float32)
    fab = of_correct([1, 1, 1, 1, 1, 1, 0, 0], linf=np.full(8, 0.1))
    arrays = [clean, deepfool, fab]
    records = records_of("pgd", (CLEAN_ATTACK, DEEPFOOL, FAB), arrays)
    make_stage(root / "attack", "attack", {"train": train, "data": data}, records, arrays)
    return root


def make_backends(root, other_index=None):
    """One training under the same PGD by both backends: ten images, on three of which the two disagree."""
    data = make_data(root)
    train = make_train(root, data)
    clean = of_correct([1] * 10)
    for name, backend, correct, seconds in (
        ("attack", "l2p_tf", [1, 1, 1, 1, 0, 0, 0, 0, 0, 0], 0.5),
        ("attack_cleverhans", "cleverhans", [1, 1, 1, 0, 1, 1, 0, 0, 0, 0], 20.0),
    ):
        arrays = [clean, of_correct(correct)]
        if backend == "cleverhans" and other_index is not None:
            arrays[1]["index"] = other_index
        records = records_of("pgd", (CLEAN_ATTACK, PGD), arrays, seconds=seconds)
        records[1] = dataclasses.replace(records[1], backend=backend)
        make_stage(root / name, "attack", {"train": train, "data": data}, records, arrays, backends=[backend])
    return root


def runs_of(records):
    """Runs made of bare records, one per model name."""
    groups = {}
    for record in records:
        groups.setdefault(record.model, []).append(record)
    return [Run(plain(name), name, evaluations=(Evaluation(tuple(group)),)) for name, group in groups.items()]


def results_of(source, *match):
    """The results in a folder, or of bare records; `match` are clean accuracies and perhaps a tolerance."""
    return Results(runs_of(source) if isinstance(source, list) else gather(find([source])), Match(*match))


def section_of(source, name, *match):
    """A section of the results in a folder, of bare records, or of results; None where they have nothing for it."""
    results = source if isinstance(source, Results) else results_of(source, *match)
    (make,) = (entry.make for entry in registered() if entry.name == name)
    return make(results)


def rows_of(section, *columns):
    """Some columns of a section's figures: a list with a tuple for each row; single values for a single column."""
    rows = section.figures[list(columns)].itertuples(index=False)
    return [row[0] if len(columns) == 1 else tuple(row) for row in rows]


def texts_of(table):
    """The lines of each cell of a table, row by row."""
    return [[cell.lines for cell in row] for row in table.rows]
