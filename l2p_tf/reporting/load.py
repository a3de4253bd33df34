"""Finds finished artifacts and groups them by trained model."""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
import pathlib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

from msgspec import Meta

from l2p_tf import artifacts, schema
from l2p_tf.artifacts import Artifact
from l2p_tf.certification.records import RESULTS as CERTIFICATES
from l2p_tf.certification.records import read_certificates
from l2p_tf.evaluation import gate
from l2p_tf.evaluation.masking.record import CHECKED, read_inspection
from l2p_tf.evaluation.records import CLEAN, MOST_CLASSES, RESULTS, Record, read_records
from l2p_tf.files import is_hidden
from l2p_tf.reporting.format import backend_name, plain
from l2p_tf.reporting.history import HISTORY, History, read_history
from l2p_tf.types import UserError

STAGES = ("data", "train", "attack", "checks", "transfer", "certify", "export", "gate")
"""The stages that a report uses, in the order in which they run."""

_INFO = "info.json"
_OUTPUTS = {
    "data": _INFO, "train": "best.keras", "checks": CHECKED, "attack or transfer": RESULTS, "certify": CERTIFICATES,
    "export": "serving.json", "gate": gate.RESULTS,
}  # fmt: skip
"""A file of each stage, which identifies its folder if the manifest is missing."""
_DEPTH = 2
_TRAIN, _ATTACK, _TRANSFER, _CERTIFY, _CHECKS, _EXPORT = "train", "attack", "transfer", "certify", "checks", "export"
_READERS: Mapping[str, Callable[[pathlib.Path], Iterable[Any]]] = {
    _ATTACK: read_records, _CERTIFY: read_certificates, _CHECKS: lambda folder: [read_inspection(folder)],
}  # fmt: skip
"""Functions that read the records of a stage."""


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """Results of one stage for a run: an attack, checks or certify stage, or one target of a transfer stage.

    Attributes:
      records: one per attack and repeat, in a transfer stage also per source; one per certificate; one of checks.
      checkpoint: the evaluated weights: `best` or `last`.
      artifact: the stage; None for records without files.
    """

    records: tuple[Any, ...]
    checkpoint: str = "best"
    artifact: Artifact | None = None

    @property
    def detail(self) -> str:
        """Other weights than the best, or other libraries than this package; empty if there are none."""
        attacks = [r for r in self.records if isinstance(r, Record) and r.attack != CLEAN and r.backend != "l2p_tf"]
        parts = [plain(self.checkpoint)] if self.checkpoint != "best" else []
        return ", ".join([*parts, *dict.fromkeys(backend_name(record.backend) for record in attacks)])

    @property
    def data(self) -> str:
        """Fingerprint of the evaluation data; empty if unknown."""
        return _input(self.artifact, "data") if self.artifact else ""

    def other_data(self, model: str) -> Mapping[str, Any] | None:
        """Returns the manifest's note on a model evaluated on data other than its training data, or None."""
        notes = self.artifact.manifest.get("notes", {}) if self.artifact else {}
        return dict(notes.get("other_data", {})).get(model)

    def key_of(self, name: str) -> str:
        """Returns the key of the run called `name` in the records; the name itself if the stage does not record it."""
        return (_input(self.artifact, f"{_TRAIN}:{name}") if self.artifact else "") or name


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One training and everything measured on it.

    Attributes:
      name: unique name in the report.
      key: fingerprint of the training; the name if there is none.
      train: the training; None if not given.
      data: the training data, or the evaluation data of imported models; None if not given.
      evaluations: its attack stages, and its part of transfer stages.
      certifications: its certify stages.
      checked: its checks stages.
      history: its training curves; None if there are none.
      info: description of the data by the data stage; empty if not given.
      exports: its export stages.
      outcomes: outcomes of its requirements.
      others: other evaluation data and their description, by the name in the records.
    """

    name: str
    key: str
    train: Artifact | None = None
    data: Artifact | None = None
    evaluations: tuple[Evaluation, ...] = ()
    certifications: tuple[Evaluation, ...] = ()
    checked: tuple[Evaluation, ...] = ()
    history: History | None = None
    info: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    exports: tuple[Artifact, ...] = ()
    outcomes: tuple[gate.Outcome, ...] = ()
    others: Mapping[str, tuple[Artifact, Mapping[str, Any]]] = dataclasses.field(default_factory=dict)

    @property
    def records(self) -> list[Record]:
        """All records of all evaluations."""
        return [record for evaluation in self.evaluations for record in evaluation.records]

    @property
    def imported(self) -> bool:
        """Whether it was trained elsewhere, on unknown data."""
        return self.train is not None and not self.input("data")

    @property
    def judged(self) -> list[Evaluation]:
        """All stages that evaluated it."""
        return [*self.evaluations, *self.certifications, *self.checked]

    def named(self, checkpoint: str) -> str:
        """Returns its name, with the weights if they are not the best ones."""
        return self.name if checkpoint == "best" else f"{self.name} ({plain(checkpoint)})"

    def option(self, name: str, default: Any = "") -> Any:
        """Returns an option of the training, or the default if the training or the option is missing."""
        return self.train.options.get(name, default) if self.train else default

    def title_of(self, dataset: str) -> str:
        """Returns the title of a data set, which tells variants apart, or its name if the data are not available."""
        if dataset == self.info.get("name"):
            return plain(self.info.get("title") or dataset)
        if dataset not in self.others:
            return plain(dataset)
        info = self.others[dataset][1]
        # If several have the same name, part of the fingerprint follows it.
        return plain(f"{info.get('title') or info['name']}{dataset.removeprefix(info['name'])}")

    def data_of(self, dataset: str) -> Artifact | None:
        """Returns the data with that name in the records, or None if not available."""
        return self.data if dataset == self.info.get("name") else self.others.get(dataset, (None, None))[0]

    def input(self, role: str) -> str:
        """Returns the fingerprint of a training input, such as `data`; empty if unknown."""
        return _input(self.train, role) if self.train else ""

    def note(self, name: str, default: Any = None) -> Any:
        """Returns a note of the training, or the default if the training or the note is missing."""
        return self.train.manifest.get("notes", {}).get(name, default) if self.train else default


def find(folders: Sequence[pathlib.Path]) -> list[Artifact]:
    """Finds finished artifacts of `STAGES` in folders and up to two levels below them.

    Args:
      folders: where to look, in the order of the report.

    Returns:
      The artifacts without duplicates.

    Raises:
      UserError: a folder is missing, holds no such artifact, or one of them is damaged.
    """
    by_fingerprint: dict[str, Artifact] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"`runs` should name folders that exist. Received: {str(folder)!r}")
        for path, stage in _headless(folder, _DEPTH):
            warnings.warn(
                f"{str(path)!r} is left out: it looks like a finished {stage} stage, but its {artifacts.MANIFEST} is "
                "missing. Restore that file, or move the folder away and make it again.",
                UserWarning,
                stacklevel=2,
            )
        here = [_open(path) for path in _manifests(folder, _DEPTH)]
        wanted = [artifact for artifact in here if artifact.stage in STAGES]
        if all(artifact.stage == _EXPORT for artifact in wanted):
            stages = ", ".join(sorted({artifact.stage for artifact in here})) or "none"
            raise UserError(
                f"{str(folder)!r} should hold finished train and attack stages, itself or up to two levels below. "
                f"Stages found there: {stages}"
            )
        for artifact in sorted(wanted, key=_finished):
            by_fingerprint.setdefault(artifact.fingerprint, artifact)
    return list(by_fingerprint.values())


def _finished(artifact: Artifact) -> tuple[int, str, str]:
    """Sort key in the order of completion, as given to a pipeline; the time only decides for old artifacts."""
    return (artifact.manifest.get("order", 0), str(artifact.manifest.get("finished", "")), str(artifact.path))


def unfinished(folders: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """Folders of unfinished work next to the artifacts, without duplicates, which a report leaves out."""
    partial = {
        path.resolve(): path
        for folder in folders
        for depth in range(1, _DEPTH + 1)
        for path in sorted(folder.glob("/".join(["*"] * depth) + ".partial"))
        if not any(map(is_hidden, path.relative_to(folder).parts))
    }
    return list(partial.values())


def gather(found: Sequence[Artifact]) -> list[Run]:
    """Joins trainings with their data, attacks, checks, transfers, certificates and exports by fingerprint.

    Args:
      found: artifacts as returned by `find`.

    Returns:
      One run per training, then one per training that was evaluated but is missing.

    Raises:
      UserError: there is neither a training nor an evaluation, or results, a history or facts cannot be read.
    """
    data = {a.fingerprint: a for a in found if a.stage == "data"}
    trains = {a.fingerprint: a for a in found if a.stage == "train"}
    exports: dict[str, list[Artifact]] = collections.defaultdict(list)
    outcomes: dict[str, list[gate.Outcome]] = collections.defaultdict(list)
    parts: dict[str, dict[str, list[Evaluation]]] = {
        stage: collections.defaultdict(list) for stage in (_ATTACK, _CERTIFY, _CHECKS)
    }
    for artifact in found:
        key = _input(artifact, _TRAIN) or artifact.fingerprint
        if artifact.stage == _EXPORT:
            exports[key].append(artifact)
        elif artifact.stage == gate.STAGE:
            outcomes[str(artifact.options.get("train"))] += gate.read_outcomes(artifact.path)
        elif artifact.stage == _TRANSFER:
            for evaluation in _transferred(artifact):
                parts[_ATTACK][evaluation.key_of(evaluation.records[0].model)].append(evaluation)
        elif artifact.stage in _READERS and (records := tuple(_READERS[artifact.stage](artifact.path))):
            parts[artifact.stage][key].append(Evaluation(records, _checkpoint(artifact), artifact))
    keys = list(dict.fromkeys([*trains, *(key for stage in parts.values() for key in stage)]))
    if not keys:
        raise UserError("`runs` should name folders with a finished train or attack stage. Only data was found.")
    parts = _told_apart(parts, trains, data)
    judged = {key: [e for stage in parts.values() for e in stage.get(key, ())] for key in keys}
    places = {key: trains.get(key) or judged[key][0].artifact for key in keys}
    folders = {key: place.path if place else None for key, place in places.items()}
    names = _names({key: _name(trains.get(key), judged[key]) for key in keys}, folders)
    runs = []
    for key in keys:
        train = trains.get(key)
        inputs = [train] if train and _input(train, "data") else [part.artifact for part in judged[key]]
        source = next((data[digest] for a in inputs if a and (digest := _input(a, "data")) in data), None)
        history = read_history(train.path / HISTORY) if train else None
        info = _read_info(source.path / _INFO) if source else {}
        attacked, certified, checked = (tuple(stage.get(key, ())) for stage in parts.values())
        judged_by = attacked, certified, checked
        others = {
            e.records[0].dataset: (data[e.data], _read_info(data[e.data].path / _INFO))
            for e in judged[key]
            if e.data in data and data[e.data] is not source and e.records[0].dataset != info.get("name")
        }
        last = tuple(exports[key]), tuple(outcomes[key]), others
        runs.append(Run(names[key], key, train, source, *judged_by, history, info, *last))
    return runs


def _told_apart(
    parts: Mapping[str, Mapping[str, list[Evaluation]]], trains: Mapping[str, Artifact], data: Mapping[str, Artifact]
) -> dict[str, dict[str, list[Evaluation]]]:
    """Returns evaluations by stage and run, with distinct names for distinct data.

    If a run was evaluated on other data, and several data sets have that name, part of the fingerprint is appended.
    Other data come last.
    """
    homes = {key: _input(train, "data") or _input(train, "probe") for key, train in trains.items()}
    with_data = [part for stage in parts.values() for members in stage.values() for part in members if part.data]
    known: dict[str, set[object]] = collections.defaultdict(set)
    for part in with_data:
        known[part.records[0].dataset].add(_images(part.data, part.records[0].split, data))
    for home in homes.values():
        if home in data:
            known[str(_read_info(data[home].path / _INFO).get("name"))].add(_images(home, "test", data))

    def is_other(key: str, part: Evaluation) -> bool:
        return part.data not in ("", homes.get(key, part.data))

    def named(key: str, part: Evaluation) -> Evaluation:
        name = part.records[0].dataset
        if not is_other(key, part) or len(known[name]) == 1:
            return part
        records = tuple(dataclasses.replace(r, dataset=f"{name} [{part.data[:6]}]") for r in part.records)
        return dataclasses.replace(part, records=records)

    def ordered(key: str, members: list[Evaluation]) -> list[Evaluation]:
        return [named(key, part) for part in sorted(members, key=functools.partial(is_other, key))]

    return {stage: {key: ordered(key, members) for key, members in by_run.items()} for stage, by_run in parts.items()}


def _images(digest: str, split: str, data: Mapping[str, Artifact]) -> object:
    """Returns a key that identifies the images of a split."""
    outputs = data[digest].manifest["outputs"] if digest in data and split == "test" else {}
    # The test images stay the same if only training and validation are split differently.
    return outputs.get("test_images.npy", digest), outputs.get("test_labels.npy", "")


def versions(artifact: Artifact) -> dict[str, str]:
    """Versions of Python and of the packages an artifact was made with."""
    made = {"python": artifact.manifest.get("python"), **(artifact.manifest.get("packages") or {})}
    return {plain(name): plain(version) for name, version in made.items() if version}


def _transferred(artifact: Artifact) -> list[Evaluation]:
    targets: dict[str, list[Record]] = {}
    for record in read_records(artifact.path):
        targets.setdefault(record.model, []).append(record)
    return [Evaluation(tuple(records), _checkpoint(artifact), artifact) for records in targets.values()]


def _manifests(folder: pathlib.Path, depth: int) -> list[pathlib.Path]:
    if (folder / artifacts.MANIFEST).is_file():
        return [folder]
    return [path for child in _children(folder, depth) for path in _manifests(child, depth - 1)]


def _headless(folder: pathlib.Path, depth: int) -> list[tuple[pathlib.Path, str]]:
    """Returns folders with the outputs of a stage but no manifest, and the kind of the stage."""
    if (folder / artifacts.MANIFEST).is_file():
        return []
    stage = next((stage for stage, name in _OUTPUTS.items() if (folder / name).is_file()), None)
    if stage:
        return [(folder, stage)]
    return [found for child in _children(folder, depth) for found in _headless(child, depth - 1)]


def _children(folder: pathlib.Path, depth: int) -> list[pathlib.Path]:
    """Subfolders that may hold results; none at depth 0."""
    # A stage killed while finishing leaves a manifest in NAME.partial or .NAME.old-*; neither is a result.
    inside = sorted(folder.iterdir()) if depth else []
    return [path for path in inside if path.is_dir() and path.suffix != ".partial" and not is_hidden(path.name)]


def _open(path: pathlib.Path) -> Artifact:
    artifact = artifacts.read(path, verify=False)
    return artifacts.read(path, artifact.stage) if artifact.stage in STAGES else artifact


@dataclasses.dataclass(frozen=True)
class _Info:
    """Facts of a data stage that a report relies on; others are shown unchanged."""

    name: str = ""
    title: str = ""
    num_classes: Annotated[int, Meta(ge=1, le=MOST_CLASSES)] = 1
    class_names: list[str] = dataclasses.field(default_factory=list)
    counts: dict[str, schema.Count] = dataclasses.field(default_factory=dict)


def _read_info(file: pathlib.Path) -> dict[str, Any]:
    expected = "hold the facts of a data stage"
    schema.read_json(file, _Info, expected)
    return schema.read_json(file, dict[str, Any], expected)


def _input(artifact: Artifact, role: str) -> str:
    return str(artifact.manifest.get("inputs", {}).get(role, ""))


def _checkpoint(artifact: Artifact) -> str:
    return str(artifact.options.get("checkpoint", "best"))


def _name(train: Artifact | None, judged: Sequence[Evaluation]) -> str:
    name = train.options.get("name") if train else judged[0].records[0].model
    return plain(name or (train.path.name if train else ""))


def _names(names: Mapping[str, str], folders: Mapping[str, pathlib.Path | None]) -> dict[str, str]:
    """Makes names unique: runs that share one get the distinguishing part of their folder, or of their fingerprint."""
    named = dict(names)
    for name, count in collections.Counter(names.values()).items():
        if count > 1:
            keys = [key for key in names if names[key] == name]
            distinct = _apart([folders[key] for key in keys]) or [key[:6] for key in keys]
            named |= {key: f"{name} [{suffix}]" for key, suffix in zip(keys, distinct, strict=True)}
    return named


def _apart(folders: Sequence[pathlib.Path | None]) -> list[str]:
    """Returns the parts of paths between their common ends; empty if those do not differ."""
    paths = [folder.absolute().parts if folder else () for folder in folders]
    first = len(os.path.commonprefix(paths))
    rest = [path[first:] for path in paths]
    last = len(os.path.commonprefix([path[::-1] for path in rest]))
    parts = ["/".join(path[: len(path) - last]) for path in rest]
    return [plain(part) for part in parts] if all(parts) and len(set(parts)) == len(parts) else []
