"""What a report says of the attacks themselves, and when it warns that they were too weak."""

import pytest

from l2p_tf.attacks import ATTACKS as REGISTERED
from l2p_tf.attacks.iterative import IterativeAttack
from l2p_tf.reporting.format import several
from l2p_tf.reporting.sections.strength import ITERATED, stronger
from support.pages import EVIL
from support.reports import (
    ATTACKS,
    make_data,
    make_records,
    make_stage,
    make_train,
    of_correct,
    records_of,
    rows_of,
    section_of,
    texts_of,
)  # fmt: skip

CLEAN, FGSM, _, EOT = ATTACKS
PGD = ("pgd(epsilon=0.1)", "PGD-20", "linf", 0.1, 20, 1)


def attack(spec, **changes):
    """A record of a registered attack, as an evaluation makes it."""
    made = REGISTERED.parse(spec)
    facts = made.facts()
    row = (made.spec, made.label, facts["norm"], facts["epsilon"], facts["steps"], facts["draws"])
    gradients = float(max(member.cost(1, 10)[0] for member in made.members()))
    fields = {"restarts": facts["restarts"], "gradients": gradients} | changes
    return make_records("a", (50,), (row,), count=200, **fields)[0]


def warned(*records, word="stronger"):
    section = section_of(list(records), "strength")
    return [warning for warning in section.warnings if word in warning] if section else []


@pytest.mark.parametrize(
    ("spec", "strong"),
    [
        ("fgsm", False),
        ("fgsm(restarts=30, random_start=True)", False),
        ("pgd", False),
        ("pgd(draws=10)", False),
        ("pgd(steps=21)", True),
        ("pgd(restarts=2)", True),
        ("pgd(steps=10, restarts=5)", False),
        ("pgd(steps=100, target=random)", False),
        ("bim", False),
        ("mim(steps=40)", True),
        ("apgd", True),
        ("apgd(steps=20)", True),
        ("apgd(steps=10)", False),
        ("autoattack", True),
        ("autoattack(version=rand)", True),
        ("autoattack(steps=5)", False),
        ("worst_case", True),
        ("worst_case(attacks=(pgd, square))", True),
        ("worst_case(attacks=(pgd(steps=5), square))", False),
        ("worst_case(attacks=(fgsm, square))", False),
        ("worst_case(attacks=(pgd,))", False),
        ("square", False),
        ("spsa", False),
        ("noise", False),
        ("l2p_pgd", False),
        ("l2p_eot", False),
        ("gen_mim", True),
        ("deepfool(epsilon=0.5)", False),
        ("cw(epsilon=0.5)", True),
        ("fab(epsilon=0.1)", True),
    ],
)
def test_stronger_than_pgd_20_is_what_is_said(spec, strong):
    assert stronger(attack(spec)) is strong


def test_a_spec_of_another_maker_is_judged_by_its_record():
    assert stronger(attack("pgd(steps=50)", attack=EVIL))
    assert not stronger(attack("pgd", attack=EVIL))


def test_the_steps_of_members_are_those_of_the_attacks():
    """The table of defaults holds every attack that follows the gradient, with the steps it takes."""
    found = {}
    for name in REGISTERED.names():
        if not issubclass(REGISTERED.get(name), IterativeAttack):
            continue
        made = REGISTERED.parse(name)
        if "steps" in made.options() and made.cost(1, 10)[0]:
            found[name] = made.facts()["steps"]
    assert {name: steps for name, steps in found.items() if "deepfool" not in name} == ITERATED


def test_a_weak_attack_is_warned_about_with_what_to_run():
    (warning,) = warned(attack("pgd(epsilon=8/255)"), attack("pgd(epsilon=2/255)"))
    assert warning == (
        "Nothing stronger than PGD-20 was run in L∞ on a, so the accuracy there may be overstated. "
        "Put autoattack(epsilon=8/255) among the --attacks of the attack stage."
    )
    assert REGISTERED.parse("autoattack(epsilon=8/255)")
    assert warned(attack("pgd"), attack("apgd")) == []
    (warning,) = warned(attack("pgd", randomized=True))
    assert "Put autoattack(version=rand, epsilon=8/255) among" in warning
    assert REGISTERED.parse("autoattack(version=rand, epsilon=8/255)")


def test_each_norm_needs_a_strong_attack_of_its_own():
    (warning,) = warned(attack("apgd"), attack("pgd(norm=l2, epsilon=0.5)"))
    assert "in L2 on a" in warning
    assert "autoattack(epsilon=0.5, norm=l2)" in warning
    # What looks for the smallest perturbation leaves no accuracy at any radius: it neither claims nor helps.
    assert len(warned(attack("pgd(norm=l2, epsilon=0.5)"), attack("cw"))) == 1
    assert warned(attack("cw")) == []
    assert warned(make_records("a", (50,), (CLEAN,), count=200)[0]) == []
    assert warned(attack("few_pixel")) == []


def test_runs_share_a_warning(tmp_path):
    records = [r for name in "abcdefgh" for r in make_records(name, (50,), (PGD,), count=200)]
    (warning,) = warned(*records)
    assert "on a, b, c, d, e, f, g and h, so" in warning


def test_norms_share_a_warning():
    (warning,) = warned(attack("pgd(epsilon=8/255)"), attack("pgd(norm=l2, epsilon=0.5)"))
    assert "was run in L∞ and L2 on a, so" in warning
    assert "Put autoattack(epsilon=8/255) and autoattack(epsilon=0.5, norm=l2) among" in warning


