"""Makes a report from finished results: the page, its tables as Markdown, CSV and LaTeX, plots, and model cards."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import os
import pathlib
from collections.abc import Mapping, Sequence

from l2p_tf import artifacts
from l2p_tf.environment import user_path
from l2p_tf.progress import bar
from l2p_tf.reporting import card, page, robustbench, summary
from l2p_tf.reporting.format import escape_markdown, plain
from l2p_tf.reporting.load import find, gather, unfinished
from l2p_tf.reporting.measured import Match
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import Make, Section, registered, sections_of
from l2p_tf.types import UserError

STAGE = "report"
_WRITER = "writer"
TITLE = "Robustness report"
HTML, MARKDOWN, PLOTS = "report.html", "report.md", "plots"


@dataclasses.dataclass(frozen=True)
class Report:
    """A report.

    Attributes:
      path: the artifact.
      results: the reported results.
      sections: its sections.
      made: False if the artifact existed and was up to date.
      left_out: folders of unfinished work next to the results.
      cards: cards of exported models in it.
    """

    path: pathlib.Path
    results: Results
    sections: tuple[Section, ...]
    made: bool
    left_out: tuple[pathlib.Path, ...]
    cards: tuple[pathlib.Path, ...] = ()


def make(
    folders: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    title: str = "",
    *,
    match: Sequence[float] = (),
    match_tolerance: float = 0.01,
    sections: Sequence[Make] = (),
    described: Mapping[str, object] | None = None,
    seed: int | None = None,
    overwrite: bool = False,
) -> Report:
    """Makes the report artifact of all results in some folders.

    Args:
      folders: folders of finished stages, or up to two levels above them.
      output: artifact to create.
      title: title of the page; empty for that of the existing report.
      match: clean accuracies, as shares, at which methods are compared; empty for that of the standard training if runs
      were swept.
      match_tolerance: maximum difference of a run from them, as a share.
      sections: functions that make further sections, which come first.
      described: manifest entries for the further sections.
      seed: for the manifest; nothing here is random.
      overwrite: replace a report of other runs.

    Raises:
      UserError: a folder holds no results or damaged ones, `match` or `match_tolerance` are not shares, or `output` is
      another report and `overwrite` is False.
    """
    paths = [user_path(folder) for folder in folders]
    if not paths:
        raise UserError("`runs` should name at least one folder with finished stages. Received: none")
    output = user_path(output)
    former = _former(output)
    title = plain(title) if title.strip() else str(former.get("title") or TITLE)
    wanted = Match(tuple(match), match_tolerance)
    artifacts_there = find(paths)
    results = Results(gather(artifacts_there), wanted)
    with bar("report", len(registered()), "sections") as advance:
        parts = tuple(sections_of(results, sections, advance))
    # Fingerprints make the inputs independent of order and location.
    inputs = {f"{artifact.stage} {artifact.fingerprint[:8]}": artifact for artifact in artifacts_there}
    options = {"title": title, "runs": [run.name for run in results.all_runs], **(described or {})}
    options |= {"match": list(wanted.wanted), "match_tolerance": wanted.tolerance, _WRITER: writer(tuple(sections))}
    # A report of the same results by an older version is replaced without asking.
    overwrite = overwrite or {**former, _WRITER: ""} == {**options, _WRITER: ""}
    with artifacts.produce(output, STAGE, options, inputs, seed=seed, overwrite=overwrite) as work:
        if work is not None:
            work.clear()
            write(work.path, results, parts, title)
    cards = tuple(output / entry.link for entry in card.cards(results.all_runs))
    return Report(output, results, parts, work is not None, tuple(unfinished(paths)), cards)


@functools.cache
def writer(sections: tuple[Make, ...] = ()) -> str:
    """Digest of all code that writes reports: if it changes, the report is made again."""
    makers = [maker.func if isinstance(maker, functools.partial) else maker for maker in sections]
    folders = {pathlib.Path(__file__).parent, *(pathlib.Path(inspect.getfile(maker)).parent for maker in makers)}
    kinds = (".py", ".html", ".js", ".css", ".md", ".json")
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.suffix in kinds)
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def _former(path: pathlib.Path) -> dict[str, object]:
    """Returns the options of the existing report; empty if there is none that can be read."""
    try:
        return artifacts.read(path, STAGE, verify=False).options
    except UserError:
        return {}


def write(folder: pathlib.Path, results: Results, sections: Sequence[Section], title: str) -> None:
    """Writes page, Markdown, CSV and LaTeX of each section, plots, model cards and RobustBench's JSON to a folder.

    Args:
      folder: destination.
      results: the results to report.
      sections: its sections.
      title: title of the page.

    Raises:
      UserError: a gallery, per-example results, the data of a run or the description of an export are damaged.
    """
    cards = card.cards(results.all_runs)
    files = {HTML: page.render(title, results, sections, cards), MARKDOWN: markdown(results, sections, title)}
    files |= {model_card.link: card.write(model_card) for model_card in cards} | robustbench.files(results)
    for section in sections:
        files |= dict(section.files) | {f"{PLOTS}/{plot.name}.svg": plot.svg for plot in section.plots}
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        artifacts.atomic_write(folder / name, text)


def markdown(results: Results, sections: Sequence[Section], title: str = TITLE) -> str:
    """Returns title, summary, warnings and the tables of all sections as GitHub Markdown; all text is escaped."""
    blocks = [f"# {escape_markdown(title)}", *map(escape_markdown, summary.paragraphs(results))]
    blocks += [f"**Warning:** {escape_markdown(text)}" for section in sections for text in section.warnings]
    blocks += [section.to_markdown() for section in sections if section.tables or section.note]
    return "\n\n".join(blocks) + "\n"
