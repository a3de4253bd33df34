"""The comparison of runs: one row per model, one column per attack."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from l2p_tf.evaluation.records import CLEAN
from l2p_tf.reporting.examples import Perturbations, is_measurable, perturbations
from l2p_tf.reporting.format import (
    DASH,
    among_training,
    attack_names,
    backend_name,
    interval,
    listed,
    minimal,
    norm_name,
    percent,
    plain,
)  # fmt: skip
from l2p_tf.reporting.load import Run
from l2p_tf.reporting.measured import Evaluated
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import Section, section
from l2p_tf.reporting.table import (
    ATTACK,
    NOTHING,
    Cell,
    Column,
    Table,
    accuracy,
    accuracy_of,
    columns_of,
    figures,
    in_percent,
)  # fmt: skip

Key = tuple[str, str]
"""An attack's spec and backend."""

_CAPTION = (
    "Accuracy in percent, \N{PLUS-MINUS SIGN} its standard deviation over repeats where a model was judged more than "
    "once; below it the 95% interval (Wilson\N{RIGHT SINGLE QUOTATION MARK}s, for the number of images n)."
)
_SMALLEST = (
    " An attack that looks for the smallest perturbation leaves next to nothing by construction: its column has the "
    "median norm of the perturbations that succeeded instead; the larger, the more robust."
)


