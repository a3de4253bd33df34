"""Metadata of a model card for model hubs, including the measured accuracies."""

from __future__ import annotations

from typing import Any

import yaml

from l2p_tf.evaluation.records import CLEAN
from l2p_tf.reporting.format import plain
from l2p_tf.reporting.load import Run
from l2p_tf.reporting.sections.comparison import AttackColumn, Comparison, Row

_TASK = "image-classification"


def head(name: str, run: Run, comparison: Comparison, defense: str) -> str:
    """Returns tags, data set and every measured accuracy as a share; no license, because none is recorded.

    Args:
      name: name of the model.
      run: the run.
      comparison: results measured on these weights.
      defense: name of the defense.
    """
    values: dict[str, Any] = {
        "library_name": "tensorflow",
        "pipeline_tag": _TASK,
        "tags": list(dict.fromkeys([_TASK, "adversarial-robustness", "saved-model", plain(defense)])),
    }
    entries = measured(comparison)
    # Hubs list data sets by name, not by title.
    names = [run.info.get("name"), *(entry.dataset for _, _, entry in entries)]
    if sets := list(dict.fromkeys(plain(name) for name in names if name)):
        values["datasets"] = sets
    if entries:
        rows = {id(row): row for row, _, _ in entries}
        results = [_result(row, [(c, entry) for other, c, entry in entries if other is row]) for row in rows.values()]
        values |= {"metrics": ["accuracy"], "model-index": [{"name": name, "results": results}]}
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=1000)}---\n"


def measured(comparison: Comparison) -> list[tuple[Row, AttackColumn, Any]]:
    """Returns the entries that are accuracies: on clean images, and under attacks of fixed budget."""
    columns = [column for column in comparison.columns if not column.minimal]
    return [(row, c, row.entries[c.key]) for row in comparison.rows for c in columns if c.key in row.entries]


def _result(row: Row, entries: list[tuple[AttackColumn, Any]]) -> dict[str, Any]:
    return {
        "task": {"type": _TASK},
        "dataset": {"type": plain(entries[0][1].dataset), "name": row.dataset, "split": row.split},
        "metrics": [_metric(column, entry) for column, entry in entries],
    }


def _metric(column: AttackColumn, entry: Any) -> dict[str, Any]:
    first, summary = entry.measured.first, entry.measured.summary
    clean = first.attack == CLEAN
    arguments: dict[str, Any] = {} if clean else {"attack": plain(first.attack), "backend": plain(first.backend)}
    if first.norm is not None:
        arguments["norm"] = plain(first.norm)
    if first.epsilon is not None:
        arguments["epsilon"] = first.epsilon
    arguments |= {"count": first.count, "repeats": entry.repeats, "low": summary.low, "high": summary.high}
    if summary.spread is not None:
        arguments["spread"] = summary.spread
    name = "Accuracy on clean images" if clean else f"Accuracy under {column.label} ({column.allowed})"
    return {"type": "accuracy", "name": plain(name), "value": summary.accuracy, "args": arguments}
