"""The table of a sweep: what was tried, what it cost, and what it brought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from l2p_tf.evaluation.records import Record, Summary
from l2p_tf.reporting.kinds import kind_of, labels, swept
from l2p_tf.reporting.norms import Sizes, sizes_of
from l2p_tf.reporting.runs import Run
from l2p_tf.reporting.section import Section
from l2p_tf.reporting.subjects import Measured, Subject, Trial, by_place, subjects
from l2p_tf.reporting.sweeps import ordered, settings_of, unswept
from l2p_tf.reporting.table import NOTHING, Cell, Column, Table, accuracy, in_percent, rounded
from l2p_tf.reporting.text import DASH, attack_names, norm_name, percent, plain, strength

NAME = "sweep"
_NORMS = ("l2", "linf")
_CAPTION = (
    "Accuracy in percent, ± its standard deviation over repeats where there are several; below it the 95% interval and "
    "the number of images. Of attacks that look for the smallest perturbation: mean norm "
    "\N{GREEK SMALL LETTER RHO} over the images that were classified correctly when clean and on which the attack "
    "succeeded, the median, and the share of the images classified correctly when clean on which it succeeded. "
    "Lowest: under any of the attacks that keep to a given size."
)


def section(runs: Sequence[Run]) -> Section | None:
    """A table for each sweep, with the runs on the same images that are no part of it first; None without a sweep.

    Raises:
      UserError: arrays cannot be read.
    """
    groups = [found for found in by_place(subjects(runs)).values() if len(unswept(found)) < len(found)]
    if not groups:
        return None
    keys = list(dict.fromkeys(key for found in groups for subject in found for key in swept(subject.run)))
    attacks = _attacks([subject for found in groups for subject in found])
    sheets, lines = [], []
    for found in groups:
        title = found[0].title if len(groups) > 1 else ""
        sheets.append(_sheet(title, ordered(found)))
        names = labels(found)
        lines += [_line(subject, names[kind_of(subject)], keys, attacks) for subject in ordered(found)]
    return Section(NAME, "Sweep", tuple(sheets), tuple(lines))


def lowest(subject: Subject) -> Measured | None:
    """The attack among those that keep to a given size that left the least; None where there is none."""
    return min(subject.bounded, key=lambda one: one.summary.accuracy, default=None)


def _attacks(found: Sequence[Subject]) -> dict[Trial, Record]:
    return {one.trial: one.first for subject in found for one in subject.minimal(*_NORMS)}


def _sizes(subject: Subject, trial: Trial) -> Sizes | None:
    one = next((one for one in subject.minimal(*_NORMS) if one.trial == trial), None)
    return sizes_of(one.evaluation, one.summary.records) if one else None


def _sheet(title: str, found: Sequence[Subject]) -> Table:
    attacks, names = _attacks(found), labels(found)
    told = zip(attack_names(list(attacks.values())), attacks.values(), strict=True)
    heads = (
        Column("Run", figures=False), Column("Method", "swept", figures=False), Column("Clean"),
        *(Column(name, f"mean {norm_name(first.norm)}") for name, first in told),
        Column("Lowest", "attack"), Column("Seconds", "per epoch"), Column("Parameters"),
    )  # fmt: skip
    rows = tuple(_row(subject, names[kind_of(subject)], tuple(attacks)) for subject in found)
    return Table(title, f"{_CAPTION} On {found[0].where}.", heads, rows)


def _row(subject: Subject, method: str, attacks: Sequence[Trial]) -> tuple[Cell, ...]:
    run, worst = subject.run, lowest(subject)
    seconds, parameters = run.note("seconds_per_epoch"), run.note("parameters")
    return (
        Cell(subject.name, (plain(run.option("model")),) if run.train else ()),
        Cell(method, settings_of(run)),
        _accuracy(subject.clean),
        *(_size(_sizes(subject, trial)) for trial in attacks),
        _accuracy(worst.summary, plain(worst.first.label), strength(worst.first)) if worst else NOTHING,
        Cell(f"{seconds:.3g}") if isinstance(seconds, int | float) else NOTHING,
        Cell(f"{parameters:,}") if isinstance(parameters, int) else NOTHING,
    )


def _accuracy(summary: Summary | None, *below: str) -> Cell:
    return NOTHING if summary is None else accuracy(summary, *below)


def _size(sizes: Sizes | None) -> Cell:
    if sizes is None or sizes.rate is None:
        return NOTHING
    success = f"success {percent(sizes.rate, sizes.tried)}%"
    if sizes.mean is None:
        return Cell(DASH, (success,))
    return Cell(f"{sizes.mean:.4g}", (f"median {sizes.median:.4g}", success))


def _line(subject: Subject, method: str, keys: Sequence[str], attacks: Mapping[Trial, Record]) -> dict[str, object]:
    run, values, worst = subject.run, swept(subject.run), lowest(subject)
    clean, least = subject.clean, worst.summary if worst else None
    line: dict[str, object] = {
        "run": subject.name, "method": method, "defense": run.option("defense"), "model": run.option("model"),
        "dataset": subject.place[1], "split": subject.place[2], **{key: values.get(key, "") for key in keys},
        "count": clean.first.count if clean else "", **_interval("clean", clean),
        "lowest_attack": worst.first.attack if worst else "", **_interval("lowest", least),
    }  # fmt: skip
    keyed = [trial[:2] for trial in attacks]
    for trial, first in attacks.items():
        sizes = _sizes(subject, trial)
        name = first.attack if first.backend == "l2p_tf" else f"{first.attack} ({first.backend})"
        if keyed.count(trial[:2]) > 1:
            name += f", n = {first.count}"
        line |= {
            f"success/{name}": in_percent(sizes.rate) if sizes else "",
            f"mean/{name}": rounded(sizes.mean) if sizes else "",
            f"median/{name}": rounded(sizes.median) if sizes else "",
        }
    return line | {
        "seconds_per_epoch": run.note("seconds_per_epoch", ""), "parameters": run.note("parameters", ""),
    }  # fmt: skip


def _interval(name: str, summary: Summary | None) -> dict[str, object]:
    shares = (summary.accuracy, summary.low, summary.high) if summary else (None, None, None)
    return dict(zip((name, f"{name}_low", f"{name}_high"), map(in_percent, shares), strict=True))