@dataclasses.dataclass(frozen=True)
class AttackColumn:
    """One attack, or none (`clean`).

    Attributes:
      key: spec and backend.
      label: unique short name of the attack.
      allowed: its budget.
      minimal: whether it minimizes the perturbation without a limit.
    """

    key: Key
    label: str
    allowed: str
    minimal: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """One model on one split of one data set.

    Attributes:
      run: its run.
      name: name of the run, with what distinguishes this row from others of the run.
      weights: `best` or `last`.
      dataset: title of the data set; empty if the run was not attacked.
      split: its split; empty if the run was not attacked.
      entries: rows of `Results.attacks` by column.
      sizes: perturbations of minimizing attacks, if available.
    """

    run: Run
    name: str
    weights: str = "best"
    dataset: str = ""
    split: str = ""
    entries: Mapping[Key, Any] = dataclasses.field(default_factory=dict)
    sizes: Mapping[Key, Perturbations] = dataclasses.field(default_factory=dict)

    @property
    def defense(self) -> str:
        """The defense of the training; empty if the training was not given."""
        return plain(self.run.option("defense")) if self.run.train else ""

    @property
    def model(self) -> str:
        """The architecture of the training; empty if the training was not given."""
        return plain(self.run.option("model")) if self.run.train else ""

    @property
    def data(self) -> str:
        """Data set and split; empty if the run was not attacked."""
        return f"{self.dataset}, {self.split}" if self.dataset else ""

    @property
    def bounded(self) -> list[Any]:
        """Entries of attacks with a fixed budget; others leave accuracies near 0 by construction."""
        return [entry for entry in self.entries.values() if entry.kind == "bounded"]

    def cell(self, key: Key, common: list[str]) -> Cell:
        """Returns the accuracy under an attack, or the median norm for minimizing attacks, without common lines."""
        if key not in self.entries:
            return NOTHING
        entry, sizes = self.entries[key], self.sizes.get(key)
        cell = accuracy(entry)
        if sizes:
            rate = DASH if sizes.rate is None else f"{percent(sizes.rate, sizes.tried)}%"
            text = DASH if sizes.median is None else f"{sizes.median:#.3g}"
            below = (f"median {norm_name(entry.norm)}", f"success {rate}", *cell.below[1:])
            cell = Cell(text, below, value=sizes.median)
        return dataclasses.replace(cell, below=tuple(line for line in cell.below if line not in common))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Results by model and attack.

    Attributes:
      columns: clean first, then the attacks in order of appearance.
      rows: the models, in the order of the runs; one that was not attacked has no entries.
    """

    columns: tuple[AttackColumn, ...]
    rows: tuple[Row, ...]

    @property
    def table(self) -> Table:
        """One row per model, one column per attack; facts common to all rows are in the caption."""
        judged = [row for row in self.rows if row.entries]
        images = {accuracy(entry).below[1] for row in judged for entry in row.entries.values()}
        facts = ({row.data for row in judged}, {row.model for row in judged}, images)
        common = [next(iter(values)) for values in facts if len(values) == 1]
        caption = _CAPTION + _SMALLEST * any(row.sizes for row in judged)
        caption += f" All rows: {'; '.join(filter(None, common))}." if any(common) else ""
        columns = (Column("Run", figures=False), *(Column(column.label, column.allowed) for column in self.columns))
        rows = []
        for row in self.rows:
            below = [text for text in (row.defense, row.model, row.data) if text and text not in (*common, row.name)]
            rows.append((Cell(row.name, tuple(below)), *(row.cell(column.key, common) for column in self.columns)))
        return Table("", caption, columns, tuple(rows))


@section("comparison", "Comparison", order=10)
def comparison(results: Results) -> Section:
    """The comparison table, with remarks and warnings."""
    compared = results.once(compare)
    elsewhere = _elsewhere(results)
    remarks = [text for text, flattered in elsewhere.items() if not flattered]
    remarks += [text for note in (_replaced, _untrained, _averaged, _targeted) for text in note(results)]
    flattered = [text for text, flattered in elsewhere.items() if flattered]
    warnings = (*_invalid(compared.rows), *_without_eot(compared.rows), *flattered)
    if not compared.rows:
        return Section(note=" ".join(remarks), warnings=warnings)
    rows = [
        {
            "run": row.name, "defense": row.defense, "model": row.model, **columns_of(entry, *ATTACK),
            "dataset": row.dataset, **accuracy_of(entry),
            "spread": in_percent(entry.spread) if entry.repeats > 1 else None,
        }
        for row in compared.rows
        for column in compared.columns
        if (entry := row.entries.get(column.key))
    ]  # fmt: skip
    return Section((compared.table,), figures(rows), warnings=warnings, remarks=tuple(remarks))


def compare(results: Results) -> Comparison:
    """Compares runs.

    Raises:
      UserError: arrays of a minimizing attack cannot be read.
    """
    rows: list[Row] = []
    for run in results.all_runs:
        evaluated = [model for model in results.evaluated if model.run is run]
        several = len({model.place[1:] for model in evaluated}) > 1
        # Runs that were not given and only met transferred examples have nothing to compare.
        rows += [_row(model, several) for model in evaluated] or ([Row(run, run.name)] if run.train else [])
    entries: dict[Key, Any] = {}
    for key, entry in (pair for row in rows for pair in row.entries.items()):
        entries.setdefault(key, entry)
    keys = sorted(entries, key=lambda key: key[0] != CLEAN)
    firsts = [entries[key].measured.first for key in keys]
    columns = [
        AttackColumn(key, label, entries[key].allowed, minimal(first))
        for key, label, first in zip(keys, attack_names(firsts), firsts, strict=True)
    ]
    return Comparison(tuple(columns), tuple(rows))


def _row(model: Evaluated, several: bool) -> Row:
    weights, dataset, split = model.place
    dataset, split = model.run.title_of(dataset), plain(split)
    parts = ([plain(weights)] if weights != "best" else []) + ([dataset, split] if several else [])
    name = f"{model.run.name} ({', '.join(parts)})" if parts else model.run.name
    entries = {(row.attack, row.backend): row for row in model.rows}
    sizes = {key: perturbations(row.measured) for key, row in entries.items() if is_measurable(row.measured)}
    return Row(model.run, name, weights, dataset, split, entries, sizes)


def shares(entry: Any) -> tuple[str, str]:
    """Formats an accuracy and its 95% interval in percent."""
    return percent(entry.accuracy, entry.count), interval(entry.low, entry.high, entry.count)


def _without_eot(rows: Sequence[Row]) -> list[str]:
    """Warns about randomized models that no attack with EOT was run on, grouped by the advice."""
    groups: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        entries = [entry for entry in row.entries.values() if entry.kind != "clean" and entry.randomized]
        if entries and not any(entry.draws > 1 for entry in entries):
            # Gradient-free attacks, such as a random search, have no gradients to average.
            quantity = "gradients" if any(entry.gradients for entry in entries) else "scores"
            groups.setdefault((quantity, _averaging_in({entry.norm for entry in entries})), []).append(row.name)
    texts = []
    for (quantity, spec), members in groups.items():
        names = list(dict.fromkeys(members))
        be, them, their = ("is", "it", "Its") if len(names) == 1 else ("are", "them", "Their")
        texts.append(
            f"{listed(names)} {be} randomized, and no attack on {them} averaged its {quantity} over draws of the noise "
            f"(EOT). {their} accuracy under attack may be overstated. Put one with draws=10 or more among the "
            f"--attacks of the attack stage, such as {spec}."
        )
    return texts


def _invalid(rows: Sequence[Row]) -> list[str]:
    """Warns about non-finite outputs of a classifier."""
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


def _averaging_in(norms: Collection[str | None]) -> str:
    """Returns an attack that averages over draws, in a norm of those that were run."""
    if "linf" in norms or not {"l2", "l1", "l0"} & set(norms):
        return "pgd(draws=10)"
    specs = [f"pgd(draws=10, norm={norm})" for norm in ("l2", "l1") if norm in norms]
    return specs[0] if specs else "few_pixel(draws=10)"


def _replaced(results: Results) -> list[str]:
    """Notes runs evaluated several times under an attack with different results, and which one is shown."""
    texts = []
    place = ["key", "weights", "dataset", "split", "attack", "backend"]
    summaries = results.summaries[results.summaries.kind != "transfer"]
    for _, group in summaries.groupby(place, sort=False):
        kept = next(row for row in group.itertuples() if row.counted)
        correct = [[r.correct for r in row.measured.summary.records] for row in group.itertuples()]
        if any(counts != correct[0] for counts in correct):
            texts.append(
                f"{kept.run} was judged more than once under {plain(kept.label)}; shown is the evaluation on the most "
                f"images, with the most repeats ({kept.count:,} and {kept.repeats})."
            )
    return texts


def _elsewhere(results: Results) -> dict[str, bool]:
    """Notes runs evaluated on other data than their training data, with whether that may inflate accuracies."""
    texts = {}
    for run in results.all_runs:
        for stage in run.judged:
            first = stage.records[0]
            if facts := stage.other_data(first.model):
                where = f"{run.title_of(first.dataset)}, {plain(first.split)}"
                known = "imported with" if run.imported else "trained on"
                text = f"{run.name} was judged on other data than it was {known} ({where}): {among_training(facts)}."
                texts[text] = facts["trained_on"] != 0
    return texts


def _untrained(results: Results) -> list[str]:
    return [
        f"The training of {run.name} was not given: its settings and curves are missing here."
        for run in results.all_runs
        if not run.train
    ]


def _averaged(results: Results) -> list[str]:
    """Notes the noise draws per prediction: more of them make a classifier more accurate, and slower."""
    texts = []
    for run in results.all_runs:
        draws = sorted({record.prediction_draws for record in run.records})
        if draws and draws[-1] > 1:
            counts = " or ".join(f"{count:,}" for count in draws)
            where = "; column prediction_draws of the CSVs says where" if len(draws) > 1 else ""
            texts.append(f"{run.name}: each answer averages {counts} draws of the noise (mean softmax){where}.")
    return texts


def _targeted(results: Results) -> list[str]:
    """Notes how often each targeted attack reached its target: even if not, the image may be misclassified."""
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
