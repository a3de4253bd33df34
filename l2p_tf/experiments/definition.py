"""Definitions of experiments in TOML files: the runs of a table or figure, the measurements, and the claims."""

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
      flags: name of a flag file of the package, as in `--config`.
      run: one of the runs it describes; empty for all of them.
      row: row of the printed table; empty if the run appears in every row.
      column: column of the printed table; empty if it appears in every column.
    """

    flags: str
    run: str = ""
    row: str = ""
    column: str = ""


class Measure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The source of some cells of a printed table.

    Attributes:
      metric: key of the table's metric.
      attack: spec of the attack; `clean` for none; empty if the statistic needs none.
      statistic: content of the cells.
      row: the only row it applies to; empty for all rows.
      column: the only column; empty for all columns.
      source: name of the run the images were made on; empty for the attacked run itself.
      of: other metrics of the same cell to average; empty for a measurement.
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
      targets: other runs to evaluate them on, besides the sources.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...] = ()


class Experiment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything needed to reproduce one table or figure.

    Attributes:
      title: paper and number, such as `Learn2Perturb, Table 2`.
      about: its content, in one line.
      runs: flag files of the runs it needs.
      name: its name for `--experiment`, from the file name.
      prints: name of the printed table; empty for a figure, whose values are not printed.
      measured: sources of the table's cells; accuracies under the table's own settings may be omitted.
      figure: name of the section whose plots are the figure; empty for a table without one.
      attacks: attacks of all runs; empty for those of the flag files.
      settings: further flags of all runs, each `--name=value`.
      transfer: groups among which adversarial images are transferred.
      claims: claims of the paper about it.
      choices: our choices where the paper gives none; one sentence each.
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
    """Returns the names of the experiments in a folder."""
    return sorted(path.stem for path in folder.glob(f"[!.]*{_SUFFIX}"))


def load(folder: pathlib.Path, name: str) -> Experiment:
    """Reads an experiment.

    Args:
      folder: folder of the TOML files.
      name: name of the experiment.

    Raises:
      UserError: there is no such experiment, or its file is invalid.
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
