"""Published beside measured, and claims judged, on results made by hand."""

import dataclasses
import json

import numpy as np
import pytest

from l2p_tf import artifacts
from l2p_tf.evaluation.records import Record, write_records
from l2p_tf.experiments import claims, printed
from l2p_tf.experiments.definition import Claim, Experiment, Measure, Member
from l2p_tf.experiments.reproduction import Reproduction, section
from l2p_tf.manifest import sealed
from l2p_tf.reporting import report
from l2p_tf.reporting.pairs import pairs_of
from l2p_tf.types import UserError
from support.reports import make_data, make_train, results_of

FGSM, CW = "fgsm(epsilon=0.03)", "cw"
TABLE = printed.load()["study_table5"]
EVIL = "<b>&'\""


def lines_of(section):
    return section.figures.to_dict("records")


def answers(right, count=200, shift=0):
    """Whether each image was right: `right` of them, from number `shift` on."""
    return (np.arange(count) - shift) % count < right


def make_run(root, data, name, given, norms=None, checkpoint="best", **options):
    """A run whose images were right as `given` says, by attack: one array a repeat."""
    train = root / name / "train"
    train = artifacts.read(train) if train.exists() else make_train(root, data, name, folder=f"{name}/train", **options)
    with artifacts.produce(
        root / name / f"attack_{checkpoint}", "attack", {"checkpoint": checkpoint}, {"train": train, "data": data}
    ) as work:
        (work.path / "arrays").mkdir()
        records = []
        for attack, repeats in given.items():
            for repeat, correct in enumerate(repeats):
                file = f"arrays/{len(records)}.npz"
                count, right = len(correct), int(correct.sum())
                norm = None if attack == "clean" else "l2" if attack == CW else "linf"
                records.append(Record(
                    name, "cifar10", "test", attack, attack, norm, 0.03 if norm == "linf" else None, 1, 1, 1, 1,
                    "l2p_tf", None, repeat, 0, len(repeats) > 1, count, right, count - right, 0, 1.0, 1.0, 0.1, file,
                ))  # fmt: skip
                sizes = np.asarray(norms if norms is not None else np.ones(count), np.float32)
                zeros = np.zeros(count, np.int32)
                np.savez(work.path / file, index=np.arange(count), correct=correct, prediction=zeros, label=zeros,
                         success=(~correct).astype(np.float32), l2=sizes, linf=sizes)  # fmt: skip
        write_records(work.path, records)
    return train


def reproduced(root, names, claimed=(), table=None, measured=(), places=None, **fields):
    found = Experiment("x", "A paper, Table 5", "About it", tuple(map(Member, names)), claims=tuple(claimed),
                       measured=tuple(measured), **fields)  # fmt: skip
    results = results_of(root)
    keys = {run.name: run.key for run in results.all_runs}
    attacks = {"clean": ("clean",), FGSM: (FGSM,), "cw": (CW,), "both": (FGSM, "clean")}
    return Reproduction(found, keys, places or dict.fromkeys(names, ()), attacks, table), results


@pytest.fixture
def judged(tmp_path):
    """`a` is above `b` on 40 of 200 images; `c` is `b` with two images exchanged."""
    data = make_data(tmp_path, name="cifar10")
    b = answers(100)
    c = b.copy()
    c[[0, 150]] = c[[150, 0]]
    for name, right in (("a", answers(140)), ("b", b), ("c", c)):
        make_run(tmp_path, data, name, {"clean": [answers(180)], FGSM: [right]})
    return tmp_path


def verdict(root, check, **options):
    made, results = reproduced(root, ["a", "b", "c"], [Claim("It is so.", check, options)])
    (sheet,) = claims.section(made, results).tables
    return sheet.rows[0][1].text, sheet.rows[0][2].text


