import dataclasses
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l2p_tf.attacks import ATTACKS
from l2p_tf.certification.base import CERTIFICATES
from l2p_tf.data import DATASETS
from l2p_tf.defenses import DEFENSES
from l2p_tf.models import MODELS
from l2p_tf.options import Options, further_of, option
from l2p_tf.registry import Registry, parse_number, parse_spec, spec_of
from l2p_tf.types import Norm, UserError
from support.models import PEERS


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


REFUSED = {
    ATTACKS: {
        "pdg": r"Unknown attack 'pdg'. Did you mean 'pgd'\? Known: .*fgsm.*pgd",
        "pgd(epsilom=1)": r"no option 'epsilom'. Did you mean 'epsilon'\?",
        "pgd(steps=0)": "`steps` should be at least 1. Received: 0",
        "pgd(steps=1.5)": "`steps` should be of type int. Received: 1.5",
        "pgd(norm=l3)": "`norm` should be one of linf, l2, l1. Received: 'l3'",
        "pgd(random_start=1)": "`random_start` should be of type bool. Received: 1",
        "bim(restarts=2)": "no option 'restarts'",
        "mim(restarts=2)": "no option 'restarts'",
        "pgd(restarts=2, random_start=False)": "`restarts` should be 1 without a random start",
        "apgd(target=next, target_classes=3)": "`target` should be none with `target_classes`",
        "fab(restarts=2)": "`epsilon`, which should be given",
        "worst_case(attacks=(pgd(epsilon=0.1),))": r"`epsilon` should be given once, to worst_case itself\. Received",
        "worst_case(attacks=(few_pixel, pgd))": "should be untargeted ones with an epsilon",
        "worst_case(attacks=nuke)": "Unknown attack 'nuke'",
    },
    CERTIFICATES: {
        "smoothing(sigma=0)": "`sigma` should be above 0. Received: 0.0",
        "smoothing(draws=0)": "`draws` should be at least 1",
        "smoothing(draws=9)": "`draws` should be at least 10: with fewer nothing can be certified",
        "smoothing(alpha=0)": "`alpha` should be above 0",
        "pixeldp(alpha=0.6)": "`alpha` should be at most 0.5",
        "pixeldp(bound=chernoff)": "`bound` should be one of clopper_pearson, hoeffding. Received: 'chernoff'",
        "magic": "Unknown certificate 'magic'. Known: pixeldp, smoothing",
    },
    DEFENSES: {
        "pgd(clean_probability=1)": "`clean_probability` should be below 1",
        "mat(strategy=both, one_batch=True)": "`one_batch` should be False with strategy=both",
        "trades(attack_label=predicted)": "its attack knows no label",
        "trades(one_batch=True)": "its attack knows no label",
        "trades(random_start=False)": "its attack knows no label",
        "generator(adversarial_weight=0, clean_weight=1)": "generator: ",
        "generator(attack_label=predicted)": "generator: ",
        "generator(update=joint, generator_steps=2)": "generator: ",
        "learn2perturb(points=(blocks, here))": "`points` should be one of blocks, convolutions, input. .*: 'here'",
    },
    MODELS: {
        "resnet_v1(depth=21)": r"6k\+2.*Received: 21",
        "resnet_v2(depth=50)": "one of 10, 18, 34. Received: 50",
        "wide_resnet(depth=18)": r"6k\+4.*Received: 18",
        "vgg(depth=12)": "one of 11, 13, 16, 19. Received: 12",
        "all_conv(width=0)": "`width`",
    },
}


@pytest.mark.parametrize(
    ("registry", "spec"),
    [pytest.param(registry, spec, id=spec) for registry, specs in REFUSED.items() for spec in specs],
)
def test_options_that_make_no_sense_are_refused(registry, spec):
    with pytest.raises(UserError, match=REFUSED[registry][spec]):
        registry.parse(spec)


