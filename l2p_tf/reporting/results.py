"""All results of some runs as pandas frames, for notebooks and for the report."""

from __future__ import annotations

import dataclasses
import functools
import os
import statistics
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import pandas as pd

from l2p_tf.environment import user_path
from l2p_tf.evaluation.masking.record import Inspection
from l2p_tf.evaluation.records import CLEAN, Record, summarize, wilson_interval
from l2p_tf.registry import parse_spec
from l2p_tf.reporting.format import minimal, plain, strength
from l2p_tf.reporting.load import Evaluation, Run, find, gather
from l2p_tf.reporting.measured import Evaluated, Match, Measured, strongest
from l2p_tf.reporting.methods import method_of, swept
from l2p_tf.types import UserError

T = TypeVar("T")
_SWEEP = "sweep."
_COMMON = (
    "label", "norm", "epsilon", "steps", "restarts", "draws", "prediction_draws", "randomized", "count",
)  # fmt: skip
_RUN = {
    "run": "name of the run, different from every other's",
    "key": "fingerprint of its training; the name where there is none",
    "method": "its defense with the options that are words, as `pgd(norm=l2)`",
}
_PLACE = {**_RUN, "weights": "`best` or `last`", "counted": "False for what another evaluation of the same replaces"}
COLUMNS: Mapping[str, Mapping[str, str]] = {
    "runs": {
        **_RUN,
        "defense": "spec of the defense",
        "model": "spec of the architecture",
        "dataset": "name of the data it was trained on",
        "seed": "of the training",
        "parameters": "number of parameters, those of the noise left out",
        "noise_parameters": "number of parameters of the noise",
        "epochs": "epochs asked for",
        "best_epoch": "epoch of the best weights, from 0",
        "seconds_per_epoch": "mean duration of an epoch",
        "folder": "of the training; empty where it was not given",
    },
    "records": {
        **_PLACE,
        "kind": "`clean`, `bounded` (a given size, or none that a norm measures), `minimal` (the smallest there is), "
        "`transfer` or `corruption`",
        "family": "name of the attack without its options, as `pgd`",
        "accuracy": "share of the images classified correctly",
        "low": "lower end of its 95% interval (Wilson's)",
        "high": "upper end of it",
        **{field.name: f"as in `Record.{field.name}`" for field in dataclasses.fields(Record)},
    },
    "summaries": {
        **_PLACE,
        "kind": "as in `records`",
        "family": "as in `records`",
        "dataset": "name of the data",
        "split": "`validation` or `test`",
        "attack": "its spec, or `clean`",
        "backend": "whose implementation",
        "source": "run whose model the examples were made on; missing where that is the attacked one",
        **{name: f"as in `Record.{name}`" for name in _COMMON},
        "repeats": "number of evaluations",
        "accuracy": "share of the images classified correctly, mean over repeats",
        "low": "lower end of its 95% interval (Wilson's)",
        "high": "upper end of it",
        "spread": "standard deviation over repeats; missing for a single one",
        "gradients": "backward passes per image, mean over repeats",
        "forwards": "forward passes per image, mean over repeats",
        "seconds": "time per image and repeat",
        "reached": "share of the images on which the attack's goal was reached, mean over repeats",
        "reached_8bit": "the same of adversarial images stored in 8 bits; missing where that was not tried",
        "name": "the run, with the weights where they are not the best ones",
        "where": "data set and split in words",
        "title": "data set and split, and the weights where they are not the best ones, in words",
        "allowed": "what the attack was allowed, in words",
        "measured": "the `Measured` behind it, for per-image results",
    },
    "certificates": {
        **_PLACE,
        "certificate": "spec of the certificate",
        "dataset": "name of the data",
        "split": "`validation` or `test`",
        "sigma": "standard deviation of its noise",
        "draws": "draws of the noise per image",
        "confidence": "of each radius by itself",
        "count": "number of images",
        "accuracy": "share predicted correctly without abstention, at whatever radius",
        "abstained": "share on which it abstained",
    },
    "checks": {
        **_PLACE,
        "dataset": "name of the data",
        "split": "`validation` or `test`",
        "norm": "of the attacks",
        "epsilon": "radius of the attacks that are compared",
        "count": "number of images tried",
        "check": "name of the check",
        "verdict": "`pass`, `fail`, `not measured` or `not needed`",
        "p": "p-value of its test; missing where there is none",
        "reason": "why it was not measured or not needed",
    },
    "epochs": {**_RUN, "epoch": "number of the epoch, from 0", "...": "the other columns of `history.csv`"},
}
"""What the columns of each frame hold. Shares are in [0, 1], radii and norms in pixels of [0, 1].

`runs` and `records` also have a column for each swept setting, such as `sweep.defense.epsilon`.
"""