def test_better_is_said_only_where_a_paired_test_says_it(judged):
    word, text = verdict(judged, "above", run="a", than=["b"], attack=FGSM)
    # 2 / 2 ** 40
    assert (word, text) == ("borne out", "a 70.0 \N{MINUS SIGN} b 50.0 = +20.0 (+14.3 to +25.5), p = 1.8e-12.")
    assert verdict(judged, "above", run="b", than=["a"], attack=FGSM)[0] == "not borne out"
    word, text = verdict(judged, "above", run="c", than=["b"], attack=FGSM)
    assert (word, text[-8:]) == ("undecided", ", p = 1.")
    assert verdict(judged, "above", run="a", than=["b", "c"], attack=FGSM)[0] == "borne out"
    word, text = verdict(judged, "above", run="a", than=["b"], attack="both")
    assert word == "undecided"
    assert text.startswith(
        "Of 2 comparisons 1 higher, 0 lower, 1 with no significant difference. Least: a 90.0 \N{MINUS SIGN} b 90.0 = +0"
    )
    assert verdict(judged, "above", run="a", than=["missing"], attack=FGSM)[0] == "not measured"


def test_other_images_are_no_pairs(judged):
    make_run(judged, artifacts.read(judged / "data"), "d", {FGSM: [answers(10, count=100)]})
    made, results = reproduced(judged, ["a", "d"], [Claim("x", "above", {"run": "a", "than": ["d"], "attack": FGSM})])
    assert claims.section(made, results).tables[0].rows[0][1].text == "not measured"


def test_repeats_count_by_their_mean(tmp_path):
    data = make_data(tmp_path, name="cifar10")
    make_run(tmp_path, data, "a", {FGSM: [answers(100), answers(110)]})
    make_run(tmp_path, data, "b", {FGSM: [answers(100)]})
    # Ten images differ by a half each; a sign flip of ten equal differences has p = 2 / 2 ** 10.
    text = verdict(tmp_path, "above", run="a", than=["b"], attack=FGSM)[1]
    assert text.startswith("a 52.5 \N{MINUS SIGN} b 50.0 = +2.5 (+0.14")
    assert text.endswith("p = 0.002.")


def test_a_test_that_is_surer_than_the_interval_does_not_count(tmp_path):
    """Ten repeats, each image right in some of them: the test sees their means, the interval single answers."""
    data = make_data(tmp_path, name="cifar10")
    make_run(tmp_path, data, "a", {FGSM: [answers(60, 100, shift=10 * i) for i in range(10)]})
    make_run(tmp_path, data, "b", {FGSM: [answers(50, 100, shift=10 * i) for i in range(10)]})
    word, text = verdict(tmp_path, "above", run="a", than=["b"], attack=FGSM)
    assert float(text.rstrip(".").rsplit("p = ")[1]) < 0.05
    assert "(\N{MINUS SIGN}" in text
    assert word == "undecided"
    assert not pairs_of(results_of(tmp_path)).groups[0].pairs[0].better


def test_falling_and_the_highest(judged):
    assert verdict(judged, "falls", runs=["a", "b"], attack="both")[0] == "not borne out"
    made, results = reproduced(judged, ["a", "b", "c"], [Claim("x", "falls", {"runs": "*", "attack": "both"})])
    made = dataclasses.replace(made, attacks={"both": ("clean", FGSM)})
    assert claims.section(made, results).tables[0].rows[0][1].text == "borne out"
    assert verdict(judged, "highest", run="a", runs=["*"], attack=FGSM)[0] == "borne out"
    assert verdict(judged, "highest", run="b", runs=["*"], attack=FGSM)[0] == "not borne out"
    assert verdict(judged, "highest", run="b", runs=["b", "c"], attack=FGSM)[0] == "undecided"


def test_comparisons_of_one_claim_are_corrected_together(tmp_path):
    data = make_data(tmp_path, name="cifar10")
    make_run(tmp_path, data, "a", {FGSM: [answers(107)]})
    for name in "bc":
        make_run(tmp_path, data, name, {FGSM: [answers(100)]})
    # 7 images: p = 2 / 2 ** 7 = 0.0156 alone, 0.031 twice; of a fourth with 6 images 0.0312 alone counts no longer.
    assert verdict(tmp_path, "above", run="a", than=["b", "c"], attack=FGSM)[0] == "borne out"
    make_run(tmp_path, data, "d", {FGSM: [answers(101)]})
    made, results = reproduced(
        tmp_path, ["a", "b", "c", "d"], [Claim("x", "above", {"run": "a", "than": ["d"], "attack": FGSM})]
    )
    assert claims.section(made, results).tables[0].rows[0][2].text.endswith("p = 0.031.")
    made, results = reproduced(
        tmp_path, ["a", "b", "c", "d"], [Claim("x", "above", {"run": "a", "than": ["b", "c", "d"], "attack": FGSM})]
    )
    assert claims.section(made, results).tables[0].rows[0][1].text == "borne out"


