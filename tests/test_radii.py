import dataclasses
import warnings

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l2p_tf.attacks import ATTACKS
from l2p_tf.attacks.pgd import PGD
from l2p_tf.defenses import DEFENSES
from l2p_tf.evaluation.masking.battery import rounds
from l2p_tf.evaluation.options import CheckOptions
from l2p_tf.radii import check_radii
from l2p_tf.types import Norm, UserError
from support.models import PEERS, tiny

HINT = r"pixels are in \[0, 1\]; did you mean {}/255\?"
WITH_RADIUS = [
    (registry, name)
    for registry in (ATTACKS, DEFENSES)
    for name in registry.names()
    if "epsilon" in {f.name for f in dataclasses.fields(registry.get(name))} and name not in {"generator", *PEERS}
]


@pytest.mark.parametrize(("registry", "name"), WITH_RADIUS, ids=lambda value: getattr(value, "kind", value))
def test_every_radius_in_255ths_is_refused_by_attacks_and_defenses(registry, name):
    cls = registry.get(name)
    names = {f.name for f in dataclasses.fields(cls)}
    norm = {"norm": "linf"} if "norm" in names else {}
    if getattr(cls(**norm), "norm", Norm.LINF) is Norm.LINF:
        with pytest.raises(UserError, match=HINT.format(8)):
            cls(epsilon=8, **norm)
        with pytest.warns(UserWarning, match=HINT.format(0.6)):
            cls(epsilon=0.6, **norm)
        if "step_size" in names:
            with pytest.raises(UserError, match="`step_size` should be at most 1 in linf.*did you mean 2/255"):
                cls(step_size=2, **norm)
        cls(epsilon=0.5, **norm)
    thing = cls(epsilon=8, **({"norm": "l2"} if norm else {})) if norm or "l2_epsilon" not in names else None
    if thing is not None and getattr(thing, "norm", None) is Norm.L2:
        check_radii(thing, (32, 32, 3))
        with pytest.raises(UserError, match=r"at most 6 in l2, the diagonal of all 6x6x1 images: .*did you mean 8/255"):
            check_radii(thing, (6, 6, 1))


@given(st.floats(0, 300), st.sampled_from(Norm), st.tuples(*[st.integers(1, 40)] * 3))
def test_a_radius_is_refused_where_it_leaves_the_cube(epsilon, norm, shape):
    count = float(np.prod(shape))
    corner = {Norm.LINF: 1.0, Norm.L2: np.sqrt(count), Norm.L1: count}[norm]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if epsilon > corner:
            with pytest.raises(UserError, match="did you mean"):
                check_radii(PGD(epsilon=epsilon, norm=norm), shape)
        else:
            check_radii(PGD(epsilon=epsilon, norm=norm), shape)
    assert bool(told) == (norm is Norm.LINF and 0.5 < epsilon <= 1)


def test_an_l2_radius_meets_the_images_of_attack_and_training():
    model = tiny(DEFENSES.parse("none"))
    images, labels = np.full((2, 6, 6, 1), 0.5, np.float32), np.array([0, 1])
    worst = "worst_case(norm=l2, epsilon=128, attacks=(pgd, square))"
    for spec in ("pgd(norm=l2, epsilon=128)", "cw(epsilon=128)", worst):
        with pytest.raises(UserError, match="at most 6 in l2.*did you mean 128/255"):
            ATTACKS.parse(spec)(model, images, labels)
    with pytest.raises(UserError, match="at most 36 in l1, the diagonal of all 6x6x1 images.*did you mean 128/255"):
        ATTACKS.parse("pgd(norm=l1, epsilon=128)")(model, images, labels)
    with pytest.raises(UserError, match="`l2_epsilon` should be at most 6 in l2"):
        DEFENSES.parse("mat(l2_epsilon=128)").attack.perturb(model, keras.ops.array(images), labels, 0)
    anything = keras.Sequential([keras.Input((None, None, 1)), keras.layers.GlobalMaxPool2D(), keras.layers.Dense(3)])
    with pytest.raises(UserError, match="at most 6 in l2"):
        ATTACKS.parse("pgd(norm=l2, epsilon=128)")(anything, images, labels)


def test_a_shared_budget_is_told_once():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        ATTACKS.parse("autoattack(epsilon=0.75)").members()
    assert [str(w.message) for w in told] == ["`epsilon` is 0.75 in linf: pixels are in [0, 1]; did you mean 0.75/255?"]


def test_the_checks_take_the_same_radii():
    with pytest.raises(UserError, match="`checks_epsilon` should be at most 1 in linf.*did you mean 8/255"):
        CheckOptions(epsilon=8)
    assert max(r.attack.epsilon for r in rounds(0.4, 1)) == 1.0  # Meant, so not warned of: warnings are errors here.
