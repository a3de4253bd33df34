"""The report as one HTML file that needs nothing else: no network, no script, every image inside."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from l2p_tf.artifacts import Artifact
from l2p_tf.reporting import certified, epsilons, matched, plots, power, robustness, svg, sweep_table, words
from l2p_tf.reporting.card import Card
from l2p_tf.reporting.gallery import galleries
from l2p_tf.reporting.kinds import swept
from l2p_tf.reporting.lines import Plot
from l2p_tf.reporting.matched import Match
from l2p_tf.reporting.runs import STAGES, Run
from l2p_tf.reporting.sheets import NOTHING
from l2p_tf.reporting.subjects import subjects
from l2p_tf.reporting.tables import Table
from l2p_tf.reporting.text import duration, listed, plain, plural

_TEMPLATES = pathlib.Path(__file__).with_name("templates")
# Images and plots, with the text beside them, keep a page below 5 MB.
_IMAGE_BYTES, _DRAWN_BYTES = 3_000_000, 4_500_000


@dataclasses.dataclass(frozen=True)
class Drawn:
    """All plots of a report.

    Attributes:
      accuracies: those of the comparison.
      curves: those of each training that has curves.
      beside: those that stand beside a section, by its name.
    """

    accuracies: Sequence[Plot]
    curves: Sequence[tuple[Run, Sequence[Plot]]]
    beside: Mapping[str, Sequence[Plot]]

    @property
    def all(self) -> list[Plot]:
        """Every one of them."""
        groups = [self.accuracies, *(found for _, found in self.curves), *self.beside.values()]
        return [plot for group in groups for plot in group]

    def moved(self, name: str, to: str) -> Drawn:
        """With the plots beside one section, or `curves`, beside another one instead."""
        beside = {section: found for section, found in self.beside.items() if section != name}
        if name == "curves":
            mine = [plot for _, found in self.curves for plot in found]
            return dataclasses.replace(self, curves=(), beside={**beside, to: mine})
        return dataclasses.replace(self, beside={**beside, to: self.beside.get(name, ())})


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A plot inside the page: its element and its title."""

    element: Markup
    title: str


@dataclasses.dataclass(frozen=True)
class Curves:
    """The plots of one training; folded where it is one of the many of a sweep."""

    run: str
    drawings: tuple[Drawing, ...]
    folded: bool


@dataclasses.dataclass(frozen=True)
class Facts:
    """Parameters and pace of one training, as text; empty where not known."""

    run: str
    parameters: str
    noise_parameters: str
    published: str
    epochs: str
    best_epoch: str
    pace: str
    time: str
    device: str


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings of one stage, as pairs of text."""

    title: str
    groups: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where one artifact comes from."""

    stage: str
    name: str
    folder: str
    fingerprint: str
    inputs: str
    finished: str


def draw(runs: Sequence[Run], table: Table, match: Match, advance: Callable[[], None]) -> Drawn:
    """Draws all plots.

    Args:
      runs: what is reported.
      table: their comparison.
      match: at which clean accuracies methods are compared.
      advance: called after each run, and once after the comparison.

    Raises:
      UserError: the arrays of a certificate or an attack cannot be read.
    """
    curves = []
    for i, run in enumerate(runs):
        best = run.note("best_epoch")
        best = best if isinstance(best, int) else None
        if run.history and (found := plots.of_training(run.history, f"run-{i}", run.name, best)):
            curves.append((run, found))
        advance()
    beside = {
        sweep_table.NAME: robustness.plots(runs),
        matched.NAME: matched.plots(runs, match),
        epsilons.NAME: epsilons.plots(runs),
        certified.NAME: plots.of_certificates(certified.certificates(runs)),
        power.NAME: power.plots(subjects(runs)),
    }
    accuracies = plots.of_accuracies(table, epsilons.keys(runs))
    advance()
    return Drawn(accuracies, curves, beside)


