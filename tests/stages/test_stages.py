import itertools
import re

import numpy as np
import pytest

import l2p_tf
from stages import configs
from support.files import read_json, records_in
from support.stages import SMALL, error, stage

L2P = "learn2perturb(warmup_epochs=1, steps=1)"
RUNS = ("none", "learn2perturb", "smoothing", "noise_at_prediction")
ATTACKED = ("fgsm(epsilon=0.1)", "pgd(epsilon=0.1, draws=2, steps=2)")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    defenses = f"--defense=none; {L2P}; smoothing; noise_at_prediction(run=none, prediction_draws=2)"
    certify = "--certify=smoothing(draws=40, selection_draws=10); pixeldp"
    flags = [*SMALL, f"--run_dir={folder}", defenses, certify, "--transfer=none,none+learn2perturb"]
    flags += ["--export=smoothing"]
    return folder, flags, stage("pipeline", *flags)


def test_the_pipeline_makes_everything(pipeline):
    folder, _, done = pipeline
    made = {p.parent.relative_to(folder).as_posix() for p in folder.rglob("manifest.json")}
    runs = {f"{name}/{what}" for name in RUNS for what in ("train", "attack")}
    certified = {"smoothing/certify", "noise_at_prediction/certify"}
    assert made == runs | certified | {"data", "smoothing/export", "report", "transfer"}
    assert not list(folder.rglob("*.partial"))
    assert not list(folder.rglob("*.lock"))
    records = records_in(folder / "learn2perturb" / "attack")
    assert [(r["label"], r["repeat"]) for r in records] == [
        (label, repeat) for label in ("clean", "FGSM", "PGD-2 EOT-2") for repeat in (0, 1)
    ]
    assert all(r["randomized"] and r["count"] == 40 for r in records)
    plain = records_in(folder / "none" / "attack")
    assert len(plain) == 3
    assert "report.html" in done.stdout
    page = (folder / "report" / "report.html").read_text()
    for name in ("none", "smoothing", "learn2perturb", "PGD-2 EOT-2", "Certified robustness"):
        assert name in page
    # Learn2Perturb answers with one draw, the others with what their options say.
    for name, draws in (("learn2perturb", 1), ("smoothing", 10), ("noise_at_prediction", 2)):
        records = records_in(folder / name / "attack")
        assert {r["prediction_draws"] for r in records} == {draws}
    made_from = read_json(folder / "noise_at_prediction" / "train" / "manifest.json")
    assert set(made_from["inputs"]) == {"data", "source"}
    assert "noise_at_prediction: made from none" in done.stdout
    assert "none: not certified: `sigma` of smoothing should be given" in done.stdout
    certificates = read_json(folder / "smoothing" / "certify" / "certificates.json")["certificates"]
    card = read_json(folder / "smoothing" / "export" / "serving.json")
    assert card["certify"] == {"certificate": certificates[0]["certificate"], "left_out": ""}
    assert "certify" in card["signatures"]
    assert [(c["label"], c["count"], c["draws"]) for c in certificates] == [("smoothing", 40, 40)]


def test_the_pipeline_does_nothing_twice(pipeline):
    folder, flags, _ = pipeline
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    again = stage("pipeline", *flags)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()} == before
    assert again.stdout.count("up to date") >= 8


def test_transfer_is_a_matrix_and_is_not_made_twice(pipeline):
    runs, flags, _ = pipeline
    found = {(r["source"], r["model"], r["attack"], r["repeat"]): r for r in records_in(runs / "transfer")}
    assert set(found) == set(itertools.product(("none", "none+learn2perturb"), RUNS, ATTACKED, (0, 1)))
    for (_, model, _, _), record in found.items():
        arrays = np.load(runs / "transfer" / record["arrays"])
        assert record["correct"] == arrays["correct"].sum()
        assert record["reached"] == 40 - record["correct"]
        assert arrays["linf"].max() <= 0.1 + 1e-6
        assert record["randomized"] == (model != "none")
    # Made on the undefended model itself, as the attack stage does it, they are as good as there.
    assert found["none", "none", ATTACKED[0], 0]["correct"] == records_in(runs / "none" / "attack")[1]["correct"]
    page = (runs / "report" / "report.html").read_text()
    assert "none + learn2perturb" in page
    flags = [*SMALL, f"--run_dir={runs}"]
    pair = [*flags, "--transfer=none,learn2perturb", "--attacks=fgsm"]
    assert "white-box" in stage("attack", *pair, "--overwrite").stdout
    done = stage("attack", *pair)
    assert "up to date" in done.stdout
    assert "white-box" in done.stdout
    assert "should name runs of" in error("pipeline", *flags, "--defense=none", "--transfer=pgd")
    assert "pgd/train" in error("attack", *flags, "--transfer=none,pgd")
    assert "untargeted" in error("attack", *flags, "--attacks=pgd(target=next)", "--transfer=none", "--overwrite")


