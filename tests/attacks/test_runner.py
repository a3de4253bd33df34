"""How attacks are run: restarts, batches, survivors, members of a sequence, going on where they were stopped."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l2p_tf import inference
from l2p_tf.attacks import ATTACKS, iterative
from l2p_tf.attacks.base import AttackRunner
from l2p_tf.types import Norm
from support.models import halfspace, images_and_labels, quick, smooth


def test_restarts_only_add_what_fell_and_cost_only_the_standing():
    model = smooth(seed=2)
    images, _ = images_and_labels(64)
    labels = inference.predict(model, images).argmax(-1)
    attack = ATTACKS.get("pgd")(epsilon=0.04, steps=3, restarts=1)
    once = attack(model, images, labels, seed=5, batch_size=16)
    many = attack.replace(restarts=6)(model, images, labels, seed=5, batch_size=16)
    assert 0 < once.success.mean() < 1
    assert np.all(many.success >= once.success)
    fell = once.success == 1
    np.testing.assert_array_equal(many.gradients[fell], once.gradients[fell])
    assert many.gradients[many.success == 0].min() == 18


class Told(list):
    def __call__(self, share, left):
        self.append((share, left))


def test_progress_ends_at_the_whole():
    images, labels = images_and_labels(37)
    for spec in ("fgsm", "pgd(epsilon=0.02, steps=2, restarts=3)"):
        for noise in (None, 0.2):
            moved = Told()
            ATTACKS.parse(spec)(smooth(noise=noise), images, labels, batch_size=8, progress=moved)
            assert moved[-1][0] == pytest.approx(1.0)
            assert [share for share, _ in moved] == sorted(share for share, _ in moved)
            assert all(0 <= left <= 37 for _, left in moved)


def test_the_worst_case_is_the_union_and_pays_only_for_the_standing():
    model = smooth(seed=2)
    images, _ = images_and_labels(64)
    labels = inference.predict(model, images).argmax(-1)
    specs = ("fgsm", "pgd(steps=5)", "square(queries=30)")
    budget = {"epsilon": 0.05, "norm": Norm.LINF}
    alone = [ATTACKS.parse(spec).replace(**budget)(model, images, labels, batch_size=16) for spec in specs]
    worst = ATTACKS.get("worst_case")(attacks=specs, **budget)(model, images, labels, batch_size=16)
    assert 0 < worst.success.mean() < 1
    assert np.all(worst.success >= np.max([output.success for output in alone[:2]], axis=0))
    by_first = alone[0].success == 1
    assert set(worst.gradients[by_first]) == {1}
    # One look at the images as they are comes first.
    assert set(worst.forwards[by_first]) == {2}
    robust = worst.success == 0
    assert set(worst.gradients[robust]) == {6}
    assert set(worst.forwards[robust]) == {37}


def test_autoattack_is_its_members():
    standard = ATTACKS.parse("autoattack(epsilon=0.1, norm=l2)").members()
    assert [member.spec for member in standard] == [
        "apgd(epsilon=0.1, norm=l2)",
        "apgd(epsilon=0.1, norm=l2, loss=dlr, target_classes=9)",
        "fab(epsilon=0.1, norm=l2, target_classes=9)",
        "square(epsilon=0.1, norm=l2)",
    ]
    assert [member.starts(10) for member in standard] == [1, 9, 9, 1]
    assert [member.starts(5) for member in standard] == [1, 4, 4, 1]
    assert [member.spec for member in ATTACKS.parse("autoattack(epsilon=0.1, norm=l1)").members()] == [
        "apgd(epsilon=0.1, norm=l1, restarts=5, larger_radii=True)",
        "apgd(epsilon=0.1, norm=l1, loss=dlr, target_classes=5, larger_radii=True)",
        "fab(epsilon=0.1, norm=l1, target_classes=9)",
        "square(epsilon=0.1, norm=l1)",
    ]
    facts = ATTACKS.parse("autoattack(norm=l2)").facts()
    assert facts == {"norm": "l2", "epsilon": 8 / 255, "steps": 100, "restarts": 9, "draws": 1}
    rand = ATTACKS.parse("autoattack(version=rand)").members()
    assert [member.spec for member in rand] == ["apgd(draws=20)", "apgd(loss=dlr, draws=20)"]


@given(st.integers(1, 700), st.sampled_from([1, 8, 100, 128]), st.sampled_from([1, 2, 3]))
def test_batches_cover_everything_once_with_little_padding(count, batch_size, replicas):
    parts = list(inference.batches(count, max(batch_size, replicas), replicas))
    seen = np.concatenate([index[:real] for index, real in parts])
    np.testing.assert_array_equal(seen, np.arange(count))
    sizes = [len(index) for index, _ in parts]
    assert all(size % replicas == 0 and size <= max(batch_size, replicas) for size in sizes)
    assert sum(sizes) <= max(count * 4 / 3, count + 8 * replicas)


@pytest.mark.parametrize("seed", range(4))
def test_targets_at_random_are_drawn_anew_by_every_seed(seed):
    model = smooth()
    images, labels = images_and_labels(40)
    attack = ATTACKS.parse("pgd(target=random, steps=1)")
    drawn = [AttackRunner(attack, model, images, labels, s, 40, None, None, None, 1) for s in (seed, seed, seed + 4)]
    for runner in drawn:
        runner.run()
    assert (drawn[0].targets != labels).all()
    np.testing.assert_array_equal(drawn[0].targets, drawn[1].targets)
    assert (drawn[0].targets != drawn[2].targets).any()


def test_survivors_are_packed_together(monkeypatch):
    # Half of the images lie so near the boundary that they fall in the first steps, the others out of reach.
    model, images, _, _, _, f = halfspace(count=64, margin=0.01)
    images[1::2], images[::2] = images[f.argmin()].copy(), images[f.argmax()].copy()
    near, labels = np.arange(64) % 2, np.zeros(64, int)
    sizes = []
    plain = iterative._Start._chunk

    def chunk(self, state, index, real, batch, first, last):
        sizes.append((first, len(index), real))
        return plain(self, state, index, real, batch, first, last)

    monkeypatch.setattr(iterative._Start, "_chunk", chunk)
    output = ATTACKS.parse("pgd(epsilon=0.01, steps=20)")(model, images, labels, batch_size=16)
    np.testing.assert_array_equal(output.success, near)
    assert sizes == [(0, 16, 16)] * 4 + [(10, 16, 16)] * 2
    assert output.gradients[near == 1].max() < 10
    assert set(output.gradients[near == 0]) == {20}


class Memory(dict):
    def load(self, key):
        return self.get(key)

    def save(self, key, arrays):
        self[key] = {name: np.array(value) for name, value in arrays.items()}


@pytest.mark.parametrize(
    ("name", "noise"),
    [
        ("pgd", None),
        ("pgd", 0.2),
        ("cw", 0.2),
        ("autoattack", None),
        ("autoattack", 0.2),
        ("few_pixel", None),
        ("hop_skip_jump", 0.2),
    ],
)
def test_a_stopped_attack_goes_on_where_it_was(monkeypatch, name, noise):
    monkeypatch.setattr(iterative, "_SAVE_SECONDS", 0.0)
    monkeypatch.setattr(iterative, "_WORTH_SAVING_SECONDS", 0.0)
    monkeypatch.setattr(ATTACKS.get(name), "CHUNK", 2, raising=False)
    model = smooth(noise=noise)
    images, labels = images_and_labels(20)
    attack = quick(name)
    whole = attack(model, images, labels, seed=1, batch_size=8)
    ran = itertools.count()
    limit = [10**9]
    plain = iterative._Start._chunk

    def chunk(self, *arguments):
        if next(ran) >= limit[0]:
            raise KeyboardInterrupt
        return plain(self, *arguments)

    monkeypatch.setattr(iterative._Start, "_chunk", chunk)
    attack(model, images, labels, seed=1, batch_size=8)
    needed = next(ran)
    memory, runs = Memory(), 0
    for limit[0] in (3, 4, 5, 10**9):
        ran = itertools.count()
        try:
            resumed = attack(model, images, labels, seed=1, batch_size=8, store=memory)
        except KeyboardInterrupt:
            runs += limit[0]
        else:
            runs += next(ran)
            break
    assert runs == needed
    for field in ("adversarial", "success", "gradients", "forwards"):
        np.testing.assert_array_equal(getattr(resumed, field), getattr(whole, field))


@pytest.mark.filterwarnings("ignore:The classifier's clean accuracy is no better than chance")
def test_memory_stays_flat(tmp_path):
    import psutil

    model = smooth()
    images, labels = images_and_labels(256)
    attack = ATTACKS.parse("pgd(steps=10, restarts=2, epsilon=0.01)")
    for _ in range(3):
        attack(model, images, labels, batch_size=32)
    before = psutil.Process().memory_info().rss
    for seed in range(40):
        attack(model, images, labels, seed=seed, batch_size=32)
    assert psutil.Process().memory_info().rss - before < 30 * 2**20
