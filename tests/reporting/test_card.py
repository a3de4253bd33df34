"""Model cards: what heads them can be parsed, every number is that of a record, and nothing in them is markup."""

import dataclasses
import json
import pathlib
import re

import numpy as np
import pytest
import yaml

from l2p_tf import artifacts, serving
from l2p_tf.defenses import DEFENSES
from l2p_tf.reporting import card, report
from l2p_tf.reporting.load import find
from l2p_tf.types import UserError
from support.pages import EVIL, Outline, without_own_script
from support.reports import (
    ATTACKS,
    DEEPFOOL,
    make_data,
    make_records,
    make_stage,
    make_train,
    of_correct,
    records_of,
    results_of,
)
from support.stages import report_stage

CLEAN, FGSM = ATTACKS[:2]


def make_export(root, train, folder, checkpoint="best", draws=16, names=None, content=None):
    with artifacts.produce(
        root / folder, "export", {"checkpoint": checkpoint, "draws": draws}, {"train": train}
    ) as work:
        (work.path / "saved_model").mkdir()
        (work.path / "saved_model" / "saved_model.pb").write_bytes(b"graph")
        images = {"dtype": "float32", "shape": [None, 8, 8, 1], "range": [0, 1]}
        artifacts.write_json(work.path / serving.CARD, content or {
            "signatures": {"serving_default": {"images": images}}, "draws": draws,
            "outputs": {"probabilities": "float32 (batch, classes)"}, "class_names": names or list("0123456789"),
            "model": "resnet_v1(depth=8)", "defense": "pgd", "trained": train.fingerprint,
        })  # fmt: skip
    return artifacts.read(root / folder)


def make_attacked(root, data, name, attacks=(CLEAN, FGSM), repeats=3, checkpoint="best", folder=None, **options):
    train = make_train(root, data, name, **options)
    arrays = [of_correct(np.arange(150) < 150 - 40 * i) for i in range(len(attacks))]
    records = [
        dataclasses.replace(record, correct=record.correct - repeat, reached=record.reached + repeat)
        for repeat in range(repeats)
        for record in records_of(name, attacks, arrays, repeat=repeat, randomized=repeats > 1)
    ]
    inputs = {"train": train, "data": data}
    make_stage(root / (folder or f"attack_{name}"), "attack", inputs, records, arrays * repeats, checkpoint=checkpoint)
    return train


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("cards")
    data = make_data(root / "runs")
    train = make_attacked(root / "runs", data, "learn2perturb")
    make_export(root / "runs", train, "export")
    make_attacked(root / "runs", data, "pgd", repeats=1)
    return report.make([root / "runs"], root / "report")


def parse(text):
    return yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n"))


def test_the_head_holds_every_figure_of_the_records(made):
    text = made.cards[0].read_text("utf-8")
    head = parse(text)
    assert (head["library_name"], head["datasets"], head["metrics"]) == ("tensorflow", ["digits"], ["accuracy"])
    assert "learn2perturb" in head["tags"]
    assert "license" not in head
    (model,) = head["model-index"]
    (result,) = model["results"]
    assert model["name"] == "learn2perturb"
    assert result["dataset"] == {"type": "digits", "name": "digits (8x8)", "split": "test"}
    rows = made.results.attacks.query("run == 'learn2perturb'").itertuples()
    for metric, row in zip(result["metrics"], rows, strict=True):
        wanted = {"count": 150, "repeats": 3, "low": row.low, "high": row.high, "spread": row.spread}
        assert metric["value"] == row.accuracy
        assert {key: metric["args"][key] for key in wanted} == wanted
    assert [metric["value"] for metric in result["metrics"]] == pytest.approx([149 / 150, 109 / 150])
    fgsm = result["metrics"][1]
    assert fgsm["name"] == "Accuracy under FGSM (L∞, ε 8/255, 1 step)"
    assert fgsm["args"] | {"attack": "fgsm", "norm": "linf", "epsilon": 8 / 255, "backend": "l2p_tf"} == fgsm["args"]


