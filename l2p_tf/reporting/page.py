"""The report as one self-contained HTML file, with all images, styles and scripts inside.

The page works without its only script, which a content security policy allows by digest; all others are forbidden.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from l2p_tf.artifacts import Artifact
from l2p_tf.reporting import images, plot, summary
from l2p_tf.reporting.card import Card
from l2p_tf.reporting.format import duration, listed, plain, plural, setting_text
from l2p_tf.reporting.gallery import galleries
from l2p_tf.reporting.load import STAGES, Run, versions
from l2p_tf.reporting.plot import Plot
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import Section
from l2p_tf.reporting.sections.classes import outcomes_of
from l2p_tf.reporting.table import NOTHING

_TEMPLATES = pathlib.Path(__file__).with_name("templates")
# Images and plots, with the accompanying text, keep a page below 5 MB.
_IMAGE_BYTES, _DRAWN_BYTES = 3_000_000, 4_500_000
# Maximum size of the filterable images. They take at most half of the remaining budget.
_FILTERED_BYTES = 700_000
# Tables with more columns do not fit a printed page; their cells are then listed below each other with their names.
_WIDE = 6
# Longer words may break, because they might be wider than the page.
_TOKEN = 24
_BREAKS = re.compile(r"[_/=\N{EN DASH}-]")
# Sections with more groups of plots are folded.
_GROUPS = 4


Pairs = list[tuple[str, str]]
"""Names and values, as text."""


def render(title: str, results: Results, sections: Sequence[Section], cards: Sequence[Card] = ()) -> str:
    """Renders the page.

    Args:
      title: its title.
      results: the results to report.
      sections: its sections.
      cards: accompanying model cards.

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
    environment.filters |= {
        "plural": plural,
        "listed": listed,
        "tokens": tokens,
        "inline": plot.inline,
        "groups": groups,
    }
    environment.globals |= {"nothing": NOTHING, "wide": _WIDE, "folded_from": _GROUPS}
    left = max(_DRAWN_BYTES - sum(len(part.svg) for section in sections for part in section.plots), 0)
    places = results.once(outcomes_of)
    budget = min(_FILTERED_BYTES, left // 2)
    filtered = [images.images_of(place, budget // len(places)) for place in places]
    left -= sum(len(part.json) for part in filtered)
    script = (_TEMPLATES / "report.js").read_text("utf-8")
    runs = results.all_runs
    return environment.get_template("report.html").render(
        title=title,
        script=Markup(script),
        digest=digest(script),
        runs=runs,
        sections=[section for section in sections if section.visible],
        warnings=[warning for section in sections for warning in section.warnings],
        cards=cards,
        paragraphs=summary.paragraphs(results),
        figures=summary.key_figures(results),
        galleries=galleries(runs, min(_IMAGE_BYTES, max(left, 0))),
        images=filtered,
        first=images.FIRST,
        settings=[(run.name, _settings(run)) for run in runs],
        lineage=_lineage(runs),
        files=[section.files[0][0] for section in sections if section.files],
    )


def tokens(text: str) -> Markup:
    """Prevents line breaks inside short words that browsers would break, such as `48/255` or `pgd_v1_20`."""
    parts = re.split(r"(\s+)", text)
    kept = Markup('<span class="token">{}</span>')
    return Markup("").join(
        kept.format(part) if len(part) <= _TOKEN and _BREAKS.search(part) else Markup.escape(part) for part in parts
    )


def groups(plots: Sequence[Plot]) -> list[tuple[str, list[Plot]]]:
    """Groups plots by their heading."""
    return [(group, list(members)) for group, members in itertools.groupby(plots, lambda p: p.group)]


def digest(script: str) -> str:
    """Returns a script's digest for a content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def _settings(run: Run) -> list[tuple[str, list[tuple[str, Pairs]]]]:
    """Returns all settings of each stage of a run, in groups with headings."""
    stages = [("Training", _groups(run.train))] if run.train else []
    for part in run.judged:
        if part.artifact:
            name = part.artifact.stage.capitalize()
            stages.append((f"{name} ({part.detail})" if part.detail else name, _groups(part.artifact)))
    if run.data:
        facts = {key: value for key, value in run.info.items() if key != "class_names"}
        stages.append(("Data", [("What it holds", _pairs(facts)), *_groups(run.data)]))
    return stages


def _groups(artifact: Artifact) -> list[tuple[str, Pairs]]:
    manifest = artifact.manifest
    seconds = manifest.get("seconds")
    made = {
        "seed": manifest.get("seed"),
        "device": manifest.get("device"),
        "duration": duration(seconds) if isinstance(seconds, int | float) else "",
        "finished": manifest.get("finished"),
        **versions(artifact),
    }
    notes = manifest.get("notes") or {}
    groups = {"Options": artifact.options, "Made with": made, **({"Notes": notes} if notes else {})}
    return [(heading, _pairs(values)) for heading, values in groups.items()]


def _pairs(values: Mapping[str, Any]) -> Pairs:
    return [(plain(key), setting_text(value)) for key, value in values.items()]


def _lineage(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """Returns stage, runs, fingerprint, input fingerprints, folder and end time of each artifact."""
    named: dict[str, tuple[Artifact, list[str]]] = {}
    for run in runs:
        parts = [(run.data, plain(run.info.get("title") or run.info.get("name") or "data")), (run.train, run.name)]
        parts += [(part.artifact, run.name) for part in run.judged] + [(export, run.name) for export in run.exports]
        for artifact, name in parts:
            if artifact:
                named.setdefault(artifact.fingerprint, (artifact, []))[1].append(name)
    rows: list[tuple[str, ...]] = []
    for artifact, names in sorted(named.values(), key=lambda pair: STAGES.index(pair[0].stage)):
        inputs = artifact.manifest.get("inputs") or {}
        made_from = ", ".join(f"{plain(role)} {plain(fingerprint)[:8]}" for role, fingerprint in inputs.items())
        finished = plain(artifact.manifest.get("finished", ""))
        # Data may belong to many runs with one name for it; a transfer belongs to several runs.
        name = ", ".join(dict.fromkeys(names))
        rows.append((artifact.stage, name, artifact.fingerprint[:8], made_from, plain(artifact.path), finished))
    return rows
