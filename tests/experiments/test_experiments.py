"""Experiments: every one is whole, becomes a miniature, says what is missing, and is run and reported."""

import csv
import dataclasses
import json
import pathlib

import pytest

from l2p_tf.attacks import ATTACKS
from l2p_tf.defenses import DEFENSES
from l2p_tf.defenses.base import DerivedDefense
from l2p_tf.experiments import definition, estimate, printed, reproduction, scales
from l2p_tf.experiments.claims import chosen
from l2p_tf.fitting.options import TrainOptions
from l2p_tf.models import MODELS
from l2p_tf.types import UserError
from stages import experiment, settings
from support.stages import run_stage

NAMES = definition.names(experiment.folder())
DIGITS = scales.Digits()


def plan(name, scale="paper", *flags):
    return experiment.planned(settings.read([f"--experiment={name}", f"--scale={scale}", *flags]))


def test_there_is_one_for_every_table_and_figure():
    tables = set(printed.load())
    figures = {f"l2p_figure{i}" for i in (2, 3)} | {f"l2p_supp_figure{i}" for i in (1, 2, 3)}
    figures |= {f"study_figure{i}" for i in (1, 2, 3)} | {f"generator_figure{i}" for i in (3, 4, 5, 6)}
    assert set(NAMES) == tables | figures
    for name in NAMES:
        found = definition.load(experiment.folder(), name)
        assert bool(found.prints) == (name in tables)
        assert found.prints in ("", name)
        assert found.claims or found.transfer
        assert found.figure or found.prints


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_is_whole(name):
    made, small = plan(name), plan(name, "digits")
    found = made.experiment
    assert set(small.runs) <= set(made.runs)
    asked = {spec for run in made.runs.values() for spec in (attack.spec for attack in run.evaluation.attacks)}
    for claim in found.claims:
        sides = [getattr(claim, key) for key in ("run", "than", "runs") if hasattr(claim, key)]
        for names in ([side] if isinstance(side, str) else side for side in sides):
            assert set(chosen(names, made.runs)) <= set(made.runs), claim
            # A miniature has fewer values of each sweep, but some for every claim.
            for runs in (made.runs, small.runs):
                assert set(chosen(names, runs)) & set(runs), claim
        if getattr(claim, "attack", "clean") != "clean":
            assert {attack.spec for attack in ATTACKS.parse_list(claim.attack)} <= asked, claim
    if found.prints:
        table = printed.load()[found.prints]
        standing = {place for run in made.runs.values() for place in run.places}
        wanted = {(row, column) for row, column, _ in table.cells}
        assert wanted <= standing
        measures = reproduction.measures(found, table)
        assert {measure.metric for measure in measures} == set(table.metrics)
        for measure in measures:
            if measure.attack not in ("", "clean"):
                assert ATTACKS.parse(measure.attack).spec in asked, measure
            assert not measure.source or measure.source in made.runs
    for name_, one in made.runs.items():
        assert one.options.name == name_
        if isinstance(one.options.defense, DerivedDefense):
            assert one.options.defense.run in made.runs


def test_miniatures_follow_by_hand():
    options = TrainOptions(
        name="x", model=MODELS.parse("resnet_v1(depth=56, width=2)"), epochs=350, drops=(150, 250),
        defense=DEFENSES.parse("learn2perturb(epsilon=8/255, step_size=0.01)"), mean=(0.5, 0.5, 0.5),
        validation_attack=ATTACKS.parse("pgd(steps=7, step_size=0.01)"), published="l2p_table1/a/b",
    )  # fmt: skip
    (small,) = scales.Digits(epochs=10, width=0.25, linf=6.0).trainings([options])
    assert (small.model.depth, small.model.width) == (8, pytest.approx(0.5 * 3**0.5))
    assert (small.epochs, small.drops, small.defense.warmup_epochs) == (10, (4, 7), 1)
    assert small.defense.epsilon == pytest.approx(48 / 255)
    assert small.defense.step_size == pytest.approx(0.06)
    assert (small.mean, small.published, small.defense.steps) == ((), "", 5)
    attack = DIGITS.attack(ATTACKS.parse("pgd(norm=l2, epsilon=0.5, steps=100)"))
    assert (attack.epsilon, attack.steps) == (0.75, 20)
    assert DIGITS.attack(ATTACKS.parse("l2p_eot")).draws == 5
    assert DIGITS.attack(ATTACKS.parse("few_pixel(pixels=3)")).pixels == 3
    assert scales.Paper().trainings([options]) == [options]


