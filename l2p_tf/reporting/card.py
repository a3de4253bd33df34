"""Model cards: a Markdown file for each exported model, with metadata for model hubs, from manifests alone."""

from __future__ import annotations

import collections
import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from l2p_tf.artifacts import Artifact
from l2p_tf.registry import parse_spec
from l2p_tf.reporting.card_head import head, measured
from l2p_tf.reporting.format import (
    duration,
    epsilon,
    escape_markdown,
    listed,
    norm_name,
    plain,
    plural,
    setting_text,
    several,
)
from l2p_tf.reporting.load import Run, versions
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import sections_of
from l2p_tf.reporting.sections.comparison import AttackColumn, Row, compare
from l2p_tf.reporting.table import Cell, Column, Table, accuracy
from l2p_tf.types import UserError

FOLDER = "cards"
SERVING = "serving.json"
_TEMPLATES = pathlib.Path(__file__).with_name("templates")
_CAPTION = (
    "Accuracy in percent, ± its standard deviation over repeats where there are several, with its 95% interval "
    "(Wilson's)."
)
_CITATIONS = pathlib.Path(__file__).with_name("citations.json")


class _Raw(str):
    """Text that is already Markdown."""


@dataclasses.dataclass(frozen=True)
class Card:
    """The card of one exported model.

    Attributes:
      name: the run, with the weights if they are not the best ones.
      file: file name in `cards`.
      run: the run, restricted to what was measured on these weights.
      export: the export.
    """

    name: str
    file: str
    run: Run
    export: Artifact

    @property
    def link(self) -> str:
        """Path of the card, relative to the report."""
        return f"{FOLDER}/{self.file}"


def cards(runs: Sequence[Run]) -> list[Card]:
    """Returns a card for each exported model, in the order of the runs, with file names distinct on every system."""
    found_cards, taken = [], collections.Counter[str]()
    for run in runs:
        for export in run.exports:
            checkpoint = str(export.options.get("checkpoint", "best"))
            evaluations = [one for one in run.evaluations if one.checkpoint == checkpoint]
            certificates = [one for one in run.certifications if one.checkpoint == checkpoint]
            checked = tuple(one for one in run.checked if one.checkpoint == checkpoint)
            view = dataclasses.replace(
                run, evaluations=tuple(evaluations), certifications=tuple(certificates), checked=checked
            )
            name = run.named(checkpoint)
            stem = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")[:80] or "model"
            taken[stem.lower()] += 1
            number = taken[stem.lower()]
            found_cards.append(Card(name, f"{stem}--{number}.md" if number > 1 else f"{stem}.md", view, export))
    return found_cards


