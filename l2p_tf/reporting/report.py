"""Makes a report from finished results: the page, its tables as Markdown, CSV and LaTeX, plots, and model cards."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Sequence

from l2p_tf import artifacts
from l2p_tf.environment import user_path
from l2p_tf.progress import bar
from l2p_tf.reporting import card, claims, page, words
from l2p_tf.reporting import reproduction as reproductions
from l2p_tf.reporting.comparison import Comparison, compare
from l2p_tf.reporting.matched import Match
from l2p_tf.reporting.reproduction import Reproduction
from l2p_tf.reporting.runs import Run, find, gather, unfinished
from l2p_tf.reporting.text import escape_markdown, plain
from l2p_tf.types import UserError

STAGE = "report"
_WRITER = "writer"
TITLE = "Robustness report"
HTML, MARKDOWN, PLOTS = "report.html", "report.md", "plots"


@dataclasses.dataclass(frozen=True)
class Report:
    """What was made.

    Attributes:
      path: the artifact.
      comparison: the comparison in it.
      made: False where the artifact was there and up to date.
      left_out: folders of unfinished work beside the results.
      cards: the cards of exported models in it.
    """

    path: pathlib.Path
    comparison: Comparison
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
    reproduction: Reproduction | None = None,
    seed: int | None = None,
    overwrite: bool = False,
) -> Report:
    """Makes the report artifact of all results in some folders.

    Args:
      folders: where the finished stages are: themselves, or up to two levels above them.
      output: the artifact to make.
      title: title of the page; empty for that of the report that is there.
      match: clean accuracies, as shares, at which methods are compared; none for that of the natural training where
        runs were swept.
      match_tolerance: how far from them a run may be, as a share.
      reproduction: the experiment that the results are of, whose comparison and claims come first; None for none.
      seed: for the manifest; nothing here is random.
      overwrite: replace a report of other runs instead of refusing.

    Raises:
      UserError: a folder holds no results or damaged ones, `match` or `match_tolerance` are no shares, or `output` is
        another report and `overwrite` is False.
    """
    paths = [user_path(folder) for folder in folders]
    if not paths:
        raise UserError("`runs` should name at least one folder with finished stages. Received: none")
    output = user_path(output)
    former = _former(output)
    title = plain(title) if title.strip() else str(former.get("title") or TITLE)
    wanted = Match(tuple(match), match_tolerance)
    found = find(paths)
    runs = gather(found)
    compared = compare(runs, wanted)
    if reproduction:
        own = [part.section(reproduction, runs) for part in (reproductions, claims)]
        compared = dataclasses.replace(compared, sections=(*(one for one in own if one), *compared.sections))
    # The fingerprint says which artifact it is, in whatever order and from wherever it comes.
    inputs = {f"{artifact.stage} {artifact.fingerprint[:8]}": artifact for artifact in found}
    options: dict[str, object] = {"title": title, "runs": [run.name for run in runs]}
    if reproduction:
        options["experiment"] = json.loads(json.dumps(dataclasses.asdict(reproduction.experiment)))
    options |= {"match": list(wanted.wanted), "match_tolerance": wanted.tolerance, _WRITER: writer()}
    # What an older version made of the same results is replaced without asking.
    overwrite = overwrite or {**former, _WRITER: ""} == {**options, _WRITER: ""}
    with artifacts.produce(output, STAGE, options, inputs, seed=seed, overwrite=overwrite) as work:
        if work is not None:
            work.clear()
            write(work.path, runs, compared, title, wanted, reproduction)
    cards_made = tuple(output / one.link for one in card.cards(runs))
    return Report(output, compared, work is not None, tuple(unfinished(paths)), cards_made)


@functools.cache
def writer() -> str:
    """Digest of all that writes reports: another one makes another report of the same results."""
    folder = pathlib.Path(__file__).parent
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".html", ".js", ".css", ".md", ".json"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def _former(path: pathlib.Path) -> dict[str, object]:
    """The options of the report that is there; none where there is none that can be read."""
    try:
        return artifacts.read(path, STAGE, verify=False).options
    except UserError:
        return {}


def write(
    folder: pathlib.Path, runs: Sequence[Run], comparison: Comparison, title: str, match: Match,
    reproduction: Reproduction | None = None,
) -> None:  # fmt: skip
    """Writes page, Markdown, the CSV and the LaTeX of each table, plots and model cards into a folder.

    Args:
      folder: where to.
      runs: what is reported.
      comparison: their comparison.
      title: title of the page.
      match: at which clean accuracies methods are compared.
      reproduction: the experiment that the results are of; None for none.

    Raises:
      UserError: a gallery, per-example results, the data of a run or what describes an export are damaged.
    """
    cards = card.cards(runs)
    with bar("report", len(runs) + 2, "parts") as advance:
        plots = page.draw(runs, match, advance)
        if reproduction and reproduction.experiment.figure:
            plots = plots.moved(reproduction.experiment.figure, claims.NAME)
        details = page.detail(runs)
        html = page.render(title, runs, comparison, plots, details, cards)
        advance()
    if cards:
        (folder / card.FOLDER).mkdir(exist_ok=True)
    for one in cards:
        artifacts.atomic_write(folder / one.link, card.write(one))
    (folder / PLOTS).mkdir(exist_ok=True)
    for plot in plots.all:
        artifacts.atomic_write(folder / PLOTS / f"{plot.name}.svg", plot.svg)
    for section in (*comparison.all_sections, *details.sections):
        artifacts.atomic_write(folder / section.file, section.to_csv())
        artifacts.atomic_write(folder / section.latex_file, section.to_latex())
    artifacts.atomic_write(folder / MARKDOWN, markdown(comparison, title))
    artifacts.atomic_write(folder / HTML, html)


def markdown(comparison: Comparison, title: str = TITLE) -> str:
    """Title, summary, comparison and the tables beside it as GitHub Markdown."""
    blocks = [f"# {escape_markdown(title)}", *map(escape_markdown, words.paragraphs(comparison))]
    return "\n\n".join([*blocks, comparison.to_markdown()])
