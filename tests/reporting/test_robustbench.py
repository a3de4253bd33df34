"""RobustBench's JSON: for what its leaderboards list, and nothing else."""

import json

import pytest

from l2p_tf.reporting.report import make
from l2p_tf.reporting.robustbench import files
from support.reports import make_attack, make_data, make_records, make_train, results_of

CLEAN = ("clean", "clean", None, None, 0, 1)
LINF = ("autoattack", "AutoAttack", "linf", 8 / 255, 100, 1)
L2 = ("autoattack(norm=l2)", "AutoAttack l2", "l2", 0.5, 100, 1)


def records_of(*attacks, **fields):
    return make_records(
        "a b", (350, 200, 100)[: 1 + len(attacks)], (CLEAN, *attacks), **{"dataset": "cifar10", **fields}
    )


def test_a_run_under_both_of_its_threat_models(tmp_path):
    data = make_data(tmp_path, name="cifar10")
    train = make_train(tmp_path, data, "a b", folder="t")
    make_attack(tmp_path, train, data, records_of(LINF, L2), folder="a")
    make([tmp_path], tmp_path / "report")
    found = sorted((tmp_path / "report" / "robustbench").iterdir())
    assert [file.name for file in found] == ["a_b_cifar10_l2.json", "a_b_cifar10_linf.json"]
    assert json.loads(found[1].read_text("utf-8")) == {
        "link": "", "name": "a b", "authors": "", "additional_data": False, "number_forward_passes": 1,
        "dataset": "cifar10", "venue": "", "architecture": "resnet_v1(depth=8)", "eps": "8/255", "clean_acc": "97.22",
        "reported": "55.56", "autoattack_acc": "55.56", "unreliable": False,
        "footnote": "Images: cifar10 (8x8). Attacked on 360 images alone, where the leaderboard takes 10,000.",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("attack", "fields"),
    [
        (LINF, {"dataset": "digits"}),
        (LINF, {"randomized": True}),
        (LINF, {"split": "validation"}),
        (LINF, {"backend": "cleverhans"}),
        ((LINF[0], LINF[1], "linf", 4 / 255, 100, 1), {}),
        (("autoattack(steps=10)", "AutoAttack shortened", *LINF[2:]), {}),
        (("autoattack(version=rand)", "AutoAttack rand", *LINF[2:]), {}),
        (("pgd", "PGD-20", *LINF[2:]), {}),
        (("autoattack(norm=l2)", "AutoAttack l2", "l2", 0.25, 100, 1), {}),
    ],
)
def test_what_it_does_not_list(attack, fields):
    assert files(results_of(records_of(attack, **fields))) == {}
    assert len(files(results_of(records_of(LINF)))) == 1
