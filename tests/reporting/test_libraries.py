"""The worst of several libraries' attacks, image by image."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from support.reports import (
    CLEAN_ATTACK,
    make_data,
    make_stage,
    make_train,
    of_correct,
    records_of,
    rows_of,
    section_of,
    texts_of,
)

PGD, APGD = (("pgd", "PGD-20", "linf", 0.1, 20, 1), ("apgd", "APGD", "linf", 0.1, 100, 1))
OTHERS = (("foolbox(attack=PGD)", "PGD", "linf", 0.1, 40, 1), ("art(attack=A)", "A", "linf", 0.1, 9, 1))
PLACE = np.arange(40)


def made(root, backends, corrects, specs=(PGD, APGD, *OTHERS), repeats=1, **fields):
    """A stage with an attack for each backend; `corrects` are bool, (40,) or (repeats, 40)."""
    data = make_data(root)
    train = make_train(root, data)
    arrays, records = [], []
    for spec, backend, correct in zip(
        (CLEAN_ATTACK, *specs), ("l2p_tf", *backends), (PLACE >= 0, *corrects), strict=True
    ):
        for repeat, right in enumerate(np.broadcast_to(correct, (repeats, 40))):
            arrays.append(of_correct(right))
            (record,) = records_of("pgd", (spec,), arrays[-1:], repeat=repeat, **fields)
            records.append(dataclasses.replace(record, backend=backend))
    make_stage(root / "attack", "attack", {"train": train, "data": data}, records, arrays)
    return root


def test_each_image_counts_under_the_worst_attack_of_each_library_and_of_all(tmp_path):
    # Ours leave 25 of 40, Foolbox's 30, ART's 14; five images are lost to Foolbox alone, eleven to ART alone.
    corrects = (PLACE < 30, PLACE >= 5, PLACE < 30, (PLACE >= 26) | (PLACE < 0))
    root = made(tmp_path, ("l2p_tf", "l2p_tf", "foolbox", "art"), corrects)
    section = section_of(root, "libraries")
    (row,) = texts_of(section.tables[0])
    assert [lines[0] for lines in row] == ["pgd", "L∞, ε 0.1", "62.5", "75.0", "35.0", "10.0", "21"]
    assert [c.label for c in section.tables[0].columns[2:6]] == ["l2p_tf", "Foolbox", "ART", "All libraries"]
    assert rows_of(section, "library", "attacks", "accuracy") == [
        ("l2p_tf", 2, 62.5), ("foolbox", 1, 75.0), ("art", 1, 35.0), ("all", 4, 10.0),
    ]  # fmt: skip
    ours, art = (PLACE < 30) & (PLACE >= 5), PLACE >= 26
    foolbox, art = (stats.binomtest(k, n).pvalue for k, n in ((0, 5), ((art & ~ours).sum(), (art ^ ours).sum())))
    assert foolbox < art < 2 * foolbox
    lines = rows_of(section, "difference", "p_holm")[1:3]
    assert [difference for difference, _ in lines] == [12.5, -27.5]
    assert [p for _, p in lines] == pytest.approx([2 * foolbox, 2 * foolbox], rel=1e-4)


def test_of_a_randomized_model_the_attack_counts_that_leaves_the_smallest_share(tmp_path):
    # Each of two attacks is survived in one of two repeats: in no image is that less than a half.
    pgd, other = [PLACE < 40, PLACE < 0], [PLACE < 0, PLACE < 40]
    root = made(tmp_path, ("l2p_tf", "foolbox"), (pgd, other), (PGD, OTHERS[0]), repeats=2, randomized=True)
    assert rows_of(section_of(root, "libraries"), "accuracy") == [50, 50, 50]


@pytest.mark.parametrize(
    ("backend", "other"),
    [
        ("l2p_tf", PGD),
        ("art", ("a", "A", "linf", 0.2, 9, 1)),
        ("art", ("a", "A", "l2", None, 9, 1)),
        ("art", ("a", "A", None, None, 9, 1)),
    ],
)
def test_other_budgets_and_one_library_alone_are_not_compared(tmp_path, backend, other):
    root = made(tmp_path, ("l2p_tf", backend), (PLACE < 9, PLACE < 8), (APGD, other))
    assert section_of(root, "libraries") is None
