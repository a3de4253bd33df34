"""Accuracy on corrupted images compared with that under attack, and calibration of confidences."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from l2p_tf.reporting.examples import read_arrays
from l2p_tf.reporting.format import plain, plural
from l2p_tf.reporting.measured import Evaluated
from l2p_tf.reporting.plot import Curve, Plot, plot_of
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import Section, section
from l2p_tf.reporting.stats import Floats, calibration_error, reliability
from l2p_tf.reporting.table import (
    NOTHING,
    Cell,
    Column,
    Table,
    accuracy,
    columns_of,
    figures,
    in_percent,
    rounded,
    share_of,
)
from l2p_tf.reporting.table import share as share_cell

_NOTE = (
    "Common corruptions (Hendrycks and Dietterich, ICLR 2019) at their published strengths, those of CIFAR-10-C for "
    "small images and of ImageNet-C for larger ones, but for frost, which is drawn, not laid over from photographs. "
    "Accuracies are in percent with 95% intervals (Wilson\N{RIGHT SINGLE QUOTATION MARK}s, for the number of images; "
    "of a mean over corruptions they are on the safe side)."
)
_CALIBRATION = (
    "Expected calibration error (15 bins of equal width; in percentage points, by how much confidence is off the share "
    "that is right) and Brier score (from 0 to 2), on clean images and on all corrupted ones together; the smaller, "
    "the better."
)
_CURVES = 6
"""Maximum number of runs drawn."""


@dataclasses.dataclass(frozen=True)
class _Sheet:
    """A run under corruptions.

    Attributes:
      evaluated: the run, whose rows are those of attacks.
      rows: rows of `Results.summaries` by kind and severity.
    """

    evaluated: Evaluated
    rows: dict[tuple[str, int], Any]

    @property
    def kinds(self) -> list[str]:
        """The corruptions, in order of appearance."""
        return list(dict.fromkeys(kind for kind, _ in self.rows))

    @property
    def severities(self) -> list[int]:
        """The severities, sorted."""
        return sorted({severity for _, severity in self.rows})

    def mean(self, kind: str = "", severity: int = 0) -> float | None:
        """Mean accuracy, optionally of one kind or one severity; None if there is none."""
        accuracies = [r.accuracy for (k, s), r in self.rows.items() if kind in ("", k) and severity in (0, s)]
        return float(np.mean(accuracies)) if accuracies else None

    @property
    def count(self) -> int:
        """Number of images; the smallest if they differ."""
        return min(int(row.count) for row in self.rows.values())


@section("corruptions", "Corrupted images and calibration", order=55)
def corruptions(results: Results) -> Section | None:
    """One row per run, a table per run by corruption and severity, and calibration."""
    sheets = list(_sheets(results))
    if not sheets:
        return None
    tables = [_overview(sheets), *(_grid(sheet) for sheet in sheets)]
    calibrated = [(sheet, parts) for sheet in sheets if (parts := _answers(sheet))]
    if calibrated:
        rows = tuple((Cell(s.evaluated.name, (s.evaluated.where,)), *_calibration(parts)) for s, parts in calibrated)
        heads = [
            Column(f"{part}, {name}") for part in ("Clean", "Corrupted") for name in ("calibration error", "Brier")
        ]
        tables.append(Table("Calibration", _CALIBRATION, (Column("Run", figures=False), *heads), rows))
    lines = [_figures(sheet, *key, row) for sheet in sheets for key, row in sheet.rows.items()]
    lines += [line for sheet, parts in calibrated for line in _calibration_figures(sheet, parts)]
    return Section(tuple(tables), figures(lines), _NOTE, plots=tuple(_plots(calibrated)), opened=0)


def _sheets(results: Results) -> Iterator[_Sheet]:
    corrupted = results.summaries[results.summaries.counted.astype(bool) & (results.summaries.kind == "corruption")]
    places: dict[tuple[object, ...], dict[tuple[str, int], Any]] = {}
    for row in corrupted.itertuples(index=False):
        match = re.fullmatch(r"(.+) (\d)", row.label)
        kind, severity = (match[1], int(match[2])) if match else (row.label, 0)
        places.setdefault((id(row.measured.run), row.weights, row.dataset, row.split), {})[plain(kind), severity] = row
    for model in results.evaluated:
        first = model.rows[0]
        if rows := places.get((id(model.run), first.weights, first.dataset, first.split)):
            yield _Sheet(model, rows)


def _overview(sheets: Sequence[_Sheet]) -> Table:
    severities = sorted({severity for sheet in sheets for severity in sheet.severities})
    columns = [Column("Run", figures=False), Column("Clean"), Column("Corrupted", "mean")]
    columns += [Column(f"Severity {severity}", "mean") for severity in severities]
    columns += [Column("Worst corruption", "mean over severities"), Column("Under attack", "lowest")]
    rows = []
    for sheet in sheets:
        clean, attacks = sheet.evaluated.clean, sheet.evaluated.bounded
        kinds = sorted(sheet.kinds, key=lambda kind: sheet.mean(kind) or 0.0)
        lowest = min(attacks, key=lambda row: row.accuracy) if attacks else None
        rows.append((
            Cell(sheet.evaluated.name, (sheet.evaluated.where, f"n = {sheet.count:,}")),
            accuracy(clean) if clean else NOTHING,
            _cell(sheet, sheet.mean(), plural(len(sheet.kinds), "corruption")),
            *(_cell(sheet, sheet.mean(severity=severity)) for severity in severities),
            _cell(sheet, sheet.mean(kinds[0]), kinds[0]),
            accuracy(lowest, plain(lowest.label), lowest.allowed) if lowest else NOTHING,
        ))  # fmt: skip
    return Table("", "Mean accuracy over corruptions and severities.", tuple(columns), tuple(rows))


def _cell(sheet: _Sheet, value: float | None, *below: str) -> Cell:
    return NOTHING if value is None else share_cell(value, sheet.count, *below)


def _grid(sheet: _Sheet) -> Table:
    columns = [
        Column("Corruption", figures=False),
        *(Column(f"Severity {s}") for s in sheet.severities),
        Column("Mean"),
    ]
    rows = []
    for kind in sheet.kinds:
        results = [sheet.rows.get((kind, severity)) for severity in sheet.severities]
        cells = [NOTHING if row is None else _tinted(_cell(sheet, row.accuracy)) for row in results]
        rows.append((Cell(kind), *cells, _cell(sheet, sheet.mean(kind))))
    caption = f"Accuracy by corruption; {sheet.evaluated.title}; n = {sheet.count:,}."
    return Table(sheet.evaluated.name, caption, tuple(columns), tuple(rows))


def _tinted(cell: Cell) -> Cell:
    return dataclasses.replace(cell, tint=1 - (cell.number or 0.0) / 100)


@dataclasses.dataclass(frozen=True)
class _Answers:
    """Confidence, correctness and Brier score of predictions, each (k,)."""

    confidence: Floats
    correct: Floats
    brier: Floats


def _answers(sheet: _Sheet) -> tuple[_Answers, _Answers] | None:
    """Returns those on clean and on corrupted images, over all repeats; None if not recorded."""
    clean = sheet.evaluated.clean
    parts = [_read([clean] if clean else []), _read(sheet.rows.values())]
    return (parts[0], parts[1]) if parts[0] and parts[1] else None


def _read(rows: Any) -> _Answers | None:
    columns: dict[str, list[np.ndarray]] = {"confidence": [], "correct": [], "brier": []}
    for row in rows:
        if not row.measured.has_arrays:
            return None
        for record in row.measured.summary.records:
            arrays = read_arrays(row.measured.evaluation, record, *columns, optional=True)
            if len(arrays) < len(columns):
                return None
            for name, values in columns.items():
                values.append(arrays[name].astype(np.float64))
    return _Answers(**{name: np.concatenate(values) for name, values in columns.items()}) if columns["brier"] else None


def _calibration(parts: Sequence[_Answers]) -> Iterator[Cell]:
    for answers in parts:
        yield Cell(f"{100 * calibration_error(answers.confidence, answers.correct):.1f}")
        yield Cell(f"{answers.brier.mean():.3f}")


def _plots(calibrated: Sequence[tuple[_Sheet, tuple[_Answers, _Answers]]]) -> Iterator[Plot]:
    for i, name in enumerate(("clean", "corrupted")):
        curves = [Curve("confidence that is right", np.array([0.0, 1.0]), np.array([0.0, 100.0]), kind="target")]
        for style, (sheet, parts) in enumerate(calibrated[:_CURVES]):
            counts, confidence, right = reliability(parts[i].confidence, parts[i].correct)
            used = counts > 0
            texts = tuple(plural(int(n), "answer") for n in counts[used])
            curves.append(Curve(sheet.evaluated.name, confidence[used], 100 * right[used], texts=texts, style=style))
        if len(curves) > 1:
            title = f"Reliability on {name} images"
            yield plot_of(
                f"reliability-{name}", title, curves, ("confidence", "accuracy in %"), percent=True, right=1.0
            )


def _figures(sheet: _Sheet, kind: str, severity: int, row: Any) -> dict[str, object]:
    return {
        "run": sheet.evaluated.name, **columns_of(row, "dataset", "split", "count", "repeats"), "corruption": kind,
        "severity": severity, **share_of(float(row.accuracy), int(row.count)),
    }  # fmt: skip


def _calibration_figures(sheet: _Sheet, parts: Sequence[_Answers]) -> Iterator[dict[str, object]]:
    for name, answers in zip(("clean", "all corrupted"), parts, strict=True):
        clean = sheet.evaluated.clean
        yield {
            "run": sheet.evaluated.name, **columns_of(clean, "dataset", "split", "count", "repeats"),
            "corruption": name, "accuracy": in_percent(float(answers.correct.mean())),
            "calibration_error": in_percent(calibration_error(answers.confidence, answers.correct)),
            "brier": rounded(float(answers.brier.mean())),
        }  # fmt: skip