def test_runs_that_learned_nothing_are_named(tmp_path):
    data = make_data(tmp_path, name="cifar10")
    make_run(tmp_path, data, "a", {"clean": [answers(180)], FGSM: [answers(140)]})
    make_run(tmp_path, data, "b", {"clean": [answers(20)], FGSM: [answers(10)]})
    made, results = reproduced(tmp_path, ["a", "b"], [Claim("x", "above", {"run": "a", "than": ["b"], "attack": FGSM})])
    assert (
        "Too poor on clean images for what they say here to tell anything: b (10.0% clean)."
        in claims.section(made, results).note
    )


def test_the_best_weights_against_the_last(tmp_path):
    data = make_data(tmp_path, name="cifar10")
    make_run(tmp_path, data, "a", {FGSM: [answers(140)]})
    make_run(tmp_path, data, "a", {FGSM: [answers(100)]}, checkpoint="last")
    options = {"run": "a", "than": ["a"], "attack": FGSM, "checkpoint": "best", "than_checkpoint": "last"}
    assert verdict(tmp_path, "above", **options)[0] == "borne out"
    assert (
        verdict(tmp_path, "above", **options | {"checkpoint": "last", "than_checkpoint": "best"})[0] == "not borne out"
    )


def test_sizes_and_curves(tmp_path):
    data = make_data(tmp_path, name="cifar10")
    rng = np.random.default_rng(0)
    for name, clean, size in (("a", 160, 2.0), ("b", 180, 1.0), ("c", 140, 3.0), ("d", 170, 1.9)):
        norms = size + 0.1 * rng.random(200)
        make_run(tmp_path, data, name, {"clean": [answers(clean)], CW: [answers(0)]}, norms)
    made, results = reproduced(tmp_path, ["a", "b", "c", "d"])

    def judge(check, **options):
        by_name = {run.name: run for run in results.all_runs}
        return claims.judge(Claim("x", check, options), claims.Evidence(made, results, by_name))

    assert judge("larger", run="a", than=["b"], attack="cw").word == "borne out"
    assert judge("larger", run="b", than=["a"], attack="cw").word == "not borne out"
    # Between b (90%, 1.05) and c (70%, 3.05) the line passes 85% at 1.55 and 80% at 2.05.
    assert judge("outside", runs=["d"], than=["b", "c"], attack="cw").word == "borne out"
    assert "85.0%: 1.95 against 1.55" in judge("outside", runs=["d"], than=["b", "c"], attack="cw").text
    assert judge("outside", runs=["b"], than=["a", "c"], attack="cw").word == "undecided"
    with pytest.raises(UserError, match="option 'run'"):
        judge("above", than=["b"], attack="cw")
    with pytest.raises(UserError, match="`check` of a claim"):
        judge("taller")


def test_curves_of_a_training_rise_or_fall(tmp_path):
    make_run(tmp_path, make_data(tmp_path), "learn2perturb", {"clean": [answers(10)]})
    made, results = reproduced(tmp_path, ["learn2perturb"])
    evidence = claims.Evidence(made, results, {run.name: run for run in results.all_runs})

    def judge(**options):
        return claims.judge(Claim("x", "moves", {"run": "learn2perturb", **options}), evidence)

    assert judge(column="clean_accuracy", direction="rises").word == "borne out"
    assert judge(column="clean_accuracy", direction="falls").word == "not borne out"
    assert judge(column="loss", direction="falls", by=1.5).word == "borne out"
    assert judge(column="loss", direction="falls", by=100).word == "not borne out"
    assert judge(column="learning_rate", direction="rises").word == "undecided"
    assert judge(column="nothing", direction="falls").word == "not measured"
    theta = judge(parameter="theta", direction="rises")
    assert theta.text.startswith("theta of learn2perturb went from ")
    assert "over 8 values" in theta.text  # Of 12 epochs the noise is on from the fifth.


