"""Accuracy requirements, for builds that should fail if a model is not robust enough."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import re
import statistics
from collections.abc import Sequence
from typing import Annotated
from xml.etree import ElementTree

import numpy as np
from msgspec import Meta

from l2p_tf import artifacts
from l2p_tf.environment import user_path
from l2p_tf.evaluation.records import CLEAN, COLUMNS, Record, read_records, summarize, wilson_interval
from l2p_tf.registry import parse_number, parse_spec
from l2p_tf.schema import Positive, Share, read_arrays, read_json
from l2p_tf.types import UserError

STAGE, RESULTS, JUNIT = "gate", "gate.json", "junit.xml"
WORST = "worst"
"""Stands for all attacks: an image counts as correct if it is under every attack, and clean.

Attacks that minimize the norm without a limit, which succeed on nearly everything, do not count.
"""
Text = Annotated[str, Meta(max_length=4000)]


@dataclasses.dataclass(frozen=True)
class Bound:
    """A lower bound on an accuracy.

    Attributes:
      run: the run it applies to; empty for every run.
      attack: an attack's name, for all attacks of that name, or its spec; `clean`, or `worst`.
      share: the required accuracy, in [0, 1].
    """

    run: str
    attack: str
    share: float


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A requirement on a run, and the measured accuracy.

    Attributes:
      run: the run.
      attack: spec of the attack, `clean` or `worst`.
      label: short name of the attack.
      share: the required accuracy.
      accuracy: mean over the repeats.
      low: lower end of its 95% interval, which must reach the requirement.
      count: number of images.
    """

    run: Text
    attack: Text
    label: Text
    share: Share
    accuracy: Share
    low: Share
    count: Positive

    @property
    def met(self) -> bool:
        """Whether the requirement is met."""
        return self.low >= self.share

    @property
    def text(self) -> str:
        """The verdict in one line."""
        return (
            f"{self.run}: {self.label} {100 * self.accuracy:.1f}%, 95% interval from {100 * self.low:.1f}%, is "
            f"{'at least' if self.met else 'not surely'} the {100 * self.share:g}% required ({self.count:,} images)"
        )


def parse_bounds(text: str) -> tuple[Bound, ...]:
    """Parses requirements: `autoattack>=0.45; clean>=0.90; pgd-2: pgd(steps=20)>=0.5`.

    Raises:
      UserError: the text is malformed, an attack is unknown, or a share is outside [0, 1].
    """
    from l2p_tf.attacks import ATTACKS  # Imported here, because reports read outcomes without TensorFlow.

    form = "`--require` should be ATTACK>=SHARE, or RUN: ATTACK>=SHARE, several separated by `;`"
    bounds = []
    for part in filter(str.strip, text.split(";")):
        match = re.fullmatch(r"\s*(?:([\w.-]+)\s*:\s*)?([^:].*?)\s*>=\s*([^>=]+?)\s*", part)
        if not match:
            raise UserError(f"{form}. Received: {part!r}")
        run, attack, share = match.group(1) or "", match.group(2), parse_number(match.group(3))
        if not 0 <= share <= 1:
            raise UserError(f"{form}, where a share is from 0 to 1. Received: {part!r}")
        if attack not in (CLEAN, WORST):
            ATTACKS.get(parse_spec(attack, "attack")[0])
            attack = ATTACKS.parse(attack).spec if "(" in attack else attack
        bounds.append(Bound(run, attack, share))
    return tuple(bounds)


