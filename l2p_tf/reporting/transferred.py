"""The gradient masking check that needs a report: examples made on other runs against attacks on the run itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from l2p_tf.evaluation.masking.record import Finding
from l2p_tf.evaluation.masking.rules import Trial, black_box, judged_at
from l2p_tf.reporting.examples import read_arrays
from l2p_tf.reporting.format import attack_name, minimal
from l2p_tf.reporting.load import Run
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.sections.transfer import WHITE_BOX, relation_of, source_name


def transfer_findings(run: Run, results: Results) -> dict[tuple[str, str, str], Finding]:
    """Checks whether transferred examples beat the same attack on the run itself, by weights, data set and split.

    Of several attacks and stages, the one with the strongest evidence against the run counts (Bonferroni-corrected).

    Raises:
      UserError: arrays cannot be read.
    """
    findings = {}
    for evaluated in (model for model in results.evaluated if model.run is run and model.clean):
        tests: list[tuple[Any, str]] = []
        for stage in (part for part in run.evaluations if part.checkpoint == evaluated.place[0]):
            tests += _of_stage(stage, list(evaluated.rows), evaluated.clean, results)
        decided = [test for test in tests if test[0].p is not None]
        if decided:
            finding, label = min(decided, key=lambda test: test[0].p)
            if len(decided) > 1:
                shares = tuple(dataclasses.replace(share, label=f"{share.label}, {label}") for share in finding.shares)
                finding = judged_at("transfer", shares, min(1.0, len(decided) * finding.p))
            findings[evaluated.place] = finding
        elif tests:
            findings[evaluated.place] = tests[0][0]
    return findings


def _of_stage(stage: Any, own: Sequence[Any], clean: Any, results: Results) -> list[tuple[Finding, str]]:
    """Returns a finding and name for each attack of a transfer stage that was also run on the run itself."""
    known, tests = results.by_key, []
    rows = [
        row
        for row in results.summaries.query("kind == 'transfer' and attack != 'clean'").itertuples()
        if row.measured.evaluation is stage and row.measured.has_arrays and not minimal(row.measured.first)
        if (row.dataset, row.split) == (clean.dataset, clean.split)
    ]
    relations = [relation_of(stage, row.measured.first, known) for row in rows]
    elsewhere = [row for row, relation in zip(rows, relations, strict=True) if not relation]
    white_box = [row for row, relation in zip(rows, relations, strict=True) if relation == WHITE_BOX]
    for attack in dict.fromkeys((row.attack, row.backend) for row in elsewhere):
        white = [row for row in (*white_box, *own) if (row.attack, row.backend) == attack and row.measured.has_arrays]
        if white and clean.measured.has_arrays:
            blind = [row for row in elsewhere if (row.attack, row.backend) == attack]
            labels = [f"from {source_name(stage, row.measured.first, known)}" for row in blind]
            *trials, own_trial = _trials([*labels, attack_name(white[0].measured.first)], [*blind, white[0]], clean)
            tests.append((black_box(trials, own_trial, "transfer"), white[0].allowed))
    return tests


def _trials(labels: Sequence[str], rows: Sequence[Any], clean: Any) -> list[Trial]:
    """Returns first repeats of attacks, on images common to all that the model classifies correctly when clean."""
    arrays = [read_arrays(r.measured.evaluation, r.measured.first, "index", "correct") for r in (clean, *rows)]
    images = arrays[0]["index"][arrays[0]["correct"].astype(bool)]
    for repeat in arrays[1:]:
        images = np.intersect1d(images, repeat["index"])
    trials = []
    for label, row, repeat in zip(labels, rows, arrays[1:], strict=True):
        order = np.argsort(repeat["index"])
        at = order[np.searchsorted(repeat["index"], images, sorter=order)]
        trials.append(Trial(label, ~repeat["correct"].astype(bool)[at], randomized=row.randomized))
    return trials