class Results:
    """Finished results of some runs.

    Of several evaluations of a run under the same attack, the one on the most images counts; among those, one with
    results per image, then the one with the most repeats, then the first. The others have False in the column
    `counted`.

    Attributes:
      all_runs: trainings with everything measured on each.
      match: clean accuracies at which methods are compared.
    """

    def __init__(self, all_runs: Sequence[Run], match: Match | None = None) -> None:
        self.all_runs = tuple(all_runs)
        self.match = match or Match()
        self._computed: dict[Callable[[Results], Any], Any] = {}

    def once(self, compute: Callable[[Results], T]) -> T:
        """Returns `compute(self)`, cached for sections that share it."""
        if compute not in self._computed:
            self._computed[compute] = compute(self)
        return cast(T, self._computed[compute])

    @property
    def by_key(self) -> dict[str, Run]:
        """The runs by the fingerprints of their trainings."""
        return {run.key: run for run in self.all_runs}

    @functools.cached_property
    def runs(self) -> pd.DataFrame:
        """One row per run; columns as in `COLUMNS["runs"]`."""
        return _frame("runs", (self._head(run) | _training(run) | _sweep(run) for run in self.all_runs))

    @functools.cached_property
    def records(self) -> pd.DataFrame:
        """One row per record: a run under an attack, or clean, once; columns as in `COLUMNS["records"]`."""
        kept = {id(record) for row in self.summaries.query("counted").measured for record in row.summary.records}
        rows = []
        for run in self.all_runs:
            for evaluation in run.evaluations:
                for record in evaluation.records:
                    head = {**self._head(run), "weights": evaluation.checkpoint, "counted": id(record) in kept}
                    rows.append({**head, **_derived(record), **dataclasses.asdict(record), **_sweep(run)})
        return _frame("records", rows)

    @functools.cached_property
    def summaries(self) -> pd.DataFrame:
        """One row per attack on a run, or the clean run, over all repeats; columns as in `COLUMNS["summaries"]`."""
        rows = []
        for run in self.all_runs:
            measured = [entry for evaluation in run.evaluations for entry in _measured(run, evaluation)]
            kept = strongest(measured, _what, lambda m: (m.first.count, m.has_arrays, len(m.summary.records)))
            for entry in measured:
                counted = entry.first.source is not None or any(entry is other for other in kept)
                rows.append({**self._head(run), "counted": counted, **_summarized(entry), **_sweep(run)})
        return _frame("summaries", rows)

    @property
    def attacks(self) -> pd.DataFrame:
        """Counted summaries of runs on clean images and under attacks on the runs themselves.

        Transferred examples and corrupted images are excluded.
        """
        others = self.summaries.kind.isin(["transfer", "corruption"])
        return self.summaries[self.summaries.counted.astype(bool) & ~others]

    @functools.cached_property
    def certificates(self) -> pd.DataFrame:
        """One row per certificate of a run; columns as in `COLUMNS["certificates"]`."""
        rows = []
        for run in self.all_runs:
            for stage, record, kept in _judged(run.certifications, lambda r: (r.dataset, r.split, r.certificate)):
                head = {**self._head(run), "weights": stage.checkpoint, "counted": kept}
                shares = {"accuracy": record.correct / record.count, "abstained": record.abstained / record.count}
                rows.append(head | dataclasses.asdict(record) | shares)
        return _frame("certificates", rows)

    @functools.cached_property
    def checks(self) -> pd.DataFrame:
        """One row per gradient masking check of a checks stage; columns as in `COLUMNS["checks"]`."""
        rows = []
        for run in self.all_runs:
            for checked, inspection, kept in _judged(run.checked, lambda r: (r.dataset, r.split)):
                head = {**self._head(run), "weights": checked.checkpoint, "counted": kept}
                rows += [head | _facts(inspection) | dataclasses.asdict(finding) for finding in inspection.findings]
        return _frame("checks", rows)

    @functools.cached_property
    def epochs(self) -> pd.DataFrame:
        """One row per epoch of each training; columns as in the histories."""
        frames = [
            pd.DataFrame(dict(run.history.columns)).assign(**self._head(run)) for run in self.all_runs if run.history
        ]
        joined = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["epoch"])
        names = [name for name in COLUMNS["epochs"] if name != "..."]
        return (
            joined[[*names, *(name for name in joined if name not in names)]]
            if frames
            else joined.reindex(columns=names)
        )

    @functools.cached_property
    def evaluated(self) -> list[Evaluated]:
        """Results of every run, by weights, data set and split, in the order of the runs."""
        places: dict[tuple[object, ...], list[Any]] = {}
        for row in self.attacks.itertuples(index=False):
            places.setdefault((id(row.measured.run), row.weights, row.dataset, row.split), []).append(row)
        return [Evaluated(rows[0].measured.run, tuple(rows)) for rows in places.values()]

    def _head(self, run: Run) -> dict[str, object]:
        return {"run": run.name, "key": run.key, "method": method_of(run)}