def render(title: str, runs: Sequence[Run], table: Table, drawn: Drawn, cards: Sequence[Card] = ()) -> str:
    """The page.

    Args:
      title: its title.
      runs: what is reported.
      table: their comparison.
      drawn: its plots.
      cards: the model cards beside it.

    Raises:
      UserError: a gallery is damaged.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plural"] = plural
    environment.filters["listed"] = listed
    environment.globals["nothing"] = NOTHING
    trained = [run for run in runs if run.train]
    left = _DRAWN_BYTES - sum(len(plot.svg) for plot in drawn.all)
    return environment.get_template("report.html").render(
        title=title,
        runs=runs,
        table=table,
        compared=any(entry.published for row in table.rows for entry in row.entries.values()),
        cards=cards,
        paragraphs=words.paragraphs(table),
        figures=words.figures(table),
        facts=[_facts(run, table) for run in trained],
        accuracies=_drawings(drawn.accuracies),
        curves=[Curves(run.name, _drawings(found), bool(swept(run))) for run, found in drawn.curves],
        beside={name: _drawings(found) for name, found in drawn.beside.items()},
        galleries=galleries(runs, min(_IMAGE_BYTES, max(left, 0))),
        settings=[(run.name, _settings(run)) for run in runs],
        lineage=_lineage(runs),
    )


def _drawings(drawn: Sequence[Plot]) -> tuple[Drawing, ...]:
    return tuple(Drawing(svg.inline(plot.svg, plot.name, plot.title), plot.title) for plot in drawn)


def _facts(run: Run, table: Table) -> Facts:
    target = next((row.target for row in table.rows if row.run is run), None)
    manifest = run.train.manifest if run.train else {}
    published = _count(target.parameters) if target else ""
    if published and published != _count(run.note("parameters")):
        published += " (differs)"
    pace, best = run.note("images_per_second"), run.note("best_epoch")
    return Facts(
        run.name,
        _count(run.note("parameters")),
        _count(run.note("noise_parameters")),
        published,
        _count(run.option("epochs", None)),
        _count(best + 1 if isinstance(best, int) else best),
        f"{pace:,.0f}" if isinstance(pace, int | float) else "",
        _duration(manifest.get("seconds")),
        plain(manifest.get("device", "")),
    )


def _settings(run: Run) -> list[Settings]:
    stages = [("Training", run.train)] if run.train else []
    for part in run.judged:
        if part.artifact:
            name = part.artifact.stage.capitalize()
            stages.append((f"{name} ({part.detail})" if part.detail else name, part.artifact))
    found = [Settings(name, _groups(artifact)) for name, artifact in stages]
    if run.data:
        facts = {k: v for k, v in run.info.items() if k != "class_names"}
        found.append(Settings("Data", (("What it holds", _pairs(facts)), *_groups(run.data))))
    return found


def _groups(artifact: Artifact) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    manifest = artifact.manifest
    made = {
        "seed": manifest.get("seed"),
        "device": manifest.get("device"),
        "duration": _duration(manifest.get("seconds")),
        "finished": manifest.get("finished"),
        "python": manifest.get("python"),
        **(manifest.get("packages") or {}),
    }
    groups = [("Options", _pairs(artifact.options)), ("Made with", _pairs(made))]
    notes = manifest.get("notes") or {}
    return tuple([*groups, ("Notes", _pairs(notes))] if notes else groups)


def _pairs(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((plain(key), _value(value)) for key, value in values.items())


def _value(value: Any) -> str:
    if value is None or value == "":
        return "none"
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return plain("; ".join(map(str, value)) or "none")
    return plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _lineage(runs: Sequence[Run]) -> list[Origin]:
    found: dict[str, tuple[Artifact, list[str]]] = {}
    for run in runs:
        parts = [(run.data, plain(run.info.get("title") or run.info.get("name") or "data")), (run.train, run.name)]
        parts += [(part.artifact, run.name) for part in run.judged] + [(export, run.name) for export in run.exports]
        for artifact, name in parts:
            if artifact:
                found.setdefault(artifact.fingerprint, (artifact, []))[1].append(name)
    # Data may be that of many runs, all of which call it the same; a transfer is one of several runs.
    rows = [_origin(artifact, ", ".join(dict.fromkeys(names))) for artifact, names in found.values()]
    return sorted(rows, key=lambda row: STAGES.index(row.stage))


def _origin(artifact: Artifact, name: str) -> Origin:
    inputs = artifact.manifest.get("inputs") or {}
    made_from = ", ".join(f"{plain(role)} {plain(digest)[:8]}" for role, digest in inputs.items())
    return Origin(
        artifact.stage,
        name,
        plain(artifact.path),
        artifact.fingerprint[:8],
        made_from,
        plain(artifact.manifest.get("finished", "")),
    )


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else ""


def _duration(seconds: Any) -> str:
    return duration(seconds) if isinstance(seconds, int | float) else ""
