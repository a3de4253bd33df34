"""The flags of all stages: by topic, and following from what the library declares."""

import importlib
import re

import pytest
from absl import flags

from l2p_tf.certification.options import CertificationOptions
from l2p_tf.evaluation.options import CheckOptions, EvaluationOptions
from l2p_tf.fitting.options import TrainOptions
from l2p_tf.options import declared, flag_of
from l2p_tf.types import UserError
from stages import configs, definitions, settings
from support.stages import run

OPTIONS = (TrainOptions, EvaluationOptions, CheckOptions, CertificationOptions)
DECLARED = [pytest.param(options, field, id=f"{options.__name__}.{field.name}")
            for options in OPTIONS for field in declared(options)]  # fmt: skip


@pytest.mark.parametrize(("options", "field"), DECLARED)
def test_every_option_is_a_flag_with_its_default_and_its_help(options, field):
    flag, default = definitions.FLAGS[flag_of(field)], field.default
    default = "" if field.metadata["specs"] and default in (None, ()) else default
    assert flag.default == (list(default) if isinstance(default, tuple) else default)
    assert flag.help.endswith(field.metadata["help"])
    assert any(flag.name in names for names in definitions.TOPICS.values())


@pytest.mark.parametrize(("options", "field"), DECLARED)
def test_a_value_out_of_bounds_is_refused_as_a_flag_or_as_an_option(options, field):
    low, high, above = (field.metadata[key] for key in ("low", "high", "above"))
    bad = [low - 1] if low is not None else []
    bad += [high + 1] if high is not None else []
    bad += [above] if above is not None else []
    bad += ["nonsense"] if field.metadata["choices"] else []
    needed = {"name": "run", "defense": None} if options is TrainOptions else {}
    for value in bad:
        with pytest.raises(UserError, match=flag_of(field)):
            given = settings.read([f"--{flag_of(field)}={value}", "--defense=none", "--certify=smoothing(sigma=1)"])
            given.check()
            _ = given.trainings
        with pytest.raises(UserError, match=f"`{flag_of(field)}`"):
            options(**{**needed, field.name: value})


def test_flags_come_to_the_options_that_the_library_takes_by_default():
    given = settings.read(["--defense=none"])
    assert given.evaluation == EvaluationOptions()
    assert given.masking_checks == CheckOptions()
    assert given.trainings == {"none": TrainOptions(name="none", defense=given.trainings["none"].defense)}
    assert given.certification is None
    assert settings.read(["--checks=0"]).masking_checks is None


def test_numbers_may_be_arithmetic():
    assert settings.read(["--checks_epsilon=8/255", "--checks=20"]).masking_checks.epsilon == 8 / 255
    for text in ("-1/2", "1/0", "eight", "2"):
        with pytest.raises(UserError, match="checks_epsilon"):
            _ = settings.read([f"--checks_epsilon={text}"]).masking_checks


def test_reading_flags_leaves_those_of_the_command_line(tmp_path):
    (tmp_path / "more.flags").write_text("--epochs=7\n--attacks=fgsm; pgd(steps=3)\n")
    before = {name: definitions.FLAGS[name].value for name in ("epochs", "seed", "attacks")}
    given = settings.read([f"--flagfile={tmp_path / 'more.flags'}", "--seed=3"])
    assert (given.epochs, given.seed, len(given.evaluation.attacks)) == (7, 3, 2)
    assert given.given == ["seed", "epochs", "attacks"]
    assert settings.read(given.arguments()).arguments() == given.arguments()
    assert {name: definitions.FLAGS[name].value for name in before} == before
    with pytest.raises(UserError, match="nonsense"):
        settings.read(["--nonsense=1"])


def test_config_names_a_flag_file_of_the_package_and_flags_beside_it_override_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # Where there is nothing.
    (tmp_path / "mine.flags").write_text("--epochs=7\n--config=quickstart\n")
    for before, after in ([[], ["--epochs=7"]], [["--epochs=7"], []], [["--flagfile=mine.flags"], []]):
        config = [] if "mine" in str(before) else ["--config=quickstart"]
        given = settings.read([*before, *config, *after])
        assert (given.epochs, given.dataset, given.batch_size) == (7, "digits", 64)
    assert settings.read(["--config", "l2p", "--seed=2"]).dataset == "cifar10"  # From a base that it includes.
    for name, said in (("quikstart", "mean quickstart?"), ("../l2p", "mean l2p?"), ("/", "help")):
        with pytest.raises(UserError, match=re.escape(said)):
            settings.read([f"--config={name}"])


def test_help_lists_the_flag_files_of_the_package():
    lines = configs.listed().splitlines()
    assert len(lines) == len(configs.names()) == len(set(lines))
    assert next(line for line in lines if line.startswith("pgd_v1_20 ")).endswith("Learn2Perturb, Table 1.")
    for line in lines:
        name, about = line.split(maxsplit=1)
        assert about.endswith("."), name


@pytest.mark.parametrize("name", definitions.STAGES)
def test_help_shows_the_flags_of_a_stage_by_topic_in_80_columns(name):
    shown = run(name, "--help")
    text, _, options = shown.partition("\n\n" + f"{definitions.STAGES[name][0]}:\n")
    assert text.startswith(importlib.import_module(f"stages.{name}").__doc__.splitlines()[0])
    topics = re.findall(r"^(\w[\w ]*):$", options, re.MULTILINE)
    assert topics == [*definitions.STAGES[name][1:], "General"]
    flags_shown = re.findall(r"^  --(?:\[no\])?(\w+)", options, re.MULTILINE)
    assert flags_shown == [
        flag for topic in (*definitions.STAGES[name], "General") for flag in definitions.TOPICS[topic]
    ]
    assert max(map(len, options.splitlines())) <= 80


def test_every_flag_has_a_topic_that_a_stage_reads():
    read = {topic for topics in definitions.STAGES.values() for topic in topics} | {"General"}
    assert set(definitions.TOPICS) == read
    named = [name for names in definitions.TOPICS.values() for name in names]
    assert len(named) == len(set(named))
    assert set(flags.FLAGS.flags_by_module_dict()[definitions.__name__] and named) == set(named)
