"""RobustBench's description of a model (Croce et al. 2021), if the evaluation matches its leaderboards."""

from __future__ import annotations

import json
import re
from typing import Any

from l2p_tf.registry import shown
from l2p_tf.reporting.format import plain
from l2p_tf.reporting.load import Run
from l2p_tf.reporting.results import Results

FOLDER = "robustbench"
_THREATS = {
    ("cifar10", "linf"): 8 / 255, ("cifar10", "l2"): 0.5, ("cifar100", "linf"): 8 / 255, ("imagenet", "linf"): 4 / 255,
}  # fmt: skip
"""Radii of the leaderboards, by data set and norm."""
_ALL = {"cifar10": 10_000, "cifar100": 10_000, "imagenet": 5_000}
"""Number of images the leaderboards use."""


def files(results: Results) -> dict[str, str]:
    """Returns descriptions by file name, of each run that matches one of its threat models.

    It lists deterministic models under the full standard AutoAttack on test images. Link, authors and venue are not
    recorded and left empty.
    """
    texts: dict[str, str] = {}
    for row in results.attacks.itertuples(index=False):
        threat = _THREATS.get((str(row.dataset), str(row.norm)))
        complete = row.family == "autoattack" and row.label in ("AutoAttack", "AutoAttack l2")
        if not complete or row.backend != "l2p_tf" or row.randomized or row.split != "test" or threat is None:
            continue
        if abs(row.epsilon - threat) > 1e-6:
            continue
        stem = re.sub(r"[^A-Za-z0-9._-]+", "_", f"{row.name}_{row.dataset}_{row.norm}").strip("._-")[:100]
        text = json.dumps(_described(row), indent=2, ensure_ascii=False) + "\n"
        while f"{FOLDER}/{stem}.json" in texts:
            stem += "_"
        texts[f"{FOLDER}/{stem}.json"] = text
    return texts


def _described(row: Any) -> dict[str, object]:
    run: Run = row.measured.run
    clean = row.measured.clean
    notes = [f"Images: {run.title_of(row.dataset)}."]
    if row.count < _ALL[row.dataset]:
        notes.append(f"Attacked on {row.count:,} images alone, where the leaderboard takes {_ALL[row.dataset]:,}.")
    return {
        "link": "", "name": plain(row.name), "authors": "", "additional_data": False, "number_forward_passes": 1,
        "dataset": row.dataset, "venue": "", "architecture": plain(run.option("model")), "eps": shown(row.epsilon),
        "clean_acc": f"{100 * clean.accuracy:.2f}" if clean else None, "reported": f"{100 * row.accuracy:.2f}",
        "autoattack_acc": f"{100 * row.accuracy:.2f}", "footnote": " ".join(notes), "unreliable": _is_doubtful(run),
    }  # fmt: skip


def _is_doubtful(run: Run) -> bool:
    return any(f.verdict == "fail" for stage in run.checked for part in stage.records for f in part.findings)
