"""Published beside measured, and claims judged, on results made by hand."""

import dataclasses
import json

import numpy as np
import pytest

from l2p_tf import artifacts
from l2p_tf.evaluation.records import Record, write_records
from l2p_tf.experiments import printed
from l2p_tf.experiments.claims import Above, Falls, Highest, Larger, Moves, Outside
from l2p_tf.experiments.definition import Experiment, Measure, Member
from l2p_tf.experiments.evidence import Evidence
from l2p_tf.experiments.reproduction import Reproduction, claims_section, table_section
from l2p_tf.manifest import sealed
from l2p_tf.reporting import report
from l2p_tf.reporting.pairs import pairs_of
from l2p_tf.types import UserError
from support.reports import make_data, make_train, results_of

FGSM, CW = "fgsm(epsilon=0.03)", "cw"
TABLE = printed.load()["study_table5"]
EVIL = "<b>&'\""


def answers(right, count=200, shift=0):
    """Whether each image was right: `right` of them, from number `shift` on."""
    return (np.arange(count) - shift) % count < right


def make_run(root, data, name, given, norms=None, checkpoint="best", **options):
    """A run whose images were right as `given` says, by attack: one array a repeat."""
    train = root / name / "train"
    train = artifacts.read(train) if train.exists() else make_train(root, data, name, folder=f"{name}/train", **options)
    folder, inputs = root / name / f"attack_{checkpoint}", {"train": train, "data": data}
    with artifacts.produce(folder, "attack", {"checkpoint": checkpoint}, inputs) as work:
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


def make_runs(root, correct, attack=FGSM):
    """Runs by name, each under one attack: its images that were right, by repeat."""
    data = make_data(root, name="cifar10")
    for name, repeats in correct.items():
        make_run(root, data, name, {attack: repeats})


ATTACKS = {"clean": ("clean",), FGSM: (FGSM,), CW: (CW,), "falling": ("clean", FGSM), "rising": (FGSM, "clean")}


def reproduced(root, claims=(), table=None, places=None, attacks=ATTACKS, **fields):
    """An experiment of all runs in a folder, with their results."""
    results = results_of(root)
    keys = {run.name: run.key for run in results.all_runs}
    made = Experiment("A paper, Table 5", "About it", tuple(map(Member, keys)), claims=tuple(claims), **fields)
    return Reproduction(made, keys, places or {}, attacks, table), results


def judged_by(root, *claims):
    """The verdict on each claim."""
    made, results = reproduced(root)
    evidence = Evidence(results, made.keys, made.attacks)
    return [claim.judge(evidence) for claim in claims]


def above(run, *than, attack=FGSM, **options):
    return Above(text="It is so.", run=run, than=than, attack=attack, **options)


def words(root, *claims):
    return [word for word, _ in judged_by(root, *claims)]


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


def test_better_is_said_only_where_a_paired_test_says_it(judged):
    first, level, both = judged_by(judged, above("a", "b"), above("c", "b"), above("a", "b", attack="rising"))
    # 2 / 2 ** 40
    assert first == ("borne out", "a 70.0 \N{MINUS SIGN} b 50.0 = +20.0 (+14.3 to +25.5), p = 1.8e-12.")
    assert (level[0], level[1][-8:]) == ("undecided", ", p = 1.")
    assert both[0] == "undecided"
    assert both[1].startswith(
        "Of 2 comparisons 1 higher, 0 lower, 1 with no significant difference. Least: a 90.0 \N{MINUS SIGN} b 90.0 = +0"
    )
    claims = above("b", "a"), above("a", "b", "c"), above("a", "missing")
    assert words(judged, *claims) == ["not borne out", "borne out", "not measured"]


def test_other_images_are_no_pairs(judged):
    make_run(judged, artifacts.read(judged / "data"), "d", {FGSM: [answers(10, count=100)]})
    assert words(judged, above("a", "d")) == ["not measured"]


def test_repeats_count_by_their_mean(tmp_path):
    make_runs(tmp_path, {"a": [answers(100), answers(110)], "b": [answers(100)]})
    # Ten images differ by a half each; a sign flip of ten equal differences has p = 2 / 2 ** 10.
    ((_, text),) = judged_by(tmp_path, above("a", "b"))
    assert text.startswith("a 52.5 \N{MINUS SIGN} b 50.0 = +2.5 (+0.14")
    assert text.endswith("p = 0.002.")


def test_a_test_that_is_surer_than_the_interval_does_not_count(tmp_path):
    """Ten repeats, each image right in some of them: the test sees their means, the interval single answers."""
    repeats = {name: [answers(right, 100, shift=10 * i) for i in range(10)] for name, right in (("a", 60), ("b", 50))}
    make_runs(tmp_path, repeats)
    ((word, text),) = judged_by(tmp_path, above("a", "b"))
    assert float(text.rstrip(".").rsplit("p = ")[1]) < 0.05
    assert "(\N{MINUS SIGN}" in text
    assert word == "undecided"
    assert not pairs_of(results_of(tmp_path)).groups[0].pairs[0].better