def test_both_backends_side_by_side(pipeline):
    runs, _, _ = pipeline
    flags = [f"--run_dir={runs}", "--name=none"]
    specs = "--attacks=mim(epsilon=0.1, steps=3)"
    done = stage("attack", *flags, *SMALL, specs, "--backend=l2p_tf,cleverhans")
    assert "MIM-3 (CleverHans)" in done.stdout
    clean, theirs = records_in(runs / "none" / "attack_cleverhans")
    assert (clean["attack"], clean["backend"]) == ("clean", "l2p_tf")
    assert (theirs["attack"], theirs["backend"]) == ("mim(epsilon=0.1, steps=3)", "cleverhans")
    (ours,) = (r for r in records_in(runs / "none" / "attack") if r["label"] == "MIM-3")
    assert abs(ours["correct"] - theirs["correct"]) <= 1
    stage("report", f"--run_dir={runs}", "--overwrite")
    assert "CleverHans" in (runs / "report" / "report.md").read_text()
    assert "cannot run 'cw'" in error("attack", *flags, *SMALL, "--attacks=fgsm; cw", "--backend=cleverhans")
    assert "`--backend` should be" in error("attack", *flags, *SMALL, "--backend=torch")


def test_stages_work_on_what_the_pipeline_made(pipeline, tmp_path):
    folder, _, _ = pipeline
    common = [f"--run_dir={folder}", "--name=none", "--checks=0"]
    done = stage("attack", *common, "--attacks=pgd(steps=1)", "--limit=20", "--overwrite")
    assert "PGD-1" in done.stdout
    assert "Pass --overwrite to replace it" in error("attack", *common, "--attacks=fgsm", "--limit=20", "--seed=1")
    done = stage("attack", *common, "--attacks=fgsm", "--limit=20")
    assert "none: attacked (1 attack joined 1)" in done.stdout
    assert "PGD-1" in done.stdout
    assert "none: attacked (up to date)" in stage("attack", *common, "--attacks=pgd(steps=1)", "--limit=20").stdout
    # On more images beside it; the report takes the record on the most images.
    done = stage("attack", *common, "--attacks=pgd(steps=1); noise")
    beside = folder / "none" / "attack_all_images"
    assert str(beside) in done.stdout
    assert {r["count"] for r in records_in(beside)} == {40}
    assert "none: attacked (up to date)" in stage("attack", *common, "--attacks=noise").stdout
    rows = l2p_tf.results(folder).records
    rows = rows[(rows["run"] == "none") & rows["counted"] & rows["kind"].isin(["clean", "bounded"])]
    counts = dict(zip(rows["label"], rows["count"], strict=True))
    assert {label: counts[label] for label in ("clean", "FGSM", "PGD-1")} == {"clean": 40, "FGSM": 20, "PGD-1": 40}
    line = error("attack", f"--run_dir={folder}", "--attacks=fgsm")
    assert "`--name` should be the run that is meant" in line
    assert "learn2perturb, noise_at_prediction, none, smoothing" in line
    stage("report", f"--runs={folder}", f"--run_dir={tmp_path}")
    assert (tmp_path / "report" / "report.html").is_file()


def test_attacks_of_all_kinds_through_the_stage(pipeline):
    runs, _, _ = pipeline
    flags = [f"--run_dir={runs}", "--name=none", "--overwrite", "--limit=12"]
    attacks = (
        "autoattack(epsilon=0.1, steps=3, queries=10, target_classes=2); deepfool(steps=5); "
        "few_pixel(pixels=2, population=8, generations=2); worst_case(epsilon=0.1, attacks=(pgd(steps=2), noise)); "
        "pgd(epsilon=0.3, target=next)"
    )
    done = stage("attack", *flags, *SMALL, f"--attacks={attacks}", "--limit=12")
    assert "AutoAttack shortened" in done.stdout
    assert "2 pixels" in done.stdout
    assert "smallest L2" in done.stdout
    records = records_in(runs / "none" / "attack")
    assert [r["norm"] for r in records] == [None, "linf", "l2", "l0", "linf", "linf"]
    assert [r["epsilon"] for r in records] == [None, 0.1, None, 2.0, 0.1, 0.3]
    arrays = np.load(runs / "none" / "attack" / records[1]["arrays"])
    kinds = "index label prediction probability correct success success_8bit l0 l1 l2 linf gradients forwards"
    assert set(arrays.files) == set(kinds.split())