def test_too_few_images_are_warned_about():
    assert warned(*make_records("a", (90,), (CLEAN,), count=100), word="too few") == []
    (warning,) = warned(*make_records("a", (50,), (CLEAN,), count=99), word="too few")
    assert warning == (
        "a was judged on 99 images only, too few for a claim: a 95% interval is up to 10 points wide to either side. "
        "Attack at least 100 images, by a larger --limit or none."
    )
    (warning,) = warned(*[r for n in "ab" for r in make_records(n, (5,), (CLEAN,), count=10)], word="too few")
    assert warning.startswith("a and b were judged on 10 images")


@pytest.mark.parametrize(
    ("split", "checkpoint", "flattered"),
    [("validation", "best", True), ("validation", "last", False), ("test", "best", False)],
)
def test_the_split_that_chose_the_weights_is_warned_about(tmp_path, split, checkpoint, flattered):
    data = make_data(tmp_path)
    train = make_train(tmp_path, data)
    arrays = [of_correct([1] * 120)]
    records = records_of("pgd", (CLEAN, PGD), arrays * 2, split=split)
    inputs = {"train": train, "data": data}
    make_stage(tmp_path / "attack", "attack", inputs, records, arrays * 2, checkpoint=checkpoint)
    section = section_of(tmp_path, "strength")
    assert [w.partition(", by which")[0] for w in section.warnings if "--split=test" in w] == (
        ["pgd was judged on the validation split"] * flattered
    )


# The table.


@pytest.fixture(scope="module")
def section(tmp_path_factory):
    """Two plain runs and a noisy one with three repeats, under PGD and a cascade."""
    root = tmp_path_factory.mktemp("strength")
    data = make_data(root)
    cascade = REGISTERED.parse("worst_case(attacks=(pgd(steps=50), square), epsilon=0.1)")
    attacks = [REGISTERED.parse("pgd(epsilon=0.1, loss=margin, target=random, restarts=2)"), cascade]
    rows = tuple((a.spec, a.label, "linf", 0.1, a.facts()["steps"], 1) for a in attacks)
    options = {"attacks": [a.spec for a in attacks], "attacks_options": [a.options() for a in attacks]}
    for name, gradients, repeats in (("a", 10.0, 1), ("b", 20.5, 1), ("noisy", 40.0, 3)):
        train = make_train(root, data, name)
        arrays = [of_correct([1] * 120)] * 3
        records = [
            record
            for repeat in range(repeats)
            for record in records_of(
                name, (CLEAN, *rows), arrays, repeat=repeat, gradients=gradients + repeat, prediction_draws=repeats,
                restarts=2, randomized=repeats > 1,
            )
        ]  # fmt: skip
        make_stage(root / f"a_{name}", "attack", {"train": train, "data": data}, records, arrays * repeats, **options)
    return section_of(root, "strength")


def test_the_table_says_what_each_run_was_attacked_with(section):
    (table,) = section.tables
    plain, noisy, sequence, _ = texts_of(table)
    assert plain[:3] == [
        (plain[0][0], "pgd(epsilon=0.1, loss=margin, target=random, restarts=2)"),
        ("L∞, ε 0.1, 20 steps, 2 restarts",), ("margin", "to random"),
    ]  # fmt: skip
    assert [lines[0] for lines in plain[3:]] == ["1", "1", "1", "120", "10 to 20.5", "1", "a and b"]
    assert [lines[0] for lines in noisy[3:]] == ["1", "3", "3", "120", "41", "1", "noisy"]
    assert sequence[2] == ("of its members", "pgd(steps=50)", "square")


def test_the_figures_have_a_row_for_each_run_and_attack(section):
    names = ("run", "steps", "loss", "target", "restarts", "gradients", "repeats", "stronger_than_pgd_20")
    rows = {row[:2]: row[2:] for row in rows_of(section, *names)}
    assert len(rows) == 6
    assert rows["b", 20] == ("margin", "random", 2, 20.5, 1, "false")
    assert rows["noisy", 5000][2:] == (2, 41, 3, "true")


def test_what_a_stage_does_not_say_is_not_made_up():
    def losses(*records):
        return [row[2][0] for row in texts_of(section_of(list(records), "strength").tables[0])]

    assert losses(*make_records("a", (9,), (PGD,)), *make_records("a", (9,), (EOT,))) == ["its usual one"] * 2
    assert losses(*make_records("a", (9,), (("pgd(loss=dlr)", "PGD", "linf", 0.1, 20, 1),))) == ["dlr"]
    assert section_of(make_records("a", (9,), (CLEAN,)), "strength") is None


def test_without_noise_nothing_is_drawn():
    records = make_records("a", (9,), (EOT,), gradients=1234.5)
    records += make_records("noisy", (9,), (EOT,), gradients=0.12345, randomized=True)
    plain, noisy = texts_of(section_of(records, "strength").tables[0])
    assert plain[3] == ("1", "no noise")
    assert "EOT" not in plain[1][0]
    assert noisy[3] == (str(EOT[5]),)
    assert "EOT" in noisy[1][0]
    # Three digits that count, and no exponent.
    assert (plain[7][0], noisy[7][0]) == ("1,230", "0.123")


def test_long_lists_of_names_are_cut():
    assert several(["a"]) == "a"
    assert several(["a", "b", "a"]) == "a and b"
    assert several(list("abcdefg")) == "a, b, c, d, e and 2 more"