def test_falling_and_the_highest(judged):
    falls = [Falls(text="x", runs=("*",), attack=attack) for attack in ("rising", "falling")]
    assert words(judged, *falls) == ["not borne out", "borne out"]
    runs = (("a", "*"), ("b", "*"), ("b", "bc"))
    highest = [Highest(text="x", run=run, runs=among, attack=FGSM) for run, among in runs]
    assert words(judged, *highest) == ["borne out", "not borne out", "undecided"]


def test_comparisons_of_one_claim_are_corrected_together(tmp_path):
    make_runs(tmp_path, {"a": [answers(107)], "b": [answers(100)], "c": [answers(100)], "d": [answers(101)]})
    # p = 2 / 2 ** 7 = 0.0156 of 7 images and 0.031 of 6; times 3 the least is below 0.05, times 4 no longer.
    assert words(tmp_path, above("a", "b", "c")) == ["borne out"]
    ((_, text),) = judged_by(tmp_path, above("a", "d"))
    assert text.endswith("p = 0.031.")
    assert words(tmp_path, above("a", "b", "c", "d")) == ["borne out"]
    make_run(tmp_path, artifacts.read(tmp_path / "data"), "e", {FGSM: [answers(102)]})
    assert words(tmp_path, above("a", "b", "c", "d", "e")) == ["undecided"]


def test_runs_that_learned_nothing_are_named(tmp_path):
    data = make_data(tmp_path, name="cifar10")
    make_run(tmp_path, data, "a", {"clean": [answers(180)], FGSM: [answers(140)]})
    make_run(tmp_path, data, "b", {"clean": [answers(20)], FGSM: [answers(10)]})
    note = claims_section(*reproduced(tmp_path, [above("a", "b")], figure="sweep")).note
    assert "Too poor on clean images for what they say here to tell anything: b (10.0% clean)." in note
    assert note.endswith("The figure itself is among the plots below: Sweep.")


def test_the_best_weights_against_the_last(tmp_path):
    make_runs(tmp_path, {"a": [answers(140)]})
    make_run(tmp_path, artifacts.read(tmp_path / "data"), "a", {FGSM: [answers(100)]}, checkpoint="last")
    claims = [above("a", "a", checkpoint=c, than_checkpoint=t) for c, t in (("best", "last"), ("last", "best"))]
    (word, text), (other, _) = judged_by(tmp_path, *claims)
    assert (word, other) == ("borne out", "not borne out")
    assert text.startswith(f"a ({FGSM}) 70.0 \N{MINUS SIGN} a ({FGSM}, last) 50.0")


def test_sizes_and_curves(tmp_path):
    data = make_data(tmp_path, name="cifar10")
    rng = np.random.default_rng(0)
    for name, clean, size in (("a", 160, 2.0), ("b", 180, 1.0), ("c", 140, 3.0), ("d", 170, 1.9)):
        norms = size + 0.1 * rng.random(200)
        make_run(tmp_path, data, name, {"clean": [answers(clean)], CW: [answers(0)]}, norms)
    larger = [Larger(text="x", run=run, than=than, attack=CW) for run, than in (("a", "b"), ("b", "a"), ("a", "z"))]
    assert words(tmp_path, *larger) == ["borne out", "not borne out", "not measured"]
    # Between b (90%, 1.05) and c (70%, 3.05) the line passes 85% at 1.55 and 80% at 2.05.
    pairs = (("d", "bc"), ("b", "ac"), ("a", "z"))
    outside = judged_by(tmp_path, *(Outside(text="x", runs=runs, than=than, attack=CW) for runs, than in pairs))
    assert [word for word, _ in outside] == ["borne out", "undecided", "not measured"]
    assert "85.0%: 1.95 against 1.55" in outside[0][1]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"column": "clean_accuracy", "direction": "rises"}, "borne out"),
        ({"column": "clean_accuracy", "direction": "falls"}, "not borne out"),
        ({"column": "loss", "direction": "falls", "by": 1.5}, "borne out"),
        ({"column": "loss", "direction": "falls", "by": 100}, "not borne out"),
        ({"column": "learning_rate", "direction": "rises"}, "undecided"),
        ({"column": "nothing", "direction": "falls"}, "not measured"),
        ({"parameter": "theta", "direction": "rises"}, "borne out"),
        ({"parameter": "alpha", "direction": "rises"}, "not measured"),
    ],
)
def test_curves_of_a_training_rise_or_fall(tmp_path, options, word):
    make_run(tmp_path, make_data(tmp_path), "learn2perturb", {"clean": [answers(10)]})
    ((verdict, text),) = judged_by(tmp_path, Moves(text="x", run="learn2perturb", **options))
    assert verdict == word
    if options.get("parameter") == "theta":
        assert text.startswith("theta of learn2perturb went from ")
        assert "over 8 values" in text  # Of 12 epochs the noise is on from the fifth.