def test_the_text_has_evaluation_settings_and_lineage(made, tmp_path):
    text = made.cards[0].read_text("utf-8")
    headings = [line for line in text.split("\n---\n")[1].splitlines() if line.startswith("#") and "Bytes" not in line]
    assert headings == [
        "# learn2perturb", "## What it is", "## Intended use and limits", "## Loading and calling it",
        "## Training data",
        "## Training procedure", "## Evaluation", "## Checks and warnings", "## Lineage and versions", "## License",
        "## Citation",
    ]  # fmt: skip
    assert "| digits (8x8), test | FGSM | L∞, ε 8/255, 1 step | 72.7 ± 0.7 | 65.0–79.2 | 150 | 3 | 1 |" in text  # noqa: RUF001
    assert "| batch\\_size | 128 |" in text
    assert "- Parameters: 78,330" in text
    assert "L∞ up to 8/255" in text
    assert "Learn2Perturb: an End-to-end Feature Perturbation Learning" in text
    root = made.path.parent / "runs"
    for folder in ("data", "train_learn2perturb", "attack_learn2perturb", "export"):
        assert artifacts.read(root / folder).fingerprint[:16] in text
    assert str(root) not in text
    assert "\n\n\n" not in text


def test_the_card_warns_as_the_report_does_and_of_other_draws(made):
    text = made.cards[0].read_text("utf-8")
    shown = text.partition("## Checks and warnings")[2].partition("##")[0]
    assert shown.count("\n- ") == 3
    assert "averaged its gradients over draws of the noise (EOT)" in shown
    assert "Nothing stronger than PGD-20 was run in L∞ on learn2perturb" in shown
    assert shown.rstrip().endswith("Signs of gradient masking were not looked for.")
    assert "averages 16 draws of the noise, one of those judged here 1," in shown
    assert r"Attack with --prediction\_draws=16." in shown


def test_the_report_links_to_its_cards(made):
    assert made.cards == (made.path / "cards" / "learn2perturb.md",)
    outline = Outline((made.path / "report.html").read_text("utf-8"))
    links = [a["href"] for tag, a in outline.tags if tag == "a"]
    assert "cards/learn2perturb.md" in links
    assert "export" in " ".join(outline.text)
    assert "cards/learn2perturb.md" in artifacts.read(made.path).manifest["outputs"]


