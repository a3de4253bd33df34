"""The tables of methods at matched clean accuracies, laid out as the perturbation generator's paper has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from l2p_tf.reporting.matched import NAME, Match, MatchedAt, Pick, Result, comparisons, in_few_radii, mean, results_of
from l2p_tf.reporting.runs import Run
from l2p_tf.reporting.section import Section
from l2p_tf.reporting.sweeps import settings_of
from l2p_tf.reporting.table import NOTHING, Cell, Column, Table, accuracy, in_percent, rounded
from l2p_tf.reporting.text import listed, percent, plain, strength

_NOTE = (
    "The more robust a training, the lower its accuracy on clean images tends to be, so methods are compared at the "
    "same clean accuracy. Of each method, the run whose clean accuracy is nearest to the one wanted is picked on the "
    "very images shown here, as the paper on perturbation generators does; the figures of picked runs are a little "
    "flattered by it. Accuracy in percent, ± its standard deviation over repeats where there are several; below it the "
    "95% interval and the number of images. White-box: with full access to the model; "
    "black-box: by examples made on runs that have none of its weights, the mean over those named. L2: mean norm "
    "\N{GREEK SMALL LETTER RHO} and median of the perturbations that succeeded on images classified correctly when "
    "clean. Average: the plain mean of the lines above it. Of an attack that was run at many radii one is shown: the "
    "largest, of those at which examples were transferred where there are such."
)
_BLACK_BOX = Column("Accuracy", "black-box")
_HEADS = (
    Column("Method", figures=False), Column("Attack", figures=False), Column("Accuracy", "white-box"),
    Column("Mean L2", "white-box"), Column("Median L2", "white-box"),
    _BLACK_BOX, Column("Clean", "accuracy"), Column("Seconds", "per epoch"),
)  # fmt: skip
_FIGURES = (
    "attack", "norm", "epsilon", "backend", "count", "accuracy", "low", "high", "succeeded", "mean_l2", "median_l2",
    "black_box", "sources",
)  # fmt: skip


def section(runs: Sequence[Run], match: Match) -> Section | None:
    """A table for each clean accuracy at which methods are compared; None where there is none.

    Raises:
      UserError: arrays cannot be read.
    """
    found = comparisons(runs, match)
    if not found:
        return None
    known = {run.key: run for run in runs}
    sheets, lines = [], []
    alike: dict[str, list[str]] = {}
    for one in found:
        rows: list[tuple[Cell, ...]] = []
        results = [results_of(pick.subject, known) if pick.within else [] for pick in one.picks]
        for pick, mine in zip(one.picks, in_few_radii(results), strict=True):
            rows += _rows(pick, mine) if pick.within else [_missing(one, pick)]
            lines += _lines(one, pick, mine)
            for source in (source for result in mine for source in result.transferred if source.alike):
                alike.setdefault(source.source, []).append(pick.subject.name)
        title = f"Clean accuracy of {100 * one.wanted:.4g}%"
        caption = f"Runs within {_points(one)} of it, on {one.picks[0].subject.title}."
        sheets.append(_without_dashes(Table(title, caption, _HEADS, tuple(rows))))
    return Section(NAME, "Methods at the same clean accuracy", tuple(sheets), tuple(lines), _NOTE + _alike(alike))


def _without_dashes(sheet: Table) -> Table:
    """The table without its column of black-box accuracies where nothing was transferred."""
    at = _HEADS.index(_BLACK_BOX)
    known = any(row[at] is not NOTHING and row[at].text for row in sheet.rows)
    return sheet if known else sheet.without(at)


def _alike(found: Mapping[str, Sequence[str]]) -> str:
    """A sentence on the sources that began as the runs did that their examples were shown to; empty without such."""
    if not found:
        return ""
    pairs = [f"{source} with {listed(list(dict.fromkeys(runs)))}" for source, runs in found.items()]
    return (
        " Of the sources of black-box examples, these share the seed and the architecture with the run, so that the "
        f"two were not initialized independently: {'; '.join(pairs)}."
    )


def _rows(pick: Pick, results: Sequence[Result]) -> list[tuple[Cell, ...]]:
    """A row for each attack and one for their average; what all have in common stands in the first."""
    run, clean = pick.subject.run, pick.clean
    count, seconds = clean.first.count, run.note("seconds_per_epoch")
    body = [_cells(result) for result in results]
    if len(results) > 1:
        body.append(_average(results, count))
    whole = (
        accuracy(clean),
        Cell(f"{seconds:.3g}") if isinstance(seconds, int | float) else NOTHING,
    )
    first = Cell(pick.label, (pick.subject.name, *settings_of(run)))
    rows = [(first, *(body or [(NOTHING,) * 5])[0], *whole)]
    return rows + [(Cell(pick.label), *cells, Cell(""), Cell("")) for cells in body[1:]]


def _cells(result: Result) -> tuple[Cell, ...]:
    summary, sizes = result.measured.summary, result.sizes
    return (
        Cell(plain(summary.first.label), (strength(summary.first),)),
        accuracy(summary),
        _size(sizes.mean if sizes else None),
        _size(sizes.median if sizes else None),
        _black_box(result),
    )


def _average(results: Sequence[Result], count: int) -> tuple[Cell, ...]:
    white, means, medians, black = averages(results)
    return Cell("Average"), _share(white, count), _size(means), _size(medians), _share(black, count)


def averages(results: Sequence[Result]) -> tuple[float | None, ...]:
    """Means over attacks: accuracy, mean L2, median L2, black-box accuracy; None where no attack has the figure."""
    return (
        mean([result.measured.summary.accuracy for result in results]),
        mean([result.sizes.mean if result.sizes else None for result in results]),
        mean([result.sizes.median if result.sizes else None for result in results]),
        mean([result.black_box for result in results]),
    )


def _black_box(result: Result) -> Cell:
    if result.black_box is None:
        return NOTHING
    found = result.transferred
    if len(found) == 1:
        return accuracy(found[0].summary, f"from {found[0].source}")
    # The sources are not a sample of any, so their mean has no interval; each of them has its own.
    cells = [(one.source, *accuracy(one.summary).lines) for one in found]
    each = [f"{source}: {mean} ({interval}), {images}" for source, mean, interval, images in cells]
    return Cell(percent(result.black_box, found[0].summary.first.count), tuple(each))


def _missing(one: MatchedAt, pick: Pick) -> tuple[Cell, ...]:
    nearest = f"nearest {pick.subject.name} at {percent(pick.clean.accuracy, pick.clean.first.count)}%"
    return Cell(pick.label), Cell(f"none within {_points(one)}; {nearest}"), *([Cell("")] * 6)


def _points(one: MatchedAt) -> str:
    return f"{100 * one.tolerance:.1f} points" if one.tolerance >= 0.001 else f"{100 * one.tolerance:.3g} points"


def _share(value: float | None, count: int) -> Cell:
    return NOTHING if value is None else Cell(percent(value, count))


def _size(value: float | None) -> Cell:
    return NOTHING if value is None else Cell(f"{value:.4g}")


def _lines(one: MatchedAt, pick: Pick, results: Sequence[Result]) -> list[dict[str, object]]:
    subject = pick.subject
    head = {
        "wanted": in_percent(one.wanted), "tolerance": in_percent(one.tolerance), "dataset": subject.place[1],
        "split": subject.place[2], "method": pick.label, "run": subject.name,
        "swept": "; ".join(settings_of(subject.run)),
        "clean": in_percent(pick.clean.accuracy), "within": str(pick.within).lower(),
        "seconds_per_epoch": subject.run.note("seconds_per_epoch", ""),
    }  # fmt: skip
    figures = [_figures(result) for result in results]
    if len(results) > 1:
        white, means, medians, black = averages(results)
        figures.append({
            "attack": "average", "accuracy": in_percent(white), "mean_l2": rounded(means),
            "median_l2": rounded(medians),
            "black_box": in_percent(black),
        })  # fmt: skip
    return [head | dict.fromkeys(_FIGURES, "") | line for line in figures or [{}]]


def _figures(result: Result) -> dict[str, object]:
    summary, sizes = result.measured.summary, result.sizes
    first = summary.first
    return {
        "attack": first.attack, "norm": first.norm, "epsilon": first.epsilon, "backend": first.backend,
        "count": first.count, "accuracy": in_percent(summary.accuracy), "low": in_percent(summary.low),
        "high": in_percent(summary.high), "succeeded": sizes.succeeded if sizes else "",
        "mean_l2": rounded(sizes.mean if sizes else None), "median_l2": rounded(sizes.median if sizes else None),
        "black_box": in_percent(result.black_box), "sources": "; ".join(one.source for one in result.transferred),
    }  # fmt: skip