def lines_of(*made):
    """The lines of the CSV of a table's section with something measured, by column and metric."""
    lines = table_section(*made).figures
    return {(line.column, line.metric): line for line in lines[lines.measured.notna()].itertuples()}


def test_the_table_sets_published_beside_measured(judged):
    places = {"a": [("ResNet20", "NoiseNet")], "b": [("ResNet20", "Without noise")], "c": []}
    made = reproduced(judged, table=TABLE, places=places, measured=(Measure("fgsm", FGSM),))
    (sheet,) = table_section(*made).tables
    assert [head.label for head in sheet.columns[1:]] == ["NoiseNet", "Without noise"]
    rows = {row[0].text: row[1:] for row in sheet.rows}
    assert rows["FGSM"][0].lines == ("70.0", "63.3\N{EN DASH}75.9", "n = 200", "published 49.51", "+20.49")
    assert rows["FGSM"][1].lines == ("50.0", "43.1\N{EN DASH}56.9", "n = 200", "published 53.82", "\N{MINUS SIGN}3.82")
    assert rows["Clean"][0].text == "90.0"
    assert rows["PGD, L∞"][0].lines == ("\N{EN DASH}", "published 41.15")
    assert len(table_section(*made).figures) == len(TABLE.cells)
    assert lines_of(*made)["NoiseNet", "fgsm"].difference == pytest.approx(20.49)
    assert ("NoiseNet", "pgd_linf") not in lines_of(*made)


def test_means_of_cells_and_times(tmp_path):
    data = make_data(tmp_path, name="cifar10")
    make_run(tmp_path, data, "a", {"clean": [answers(180)], CW: [answers(20)], FGSM: [answers(100)]}, np.full(200, 0.5))
    measured = (Measure("average_accuracy", of=("cw_accuracy", "fgm_accuracy")), Measure("cw_accuracy", CW),
                Measure("fgm_accuracy", FGSM), Measure("cw_mean_l2", CW, "mean_l2"),
                Measure("seconds_per_epoch", statistic="seconds_per_epoch"))  # fmt: skip
    places = {"a": [("All-convolutional", "Generator")]}
    lines = lines_of(*reproduced(tmp_path, table=printed.load()["generator_table2"], places=places, measured=measured))
    values = {metric: line.measured for (_, metric), line in lines.items()}
    assert values.pop("seconds_per_epoch") == pytest.approx(1000 / 1234.5, abs=1e-3)
    assert values == {"average_accuracy": 30, "cw_accuracy": 10, "fgm_accuracy": 50, "cw_mean_l2": 0.5, "clean": 90}


def test_no_cell_is_filled_by_what_was_made_otherwise(tmp_path):
    """Made on another run, on the run itself, with other weights, or on another split."""
    make_runs(tmp_path, {"a": [answers(140)], "b": [answers(100)]})
    table = printed.load()["l2p_supp_table2"]
    places = {"a": [("ResNet-V1(20)", "Vanilla")], "b": [("ResNet-V1(20)", "PNI")]}
    attacks = {table.metrics["fgsm_from_vanilla"].spec: (FGSM,)}
    # White-box results of both runs are there, and nothing that was transferred.
    assert lines_of(*reproduced(tmp_path, table=table, places=places, attacks=attacks)) == {}
    # With the best and the last weights the best ones count.
    make_run(tmp_path, artifacts.read(tmp_path / "data"), "a", {FGSM: [answers(20)]}, checkpoint="last")
    how = {"places": {"a": [("ResNet20", "NoiseNet")]}, "measured": (Measure("fgsm", FGSM),)}
    (line,) = lines_of(*reproduced(tmp_path, table=TABLE, **how)).values()
    assert line.measured == 70
    # Another split than the printed one fills nothing.
    assert lines_of(*reproduced(tmp_path, table=dataclasses.replace(TABLE, split="validation"), **how)) == {}


def test_a_report_of_an_experiment_has_both_first_and_escapes_them(judged, tmp_path):
    def made_of(*claims):
        made, _ = reproduced(judged, claims, TABLE, {"a": [("ResNet20", "NoiseNet")]}, choices=(EVIL,))
        how = {"title": made.title, "sections": made.sections, "described": made.described, "overwrite": True}
        return report.make([judged / name for name in ("a", "b", "c", "data")], tmp_path / "out", **how).path

    folder = made_of(Above(text=EVIL, run="a", than=("b",), attack=FGSM))
    page = (folder / "report.html").read_text("utf-8")
    assert EVIL not in page
    assert page.index('id="reproduction"') < page.index('id="claims"') < page.index('id="settings"')
    assert (folder / "claims.csv").is_file()
    assert "borne out" in (folder / "report.md").read_text("utf-8")
    # Other claims make another report.
    assert not (made_of() / "claims.csv").exists()


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
