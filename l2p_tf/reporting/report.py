"""Makes a report from finished results: the page, its tables as Markdown, CSV and LaTeX, and the plots."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence

from l2p_tf import artifacts
from l2p_tf.progress import bar
from l2p_tf.reporting import page, words
from l2p_tf.reporting.matched import Match
from l2p_tf.reporting.runs import Run, find, gather, unfinished
from l2p_tf.reporting.tables import Table, comparison
from l2p_tf.reporting.text import escape_markdown, plain
from l2p_tf.types import UserError

STAGE = "report"
TITLE = "Robustness report"
HTML, MARKDOWN, CSV, LATEX, PLOTS = "report.html", "report.md", "table.csv", "table.tex", "plots"


@dataclasses.dataclass(frozen=True)
class Report:
    """What was made.

    Attributes:
      path: the artifact.
      table: the comparison in it.
      made: False where the artifact was there and up to date.
      left_out: folders of unfinished work beside the results.
    """

    path: pathlib.Path
    table: Table
    made: bool
    left_out: tuple[pathlib.Path, ...]


def make(
    folders: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    title: str = "",
    *,
    match: Sequence[float] = (),
    match_tolerance: float = 0.01,
    seed: int | None = None,
    overwrite: bool = False,
) -> Report:
    """Makes the report artifact of all results in some folders.

    Args:
      folders: where the finished stages are: themselves, or up to two levels above them.
      output: the artifact to make.
      title: title of the page.
      match: clean accuracies, as shares, at which methods are compared; none for that of the natural training where
        runs were swept.
      match_tolerance: how far from them a run may be, as a share.
      seed: for the manifest; nothing here is random.
      overwrite: replace a report of other runs instead of refusing.

    Raises:
      UserError: a folder holds no results or damaged ones, `match` or `match_tolerance` are no shares, or `output` is
        another report and `overwrite` is False.
    """
    paths = [pathlib.Path(folder) for folder in folders]
    if not paths:
        raise UserError("`runs` should name at least one folder with finished stages. Received: none")
    title = plain(title) if title.strip() else TITLE
    wanted = Match(tuple(match), match_tolerance)
    found = find(paths)
    runs = gather(found)
    table = comparison(runs, wanted)
    # The fingerprint says which artifact it is, in whatever order and from wherever it comes.
    inputs = {f"{artifact.stage} {artifact.fingerprint[:8]}": artifact for artifact in found}
    options: dict[str, object] = {"title": title, "runs": [run.name for run in runs]}
    options |= {"match": list(wanted.wanted), "match_tolerance": wanted.tolerance}
    with artifacts.produce(output, STAGE, options, inputs, seed=seed, overwrite=overwrite) as work:
        if work is not None:
            write(work.path, runs, table, title, wanted)
    return Report(pathlib.Path(output), table, work is not None, tuple(unfinished(paths)))


def write(folder: pathlib.Path, runs: Sequence[Run], table: Table, title: str, match: Match) -> None:
    """Writes page, Markdown, the CSV and the LaTeX of each table, and plots into a folder.

    Args:
      folder: where to.
      runs: what is reported.
      table: their comparison.
      title: title of the page.
      match: at which clean accuracies methods are compared.

    Raises:
      UserError: a gallery, per-example results or the data of a run are damaged.
    """
    with bar("report", len(runs) + 2, "parts") as advance:
        plots = page.draw(runs, table, match, advance)
        details = page.detail(runs)
        html = page.render(title, runs, table, plots, details)
        advance()
    (folder / PLOTS).mkdir(exist_ok=True)
    for plot in plots.all:
        artifacts.atomic_write(folder / PLOTS / f"{plot.name}.svg", plot.svg)
    artifacts.atomic_write(folder / CSV, table.to_csv())
    if table.rows:
        artifacts.atomic_write(folder / LATEX, table.to_latex())
    for section in (*table.sections, *details.sections):
        artifacts.atomic_write(folder / section.file, section.to_csv())
        artifacts.atomic_write(folder / section.latex_file, section.to_latex())
    artifacts.atomic_write(folder / MARKDOWN, markdown(table, title))
    artifacts.atomic_write(folder / HTML, html)


def markdown(table: Table, title: str = TITLE) -> str:
    """Title, summary, comparison and the tables beside it as GitHub Markdown."""
    blocks = [f"# {escape_markdown(title)}", *map(escape_markdown, words.paragraphs(table))]
    if table.rows:
        blocks.append(escape_markdown(table.caption))
    return "\n\n".join([*blocks, table.to_markdown()])
