"""Families of runs, with arrays on ten images."""

import itertools
import json

import numpy as np

from l2p_tf import artifacts
from l2p_tf.manifest import sealed
from support.reports import make_data, make_records, make_stage, make_train, of_correct, results_of

CLEAN = ("clean", "clean", None, None, 0, 1)
CW = ("cw", "C&W", "l2", None, 100, 1)
PGD = ("pgd", "PGD-20", "linf", 8 / 255, 20, 1)
# Of ten images two are wrong when clean, and one withstands.
NORMS = np.array([0.1, 0.2, 0.2, 0.3, 0.4, 0.5, 0.6, 9.0, 0.0, 7.0])
RIGHT = np.array([1, 1, 1, 1, 1, 1, 1, 1, 0, 0], bool)
FELL = np.array([1, 1, 1, 1, 1, 1, 1, 0, 1, 1], np.float32)


def fgm(epsilon, spec=None):
    return (spec or f"fgsm(epsilon={epsilon}, norm=l2)", "FGM l2", "l2", epsilon, 1, 1)


def clean_arrays(right=RIGHT, probability=0.9):
    return of_correct(right, probability=np.full(len(right), probability, np.float32))


def minimal_arrays(norms=NORMS, fell=FELL):
    norms = np.asarray(norms, np.float32)
    return of_correct(np.zeros(len(norms)), l2=norms, linf=norms / 10) | {"success": np.asarray(fell, np.float32)}


def bounded_arrays(correct, norm=0.0, probability=None):
    more = {} if probability is None else {"probability": np.full(len(correct), probability, np.float32)}
    return of_correct(correct, l2=np.full(len(correct), norm, np.float32), **more)


def first(count, total=10):
    """So many right ones."""
    return np.arange(total) < count


def make_run(root, data, name, attacks, arrays, *, folder="", checkpoint="best", **options):
    """A training and its attack stage; `arrays` are those of each attack, in order."""
    train = make_train(root, data, name, folder=f"train_{folder or name}", **options)
    records = [
        record
        for attack, values in zip(attacks, arrays, strict=True)
        for record in make_records(name, (int(values["correct"].sum()),), (attack,), count=len(values["correct"]))
    ]
    inputs = {"train": train, "data": data}
    make_stage(root / f"attack_{folder or name}", "attack", inputs, records, arrays, checkpoint=checkpoint)
    return train


def make_swept(root, data, name, defense, sweep, clean, norm, *, pgd=3, **options):
    """A run with so many of ten images right when clean, whose smallest perturbations all have this norm."""
    right = first(clean)
    arrays = [clean_arrays(right), minimal_arrays(np.full(10, norm), np.ones(10)), bounded_arrays(first(pgd), 0.3)]
    return make_run(root, data, name, (CLEAN, CW, PGD), arrays, defense=defense, sweep=sweep, **options)


def make_sweep(root):
    """none; fgsm at three radii, out of order; a generator at two c_L and two widths each; nothing swept of pgd."""
    data = make_data(root)
    trains = [make_swept(root, data, "plain", "none", {}, 8, 0.1, pgd=0)]
    for epsilon, clean, norm in ((0.1, 6, 0.3), (0.02, 8, 0.15), (0.05, 7, 0.2)):
        sweep = {"defense.epsilon": epsilon}
        trains.append(make_swept(root, data, f"f{epsilon}", f"fgsm(epsilon={epsilon})", sweep, clean, norm))
    for (c_l, clean, norm), width in itertools.product(((50, 7, 0.4), (5, 5, 0.8)), (2.0, 1.0)):
        sweep = {"defense.c_l": c_l, "model.width": width}
        name = f"g{c_l} {width:g}"
        trains.append(make_swept(root, data, name, "generator", sweep, clean + int(width) - 1, norm * width, pgd=4))
    trains.append(make_swept(root, data, "vanilla", "pgd", {}, 6, 0.35, pgd=5))
    make_transferred(root, data, trains)
    return root


