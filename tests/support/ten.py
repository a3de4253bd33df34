"""A report on ten defenses, and another on twelve runs under many attacks."""

import numpy as np

from support.judged import arrays_of, make_judged
from support.reports import make_data, make_train, make_transfer, transferred

COUNT, CLASSES = 200, 10
CLEAN = ("clean", "clean", None, None, 0, 1)
RADII = (0.05, 0.1, 0.2)
ATTACKS = (
    CLEAN,
    *((f"fgsm(epsilon={e})", "FGSM", "linf", e, 1, 1) for e in RADII),
    *((f"pgd(epsilon={e})", "PGD-20", "linf", e, 20, 1) for e in RADII),
    ("cw(steps=100)", "C&W", "l2", None, 100, 1),
)
NAMES = ("none", "fgsm", "pgd", "mat", "trades", "pni", "adv_bnn", "rse", "learn2perturb", "generator")
MANY = (CLEAN, *((f"pgd(epsilon={k / 255})", "PGD-7", "linf", k / 255, 7, 1) for k in range(12, 61, 12)))


def make_ten(root):
    """Ten defenses, each clean and under FGSM and PGD at three radii and under C&W, and what transfers between four."""
    rng = np.random.default_rng(0)
    data = make_data(root)
    labels = np.arange(COUNT) % CLASSES
    hardness = rng.random(COUNT)
    trains = []
    for i, name in enumerate(NAMES):
        arrays = []
        for spec, *_, epsilon, steps, _ in ATTACKS:
            share = 0.98 if spec == "clean" else max(0.02, 0.95 - (epsilon or 9) * (6 - i / 3) - 0.005 * steps)
            right = hardness + rng.normal(0, 0.1, COUNT) < share
            wrong = (labels + rng.integers(1, 3, COUNT)) % CLASSES
            size = {"l2": 0.3 + 0.1 * i + hardness, "success": np.ones(COUNT)} if epsilon is None and steps else {}
            probability = np.where(right, 0.9, 0.2)
            arrays.append(arrays_of(labels, right, np.where(right, labels, wrong), probability, **size))
        trains.append(make_judged(root, data, name, ATTACKS, arrays))
    four = NAMES[:4]
    cells = {(a, b): 10 if a == b else 60 + 30 * four.index(b) for a in four for b in four}
    make_transfer(root, trains[:4], data, transferred(cells))
    return root


def make_many(root):
    """Twelve runs under five attacks, with long names."""
    data = make_data(root)
    for i in range(12):
        right = [np.arange(120) < 110 - 12 * k - i for k in range(len(MANY))]
        labels = np.arange(120) % 10
        arrays = [arrays_of(labels, correct, np.where(correct, labels, (labels + 1) % 10)) for correct in right]
        name = f"adversarially_bayesian_v1_{i:02d}"
        make_judged(root, data, name, MANY, arrays, train=make_train(root, data, name, history=False))
    return root
