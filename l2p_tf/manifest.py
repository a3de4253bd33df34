"""What a manifest and a request hold, and the digests by which a change in them is noticed."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import hashlib
import itertools
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from l2p_tf import schema
from l2p_tf.contract import Finding
from l2p_tf.types import UserError

SCHEMA_VERSION = 2


@dataclasses.dataclass(frozen=True)
class _Options:
    """Those options that later stages use as what they are; of the others they only show what is there."""

    name: str = ""
    checkpoint: str = ""
    model: str | None = None
    defense: str | None = None
    source: str | None = None
    defense_options: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class _OtherData:
    images: schema.Positive
    trained_on: schema.Count | None


@dataclasses.dataclass(frozen=True)
class _Notes:
    """Those notes that later stages use."""

    parameters: schema.Count = 0
    noise_parameters: schema.Count = 0
    epochs: schema.Count = 0
    best_epoch: schema.Count | None = None
    best_validation: schema.Share | None = None
    seconds_per_epoch: schema.Size = 0.0
    images_per_second: schema.Size = 0.0
    randomized: bool = False
    prediction_draws: schema.Positive = 1
    image_shape: list[schema.Positive] = dataclasses.field(default_factory=list)
    classes: schema.Positive | None = None
    contract: list[Finding] = dataclasses.field(default_factory=list)
    other_data: dict[str, _OtherData] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class _Origin:
    path: str
    stage: str


@dataclasses.dataclass(frozen=True)
class _Manifest:
    """Content of a manifest; `digest` covers everything else in it.

    Of two stages in one RUN_DIR, the one that finished later has the larger `order`, independent of clocks.
    """

    stage: str
    options: _Options
    inputs: dict[str, schema.Digest]
    lineage: dict[str, _Origin]
    outputs: dict[str, schema.Digest]
    notes: _Notes
    packages: dict[str, str]
    python: str
    device: str
    seed: int | None
    seconds: schema.Size
    finished: str
    order: schema.Count = 0

    def __post_init__(self) -> None:
        if set(self.lineage) != set(self.inputs):
            raise ValueError("`lineage` should say where each of the `inputs` is from")
        for name in self.outputs:
            schema.check_inside(name)


@dataclasses.dataclass(frozen=True)
class Request:
    """What unfinished work is for; `digest` is that of stage, options and inputs."""

    stage: str
    options: dict[str, Any]
    inputs: dict[str, str]
    digest: str = ""
    seconds: schema.Size = 0.0


def read_manifest(file: pathlib.Path) -> dict[str, Any]:
    """The content of a manifest, without its own digest; UserError where it is damaged or of another version."""
    with schema.reading(file, "be whole, but is damaged; delete the folder and make it again"):
        manifest = dict(json.loads(file.read_bytes()))
        version, digest = manifest["schema_version"], manifest.pop("digest", None)
    if isinstance(version, int) and version != SCHEMA_VERSION:
        raise UserError(f"{str(file.parent)!r} has schema version {version}; this version reads {SCHEMA_VERSION}.")
    with schema.reading(file, "be whole, but is damaged; delete the folder and make it again"):
        schema.as_type(manifest, _Manifest)
        # Types may hold where a value has changed.
        if digest != digest_json(manifest):
            raise ValueError("its content is not that of its digest")
    return manifest


def next_order(path: pathlib.Path, name: str, inputs: Iterable[Mapping[str, Any]]) -> int:
    """Returns an `order` larger than those of the inputs, of finished neighbors, and of the same stage of other runs.

    Clocks cannot serve here: they differ between machines, can be set back, and are too coarse.

    Args:
      path: folder of the new stage.
      name: file name of manifests.
      inputs: manifests of the inputs.
    """
    known = [int(manifest.get("order", 0)) for manifest in inputs]
    beside = itertools.chain(
        path.parent.glob(f"*/{name}"), path.parent.parent.glob(f"*/{glob.escape(path.name)}/{name}")
    )
    for file in beside:
        with contextlib.suppress(UserError):  # A damaged one is told where it is used.
            known.append(int(read_manifest(file).get("order", 0)))
    return max(known, default=0) + 1


def read_request(file: pathlib.Path, wanted: Mapping[str, Any]) -> Request | None:
    """The request of unfinished work, which is compared with another.

    Args:
      file: where it is.
      wanted: stage, options and inputs of the other.

    Returns:
      The request, also where the file is damaged, but still tells that it is the one wanted; None where it does not.
    """
    raw, digest = file.read_bytes(), digest_json(wanted)
    try:
        found = json.loads(raw)
        seconds = schema.as_type(found, Request).seconds
    except (ValueError, RecursionError):
        found, seconds = {}, 0.0
    own = {key: found.get(key) for key in wanted}
    if digest.encode() in raw or own == wanted:
        return Request(**wanted, digest=digest, seconds=seconds)
    return Request(**own, digest=found["digest"], seconds=seconds) if found.get("digest") == digest_json(own) else None


def is_underway(file: pathlib.Path, wanted: Mapping[str, Any]) -> bool:
    """Whether unfinished work, which other processes may be at, is of this request; False where there is none.

    Args:
      file: where its request is.
      wanted: stage, options and inputs.

    Raises:
      UserError: it is of another request.
    """
    try:
        found = read_request(file, wanted)
    except FileNotFoundError:
        return False
    if found is None or found.digest != digest_json(wanted):
        other = difference(dataclasses.asdict(found) if found else {}, wanted)
        raise UserError(f"{str(file.parent)!r} is being made by another process, with {other}.")
    return True


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest as it is written: with the digest of everything else in it."""
    # As it is read: with lists for tuples.
    plain = json.loads(json.dumps({key: value for key, value in manifest.items() if key != "digest"}))
    return {**plain, "digest": digest_json(plain)}


def digest_json(value: Any) -> str:
    """SHA-256 of a value as JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """In what the options, else the inputs, else the stage of two requests differ, in a few words."""
    old, new = found.get("options", {}), wanted["options"]
    # The resolved options of a thing stand beside its spec, which says the same in short.
    keys = [k for k in {**old, **new} if old.get(k) != new.get(k) and not k.endswith("_options")]
    if keys:
        shown = [f"{key}={old.get(key)!r} (now {new.get(key)!r})" for key in keys[:4]]
        return "other options: " + ", ".join(shown) + (" and more" if len(keys) > 4 else "")
    roles = [r for r in wanted["inputs"] if found.get("inputs", {}).get(r) != wanted["inputs"][r]]
    return f"other inputs: {', '.join(roles)}" if roles else f"another stage: {found.get('stage')!r}"