def results(*folders: str | os.PathLike[str]) -> Results:
    """Reads all finished results in some folders and up to two levels below them.

    Args:
      folders: such as `runs/quickstart`.

    Raises:
      UserError: a folder is missing, holds no results, or one of them is damaged.
    """
    if not folders:
        raise UserError("`folders` should name at least one folder with finished stages. Received: none")
    return Results(gather(find([user_path(folder) for folder in folders])))


def _frame(name: str, rows: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """Makes a frame with the documented columns first, then those of sweeps."""
    frame = pd.DataFrame(list(rows))
    own = list(COLUMNS[name])
    return frame.reindex(columns=[*own, *(column for column in frame if column.startswith(_SWEEP))])


def _training(run: Run) -> dict[str, object]:
    notes = ("parameters", "noise_parameters", "best_epoch", "seconds_per_epoch")
    options = {name: run.option(name, None) for name in ("defense", "model", "seed", "epochs")}
    folder = str(run.train.path) if run.train else ""
    row = {
        **options,
        **{name: run.note(name) for name in notes},
        "dataset": None if run.imported else run.info.get("name"),
        "folder": folder,
    }
    return {name: _text(value) for name, value in row.items()}


def _sweep(run: Run) -> dict[str, object]:
    return {_SWEEP + plain(key): _text(value) for key, value in swept(run).items()}


def _text(value: object) -> object:
    """Cleans up a manifest value, whose text may be invalid Unicode."""
    return plain(value) if isinstance(value, str) and value else value


def _derived(record: Record) -> dict[str, object]:
    low, high = wilson_interval(record.accuracy, record.count)
    kind = "transfer" if record.source is not None else "clean" if record.attack == CLEAN else "bounded"
    kind = "corruption" if kind == "bounded" and record.corruption else kind
    return {
        "kind": "minimal" if kind == "bounded" and minimal(record) else kind, "family": _family(record.attack),
        "accuracy": record.accuracy, "low": low, "high": high,
    }  # fmt: skip


def _family(attack: str) -> str:
    try:
        return parse_spec(attack)[0]
    except UserError:  # Written by another version or another program.
        return plain(attack)


def _measured(run: Run, evaluation: Evaluation) -> Iterator[Measured]:
    summaries = summarize(evaluation.records)
    cleans = {_images(s.first): s for s in reversed(summaries) if s.first.attack == CLEAN and s.first.source is None}
    for summary in summaries:
        yield Measured(run, evaluation, summary, cleans.get(_images(summary.first)))


def _images(record: Record) -> tuple[str, str, int]:
    return record.dataset, record.split, record.count


def _what(measured: Measured) -> tuple[object, ...]:
    """Key of equivalent evaluations of a run, of which one counts."""
    first = measured.first
    # Transferred examples belong to one stage and one source.
    transferred = (id(measured.evaluation), first.source) if first.source is not None else ()
    return measured.evaluation.checkpoint, first.dataset, first.split, first.attack, first.backend, *transferred


def _summarized(measured: Measured) -> dict[str, object]:
    run, summary, first, checkpoint = measured.run, measured.summary, measured.first, measured.evaluation.checkpoint
    records, count = summary.records, len(summary.records)
    where = f"{run.title_of(first.dataset)}, {plain(first.split)}"
    common = ("dataset", "split", "attack", "backend", "source", *_COMMON)
    return {
        "weights": checkpoint, **_derived(first), **{name: getattr(first, name) for name in common}, "repeats": count,
        "accuracy": summary.accuracy, "low": summary.low, "high": summary.high, "spread": summary.spread,
        "gradients": statistics.fmean(record.gradients for record in records),
        "forwards": statistics.fmean(record.forwards for record in records),
        "seconds": sum(record.seconds for record in records) / sum(record.count for record in records),
        "reached": statistics.fmean(record.reached / record.count for record in records),
        "reached_8bit": _in_8_bits(records),
        "name": run.named(checkpoint), "where": where,
        "title": where if checkpoint == "best" else f"{where}, {plain(checkpoint)} weights", "allowed": strength(first),
        "measured": measured,
    }  # fmt: skip


def _in_8_bits(records: Sequence[Record]) -> float | None:
    shares = [record.reached_8bit / record.count for record in records if record.reached_8bit is not None]
    return statistics.fmean(shares) if len(shares) == len(records) else None


def _facts(inspection: Inspection) -> dict[str, object]:
    return {name: getattr(inspection, name) for name in ("dataset", "split", "norm", "epsilon", "count")}


def _judged(parts: Sequence[Any], key: Callable[[Any], Hashable]) -> Iterator[tuple[Any, Any, bool]]:
    """Yields each record with its stage, and whether it counts among equivalent ones."""
    records = [(part, record) for part in parts for record in part.records]
    kept = strongest(records, lambda pair: (pair[0].checkpoint, key(pair[1])), lambda pair: pair[1].count)
    return ((*pair, any(pair is other for other in kept)) for pair in records)