def test_a_sweep_keeps_its_ends_and_some_between():
    base = TrainOptions(
        name="x", model=MODELS.parse("basic_net"), epochs=40, defense=DEFENSES.parse("pgd"),
        validation_attack=ATTACKS.parse("pgd"),
    )  # fmt: skip
    planned = [
        dataclasses.replace(base, defense=base.defense.replace(epsilon=e), sweep={"defense.epsilon": e})
        for e in (0.01, 0.02, 0.03, 0.04, 0.05)
    ]
    small = scales.Digits(points=3).trainings(planned)
    assert [one.defense.epsilon for one in small] == pytest.approx([0.06, 0.18, 0.3])
    assert [one.sweep["defense.epsilon"] for one in small] == pytest.approx([0.06, 0.18, 0.3])
    assert len(scales.Digits(points=1).trainings(planned)) == 1


def test_operations_are_those_counted_by_hand():
    import keras

    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(5, 3, strides=2, padding="same")(image)
    model = keras.Model(image, keras.layers.Dense(7)(keras.layers.Flatten()(x)))
    assert estimate.operations(model) == 2 * (4 * 4 * 5 * 3 * 3 * 3 + 4 * 4 * 5 * 7)
    pgd, sequential = DEFENSES.parse("pgd(steps=7)"), DEFENSES.parse("learn2perturb(steps=7)")
    assert estimate.passes(DEFENSES.parse("none")) == 3
    assert estimate.passes(pgd) == 14 + 3
    assert estimate.passes(sequential) == 14 + 2 * 2 * 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runs = []", "length >= 1 - at `\\$.runs"),
        ("runs = [{flags = 'a', color = 4}]", "unknown field `color`"),
        ("runs = [{flags = 'a', column = 4}]", "got `int` - at `\\$.runs\\[0\\].column`"),
        ("measured = [{metric = 'a', statistic = 'b'}]", "'b' - at `\\$.measured\\[0\\].statistic`"),
        ("claims = [{text = 'z'}]", "required field `check`"),
        ("claims = [{text = 'z', check = 'taller'}]", "'taller'"),
        ("claims = [{text = 'z', check = 'falls'}]", "required field `runs`"),
        ("figure = 'curves'", "`figure` should be one of .*, training.*'curves'"),
        ("choices = ", "x.toml"),
    ],
)
def test_what_is_no_experiment_is_one_line(tmp_path, text, message):
    runs = "" if text.startswith("runs") else "runs = [{flags = 'a'}]\n"
    (tmp_path / "x.toml").write_text(f"title = 'x'\nabout = 'y'\n{runs}{text}")
    with pytest.raises(UserError, match=message):
        definition.load(tmp_path, "x")
    with pytest.raises(UserError, match="help"):
        definition.load(tmp_path, "y")


def rows(file):
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def stage(*arguments):
    return run_stage("pipeline", arguments, {})


SMALL = "--scale=digits(epochs=1, limit=20, repeats=1, steps=2)"


def test_a_table_from_nothing_to_its_report(tmp_path):
    """Planned, trained, attacked, reported with the published figures; and then there is nothing left to do."""
    arguments = ["--experiment=study_table1", SMALL, f"--run_dir={tmp_path}"]
    said = stage(*arguments, "--dry_run").stdout
    assert "study_table1-pgd-2  training missing, 3 attacks missing, about " in said
    assert not (tmp_path / "study_table1-pgd").exists()
    done = stage(*arguments)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "reports" / "study_table1"
    lines = rows(folder / "reproduction.csv")
    assert len(lines) == 12
    cell = next(one for one in lines if (one["column"], one["metric"]) == ("PGD l_2 training", "pgd_l2"))
    records = json.loads((tmp_path / "study_table1-pgd-2" / "attack" / "results.json").read_text())["records"]
    record = next(one for one in records if one["norm"] == "l2")
    assert float(cell["published"]) == 32.7
    assert float(cell["measured"]) == pytest.approx(100 * record["correct"] / record["count"])
    # Other data: side by side, but no difference.
    assert cell["difference"] == ""
    page = (folder / "report.html").read_text("utf-8")
    assert "published 32.7" in page
    assert "no comparison" in page
    verdicts = rows(folder / "claims.csv")
    assert {one["verdict"] for one in verdicts} <= {"borne out", "not borne out", "undecided"}
    assert all(" = " in one["figures"] for one in verdicts)
    assert "training made with other options" in stage(*arguments, "--momentum=0.5", "--dry_run").stdout
    again = stage(*arguments).stdout
    assert "Nothing is missing." in again
    assert again.count("attacked (up to date)") == 3


def test_a_figure_from_nothing_to_its_report(tmp_path):
    done = stage("--experiment=study_figure2", SMALL, f"--run_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "reports" / "study_figure2"
    assert sorted(path.name for path in (tmp_path / "study_figure2").iterdir()) == ["attack", "attack_last", "train"]
    page = (folder / "report.html").read_text("utf-8")
    assert page.index("What the paper claims") < page.index("<svg") < page.index('id="settings"')
    assert [one["verdict"] != "not measured" for one in rows(folder / "claims.csv")] == [True, True]


def test_flags_after_it_override(tmp_path):
    flags = ("--epochs=3", "--drops=1,2", "--limit=7", f"--run_dir={tmp_path}", "--seed=5")
    made = plan("study_table2", "paper", *flags)
    assert made.run_dir == pathlib.Path(tmp_path)
    one = made.first
    assert (one.options.epochs, one.options.drops, one.options.seed, one.evaluation.limit) == (3, (1, 2), 5, 7)
    scaled = ("--attacks=pgd(epsilon=0.1)", "--batch_size=200", "--learning_rate=0.001")
    one = plan("study_table2", "digits", *flags, *scaled).first
    assert (one.options.batch_size, one.options.learning_rate, one.options.epochs) == (200, 0.001, 3)
    assert [attack.spec for attack in one.evaluation.attacks] == ["pgd(epsilon=0.1)"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *((("study_table2", "paper", flag), "should not be given with --experiment")
          for flag in ("--defense=none", "--sweep=seed=0,1", "--backend=cleverhans", "--name=x", "--export=all")),
        (("study_table2", "paper", "--match=abc"), "number"),
        (("l2ptable2",), "l2p_table2"),
        (("l2p_table2", "huge"), "scale"),
    ],
)  # fmt: skip
def test_what_it_says_itself_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        plan(*arguments)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_table_and_figure_in_miniature(name, tmp_path_factory):
    """They share their trainings, as a user's would."""
    folder = tmp_path_factory.getbasetemp() / "papers"
    done = stage(f"--experiment={name}", "--scale=digits", f"--run_dir={folder}")
    assert done.returncode == 0, done.stderr
    report = folder / "reports" / name
    assert (report / "report.html").stat().st_size < 5e6
    for file in ("claims.csv", "reproduction.csv"):
        if (report / file).exists():
            for line in rows(report / file):
                assert line.get("measured") != ""
                assert line.get("verdict") != "not measured"
    assert (report / "reproduction.csv").exists() == (name in printed.load())
