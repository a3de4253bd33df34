import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l2p_tf.attacks import ATTACKS
from l2p_tf.defenses import DEFENSES
from l2p_tf.models import MODELS
from l2p_tf.registry import Options, Registry, option, parse_number, parse_spec, spec_of
from l2p_tf.types import Norm, UserError


def test_numbers_may_be_arithmetic():
    assert parse_number("8/255") == 8 / 255
    assert parse_number("1e-4") == 1e-4
    assert parse_number("-2 * 3") == -6
    assert ATTACKS.parse("pgd(epsilon=8/255, steps=7)").epsilon == 8 / 255


@pytest.mark.parametrize(
    "text", ["", "eight", "1/0", "2**1e9", "True", "__import__('os')", "[1]", "1;2", "1e999", "9**9**9", "nan"]
)
def test_numbers_refuse_everything_else(text):
    with pytest.raises(UserError, match="should be a number"):
        parse_number(text)


@pytest.mark.parametrize("spec", ["pgd(7)", "pgd(", "a.b()", "pgd()()", "lambda: 1", "pgd(**x)", "1", "pgd(x=a.b)"])
def test_malformed_specs_are_refused(spec):
    with pytest.raises(UserError, match="should be of the form"):
        parse_spec(spec)


def test_words_lists_and_nested_specs():
    assert parse_spec("x(norm=l2, on=True, sizes=(1, 2), source=pgd(steps=3))") == (
        "x",
        {"norm": "l2", "on": True, "sizes": (1, 2), "source": "pgd(steps=3)"},
    )
    assert parse_spec(" none ") == ("none", {})


def test_errors_name_argument_value_and_what_is_accepted():
    with pytest.raises(UserError, match=r"Unknown attack 'pdg'. Did you mean 'pgd'\? Known: .*fgsm.*pgd"):
        ATTACKS.parse("pdg")
    with pytest.raises(UserError, match=r"no option 'epsilom'. Did you mean 'epsilon'\?"):
        ATTACKS.parse("pgd(epsilom=1)")
    with pytest.raises(UserError, match=r"`steps` should be at least 1. Received: 0"):
        ATTACKS.parse("pgd(steps=0)")
    with pytest.raises(UserError, match=r"`steps` should be of type int. Received: 1.5"):
        ATTACKS.parse("pgd(steps=1.5)")
    with pytest.raises(UserError, match=r"`norm` should be one of linf, l2. Received: 'l3'"):
        ATTACKS.parse("pgd(norm=l3)")
    with pytest.raises(UserError, match=r"`random_start` should be of type bool. Received: 1"):
        ATTACKS.parse("pgd(random_start=1)")
    with pytest.raises(UserError, match=r"No attack given"):
        ATTACKS.parse_list(" ; ")


def test_numbers_are_finite():
    with pytest.raises(UserError, match="`epsilon` should be of type float. Received: nan"):
        ATTACKS.get("pgd")(epsilon=float("nan"))


@pytest.mark.parametrize("registry", [ATTACKS, DEFENSES, MODELS], ids=lambda r: r.kind)
def test_everything_found_has_defaults_help_and_a_spec_that_comes_back(registry):
    assert registry.names()
    text = registry.help()
    for name in registry.names():
        thing = registry.parse(name)
        assert registry.parse(spec_of(thing)) == thing
        assert f"{name}:" in text
        for field in dataclasses.fields(thing):
            assert field.metadata["help"], f"{name}.{field.name} has no help"
            assert f"{field.name}=" in text


@given(epsilon=st.floats(0, 0.5), steps=st.integers(1, 10**6), norm=st.sampled_from(Norm), start=st.booleans())
def test_specs_come_back(epsilon, steps, norm, start):
    attack = ATTACKS.get("pgd")(epsilon=epsilon, steps=steps, norm=norm, random_start=start)
    again = ATTACKS.parse(spec_of(attack))
    assert again.epsilon == pytest.approx(epsilon, rel=1e-11)
    assert again.replace(epsilon=epsilon) == attack


def test_a_list_of_specs():
    assert [spec_of(a) for a in ATTACKS.parse_list("fgsm; pgd(steps=20, restarts=2)")] == ["fgsm", "pgd(restarts=2)"]


def test_registering_twice_is_an_error():
    registry = Registry("thing", "l2p_tf.attacks")

    @registry.register("x")
    @dataclasses.dataclass(frozen=True)
    class X(Options):
        """X."""

        size: tuple[int, ...] = option((1,), "sizes", low=1)

    assert X(size=3).size == (3,)
    with pytest.raises(UserError, match="at least 1"):
        X(size=(1, 0))
    with pytest.raises(ValueError, match="registered twice"):
        registry.register("x")(X)
