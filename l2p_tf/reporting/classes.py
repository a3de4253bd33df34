"""Accuracy class by class, and which class is taken for which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from l2p_tf.evaluation.records import CLEAN, wilson_interval
from l2p_tf.reporting.outcomes import Key, Outcome, Outcomes
from l2p_tf.reporting.section import Section
from l2p_tf.reporting.table import NOTHING, Cell, Column, Table, in_percent, share
from l2p_tf.reporting.text import strength

# A page with more fields than this is no longer read; the CSV has them all.
_FIELDS = 6000
_SHOWN, _LISTED = 3, 20
_CLASSES = "Accuracy in percent by class, below it the 95% interval; each run's lowest is framed. Over all repeats."
_CONFUSIONS = (
    "The most frequent mistakes of each run: right class \N{RIGHTWARDS ARROW} predicted class, and how many of the "
    f"images of the right class. All repeats together; up to {_LISTED} of each are in confusions.csv."
)


def sections(found: Sequence[Outcomes]) -> list[Section]:
    """Accuracy by class with a table for each attack, then the confusions; none where there is nothing to show."""
    if not found:
        return []
    classes = [(place, key) for place in found for key in _shown(place)]
    several = len(found) > 1
    return [
        Section(
            "classes",
            "Accuracy by class",
            tuple(_class_sheet(place, key, several) for place, key in classes),
            tuple(line for place in found for line in _class_lines(place)),
        ),
        Section(
            "confusions",
            "Most frequent confusions",
            tuple(_confusion_sheet(place, several) for place in found),
            tuple(line for place in found for line in _confusion_lines(place)),
        ),
    ]


def class_accuracy(outcome: Outcome, number: int) -> tuple[float, int]:
    """Share of the images of a class classified correctly, the mean over repeats, and how many images there are."""
    mine = outcome.label == number
    return (float(outcome.correct[:, mine].mean()) if mine.any() else 0.0), int(mine.sum())


def confusions(outcome: Outcome) -> list[tuple[int, int, int, int]]:
    """Right class, predicted class, how often, of how many; all repeats together, the most frequent first."""
    repeats = len(outcome.prediction)
    labels = np.tile(outcome.label, repeats)
    wrong = ~outcome.correct.ravel() & (outcome.prediction.ravel() != labels)
    pairs, counts = np.unique(np.stack([labels, outcome.prediction.ravel()])[:, wrong], axis=1, return_counts=True)
    of = {
        int(number): repeats * int(count)
        for number, count in zip(*np.unique(outcome.label, return_counts=True), strict=True)
    }
    found = [(a, b, int(count), of[a]) for (a, b), count in zip(pairs.T.tolist(), counts, strict=True)]
    return sorted(found, key=lambda one: (-one[2], one[0], one[1]))


def _shown(place: Outcomes) -> list[Key]:
    """The attacks that the page has room for: clean, and then those that leave the least."""
    room = max(2, _FIELDS // (place.classes * len(place.subjects)))

    def left(key: Key) -> float:
        return float(np.mean([o.measured.summary.accuracy for (_, k), o in place.found.items() if k == key]))

    kept = sorted(place.attacks, key=lambda key: (key[0] != CLEAN, left(key)))[:room]
    return [key for key in place.attacks if key in kept]


def _class_sheet(place: Outcomes, key: Key, several: bool) -> Table:
    mine = [place.found.get((i, key)) for i in range(len(place.subjects))]
    measured = [[class_accuracy(one, c) if one else (0.0, 0) for one in mine] for c in range(place.classes)]
    lowest = [min((row[i][0] for row in measured if row[i][1]), default=0.0) for i in range(len(mine))]
    rows = []
    for number, row in enumerate(measured):
        counts = {count for _, count in row if count}
        if not counts:
            continue
        size = (f"n = {counts.pop():,}",) if len(counts) == 1 else ()
        fields = [_field(*one, framed=one[0] == lowest[i] < 1, counted=not size) for i, one in enumerate(row)]
        rows.append((Cell(place.class_name(number), size), *fields))
    first = next(one for one in mine if one).measured.first
    name = place.attacks[key]
    title = f"{name} ({place.title})" if several else name
    heads = (Column("Class", figures=False), *(Column(subject.name) for subject in place.subjects))
    return Table(title, f"{_sentence(strength(first))} {_CLASSES}", heads, tuple(rows))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _field(accuracy: float, count: int, *, framed: bool, counted: bool) -> Cell:
    if not count:
        return NOTHING
    return share(accuracy, count, *([f"n = {count:,}"] if counted else []), marked=framed)


def _confusion_sheet(place: Outcomes, several: bool) -> Table:
    heads = (Column("Run", figures=False), *(Column(name, figures=False) for name in place.attacks.values()))
    rows = []
    for i, subject in enumerate(place.subjects):
        fields = [_confused(place, place.found.get((i, key))) for key in place.attacks]
        rows.append((Cell(subject.name), *fields))
    return Table(place.title if several else "", _CONFUSIONS, heads, tuple(rows))


def _confused(place: Outcomes, outcome: Outcome | None) -> Cell:
    if outcome is None:
        return NOTHING
    name = place.class_name
    told = [
        f"{name(a)} \N{RIGHTWARDS ARROW} {name(b)}: {count:,} of {of:,}"
        for a, b, count, of in confusions(outcome)[:_SHOWN]
    ]
    return Cell(told[0], tuple(told[1:])) if told else Cell("no mistakes")


def _class_lines(place: Outcomes) -> list[dict[str, object]]:
    lines: list[dict[str, object]] = []
    for (i, _), outcome in place.found.items():
        for number in range(place.classes):
            accuracy, count = class_accuracy(outcome, number)
            if count:
                low, high = wilson_interval(accuracy, count)
                lines.append({
                    **_head(place, i, outcome), "class": number, "name": place.class_name(number), "count": count,
                    "accuracy": in_percent(accuracy), "low": in_percent(low), "high": in_percent(high),
                })  # fmt: skip
    return lines


def _confusion_lines(place: Outcomes) -> list[dict[str, object]]:
    return [
        {
            **_head(place, i, outcome), "class": a, "name": place.class_name(a), "predicted": b,
            "predicted_name": place.class_name(b), "times": count, "of": of,
        }
        for (i, _), outcome in place.found.items()
        for a, b, count, of in confusions(outcome)[:_LISTED]
    ]  # fmt: skip


def _head(place: Outcomes, number: int, outcome: Outcome) -> dict[str, object]:
    first, subject = outcome.measured.first, place.subjects[number]
    return {
        "run": subject.name, "dataset": first.dataset, "split": first.split, "attack": first.attack,
        "backend": first.backend, "repeats": len(outcome.correct),
    }  # fmt: skip
