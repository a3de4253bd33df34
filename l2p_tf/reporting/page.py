"""The report as one HTML file that needs nothing else: no network, and every image, style and script inside.

Its one script only makes what is there easier to use; a policy names it by its digest and forbids any other.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from l2p_tf.artifacts import Artifact
from l2p_tf.reporting import (
    certified,
    classes,
    drill,
    epsilons,
    matched,
    outcomes,
    plots,
    power,
    robustness,
    svg,
    sweep_table,
    trainings,
    words,
)
from l2p_tf.reporting.card import Card
from l2p_tf.reporting.comparison import Comparison
from l2p_tf.reporting.drill import Drill
from l2p_tf.reporting.gallery import galleries
from l2p_tf.reporting.kinds import swept
from l2p_tf.reporting.lines import Plot
from l2p_tf.reporting.matched import Match
from l2p_tf.reporting.runs import STAGES, Run
from l2p_tf.reporting.section import Section
from l2p_tf.reporting.subjects import subjects
from l2p_tf.reporting.table import NOTHING, Cell, Column, Table
from l2p_tf.reporting.text import duration, listed, plain, plural

_TEMPLATES = pathlib.Path(__file__).with_name("templates")
# Images and plots, with the text beside them, keep a page below 5 MB.
_IMAGE_BYTES, _DRAWN_BYTES = 3_000_000, 4_500_000
# The images of the drill-down, and the share of what is left that all of it may take.
_EXAMPLE_BYTES = 700_000
# More trainings than this are folded.
_TRAININGS = 3
_PUBLISHED = 2
# A printed page has no room for more columns than these; their cells are set one after the other, each with its name.
_WIDE = 6
# A longer word may break: it might be wider than the page.
_TOKEN = 24
_BREAKS = re.compile(r"[_/=-]")


@dataclasses.dataclass(frozen=True)
class Drawn:
    """All plots of a report.

    Attributes:
      together: those of several trainings.
      curves: those of each training that has curves.
      beside: those that stand beside a section, by its name.
    """

    together: Sequence[Plot]
    curves: Sequence[tuple[Run, Sequence[Plot]]]
    beside: Mapping[str, Sequence[Plot]]

    @property
    def all(self) -> list[Plot]:
        """Every one of them."""
        groups = [self.together, *(found for _, found in self.curves), *self.beside.values()]
        return [plot for group in groups for plot in group]

    def moved(self, name: str, to: str) -> Drawn:
        """With the plots beside one section, or `curves`, beside another one instead."""
        beside = {section: found for section, found in self.beside.items() if section != name}
        if name == "curves":
            mine = [*self.together, *(plot for _, found in self.curves for plot in found)]
            return dataclasses.replace(self, together=(), curves=(), beside={**beside, to: mine})
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
class Details:
    """Class by class and example by example.

    Attributes:
      sections: accuracy by class, and the confusions.
      places: the per-example results they are of.
      missing: names of the runs whose per-example results were not kept.
    """

    sections: tuple[Section, ...]
    places: tuple[outcomes.Outcomes, ...]
    missing: tuple[str, ...]


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


def draw(runs: Sequence[Run], match: Match, advance: Callable[[], None]) -> Drawn:
    """Draws all plots.

    Args:
      runs: what is reported.
      match: at which clean accuracies methods are compared.
      advance: called after each run, and once after the comparison.

    Raises:
      UserError: the arrays of a certificate or an attack cannot be read.
    """
    curves = []
    for i, run in enumerate(runs):
        best = run.note("best_epoch")
        best = best if isinstance(best, int) else None
        attack = str(run.option("validation_attack", "") or "")
        if run.history and (found := plots.of_training(run.history, f"run-{i}", run.name, best, attack)):
            curves.append((run, found))
        advance()
    beside = {
        sweep_table.NAME: robustness.plots(runs),
        matched.NAME: matched.plots(runs, match),
        epsilons.NAME: epsilons.plots(runs),
        certified.NAME: plots.of_certificates(certified.certificates(runs)),
        power.NAME: power.plots(subjects(runs)),
    }
    advance()
    return Drawn(trainings.plots(runs), curves, beside)


def detail(runs: Sequence[Run]) -> Details:
    """What there is to say class by class and example by example.

    Raises:
      UserError: per-example results cannot be read.
    """
    places = outcomes.outcomes(runs)
    return Details(tuple(classes.sections(places)), tuple(places), tuple(outcomes.missing(runs, places)))


def render(
    title: str, runs: Sequence[Run], comparison: Comparison, drawn: Drawn, details: Details, cards: Sequence[Card] = ()
) -> str:
    """The page.

    Args:
      title: its title.
      runs: what is reported.
      comparison: their comparison.
      drawn: its plots.
      details: class by class and example by example.
      cards: the model cards beside it.

    Raises:
      UserError: a gallery, or the data of a run, is damaged.
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
    environment.filters["tokens"] = tokens
    environment.globals["nothing"] = NOTHING
    environment.globals["wide"] = _WIDE
    trained = [run for run in runs if run.train]
    left = max(_DRAWN_BYTES - sum(len(plot.svg) for plot in drawn.all), 0)
    drills = _drills(details, min(_EXAMPLE_BYTES, left // 2))
    left -= sum(len(one.json) for one in drills)
    script = (_TEMPLATES / "report.js").read_text("utf-8")
    return environment.get_template("report.html").render(
        title=title,
        script=Markup(script),
        digest=digest(script),
        runs=runs,
        comparison=comparison,
        cards=cards,
        paragraphs=words.paragraphs(comparison),
        figures=words.figures(comparison),
        parameters=_parameters(trained, comparison) if trained else None,
        together=_drawings(drawn.together),
        curves=[
            Curves(run.name, _drawings(found), bool(swept(run)) or len(drawn.curves) > _TRAININGS)
            for run, found in drawn.curves
        ],
        beside={name: _drawings(found) for name, found in drawn.beside.items()},
        galleries=galleries(runs, min(_IMAGE_BYTES, max(left, 0))),
        details=details,
        drills=drills,
        first=drill.FIRST,
        settings=[(run.name, _settings(run)) for run in runs],
        lineage=_lineage(runs),
        files=files(comparison, details),
    )


def tokens(text: str) -> Markup:
    """Text in which no line breaks inside a short word that a browser would break, such as `48/255` or `pgd_v1_20`."""
    parts = re.split(r"(\s+)", text)
    kept = Markup('<span class="token">{}</span>')
    return Markup("").join(
        kept.format(part) if len(part) <= _TOKEN and _BREAKS.search(part) else Markup.escape(part) for part in parts
    )


def digest(script: str) -> str:
    """A script as a content security policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def files(comparison: Comparison, details: Details) -> list[str]:
    """Names of the CSVs beside the page."""
    return [section.file for section in (*comparison.all_sections, *details.sections)]


def _drills(details: Details, budget: int) -> list[Drill]:
    return [drill.drill(place, budget // len(details.places)) for place in details.places]


def _parameters(runs: Sequence[Run], comparison: Comparison) -> Table:
    """Size and training of each run."""
    rows = [_facts(run, comparison) for run in runs]
    published = any(row[_PUBLISHED].text for row in rows)
    heads = (
        Column("Run", figures=False), Column("Parameters"), Column("Published"), Column("Noise parameters"),
        Column("Epochs"), Column("Best epoch"), Column("Images/s"), Column("Time"), Column("Device", figures=False),
    )  # fmt: skip
    caption = (
        "Size and training of each run. Noise parameters are counted apart from the "
        "network\N{RIGHT SINGLE QUOTATION MARK}s own."
    )
    sheet = Table("", caption, heads, tuple(rows))
    return sheet if published else sheet.without(_PUBLISHED)


def _drawings(drawn: Sequence[Plot]) -> tuple[Drawing, ...]:
    return tuple(Drawing(svg.inline(plot.svg, plot.name, plot.title), plot.title) for plot in drawn)


def _facts(run: Run, comparison: Comparison) -> tuple[Cell, ...]:
    target = next((row.target for row in comparison.rows if row.run is run), None)
    manifest = run.train.manifest if run.train else {}
    published = _count(target.parameters) if target else ""
    if published and published != _count(run.note("parameters")):
        published += " (differs)"
    pace, best, seconds = run.note("images_per_second"), run.note("best_epoch"), manifest.get("seconds")
    return (
        Cell(run.name),
        Cell(_count(run.note("parameters"))),
        Cell(published),
        Cell(_count(run.note("noise_parameters"))),
        Cell(_count(run.option("epochs", None))),
        Cell(_count(best + 1 if isinstance(best, int) else best)),
        Cell(f"{pace:,.0f}" if isinstance(pace, int | float) else ""),
        Cell(_duration(seconds), value=float(seconds) if isinstance(seconds, int | float) else None),
        Cell(plain(manifest.get("device", ""))),
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