def test_the_table_sets_published_beside_measured(judged):
    places = {"a": [("ResNet20", "NoiseNet")], "b": [("ResNet20", "Without noise")], "c": []}
    how = {
        "table": TABLE,
        "places": places,
        "measured": [Measure("fgsm", FGSM)],
        "choices": (EVIL,),
        "prints": "study_table5",
    }
    made, results = reproduced(judged, ["a", "b", "c"], **how)
    found = section(made, results)
    (sheet,) = found.tables
    assert [head.label for head in sheet.columns[1:]] == ["NoiseNet", "Without noise"]
    row = next(row for row in sheet.rows if row[0].text == "FGSM")
    assert row[1].lines == ("70.0", "63.3\N{EN DASH}75.9", "n = 200", "published 49.51", "+20.49")
    assert row[2].lines == ("50.0", "43.1\N{EN DASH}56.9", "n = 200", "published 53.82", "\N{MINUS SIGN}3.82")
    clean = next(row for row in sheet.rows if row[0].text == "Clean")
    assert clean[1].text == "90.0"
    pgd = next(row for row in sheet.rows if "PGD" in row[0].text)
    assert pgd[1].lines[0] == "\N{EN DASH}"
    assert pgd[1].lines[1].startswith("published 41.15")
    lines = {(line["column"], line["metric"]): line for line in lines_of(found)}
    assert len(lines) == len(TABLE.cells)
    assert lines["NoiseNet", "fgsm"]["difference"] == pytest.approx(20.49)
    assert lines["NoiseNet", "pgd_linf"]["measured"] is None


def test_means_of_cells_and_times(tmp_path):
    table = printed.load()["generator_table2"]
    data = make_data(tmp_path, name="cifar10")
    make_run(tmp_path, data, "a", {"clean": [answers(180)], CW: [answers(20)], FGSM: [answers(100)]}, np.full(200, 0.5))
    measured = [Measure("cw_accuracy", "cw"), Measure("fgm_accuracy", FGSM), Measure("cw_mean_l2", "cw", "mean_l2"),
                Measure("average_accuracy", of=("cw_accuracy", "fgm_accuracy")),
                Measure("seconds_per_epoch", statistic="seconds_per_epoch")]  # fmt: skip
    places = {"a": [("All-convolutional", "Generator")]}
    made, results = reproduced(tmp_path, ["a"], table=table, places=places, measured=measured)
    lines = {line["metric"]: line for line in lines_of(section(made, results)) if line["column"] == "Generator"}
    assert lines["average_accuracy"]["measured"] == pytest.approx((10 + 50) / 2)
    assert lines["cw_mean_l2"]["measured"] == pytest.approx(0.5)
    assert lines["seconds_per_epoch"]["measured"] == pytest.approx(1000 / 1234.5, abs=1e-3)
    assert lines["mim_accuracy"]["measured"] is None


def test_the_report_has_both_first_and_escapes_them(judged, tmp_path):
    places = {"a": [("ResNet20", "NoiseNet")], "b": [], "c": []}
    claim = Claim(EVIL, "above", {"run": "a", "than": ["b"], "attack": FGSM})
    made, _ = reproduced(
        judged, ["a", "b", "c"], [claim], table=TABLE, places=places, choices=(EVIL,), prints="study_table5"
    )
    given = [judged / name for name in "abc"] + [judged / "data"]
    folder = report.make(given, tmp_path / "out", **claims.of_report(made)).path
    page = (folder / "report.html").read_text("utf-8")
    assert EVIL not in page
    assert page.index('id="reproduction"') < page.index('id="claims"') < page.index('id="settings"')
    assert (folder / "claims.csv").is_file()
    assert "borne out" in (folder / "report.md").read_text("utf-8")
    # Another claim makes another report.
    changed = dataclasses.replace(made, experiment=dataclasses.replace(made.experiment, claims=()))
    report.make(given, tmp_path / "out", **claims.of_report(changed), overwrite=True)
    assert not (folder / "claims.csv").exists()


