"""What must be known with the figures of a comparison: warnings and remarks, a sentence each."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from l2p_tf.reporting.format import backend_name, listed, percent, plain
from l2p_tf.reporting.results import Results

if TYPE_CHECKING:
    from l2p_tf.reporting.sections.comparison import Row


def without_eot(rows: Sequence[Row]) -> list[str]:
    """A warning for the randomized models whose noise no attack averaged away, for all that the same helps."""
    groups: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        entries = [entry for entry in row.entries.values() if entry.kind != "clean" and entry.randomized]
        if entries and not any(entry.draws > 1 for entry in entries):
            # An attack that sees scores only, such as a random search, has no gradients it could average.
            what = "gradients" if any(entry.gradients for entry in entries) else "scores"
            groups.setdefault((what, _averaging({entry.norm for entry in entries})), []).append(row.name)
    texts = []
    for (what, spec), members in groups.items():
        names = list(dict.fromkeys(members))
        be, them, their = ("is", "it", "Its") if len(names) == 1 else ("are", "them", "Their")
        texts.append(
            f"{listed(names)} {be} randomized, and no attack on {them} averaged its {what} over draws of the noise "
            f"(EOT). {their} accuracy under attack may be overstated. Put one with draws=10 or more among the "
            f"--attacks of the attack stage, such as {spec}."
        )
    return texts


def invalid(rows: Sequence[Row]) -> list[str]:
    """A warning for answers of a classifier that were not finite."""
    texts = []
    for row in rows:
        records = [r for entry in row.entries.values() for r in entry.measured.summary.records if r.invalid]
        if records:
            worst = max(records, key=lambda record: record.invalid)
            texts.append(
                f"{row.name} answered {worst.invalid:,} of {worst.count:,} images ({plain(worst.label)}) with numbers "
                "that are not finite (NaN). They count as misclassified: look for a division by zero or an overflow."
            )
    return texts


def _averaging(norms: Collection[str | None]) -> str:
    """An attack that averages over draws, in the norm of those that were run."""
    if "linf" in norms or not {"l2", "l0"} & set(norms):
        return "pgd(draws=10)"
    return "pgd(draws=10, norm=l2)" if "l2" in norms else "few_pixel(draws=10)"


def replaced(results: Results) -> list[str]:
    """Which runs were judged more than once under an attack, with other results, and which of those is shown."""
    texts = []
    place = ["key", "weights", "dataset", "split", "attack", "backend"]
    summaries = results.summaries[results.summaries.kind != "transfer"]
    for _, group in summaries.groupby(place, sort=False):
        kept = next(row for row in group.itertuples() if row.counted)
        correct = [[r.correct for r in row.measured.summary.records] for row in group.itertuples()]
        if any(one != correct[0] for one in correct):
            texts.append(
                f"{kept.run} was judged more than once under {plain(kept.label)}; shown is the evaluation on the most "
                f"images, with the most repeats ({kept.count:,} and {kept.repeats})."
            )
    return texts


def untrained(results: Results) -> list[str]:
    """Which runs are there without their training."""
    return [
        f"The training of {run.name} was not given: its settings and curves are missing here."
        for run in results.all_runs
        if not run.train
    ]


def averaged(results: Results) -> list[str]:
    """How many draws of the noise an answer averages: with more of them a classifier answers better, and slower."""
    texts = []
    for run in results.all_runs:
        draws = sorted({record.prediction_draws for record in run.records})
        if draws and draws[-1] > 1:
            counts = " or ".join(f"{count:,}" for count in draws)
            where = "; column prediction_draws of the CSVs says where" if len(draws) > 1 else ""
            texts.append(f"{run.name}: each answer averages {counts} draws of the noise (mean softmax){where}.")
    return texts


def targeted(results: Results) -> list[str]:
    """How often each targeted attack hit its target: it may miss that and still be misclassified."""
    texts = []
    for row in results.attacks.itertuples():
        records = row.measured.summary.records
        if row.kind == "clean" or all(record.reached == record.count - record.correct for record in records):
            continue
        share = f"{row.reached * row.count:,.6g} of {row.count:,} images ({percent(row.reached, row.count)}%"
        share += f", mean of {row.repeats} repeats)" if row.repeats > 1 else ")"
        backend = "" if row.backend == "l2p_tf" else f" ({backend_name(row.backend)})"
        texts.append(
            f"{plain(row.label)}{backend} on {row.name} is targeted: it reached its target class on {share}. "
            "The accuracy is still the share classified correctly."
        )
    return texts