def make_transferred(root, data, trains, right=((("a", 5), ("b", 7)))):
    """C&W of two other runs, and of each run itself, shown to every run."""
    sources = [make_train(root, data, name, folder=f"source_{name}", defense="none", sweep={}) for name, _ in right]
    records = []
    for train in trains:
        name = train.options["name"]
        for source, count in (*right, (name, 1), (f"a+{name}", 2)):
            records += make_records(name, (count,), (CW,), count=10, source=source)
    inputs = {"data": data, **{f"train:{train.options['name']}": train for train in [*trains, *sources]}}
    make_stage(root / "transfer", "transfer", inputs, records, checkpoint="best")


def one_run(root, attacks, arrays, **options):
    make_run(root, make_data(root), "run", attacks, arrays, **options)
    (evaluated,) = results_of(root).evaluated
    return evaluated


def make_ladder(root, defense="generator", probability=True, **options):
    """FGM at four radii, out of order, and PGD at two."""
    attacks = (CLEAN, fgm(0.4), fgm(0.1), fgm(0.2), fgm(0.3), PGD, ("pgd(epsilon=0.1)", "PGD-20", "linf", 0.1, 20, 1))
    right = (2, 6, 5, 3, 4, 1)
    chances = (0.3, 0.7, 0.6, 0.5, 0.1, 0.1) if probability else (None,) * 6
    norms = (0.4, 0.1, 0.2, 0.3, 0.5, 1.5)
    arrays = [bounded_arrays(first(r), n, p) for r, n, p in zip(right, norms, chances, strict=True)]
    return one_run(root, attacks, [clean_arrays(), *arrays], defense=defense, **options)


def make_kinds(root, *runs):
    """Runs by defense, sweep and more; a run without attacks but for clean images."""
    data = make_data(root)
    for i, (defense, sweep, *more) in enumerate(runs):
        options = more[0] if more else {}
        arrays = [clean_arrays(RIGHT[: options.pop("count", 10)])]
        made_from = options.pop("data", data)
        make_run(root, made_from, f"r{i}", (CLEAN,), arrays, defense=defense, sweep=sweep, **options)
    return results_of(root).evaluated


def make_family(root):
    """Two trainings; noise added to the first by two runs, and to a third that is not there by one."""
    data = make_data(root)
    a = make_swept(root, data, "a", "none", {}, 8, 0.1)
    b = make_swept(root, data, "b", "none", {}, 8, 0.1, seed=4)
    c = make_swept(root, data, "c", "none", {}, 8, 0.1, model="all_conv")
    trains = {"a": a, "b": b, "c": c}
    for name, source in (("a1", a.fingerprint), ("a2", a.fingerprint), ("x1", "f" * 64)):
        trains[name] = make_derived(root, data, name, source)
    records = [
        record
        for target in trains
        for source in ("a", "b", "c", "a1", "a2", "x1", "a1+b")
        for record in make_records(target, (5,), (CW,), count=10, source=source)
    ]
    inputs = {"data": data, **{f"train:{name}": train for name, train in trains.items()}}
    make_stage(root / "transfer", "transfer", inputs, records, checkpoint="best")
    return root


def make_derived(root, data, name, source):
    """What noise was added to afterward, with its attacks."""
    train = make_swept(root, data, name, "noise_at_prediction(std=0.1)", {}, 8, 0.1)
    folder = root / f"train_{name}"
    manifest = json.loads((folder / artifacts.MANIFEST).read_text("utf-8"))
    manifest["inputs"]["source"] = source
    manifest["lineage"]["source"] = {"path": "elsewhere", "stage": "train"}
    artifacts.write_json(folder / artifacts.MANIFEST, sealed(manifest))
    make_stage_of(root, name, train.fingerprint, artifacts.read(folder).fingerprint)
    return artifacts.read(folder)


def make_stage_of(root, name, old, new):
    """Makes the attacks those of the training with its other fingerprint."""
    file = root / f"attack_{name}" / artifacts.MANIFEST
    artifacts.write_json(file, sealed(json.loads(file.read_text("utf-8").replace(old, new))))
