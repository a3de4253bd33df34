"""What must be known with the figures of a comparison: warnings and notes, a sentence each."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence

from l2p_tf.reporting.entries import Row
from l2p_tf.reporting.runs import Run
from l2p_tf.reporting.text import backend_name, listed, percent, plain


def without_eot(rows: Sequence[Row]) -> list[str]:
    """A warning for the randomized models whose noise no attack averaged away, for all that the same helps."""
    groups: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        records = [record for entry in row.attacked for record in entry.summary.records if record.randomized]
        if records and not any(record.draws > 1 for record in records):
            # An attack that sees scores only, such as a random search, has no gradients it could average.
            what = "gradients" if any(record.gradients for record in records) else "scores"
            groups.setdefault((what, _averaging({record.norm for record in records})), []).append(row.name)
    found = []
    for (what, spec), members in groups.items():
        names = list(dict.fromkeys(members))
        one = len(names) == 1
        found.append(
            f"{listed(names)} {'is' if one else 'are'} randomized, and no attack on {'it' if one else 'them'} averaged "
            f"its {what} over draws of the noise (EOT). {'Its' if one else 'Their'} accuracy under attack may be "
            f"overstated. Put one with draws=10 or more among the --attacks of the attack stage, such as {spec}."
        )
    return found


def invalid(rows: Sequence[Row]) -> list[str]:
    """A warning for answers of a classifier that were not finite."""
    found = []
    for row in rows:
        told = [r for entry in row.entries.values() for r in entry.summary.records if r.invalid]
        if told:
            worst = max(told, key=lambda record: record.invalid)
            found.append(
                f"{row.name} answered {worst.invalid:,} of {worst.count:,} images ({plain(worst.label)}) with numbers "
                "that are not finite (NaN). They count as misclassified: look for a division by zero or an overflow."
            )
    return found


def _averaging(norms: Collection[str | None]) -> str:
    """An attack that averages over draws, in the norm of those that were run."""
    if "linf" in norms or not {"l2", "l0"} & set(norms):
        return "pgd(draws=10)"
    return "pgd(draws=10, norm=l2)" if "l2" in norms else "few_pixel(draws=10)"


def averaged(runs: Sequence[Run]) -> list[str]:
    """How many draws of the noise an answer averages: with more of them a classifier answers better, and slower."""
    found = []
    for run in runs:
        draws = sorted({record.prediction_draws for record in run.records})
        if draws and draws[-1] > 1:
            counts = " or ".join(f"{count:,}" for count in draws)
            where = "; column prediction_draws of the CSVs says where" if len(draws) > 1 else ""
            found.append(f"{run.name}: each answer averages {counts} draws of the noise (mean softmax){where}.")
    return found


def targeted(rows: Sequence[Row]) -> list[str]:
    """How often each targeted attack hit its target: it may miss that and still be misclassified."""
    found = []
    for row in rows:
        for entry in row.attacked:
            records, first = entry.summary.records, entry.summary.first
            if all(record.reached == record.count - record.correct for record in records):
                continue
            reached = statistics.fmean(record.reached for record in records)
            share = f"{reached:,.6g} of {entry.count:,} images ({percent(reached / entry.count, entry.count)}%"
            share += f", mean of {len(records)} repeats)" if len(records) > 1 else ")"
            backend = "" if first.backend == "l2p_tf" else f" ({backend_name(first.backend)})"
            found.append(
                f"{plain(first.label)}{backend} on {row.name} is targeted: it reached its target class on {share}. "
                "The accuracy is still the share classified correctly."
            )
    return found


def of_published(rows: Sequence[Row]) -> list[str]:
    """Which settings were not measured, what is to be known of the printed numbers, and which of them are suspect."""
    notes: list[str] = []
    for row in rows:
        if not row.target:
            continue
        cells = [entry.published for entry in row.entries.values() if entry.published]
        shown = dict.fromkeys(cell.metric for cell in cells)
        missing = row.target.missing(set(shown))
        if missing:
            notes.append(
                f"{row.name} is to reproduce {row.target.title}. The paper's setting was not measured here for: "
                f"{listed(missing)}, on {row.target.dataset} ({row.target.split})."
            )
        if cells:
            notes += [f"{row.target.title}: {note}." for note in (*row.target.notes, *row.target.chosen(shown))]
        notes += [f"† suspect: {cell.reason}." for cell in cells if cell.suspect]
    return list(dict.fromkeys(notes))