def test_the_stage_says_where_the_cards_are(made, tmp_path):
    done = report_stage(f"--runs={made.path.parent / 'runs'}", "--run_dir=all", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Model card: 'all/report/cards/learn2perturb.md'" in done.stdout
    assert (tmp_path / "all/report/cards/learn2perturb.md").read_bytes() == made.cards[0].read_bytes()


def test_the_program_on_the_card_names_what_an_export_has(made):
    program = made.cards[0].read_text("utf-8").split("```python\n")[1].split("```")[0]
    compile(program, "card", "exec")
    assert 'tf.saved_model.load("saved_model")' in program
    assert "np.zeros((1, 8, 8, 1), np.float32)" in program
    assert (card.SERVING, serving.SAVED_MODEL, serving.SPREAD) == (serving.CARD, "saved_model", "spread")
    assert set(re.findall(r'"(serv\w+_\w+)"', program)) == {"serving_default", "serve_uint8"}
    signatures = pathlib.Path(serving.__file__).read_text("utf-8")
    assert '{"serving_default": serve, "serve_uint8":' in signatures


def test_only_what_was_measured_on_these_weights_is_on_the_card(tmp_path):
    data = make_data(tmp_path)
    train = make_attacked(tmp_path, data, "pgd", repeats=1, checkpoint="last")
    make_export(tmp_path, train, "best", draws=1)
    make_export(tmp_path, train, "last", "last", draws=1)
    cards = {one.name: one for one in card.cards(results_of(tmp_path).all_runs)}
    assert {name: one.file for name, one in cards.items()} == {"pgd": "pgd.md", "pgd (last)": "pgd_last.md"}
    best, last = (card.write(cards[name]) for name in ("pgd", "pgd (last)"))
    assert "model-index" not in parse(best)
    assert "Not evaluated: neither its clean accuracy nor its robustness is known." in best
    assert "nothing is known here of its robustness" in best
    assert len(parse(last)["model-index"][0]["results"][0]["metrics"]) == 2
    assert "those of the last epoch" in last
    assert "An answer is one pass through the network." in last


def test_smallest_perturbations_are_a_table_and_no_accuracy(tmp_path):
    data = make_data(tmp_path)
    train = make_attacked(tmp_path, data, "pgd", (CLEAN, DEEPFOOL), repeats=1)
    make_export(tmp_path, train, "export", draws=1)
    text = card.write(card.cards(results_of(tmp_path).all_runs)[0])
    assert len(parse(text)["model-index"][0]["results"][0]["metrics"]) == 1
    assert "## Size of perturbations" in text


def test_what_is_not_known_is_said_to_be_unknown(tmp_path):
    """Judged and exported, but neither the training nor the data are given."""
    data = make_data(tmp_path / "x")
    train = make_attacked(tmp_path / "x", data, "pgd", repeats=1)
    make_export(tmp_path / "x", train, "export", draws=1)
    (tmp_path / "y").mkdir()
    for name in ("attack_pgd", "export"):
        (tmp_path / "x" / name).rename(tmp_path / "y" / name)
    text = card.write(card.cards(results_of(tmp_path / "y").all_runs)[0])
    assert text.count("Not known here: the") == 2
    assert "a data set that is not known here: resnet\\_v1(depth=8), trained with the defense pgd." in text
    assert parse(text)["datasets"] == ["digits"]


def test_names_from_outside_are_harmless(tmp_path):
    evil = f"{EVIL}\n---\nlicense: mit\n# x | `y` ../../z \u2028\ud800"
    data = make_data(tmp_path / "runs", names=[evil] * 10, name=EVIL)
    fields = {"defense": evil, "model": evil, evil: evil}
    attacks = (CLEAN, (EVIL, EVIL, *FGSM[2:]))
    train = make_train(tmp_path / "runs", data, EVIL, folder="t", **fields)
    records = make_records(EVIL, (150, 100), attacks, count=150, dataset=EVIL, split=EVIL, backend=EVIL)
    make_stage(tmp_path / "runs" / "a", "attack", {"train": train, "data": data}, records)
    make_export(tmp_path / "runs", train, "e", names=[evil] * 10)
    made = report.make([tmp_path / "runs"], tmp_path / "report")
    (path,) = made.cards
    assert path.parent == made.path / "cards"
    assert re.fullmatch(r"[A-Za-z0-9._-]+\.md", path.name)
    text = path.read_text("utf-8")
    head = parse(text)
    assert set(head) == {"library_name", "pipeline_tag", "tags", "datasets", "metrics", "model-index"}
    assert head["model-index"][0]["name"] == EVIL
    body = text.split("\n---\n", 1)[1]
    assert "<script" not in body.replace("\\<script", "")
    assert "\n---" not in body.replace("\n| ---", "")
    assert not [line for line in body.splitlines() if line.startswith("license")]
    table = [line for line in body.splitlines() if line.startswith("|")]
    cells = {len(re.findall(r"(?<!\\)\|", line)) for line in table}
    assert cells == {3, 5, 9}
    assert "<script" not in without_own_script((made.path / "report.html").read_text("utf-8"))


def test_cards_of_like_names_have_files_of_their_own(tmp_path):
    data = make_data(tmp_path)
    for i, name in enumerate(("A b", "a_b", ".", "..")):
        train = make_train(tmp_path, data, name, folder=f"t{i}")
        make_export(tmp_path, train, f"e{i}")
    names = [one.file for one in card.cards(results_of(tmp_path).all_runs)]
    assert sorted(names, key=str.lower) == sorted({"A_b.md", "a_b--2.md", "model.md", "model--2.md"}, key=str.lower)


@pytest.mark.parametrize("content", [{"draws": 1}, {"signatures": 3}, {"x": 1}])
def test_a_damaged_description_is_refused(tmp_path, content):
    data = make_data(tmp_path)
    make_export(tmp_path, make_train(tmp_path, data), "export", content=content)
    with pytest.raises(UserError, match=r"serving\.json' should describe the model of an export stage"):
        card.write(card.cards(results_of(tmp_path).all_runs)[0])


def test_an_export_alone_is_no_report(tmp_path):
    data = make_data(tmp_path / "x")
    train = make_train(tmp_path / "x", data)
    make_export(tmp_path / "y", train, "export")
    with pytest.raises(UserError, match="Stages found there: export"):
        find([tmp_path / "y"])
    assert [run.exports for run in results_of(tmp_path / "x").all_runs] == [()]


def test_every_defense_has_its_citation_or_none_of_its_own():
    known = json.loads(pathlib.Path(card._CITATIONS).read_text("utf-8"))
    assert set(known) == set(DEFENSES.names())
    assert [name for name, texts in known.items() if not texts] == ["none"]
