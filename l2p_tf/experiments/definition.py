"""What an experiment is, read from a TOML file: the runs of a table or figure, what is measured on them, and claims."""

from __future__ import annotations

import dataclasses
import difflib
import pathlib
import tomllib
from collections.abc import Mapping
from typing import Any

from l2p_tf.types import UserError

SUFFIX = ".toml"
STATISTICS = ("accuracy", "mean_l2", "median_l2", "seconds_per_epoch")
"""What a cell of a table may hold."""


@dataclasses.dataclass(frozen=True)
class Member:
    """One flag file's part in an experiment.

    Attributes:
      flags: name of the flag file in `configs/`, without `.flags`.
      run: which of the runs that it describes; empty for all of them.
      row: of the printed table; empty where the run stands in every row.
      column: of the printed table; empty likewise.
    """

    flags: str
    run: str = ""
    row: str = ""
    column: str = ""


@dataclasses.dataclass(frozen=True)
class Measure:
    """What fills some cells of a printed table.

    Attributes:
      metric: key of the table's metric.
      attack: spec of the attack; `clean` for none; empty where the statistic needs none.
      statistic: one of `STATISTICS`.
      row: the only row it is for; empty for every one.
      column: the only column; empty likewise.
      source: name of the run that the attacked images were made on; empty for the attacked run itself.
      of: other metrics of the same cell, whose mean it is; empty for a figure of its own.
    """

    metric: str
    attack: str = ""
    statistic: str = "accuracy"
    row: str = ""
    column: str = ""
    source: str = ""
    of: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs among which adversarial images are transferred.

    Attributes:
      sources: runs that the images are made on.
      targets: other runs that they are shown to; the sources see each other's anyway.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Claim:
    """What a paper says of its table or figure, and how that is looked for in one's own.

    Attributes:
      text: the claim, in our words.
      check: name of the check.
      options: the check's own settings.
    """

    text: str
    check: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """All there is to reproducing one table or figure.

    Attributes:
      name: what `--experiment` calls it.
      title: paper and number, such as `Learn2Perturb, Table 2`.
      about: what it shows, in a line.
      members: the runs.
      prints: name of the printed table; empty for a figure, whose values are not printed.
      measured: what fills the table; accuracies under the table's own settings need not be named.
      figure: the plots that are the figure: `curves`, or the section beside which a report draws them.
      attacks: the attacks of all runs; empty for those of the flag files.
      settings: further flags of all runs, each `--name=value`.
      transfer: groups among which adversarial images are transferred.
      claims: what the paper says of it.
      choices: where the paper is silent, what is done here; a sentence each.
    """

    name: str
    title: str
    about: str
    members: tuple[Member, ...]
    prints: str = ""
    measured: tuple[Measure, ...] = ()
    figure: str = ""
    attacks: str = ""
    settings: tuple[str, ...] = ()
    transfer: tuple[Group, ...] = ()
    claims: tuple[Claim, ...] = ()
    choices: tuple[str, ...] = ()


def names(folder: pathlib.Path) -> list[str]:
    """The experiments in a folder."""
    return sorted(path.stem for path in folder.glob(f"[!.]*{SUFFIX}"))


def load(folder: pathlib.Path, name: str) -> Experiment:
    """Reads an experiment.

    Args:
      folder: where the TOML files are.
      name: of the experiment.

    Raises:
      UserError: there is no such experiment, or its file does not describe one.
    """
    known = names(folder)
    if name not in known:
        near = difflib.get_close_matches(name, known, 3, 0.4)
        hint = f", perhaps {' or '.join(near)}" if near else ""
        raise UserError(f"`experiment` should be one of those that `help` lists{hint}. Received: {name!r}")
    file = folder / f"{name}{SUFFIX}"
    try:
        return _parse(name, tomllib.loads(file.read_text("utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError, ValueError) as error:
        raise UserError(f"{str(file)!r} should describe an experiment: {error}") from error


def _parse(name: str, data: dict[str, Any]) -> Experiment:
    claims = [
        Claim(one.pop("text"), one.pop("check"), one) if {"text", "check"} <= set(one) else Claim(**one)
        for one in map(dict, data.pop("claims", []))
    ]
    groups = [Group(*(tuple(one.get(key, ())) for key in ("sources", "targets"))) for one in data.pop("transfer", [])]
    experiment = Experiment(
        name,
        members=tuple(Member(**one) for one in data.pop("runs")) if "runs" in data else (),
        measured=tuple(Measure(**{**one, "of": tuple(one.get("of", ()))}) for one in data.pop("measured", [])),
        settings=tuple(data.pop("settings", ())),
        choices=tuple(data.pop("choices", ())),
        transfer=tuple(groups),
        claims=tuple(claims),
        **data,
    )
    if not experiment.members:
        raise ValueError("`runs` should name at least one flag file.")
    for measure in experiment.measured:
        if measure.statistic not in STATISTICS:
            raise ValueError(f"`statistic` should be one of {', '.join(STATISTICS)}. Received: {measure.statistic!r}")
    return experiment
