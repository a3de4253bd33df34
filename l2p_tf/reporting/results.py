"""Everything measured on some runs, as pandas frames with one row each: what notebooks and the report start from."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from l2p_tf.environment import user_path
from l2p_tf.evaluation.inspections import Inspection
from l2p_tf.evaluation.records import CLEAN, Record, wilson_interval
from l2p_tf.registry import parse_spec
from l2p_tf.reporting.kinds import method_of, swept
from l2p_tf.reporting.runs import Run, find, gather
from l2p_tf.reporting.subjects import strongest, subjects
from l2p_tf.reporting.text import minimal, plain
from l2p_tf.types import UserError

_SWEEP = "sweep."
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
        "kind": "`clean`, `bounded` (a given size), `minimal` (the smallest perturbation) or `transfer`",
        "family": "name of the attack without its options, as `pgd`",
        "accuracy": "share of the images classified correctly",
        "low": "lower end of its 95% interval (Wilson's)",
        "high": "upper end of it",
        **{field.name: f"as in `Record.{field.name}`" for field in dataclasses.fields(Record)},
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
"""What the columns of each frame hold. Shares lie in [0, 1], radii and norms are of pixels in [0, 1].

`runs` and `records` have a column more for each setting that a sweep tried values of, such as `sweep.defense.epsilon`.
"""


class Results:
    """Finished results of some runs.

    Attributes:
      all_runs: trainings with everything measured on each.
    """

    def __init__(self, all_runs: Sequence[Run]) -> None:
        self.all_runs = tuple(all_runs)

    @functools.cached_property
    def runs(self) -> pd.DataFrame:
        """One row a run; `COLUMNS["runs"]` says what the columns hold."""
        return _frame("runs", (self._head(run) | _training(run) | _sweep(run) for run in self.all_runs))

    @functools.cached_property
    def records(self) -> pd.DataFrame:
        """One row for each record: a run under an attack, or clean, once; `COLUMNS["records"]` has the columns."""
        rows = []
        for run in self.all_runs:
            kept = {id(r) for subject in subjects([run]) for one in subject.measured for r in one.summary.records}
            for evaluation in run.evaluations:
                for record in evaluation.records:
                    head = {
                        **self._head(run),
                        "weights": evaluation.checkpoint,
                        "counted": id(record) in kept or record.source is not None,
                    }
                    rows.append({**head, **_derived(record), **dataclasses.asdict(record), **_sweep(run)})
        return _frame("records", rows)

    @functools.cached_property
    def certificates(self) -> pd.DataFrame:
        """One row for each certificate of a run; `COLUMNS["certificates"]` has the columns."""
        rows = []
        for run in self.all_runs:
            for certification, one, kept in _judged(run.certifications, lambda r: (r.dataset, r.split, r.certificate)):
                head = {**self._head(run), "weights": certification.checkpoint, "counted": kept}
                shares = {"accuracy": one.correct / one.count, "abstained": one.abstained / one.count}
                rows.append(head | dataclasses.asdict(one) | shares)
        return _frame("certificates", rows)

    @functools.cached_property
    def checks(self) -> pd.DataFrame:
        """One row for each check for gradient masking of a checks stage; `COLUMNS["checks"]` has the columns."""
        rows = []
        for run in self.all_runs:
            for checked, one, kept in _judged(run.checked, lambda r: (r.dataset, r.split)):
                head = {**self._head(run), "weights": checked.checkpoint, "counted": kept}
                rows += [head | _facts(one) | dataclasses.asdict(finding) for finding in one.findings]
        return _frame("checks", rows)

    @functools.cached_property
    def epochs(self) -> pd.DataFrame:
        """One row for each epoch of each training; its columns are those of the histories."""
        found = [
            pd.DataFrame(dict(run.history.columns)).assign(**self._head(run)) for run in self.all_runs if run.history
        ]
        joined = pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=["epoch"])
        names = [name for name in COLUMNS["epochs"] if name != "..."]
        return (
            joined[[*names, *(name for name in joined if name not in names)]]
            if found
            else joined.reindex(columns=names)
        )

    def _head(self, run: Run) -> dict[str, object]:
        return {"run": run.name, "key": run.key, "method": method_of(run)}


def results(*folders: str | os.PathLike[str]) -> Results:
    """Reads everything finished in some folders and up to two levels below them.

    Args:
      folders: such as `runs/quickstart`.

    Raises:
      UserError: a folder is not there, holds no results, or one of them is damaged.
    """
    if not folders:
        raise UserError("`folders` should name at least one folder with finished stages. Received: none")
    return Results(gather(find([user_path(folder) for folder in folders])))


def _frame(name: str, rows: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """Rows as a frame whose documented columns come first, then those of sweeps."""
    frame = pd.DataFrame(list(rows))
    own = list(COLUMNS[name])
    return frame.reindex(columns=[*own, *(column for column in frame if column.startswith(_SWEEP))])


def _training(run: Run) -> dict[str, object]:
    notes = ("parameters", "noise_parameters", "best_epoch", "seconds_per_epoch")
    options = {name: run.option(name, None) for name in ("defense", "model", "seed", "epochs")}
    folder = str(run.train.path) if run.train else ""
    return {**options, **{name: run.note(name) for name in notes}, "dataset": run.info.get("name"), "folder": folder}


def _sweep(run: Run) -> dict[str, object]:
    return {_SWEEP + key: value for key, value in swept(run).items()}


def _derived(record: Record) -> dict[str, object]:
    low, high = wilson_interval(record.accuracy, record.count)
    kind = "transfer" if record.source is not None else "clean" if record.attack == CLEAN else "bounded"
    return {
        "kind": "minimal" if kind == "bounded" and minimal(record) else kind, "family": _family(record.attack),
        "accuracy": record.accuracy, "low": low, "high": high,
    }  # fmt: skip


def _family(attack: str) -> str:
    try:
        return parse_spec(attack)[0]
    except UserError:  # Of another version or another maker.
        return plain(attack)


def _facts(one: Inspection) -> dict[str, object]:
    return {name: getattr(one, name) for name in ("dataset", "split", "norm", "epsilon", "count")}


def _judged(parts: Sequence[Any], what: Callable[[Any], Hashable]) -> Iterator[tuple[Any, Any, bool]]:
    """Each stage with each of its records, and whether it counts among those of the same."""
    found = [(part, record) for part in parts for record in part.records]
    kept = strongest(found, lambda pair: (pair[0].checkpoint, what(pair[1])), lambda pair: pair[1].count)
    return ((*pair, any(pair is other for other in kept)) for pair in found)
