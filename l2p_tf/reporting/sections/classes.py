"""Accuracy by class, and confusions between classes."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from l2p_tf.evaluation.records import CLEAN
from l2p_tf.reporting.examples import Outcome, class_name, outcome
from l2p_tf.reporting.format import attack_names, listed, sentence
from l2p_tf.reporting.measured import Evaluated, by_place
from l2p_tf.reporting.results import Results
from l2p_tf.reporting.section import Section, section
from l2p_tf.reporting.table import NOTHING, Cell, Column, Table, columns_of, figures, share, share_of

Key = tuple[str, str]

# Pages with more table cells are unreadable; the CSV has them all.
_FIELDS = 6000
_SHOWN, _LISTED = 3, 20
_CLASSES = "Accuracy in percent by class, below it the 95% interval; each run's lowest is framed. Over all repeats."
_CONFUSIONS = (
    "The most frequent mistakes of each run: right class \N{RIGHTWARDS ARROW} predicted class, and how many of the "
    f"images of the right class. All repeats together; up to {_LISTED} of each are in confusions.csv."
)


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """All runs on one set of images, with results per image.

    Attributes:
      runs: runs with results per image.
      attacks: clean first, then the attacks of fixed budget, by spec and backend, with their names.
      rows: rows of `Results.attacks`, by index of the run and attack.
      outcomes: results per image, likewise.
    """

    runs: tuple[Evaluated, ...]
    attacks: dict[Key, str]
    rows: dict[tuple[int, Key], Any]
    outcomes: dict[tuple[int, Key], Outcome]

    @property
    def title(self) -> str:
        """Data set and split, and the weights if they are not the best ones."""
        return self.runs[0].title

    @property
    def classes(self) -> int:
        """Number of classes present."""
        return 1 + max(int(result.label.max()) for result in self.outcomes.values())

    def class_name(self, number: int) -> str:
        """Returns the name of a class in the data."""
        return class_name(self.runs[0].run, number)


def outcomes_of(results: Results) -> list[Outcomes]:
    """Returns results per image by weights, data set and split; runs without them are left out.

    Raises:
      UserError: arrays cannot be read.
    """
    places = []
    for place in by_place(results.evaluated):
        kept: list[Evaluated] = []
        rows: dict[tuple[int, Key], Any] = {}
        outcomes: dict[tuple[int, Key], Outcome] = {}
        for model in place:
            known = [(row, images) for row in model.rows if (images := outcome(row.measured))]
            for row, images in known:
                key = len(kept), (row.attack, row.backend)
                rows[key], outcomes[key] = row, images
            kept += [model] if known else []
        if kept:
            firsts: dict[Key, Any] = {}
            for (_, attack), row in rows.items():
                firsts.setdefault(attack, row.measured.first)
            keys = sorted(firsts, key=lambda key: key[0] != CLEAN)
            names = dict(zip(keys, attack_names([firsts[key] for key in keys]), strict=True))
            places.append(Outcomes(tuple(kept), names, rows, outcomes))
    return places


@section("classes", "Accuracy by class", order=130)
def classes(results: Results) -> Section | None:
    """One table per attack, one row per class."""
    places = results.once(outcomes_of)
    if not places:
        return None
    tables = [_class_table(place, key, len(places) > 1) for place in places for key in _shown(place)]
    with_results = {id(model.run) for place in places for model in place.runs}
    missing = list(dict.fromkeys(model.run.name for model in results.evaluated if id(model.run) not in with_results))
    without = (f"Without {listed(missing)}, whose per-example results were not kept.",) if missing else ()
    rows = [row for place in places for row in _class_figures(place)]
    return Section(tuple(tables), figures(rows), remarks=without, opened=0)


@section("confusions", "Most frequent confusions", order=140)
def confused(results: Results) -> Section | None:
    """One row per run with its most frequent confusions under each attack."""
    places = results.once(outcomes_of)
    if not places:
        return None
    rows = [
        {
            **_head(place, key), "class": a, "name": place.class_name(a), "predicted": b,
            "predicted_name": place.class_name(b), "times": count, "of": of,
        }
        for place in places
        for key, images in place.outcomes.items()
        for a, b, count, of in confusions(images)[:_LISTED]
    ]  # fmt: skip
    return Section(tuple(_confusion_table(place, len(places) > 1) for place in places), figures(rows))


def class_accuracy(images: Outcome, number: int) -> tuple[float, int]:
    """Returns the share of a class's images classified correctly, averaged over repeats, and their number."""
    chosen = images.label == number
    return (float(images.correct[:, chosen].mean()) if chosen.any() else 0.0), int(chosen.sum())


