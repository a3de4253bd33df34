"""What an experiment is, read from a TOML file: the runs of a table or figure, what is measured on them, and claims."""

from __future__ import annotations

import difflib
import pathlib
import tomllib
from typing import Annotated, Literal

import msgspec

from l2p_tf.experiments.claims import AnyClaim
from l2p_tf.reporting.section import registered
from l2p_tf.schema import reading
from l2p_tf.types import UserError

_SUFFIX = ".toml"


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One flag file's part in an experiment.

    Attributes:
      flags: name of a flag file of the package, as `--config` takes it.
      run: which of the runs that it describes; empty for all of them.
      row: of the printed table; empty where the run stands in every row.
      column: of the printed table; empty likewise.
    """

    flags: str
    run: str = ""
    row: str = ""
    column: str = ""


class Measure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What fills some cells of a printed table.

    Attributes:
      metric: key of the table's metric.
      attack: spec of the attack; `clean` for none; empty where the statistic needs none.
      statistic: what the cells hold.
      row: the only row it is for; empty for every one.
      column: the only column; empty likewise.
      source: name of the run that the attacked images were made on; empty for the attacked run itself.
      of: other metrics of the same cell, whose mean it is; empty for a figure of its own.
    """

    metric: str
    attack: str = ""
    statistic: Literal["accuracy", "mean_l2", "median_l2", "seconds_per_epoch"] = "accuracy"
    row: str = ""
    column: str = ""
    source: str = ""
    of: tuple[str, ...] = ()


class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Runs among which adversarial images are transferred.

    Attributes:
      sources: runs that the images are made on.
      targets: other runs that they are shown to; the sources see each other's anyway.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...] = ()


class Experiment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All there is to reproducing one table or figure.

    Attributes:
      title: paper and number, such as `Learn2Perturb, Table 2`.
      about: what it shows, in a line.
      runs: the flag files whose runs it needs.
      name: what `--experiment` calls it: that of its file.
      prints: name of the printed table; empty for a figure, whose values are not printed.
      measured: what fills the table; accuracies under the table's own settings need not be named.
      figure: name of the section whose plots are the figure; empty for a table without one.
      attacks: the attacks of all runs; empty for those of the flag files.
      settings: further flags of all runs, each `--name=value`.
      transfer: groups among which adversarial images are transferred.
      claims: what the paper says of it.
      choices: where the paper is silent, what is done here; a sentence each.
    """

    title: str
    about: str
    runs: Annotated[tuple[Member, ...], msgspec.Meta(min_length=1)]
    name: str = ""
    prints: str = ""
    measured: tuple[Measure, ...] = ()
    figure: str = ""
    attacks: str = ""
    settings: tuple[str, ...] = ()
    transfer: tuple[Group, ...] = ()
    claims: tuple[AnyClaim, ...] = ()
    choices: tuple[str, ...] = ()


def names(folder: pathlib.Path) -> list[str]:
    """The experiments in a folder."""
    return sorted(path.stem for path in folder.glob(f"[!.]*{_SUFFIX}"))


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
    file = folder / f"{name}{_SUFFIX}"
    with reading(file, "describe an experiment"):
        experiment = msgspec.convert({**tomllib.loads(file.read_text("utf-8")), "name": name}, Experiment)
        sections = [entry.name for entry in registered()]
        if experiment.figure not in ("", *sections):
            raise ValueError(f"`figure` should be one of {', '.join(sections)}. Received: {experiment.figure!r}")
    return experiment