def test_trainings_stand_side_by_side(tmp_path):
    data = make_data(tmp_path)
    for name in ("pgd", "learn2perturb", "learn2perturb_2"):
        make_run(tmp_path, data, name, {"clean": [answers(10)]})
    made = report.make([tmp_path], tmp_path / "out")
    names = sorted(path.stem for path in (made.path / "plots").glob("trainings-*.svg"))
    assert names == ["trainings-0", "trainings-2"]
    drawn = (made.path / "plots" / "trainings-2.svg").read_text("utf-8")
    assert "learn2perturb_2, theta" in drawn
    (run,) = [run for run in results_of(tmp_path).all_runs if run.name == "learn2perturb"]
    means = run.history.noise_means("theta")
    assert means == pytest.approx(np.mean([run.history.columns[f"theta/noise_{i}/mean"] for i in range(3)], axis=0))
    assert run.history.noise_means("alpha") is None
    page = (made.path / "report.html").read_text("utf-8")
    assert "Trainings side by side" in page
    (tmp_path / "one").mkdir()
    make_run(tmp_path / "one", make_data(tmp_path / "one"), "pgd", {"clean": [answers(10)]})
    assert not list((report.make([tmp_path / "one"], tmp_path / "alone").path / "plots").glob("trainings-*.svg"))


def test_no_cell_is_filled_by_what_was_made_otherwise(tmp_path):
    """Made on another run, on the run itself, with other weights, or on another split."""
    data = make_data(tmp_path, name="cifar10")
    table = printed.load()["l2p_supp_table2"]
    for name, right in (("a", 140), ("b", 100)):
        make_run(tmp_path, data, name, {FGSM: [answers(right)]})
    places = {"a": [("ResNet-V1(20)", "Vanilla")], "b": [("ResNet-V1(20)", "PNI")]}
    spec = table.metrics["fgsm_from_vanilla"].spec
    made, results = reproduced(tmp_path, ["a", "b"], table=table, places=places)
    made = dataclasses.replace(made, attacks={spec: (FGSM,)})
    # White-box results of both runs are there, and nothing that was transferred.
    assert [line["measured"] for line in lines_of(section(made, results)) if line["measured"] is not None] == []
    # With the best and the last weights the best ones count.
    make_run(tmp_path, data, "a", {FGSM: [answers(20)]}, checkpoint="last")
    places = {"a": [("ResNet20", "NoiseNet")]}
    made, results = reproduced(tmp_path, ["a"], table=TABLE, places=places, measured=[Measure("fgsm", FGSM)])
    (line,) = [line for line in lines_of(section(made, results)) if line["measured"] is not None]
    assert line["measured"] == 70
    # Another split than the printed one fills nothing.
    other = dataclasses.replace(TABLE, split="validation")
    made, results = reproduced(tmp_path, ["a"], table=other, places=places, measured=[Measure("fgsm", FGSM)])
    assert not [line for line in lines_of(section(made, results)) if line["measured"] is not None]


def test_results_name_files_of_their_own_folder_alone(judged, tmp_path):
    outside = tmp_path / "outside.npz"
    np.savez(outside, index=np.arange(200), correct=np.ones(200, bool))
    results = judged / "a" / "attack_best" / "results.json"
    held = json.loads(results.read_text("utf-8"))
    for path in (str(outside), "../../outside.npz"):
        held["records"][1]["arrays"] = path
        results.write_text(json.dumps(held))
        manifest = judged / "a" / "attack_best" / "manifest.json"
        written = json.loads(manifest.read_text("utf-8"))
        written["outputs"] = {"results.json": artifacts.digest_file(results), path: artifacts.digest_file(outside)}
        manifest.write_text(json.dumps(sealed(written)))
        with pytest.raises(UserError, match="should name files in"):
            report.make([judged], tmp_path / "report")