def confusions(images: Outcome) -> list[tuple[int, int, int, int]]:
    """Correct class, predicted class, count and number of images of the class; all repeats, most frequent first."""
    labels = np.tile(images.label, len(images.prediction))
    wrong = ~images.correct.ravel() & (images.prediction.ravel() != labels)
    pairs, counts = np.unique(np.stack([labels, images.prediction.ravel()])[:, wrong], axis=1, return_counts=True)
    pairs_found = [
        (a, b, int(count), int((labels == a).sum())) for (a, b), count in zip(pairs.T.tolist(), counts, strict=True)
    ]
    return sorted(pairs_found, key=lambda row: (-row[2], row[0], row[1]))


def _shown(place: Outcomes) -> list[Key]:
    """Returns the attacks that fit the page: clean, then those with the lowest accuracy."""
    room = max(2, _FIELDS // (place.classes * len(place.runs)))

    def left(key: Key) -> float:
        return float(np.mean([row.accuracy for (_, attack), row in place.rows.items() if attack == key]))

    kept = sorted(place.attacks, key=lambda key: (key[0] != CLEAN, left(key)))[:room]
    return [key for key in place.attacks if key in kept]


def _class_table(place: Outcomes, key: Key, several: bool) -> Table:
    outcomes = [place.outcomes.get((i, key)) for i in range(len(place.runs))]
    measured = [[class_accuracy(one, c) if one else (0.0, 0) for one in outcomes] for c in range(place.classes)]
    lowest = [min((row[i][0] for row in measured if row[i][1]), default=0.0) for i in range(len(outcomes))]
    rows = []
    for number, row in enumerate(measured):
        counts = {count for _, count in row if count}
        if counts:
            size = (f"n = {counts.pop():,}",) if len(counts) == 1 else ()
            cells = [_cell(*one, framed=one[0] == lowest[i] < 1, counted=not size) for i, one in enumerate(row)]
            rows.append((Cell(place.class_name(number), size), *cells))
    allowed = next(row for (_, attack), row in place.rows.items() if attack == key).allowed
    title = f"{place.attacks[key]} ({place.title})" if several else place.attacks[key]
    columns = (Column("Class", figures=False), *(Column(one.name) for one in place.runs))
    return Table(title, f"{sentence(allowed)}. {_CLASSES}", columns, tuple(rows))


def _cell(accuracy: float, count: int, *, framed: bool, counted: bool) -> Cell:
    if not count:
        return NOTHING
    return share(accuracy, count, *([f"n = {count:,}"] if counted else []), marked=framed)


def _confusion_table(place: Outcomes, several: bool) -> Table:
    columns = (Column("Run", figures=False), *(Column(name, figures=False) for name in place.attacks.values()))
    rows = [
        (Cell(model.name), *(_confused(place, place.outcomes.get((i, key))) for key in place.attacks))
        for i, model in enumerate(place.runs)
    ]
    return Table(place.title if several else "", _CONFUSIONS, columns, tuple(rows))


def _confused(place: Outcomes, images: Outcome | None) -> Cell:
    if images is None:
        return NOTHING
    name = place.class_name
    texts = [
        f"{name(a)} \N{RIGHTWARDS ARROW} {name(b)}: {count:,} of {of:,}"
        for a, b, count, of in confusions(images)[:_SHOWN]
    ]
    return Cell(texts[0], tuple(texts[1:])) if texts else Cell("no mistakes")


def _class_figures(place: Outcomes) -> list[dict[str, object]]:
    rows = []
    for key, images in place.outcomes.items():
        for number in range(place.classes):
            accuracy, count = class_accuracy(images, number)
            if count:
                names = {"class": number, "name": place.class_name(number), "count": count}
                rows.append({**_head(place, key), **names, **share_of(accuracy, count)})
    return rows


def _head(place: Outcomes, key: tuple[int, Key]) -> dict[str, object]:
    row = place.rows[key]
    return {"run": row.name, **columns_of(row, "dataset", "split", "attack", "backend", "repeats")}
