"""The cases of the golden files that other tests use."""

from l2p_tf.reporting import report
from support.certified import RADIUS, arrays_of, make_certify
from support.checked import make_attacked, make_checks
from support.reports import make_attack, make_data, make_minimal, make_records, make_train


def make_all_certified(root):
    """Two trainings, each attacked and certified at two levels of noise, one of them by its last weights."""
    data = make_data(root)
    for name, checkpoint in (("smooth", "best"), ("plain", "last")):
        train = make_train(root, data, name)
        make_attack(root, train, data, make_records(name), f"attack_{name}")
        arrays = {"smoothing 0.25": arrays_of(), "smoothing 0.5": arrays_of(RADIUS[::-1])}
        make_certify(root, train, data, arrays, f"certify_{name}", checkpoint)


def make_checked(root):
    """Two trainings, one with a checks stage, both with attacks that fool a number of images each."""
    data = make_data(root)
    attacks = {
        ("fgsm", "FGSM", "linf", 8 / 255, 1, 1): range(40),
        ("pgd", "PGD-20", "linf", 8 / 255, 20, 1): range(60),
        ("square", "Square", "linf", 8 / 255, 500, 1): range(5, 75),
    }
    for name in ("pgd", "none"):
        train = make_train(root, data, name)
        make_attacked(root, train, data, attacks, wrong_when_clean=2)
        if name == "pgd":
            make_checks(root, train, data)


def make_repeated(root):
    """One training that was judged twice: without per-image results on more images, with them on fewer."""
    make_minimal(root)
    train, data = (report.artifacts.read(path) for path in (root / "train_pgd", root / "data"))
    make_attack(root, train, data, make_records("pgd", repeats=2))