def test_numbers_are_finite_and_lists_not_empty():
    with pytest.raises(UserError, match="`epsilon` should be of type float. Received: nan"):
        ATTACKS.get("pgd")(epsilon=float("nan"))
    with pytest.raises(UserError, match="No attack given"):
        ATTACKS.parse_list(" ; ")
    with pytest.raises(UserError, match="should give at least one of them. A list in it is empty"):
        ATTACKS.parse_list("fgsm(epsilon=[]); pgd")


@pytest.mark.parametrize("registry", [ATTACKS, CERTIFICATES, DATASETS, DEFENSES, MODELS], ids=lambda r: r.kind)
def test_everything_found_has_defaults_help_and_a_spec_that_comes_back(registry):
    assert registry.names()
    text = registry.help()
    for name in registry.names():
        if registry is ATTACKS and name in PEERS:
            continue
        thing = registry.parse(name)
        assert registry.parse(spec_of(thing)) == thing
        assert f"{name}:" in text
        for field in dataclasses.fields(thing):
            assert field.metadata["help"], f"{name}.{field.name} has no help"
            assert f"{field.name}=" in text or field.name == further_of(type(thing))


@given(epsilon=st.floats(0, 0.5), steps=st.integers(1, 10**6), norm=st.sampled_from(Norm), start=st.booleans())
def test_specs_come_back(epsilon, steps, norm, start):
    attack = ATTACKS.get("pgd")(epsilon=epsilon, steps=steps, norm=norm, random_start=start)
    again = ATTACKS.parse(spec_of(attack))
    assert again.epsilon == pytest.approx(epsilon, rel=1e-11)
    assert again.replace(epsilon=epsilon) == attack


def test_a_list_of_specs():
    assert [spec_of(a) for a in ATTACKS.parse_list("fgsm; pgd(steps=20, restarts=2)")] == ["fgsm", "pgd(restarts=2)"]
    with pytest.raises(UserError, match=r"'fgsm, pgd' should be of the form .*\. Several are separated by `;`"):
        ATTACKS.parse_list("fgsm, pgd")


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


@pytest.mark.parametrize(
    ("registry", "spec", "meant"),
    [
        (ATTACKS, "pgd(eps=0.1)", "epsilon"), (ATTACKS, "pgd(eps_step=0.1)", "step_size"),
        (ATTACKS, "pgd(alpha=0.1)", "step_size"), (ATTACKS, "pgd(max_iter=10)", "steps"),
        (ATTACKS, "bim(nb_iter=10)", "steps"), (ATTACKS, "apgd(num_steps=10)", "steps"),
        (ATTACKS, "cw(iterations=10)", "steps"), (ATTACKS, "square(max_iter=10)", "queries"),
        (ATTACKS, "square(n_queries=10)", "queries"), (ATTACKS, "few_pixel(iterations=10)", "generations"),
        (ATTACKS, "pgd(nb_samples=10)", "draws"), (ATTACKS, "apgd(eot_iter=10)", "draws"),
        (ATTACKS, "cw(confidence=1)", "kappa"), (ATTACKS, "pgd(ord=2)", "norm"),
        (ATTACKS, "apgd(n_restarts=2)", "restarts"), (ATTACKS, "pgd(num_random_init=2)", "restarts"),
        (DEFENSES, "pgd(eps=0.1)", "epsilon"), (DEFENSES, "trades(alpha=0.1)", "step_size"),
        (DEFENSES, "trades(beta=6)", "adversarial_weight"), (DEFENSES, "noise_at_prediction(sigma=1)", "std"),
        (MODELS, "wide_resnet(widen_factor=10)", "width"), (ATTACKS, "pgd(stepz=1)", "steps"),
    ],
)  # fmt: skip
def test_names_of_other_libraries_lead_to_the_options_here(registry, spec, meant):
    with pytest.raises(UserError, match=rf"has no option .*\. Did you mean '{meant}'\?"):
        registry.parse(spec)