def judge(bounds: Sequence[Bound], attacked: Sequence[artifacts.Artifact], run: str) -> list[Outcome]:
    """Checks a run's attack stages against the requirements that apply to it.

    Raises:
      UserError: a requirement names an attack that was not run.
    """
    records = [(artifact.path, [r for r in read_records(artifact.path) if r.source is None]) for artifact in attacked]
    outcomes = []
    for bound in bounds:
        if bound.run not in ("", run):
            continue
        if bound.attack == WORST:
            outcomes.append(_worst(bound, records, run))
            continue
        summaries = [s for _, stage_records in records for s in summarize(stage_records)]
        matching = [s for s in summaries if bound.attack in (s.first.attack, s.first.attack.split("(")[0])]
        if not matching:
            known = ", ".join(dict.fromkeys(s.first.attack for s in summaries))
            raise UserError(
                f"`--require` should name attacks that {run} was under: {known}. Received: {bound.attack!r}"
            )
        outcomes += [
            Outcome(run, s.first.attack, s.first.label, bound.share, s.accuracy, s.low, s.first.count) for s in matching
        ]
    return outcomes


def _worst(bound: Bound, records: Sequence[tuple[pathlib.Path, list[Record]]], run: str) -> Outcome:
    """Accuracy on images that are correct under all attacks, averaged over repeats."""
    repeats: dict[int, list[np.ndarray]] = {}
    images: np.ndarray | None = None
    for folder, stage_records in records:
        for record in (candidate for candidate in stage_records if not candidate.corruption):
            if record.norm is not None and record.epsilon is None:
                continue
            wanted = {name: COLUMNS[name] for name in ("index", "correct")}
            arrays = read_arrays(folder / record.arrays, wanted, "hold results per image", record.count)
            images = arrays["index"] if images is None else images
            if not np.array_equal(images, arrays["index"]):
                raise UserError(f"`--require` takes {WORST!r} of attacks on the same images; those of {run} differ.")
            repeats.setdefault(record.repeat, []).append(arrays["correct"])
    shares = [float(functools.reduce(np.logical_and, right).mean()) for right in repeats.values()]
    accuracy, count = statistics.fmean(shares), len(images if images is not None else ())
    low = wilson_interval(accuracy, count)[0]
    return Outcome(run, WORST, "worst of all attacks", bound.share, accuracy, low, count)


def gate_artifact(
    bounds: Sequence[Bound], attacked: Sequence[artifacts.Artifact], run: str, output: str | os.PathLike[str]
) -> list[Outcome]:
    """Checks a run against requirements; saves the outcomes as JSON and, for CI servers, as JUnit XML.

    Args:
      bounds: the requirements; those for other runs are ignored.
      attacked: attack stages of the run.
      run: name of the run.
      output: folder to create, replacing earlier outcomes.

    Raises:
      UserError: a requirement names an attack that was not run.
    """
    outcomes = judge(bounds, attacked, run)
    request = {"require": [dataclasses.asdict(bound) for bound in bounds], "run": run}
    inputs = {f"attack {artifact.fingerprint[:8]}": artifact for artifact in attacked}
    train = attacked[0].manifest["inputs"].get("train", "")
    with artifacts.produce(output, STAGE, {**request, "train": train}, inputs, overwrite=True) as work:
        if work is not None:
            work.clear()
            artifacts.write_json(work.path / RESULTS, [dataclasses.asdict(outcome) for outcome in outcomes])
            artifacts.atomic_write(work.path / JUNIT, junit(outcomes, run))
    return outcomes


def read_outcomes(folder: str | os.PathLike[str]) -> list[Outcome]:
    """Reads the outcomes in the folder of a gate stage; raises UserError if they are unreadable."""
    return read_json(user_path(folder) / RESULTS, list[Outcome], "hold the outcomes of a gate stage")


def junit(outcomes: Sequence[Outcome], run: str) -> str:
    """Formats outcomes as a JUnit XML test suite: one test each, which fails if the requirement is not met."""
    failures = sum(not outcome.met for outcome in outcomes)
    suite = ElementTree.Element("testsuite", name=run, tests=str(len(outcomes)), failures=str(failures))
    for outcome in outcomes:
        test = ElementTree.SubElement(suite, "testcase", classname=run, name=f"{outcome.attack} >= {outcome.share:g}")
        if not outcome.met:
            ElementTree.SubElement(test, "failure", message=outcome.text)
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"