def write(card: Card) -> str:
    """Returns the text of a card.

    Raises:
      UserError: the description of the export, or arrays needed for a comparison, cannot be read.
    """
    run, served, results = card.run, _serving(card.export), Results([card.run])
    sections = {section.name: section for section in sections_of(results)}
    comparison = results.once(compare)
    warnings = [warning for section in sections.values() for warning in section.warnings]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=False,  # This is HTML escaping; Markdown is escaped by `finalize`.
        finalize=lambda value: value if isinstance(value, _Raw) else escape_markdown(plain(value)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["raw"] = _Raw
    defense = _name_of(run.option("defense") or served.get("defense"))
    rows = [row for row in comparison.rows if row.entries]
    text = environment.get_template("card.md").render(
        front=_Raw(head(card.name, run, comparison, defense)),
        name=card.name,
        about=_about(run, served),
        facts=_facts(card, served),
        limits=_limits(run, rows),
        shape=", ".join(map(str, served["shape"])),
        outputs=[(key, value) for key, value in served["outputs"].items()],
        draws=plural(served["draws"], "draw") if served["draws"] > 1 else "",
        data=_data(run),
        training=_training(run),
        evaluated=_evaluated(entries).to_markdown() if (entries := measured(comparison)) else "",
        sections=[sections[name] for name in ("contract", "norms", "certified") if name in sections],
        checks=sections["checks"].tables if "checks" in sections else (),
        warnings=[*warnings, *_other_draws(run, served["draws"])],
        lineage=_lineage(card),
        citations=_citations(run, defense),
        uncited="Natural training has no paper of its own." if defense == "none" else "Not known for this defense.",
        unknown="the model was trained elsewhere" if run.imported else "the data stage was not given to the report",
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def _serving(export: Artifact) -> dict[str, Any]:
    """Reads the description of the export, and adds `shape`, that of an image."""
    file = export.path / SERVING
    try:
        served = dict(json.loads(file.read_text("utf-8")))
        served["shape"] = [int(size) for size in served["signatures"]["serving_default"]["images"]["shape"][1:]]
        served["outputs"], served["draws"] = dict(served["outputs"]), int(served["draws"])
        served["class_names"] = list(served["class_names"])
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{str(file)!r} should describe the model of an export stage: {error}") from error
    return served


def _evaluated(entries: Sequence[tuple[Row, AttackColumn, Any]]) -> Table:
    heads = ("data", "attack", "allowed", "accuracy", "95% interval", "images", "repeats", "draws of an answer")
    columns = [Column(label, figures=i > 2) for i, label in enumerate(heads)]
    rows = []
    for row, column, entry in entries:
        mean, interval, *_ = accuracy(entry).lines
        counts = (f"{entry.count:,}", f"{entry.repeats}", f"{entry.prediction_draws}")
        rows.append(tuple(map(Cell, (row.data, column.label, column.allowed, mean, interval, *counts))))
    return Table("", _CAPTION, tuple(columns), tuple(rows))


def _about(run: Run, served: Mapping[str, Any]) -> str:
    title = run.title_of(run.info.get("name", "")) if run.info else "a data set that is not known here"
    *size, channels = served["shape"]
    model, defense = (run.option(key) or served.get(key) for key in ("model", "defense"))
    made = (
        "trained elsewhere, from which it was imported"
        if run.imported
        else f"trained with the defense {plain(defense)}"
    )
    return (
        f"A classifier of images of {' x '.join(map(str, size))} pixels and {plural(channels, 'channel')}, of the "
        f"classes of {title}: {plain(model)}, {made}."
    )


def _facts(card: Card, served: Mapping[str, Any]) -> list[tuple[str, str]]:
    run, names = card.run, [plain(name) for name in served["class_names"]]
    checkpoint = str(card.export.options.get("checkpoint", "best"))
    weights = {"best": "those that did best on the validation split", "last": "those of the last epoch"}.get(
        checkpoint, checkpoint
    )
    facts = [("Classes", f"{len(names):,}: {several(names, 20)}" if names else "names not known"), ("Weights", weights)]
    for label, note in (("Parameters", "parameters"), ("Noise parameters", "noise_parameters")):
        if isinstance(count := run.note(note), int):
            facts.append((label, f"{count:,}"))
    if isinstance(randomized := run.note("randomized"), bool):
        text = "yes, its noise is part of every answer" if randomized else "no, the same image has the same answer"
        facts.append(("Randomized", text))
    return facts


def _limits(run: Run, rows: Sequence[Row]) -> list[str]:
    title = run.title_of(run.info.get("name", "")) if run.info else "its training data"
    limits = [
        f"For images like those of {title}, of the same size and with pixels in [0, 1]. It answers with one of its "
        "classes for any image, also for one that shows none of them.",
    ]
    radii: dict[str, float] = {}
    for row in rows:
        for entry in row.bounded:
            norm, radius = entry.norm, entry.measured.first.epsilon
            if norm and radius is not None:
                radii[norm] = max(radii.get(norm, 0.0), radius)
    if radii:
        tested = listed([f"{norm_name(norm)} up to {epsilon(radius)}" for norm, radius in radii.items()])
        limits.append(
            f"Tested against perturbations of {tested}. An accuracy under attack is an upper bound: an attack that was "
            "not tried may lower it. Of larger perturbations, of other norms and of changes such as blur, rotation or "
            "weather nothing is known here."
        )
    else:
        limits.append("It was not attacked at any given size of perturbation: nothing is known here of its robustness.")
    limits.append("Who it was made for, and who answers for its use, is not recorded.")
    return limits


def _other_draws(run: Run, draws: int) -> list[str]:
    """Warns if the model averages a different number of noise draws than in the evaluation."""
    others = sorted({record.prediction_draws for record in run.records if record.randomized} - {draws})
    if not others:
        return []
    counts = listed([f"{count:,}" for count in others])
    return [
        f"An answer of this model averages {plural(draws, 'draw')} of the noise, one of those judged here {counts}, so "
        f"the accuracies may differ. Attack with --prediction_draws={draws}."
    ]


def _data(run: Run) -> list[tuple[str, str]]:
    info = {} if run.imported else run.info
    labels = {"title": "Data set", "spec": "Spec", "source": "Source", "note": "Where it is from"}
    facts = [(label, plain(info[key])) for key, label in labels.items() if info.get(key)]
    counts = info.get("counts")
    if isinstance(counts, dict):
        facts.append(("Images", ", ".join(f"{plain(split)} {plain(count)}" for split, count in counts.items())))
    if run.data and not run.imported and isinstance(share := run.data.options.get("validation_share"), int | float):
        facts.append(("Share of the training images held out for validation", f"{share:g}"))
    return facts


def _training(run: Run) -> list[tuple[str, str]]:
    if not run.train:
        return []
    settings = [(plain(key), setting_text(value)) for key, value in run.train.options.items() if key != "name"]
    epochs, best, seconds = run.note("epochs"), run.note("best_epoch"), run.train.manifest.get("seconds")
    facts = {
        "epochs trained": epochs,
        "best epoch": best + 1 if isinstance(best, int) else None,
        "validation accuracy that chose it": run.note("best_validation"),
        "duration": duration(seconds) if isinstance(seconds, int | float) else None,
        "device": run.train.manifest.get("device"),
    }
    return settings + [(key, setting_text(value)) for key, value in facts.items() if value is not None]


def _lineage(card: Card) -> list[tuple[str, ...]]:
    """Returns name, fingerprint, end time and package versions of each stage."""
    run = card.run
    parts = [run.data, run.train, *(part.artifact for part in run.judged), card.export]
    artifacts = {artifact.fingerprint: artifact for artifact in parts if artifact}
    return [
        (
            artifact.stage, artifact.fingerprint[:16], plain(artifact.manifest.get("finished") or "not known"),
            ", ".join(f"{name} {version}" for name, version in versions(artifact).items()) or "not known",
        )
        for artifact in artifacts.values()
    ]  # fmt: skip


def _citations(run: Run, defense: str) -> list[str]:
    known = json.loads(_CITATIONS.read_text("utf-8"))
    names = [defense, _name_of(run.option("source_defense"))]
    return list(dict.fromkeys(text for name in names for text in known.get(name, ())))


def _name_of(spec: Any) -> str:
    try:
        return parse_spec(str(spec))[0] if spec else "unknown"
    except UserError:  # Written by another version or another program.
        return plain(spec)