def test_help_explains_all_or_one():
    text = ATTACKS.help("help(pgd)")
    assert text.startswith("pgd: Projected gradient descent")
    assert "    steps=20 (at least 1)  gradient steps" in text
    assert "\nbim" not in text
    assert "`alternating` trains each player" in DEFENSES.help(" help( generator ) ")
    assert ATTACKS.help("help") == ATTACKS.help() == ATTACKS.help("help()")
    assert ATTACKS.help("helper") is None
    for name in ("pdg", "PGD", "'pgd'"):
        with pytest.raises(UserError, match=r"Unknown attack .*pdg|PGD|'pgd'.*\. Did you mean 'pgd'"):
            ATTACKS.help(f"help({name})")


HOSTILE = {
    "pgd(epsilon=(10**12)**64)": "should be of the form",
    "pgd(epsilon=" + "-" * 10_000 + "1)": "at most 4,000 characters",
    "pgd(epsilon=" + "-" * 3000 + "1)": "should be of the form",
    "pgd(epsilon=" + "1+" * 10_000 + "1)": "at most 4,000 characters",
    "pgd(epsilon=" + "1+" * 1500 + "1)": "nested more than 32 deep",
    "pgd(epsilon=" + "(" * 500 + "1" + ")" * 500 + ")": "should be of the form",
    "pgd(steps=" + "9" * 3900 + ")": "should be of the form",
    "pgd(steps=2147483648)": "at most 2147483647",
    "pgd(epsilon=(-8)**0.5)": "should be of the form",
    "pgd(x" * 1000: "at most 4,000 characters",
    "worst_case(attacks=(" * 40 + "pgd" + "))" * 40: "nested more than 32 deep",
    "pgd(steps=['a'" + ",1" * 1100 + "])": "at most 1000 of them. Its lists give 1101",
    "pgd(steps={0}, restarts={0}, draws={0}, epsilon={0})".format([*range(1, 31)]): "Its lists give 810000",
    "a" * 3999: "Unknown attack",
}


@pytest.mark.parametrize("spec", HOSTILE, ids=lambda spec: spec[:24])
def test_specs_of_any_length_and_depth_are_told_at_once(spec):
    begun = time.monotonic()
    with pytest.raises(UserError, match=HOSTILE[spec]) as told:
        ATTACKS.parse_list(spec)
    assert len(str(told.value)) <= 720
    assert time.monotonic() - begun < 1


def test_a_list_of_many_specs_is_bounded():
    with pytest.raises(UserError, match="at most 1000 of kind attack"):
        ATTACKS.parse_list("fgsm;" * 5000)
    assert len(ATTACKS.parse_list("fgsm;" * 1000)) == 1000


def test_large_numbers_are_no_radii():
    assert spec_of(MODELS.parse("resnet_v1(depth=8, width=1e9)")) == "resnet_v1(depth=8, width=1000000000)"
    assert spec_of(ATTACKS.parse("fgsm(epsilon=5/255)")) == "fgsm(epsilon=5/255)"


def test_nested_worst_cases_cost_no_more_than_their_depth():
    begun = time.monotonic()
    attack = ATTACKS.parse("worst_case(attacks=(" * 10 + "fgsm, pgd" + "))" * 10)
    assert [member.label for member in attack.members()] == ["FGSM", "PGD-20"]
    assert time.monotonic() - begun < 1


@given(st.text(max_size=40) | st.text("()[]{},=+-*/0123456789.e 'abpgd_", max_size=60))
def test_any_text_is_a_thing_or_refused_in_one_line(text):
    for parse in (ATTACKS.parse, ATTACKS.parse_list, parse_number, parse_spec):
        try:
            parse(text)
        except UserError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017


@pytest.mark.parametrize(
    "spec", ["folder(path=a/b)", "folder(path=~/photos)", "npz(path=a.npz)", "csv(path=my-list.csv)"]
)
def test_a_path_without_quotes_is_told_to_have_them(spec):
    with pytest.raises(UserError, match=r"name\(option=value, ...\)\. A path is put in quotes"):
        DATASETS.parse(spec)