def test_unknown_names_list_what_there_is(tmp_path):
    run = f"--run_dir={tmp_path}"
    assert "Known: adv_bnn, fgsm, generator, learn2perturb, mat, noise_at_prediction, none" in error(
        "train", run, "--dataset=digits", "--defense=magic"
    )
    assert "Known: all_conv, basic_net" in error("train", run, "--dataset=digits", "--defense=none", "--model=alexnet")
    assert "Known: apgd, " in error("pipeline", *SMALL, run, "--defense=none", "--attacks=nuke")
    assert "Known: cifar10" in error("data", run, "--dataset=imagenot")
    assert not list(tmp_path.glob("none/*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs=0"], "epochs"),
        (["--learning_rate=fast"], "fast"),
        (["--drops=9"], "`drops` should rise and lie between 1 and 1. Received: [9]"),
        (["--defense=pgd(steps=-1)"], "`steps` should be at least 1. Received: -1"),
        (["--batch_size=1000"], "`batch_size` should be from 1 to"),
        (["--nonsense=1"], "nonsense"),
        (["stray"], "'stray'"),
        (["--flagfile=missing.flags"], "missing.flags"),
        (["--published=l2p_table1/ResNet-V9/Vanilla"], "ResNet-V9"),
        (["--mean=0.1,x"], "'x'"),
        (["--mean=0.1,0.2"], "`mean` should be one number or 1, one per channel"),
        (["--std=0"], "`std` should be above 0"),
        (["--seed=5000000000"], "seed"),
        (["--drops=1.5"], "`drops` should be of type int. Received: 1.5"),
        (["--name=../x"], "`--name` should be letters"),
        (["--name=Report"], "`--name` should not be all, data, transfer, report"),
        (["--name=x.partial"], "or end in .partial, .old, .lock"),
        (["--defense=pgd(epsilon=1e999)"], "1e999"),
        (["--validation_share=0"], "`validation_share` should be above 0"),
    ],
)
def test_bad_flags_are_one_line(tmp_path, arguments, message):
    line = error("train", *SMALL, f"--run_dir={tmp_path}", "--defense=none", *arguments)
    assert message in line
    assert not list(tmp_path.glob("none/*"))


def test_missing_inputs_are_named(tmp_path):
    run = f"--run_dir={tmp_path}"
    assert "`--dataset` should be given" in error("data", run)
    assert "`--defense` should be given" in error("train", run, "--dataset=digits")
    assert "should be the folder of a finished train stage" in error("attack", run, "--dataset=digits", "--name=none")
    assert "one defense here" in error("train", run, "--dataset=digits", "--defense=none; pgd")
    derived = "--defense=noise_at_prediction(run=none); none"
    assert "`run` of noise_at_prediction should name" in error("pipeline", *SMALL, run, derived)
    assert "`run` of noise_at_prediction should name" in error("train", *SMALL, run, "--defense=noise_at_prediction")
    assert "Smoothing: `sigma` should be above 0" in error("attack", run, "--name=x", "--certify=smoothing(sigma=0)")
    assert "`match` should be clean accuracies" in error("pipeline", *SMALL, run, "--defense=none", "--match=2")
    assert "`--export` should name runs of none" in error("pipeline", *SMALL, run, "--defense=none", "--export=x")


def test_an_export_that_tensorflow_could_not_load_is_refused_before_the_work(tmp_path):
    for folder in ("sweep [1]", "back\\slash"):
        run = f"--run_dir={tmp_path / folder}"
        line = error("pipeline", *SMALL, run, "--defense=none", "--export=all")
        assert "without brackets and backslashes" in line
    assert not list(tmp_path.iterdir())


def test_help_teaches():
    shown = stage("attack", "--attacks=help").stdout
    assert "pgd: Projected gradient descent" in shown
    assert "restarts=1" in shown
    assert "--attacks" in stage("attack", "--help").stdout
    assert "gamma=0.0001" in stage("train", "--defense=help").stdout


@pytest.mark.parametrize("name", configs.names())
def test_every_config_says_what_it_does_and_can_be_read(name):
    text = configs.path(name).read_text("utf-8")
    assert text.startswith(f"# python -m stages.pipeline --config={name}")
    from l2p_tf.data import DATASETS
    from l2p_tf.reporting.measured import Match
    from stages import calls, settings

    flags = settings.read([f"--config={name}"])
    named = flags.trainings
    for i, options in enumerate(named.values()):
        assert not options.drops or max(options.drops) < options.epochs
        calls.check_source(options, list(named)[:i])
    flags.check()
    calls.check_generators(flags, list(named))
    assert {part for source in flags.transfer_sources([]) for part in source.split("+")} <= set(named)
    assert set(flags.export) <= set(named)
    Match(*flags.matched.values())
    DATASETS.parse(flags.dataset)
    if options.published:
        from l2p_tf.experiments import printed

        cells = printed.target(options.published).cells
        told = re.search(r"Published: clean ([0-9.]+), PGD ([0-9.]+), FGSM ([0-9.]+)\.\n", text)
        assert [float(number) for number in told.groups()] == [cells[m].value for m in ("clean", "pgd", "fgsm")]
