"""What stages read and write: a folder with outputs and a manifest, made whole or not at all.

Work in progress lives in `NAME.partial`. The manifest is written last and the folder renamed when everything is in
place, so a folder called `NAME` is always finished. Doing the same work again (same stage, options and inputs) finds the
finished folder and does nothing; unfinished work of the same kind is continued.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import filelock

from l2p_tf.environment import onednn
from l2p_tf.types import UserError

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
_REQUEST = "request.json"
_PACKAGES = ("l2p_tf", "tensorflow", "keras", "tensorflow-datasets", "tensorflow-probability", "cleverhans", "numpy")


@dataclasses.dataclass(frozen=True)
class Artifact:
    """A finished folder. `manifest` is the JSON it was finished with."""

    path: pathlib.Path
    manifest: dict[str, Any]

    @property
    def stage(self) -> str:
        """The stage that made it: data, train, attack, checks, transfer, certify, export or report."""
        return str(self.manifest["stage"])

    @property
    def options(self) -> dict[str, Any]:
        """The resolved options it was made with."""
        return dict(self.manifest["options"])

    @property
    def fingerprint(self) -> str:
        """Digest of the stage, its options, inputs and outputs; free of where and when it was made."""
        keys = ("stage", "options", "inputs", "outputs")
        return _digest_json({key: self.manifest[key] for key in keys})


class Work:
    """Unfinished work: write the outputs under `path`; `produce` finishes it."""

    def __init__(self, path: pathlib.Path, resumed: bool) -> None:
        self.path = path
        self.resumed = resumed
        self.notes: dict[str, Any] = {}
        """Further facts for the manifest: anything JSON can hold."""
        self.scratch: list[str] = []
        """Files and folders that serve to continue the work: no outputs, and deleted once it is finished."""


def read(path: str | os.PathLike[str], stage: str | None = None, verify: bool = True) -> Artifact:
    """Opens a finished artifact and checks that it is whole.

    Args:
      path: the folder.
      stage: the stage that should have made it, or None for any.
      verify: compare every output with its digest.

    Raises:
      UserError: there is none, it is unfinished, of another stage or schema, or a file is missing or damaged.
    """
    path = pathlib.Path(path)
    if not (path / MANIFEST).is_file():
        if not path.exists() and partial_path(path).exists():
            raise UserError(f"{str(path)!r} is not finished: run the command that makes it again to continue it.")
        raise UserError(
            f"{str(path)!r} should be the folder of a finished {stage or ''} stage; no {MANIFEST} is there."
        )
    try:
        manifest = json.loads((path / MANIFEST).read_text("utf-8"))
        version, made_by, outputs = manifest["schema_version"], manifest["stage"], dict(manifest["outputs"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{str(path / MANIFEST)!r} is damaged: {error}. Delete the folder and make it again."
        ) from error
    if version != SCHEMA_VERSION:
        raise UserError(f"{str(path)!r} has schema version {version!r}; this version reads {SCHEMA_VERSION}.")
    if stage is not None and made_by != stage:
        raise UserError(f"{str(path)!r} should be made by the {stage} stage. It is made by: {made_by!r}")
    for name, digest in outputs.items() if verify else ():
        file = path / name
        if pathlib.PurePosixPath(name).is_absolute() or ".." in pathlib.PurePosixPath(name).parts:
            raise UserError(f"{str(path / MANIFEST)!r} should name files in its folder. Received: {name!r}")
        if not file.is_file() or digest_file(file) != digest:
            raise UserError(f"{str(file)!r} is missing or damaged. Delete {str(path)!r} and make it again.")
    return Artifact(path, manifest)


@contextlib.contextmanager
def produce(
    path: str | os.PathLike[str],
    stage: str,
    options: Mapping[str, Any],
    inputs: Mapping[str, Artifact] | None = None,
    *,
    seed: int | None = None,
    device: str = "cpu",
    overwrite: bool = False,
) -> Iterator[Work | None]:
    """Makes the artifact `path`, or yields None where it is already there and up to date.

    The body writes under `work.path`. Leaving it normally finishes the artifact; an exception leaves the partial folder
    to be continued by the same call.

    Args:
      path: the folder to make.
      stage: the name of the stage.
      options: the resolved options, as JSON can hold them: what decides the outputs.
      inputs: the artifacts it is made from, by role.
      seed: the seed, for the manifest (also put it into `options` where it decides the outputs).
      device: a word on the device, for the manifest.
      overwrite: replace finished or unfinished work of other options instead of refusing.

    Raises:
      UserError: the folder, or unfinished work for it, was made with other options and `overwrite` is False.
    """
    path = pathlib.Path(path)
    inputs = inputs or {}
    request = json.loads(json.dumps({
        "stage": stage,
        "options": dict(options),
        "inputs": {role: artifact.fingerprint for role, artifact in inputs.items()},
    }))  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(str(path) + ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise UserError(f"{str(path)!r} is being made by another process.") from error
    try:
        if path.exists() and _is_current(path, request, overwrite):
            yield None
            return
        partial = partial_path(path)
        resumed = _open_partial(partial, request, overwrite)
        work = Work(partial, resumed)
        earlier = json.loads((partial / _REQUEST).read_text("utf-8")).get("seconds", 0.0)
        start = time.monotonic()
        try:
            yield work
        except BaseException:
            with contextlib.suppress(OSError):
                if {file.name for file in partial.iterdir()} == {_REQUEST}:
                    shutil.rmtree(partial)  # Nothing was done that could be continued.
                else:
                    write_json(partial / _REQUEST, {**request, "seconds": earlier + time.monotonic() - start})
            raise
        _finish(work, path, request, inputs, seed, device, earlier + time.monotonic() - start)
    finally:
        # Before it is released: whoever waits must not be given a lock that is about to vanish.
        with contextlib.suppress(OSError):
            os.unlink(str(path) + ".lock")
        lock.release()


def partial_path(path: pathlib.Path) -> pathlib.Path:
    """Where work on the artifact `path` lives until it is finished."""
    return path.with_name(path.name + ".partial")


def digest_file(path: pathlib.Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def atomic_write(path: pathlib.Path, write: bytes | str | Callable[[BinaryIO], Any]) -> None:
    """Writes a file whole or not at all: to a temporary file beside it, flushed to disk, then renamed.

    Args:
      path: the file.
      write: its bytes or text, or a function that writes to an open binary file.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            if callable(write):
                write(file)
            else:
                file.write(write.encode("utf-8") if isinstance(write, str) else write)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(name)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # So that the message says which file does not fit on the disk.
        raise


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON (indented, keys in the given order) whole or not at all."""
    atomic_write(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def _is_current(path: pathlib.Path, request: dict[str, Any], overwrite: bool) -> bool:
    if not (path / MANIFEST).is_file():
        if any(path.iterdir()):
            # Never replaced, whatever the flags: it may be anything.
            raise UserError(f"{str(path)!r} holds files but no {MANIFEST}: name a folder that is new or empty.")
        path.rmdir()
        return False
    try:
        manifest = read(path, request["stage"]).manifest
    except UserError:
        if not overwrite:
            raise
        return False
    if all(manifest[key] == request[key] for key in request):
        return True
    if not overwrite:
        raise UserError(
            f"{str(path)!r} was made with {_difference(manifest, request)}. Pass --overwrite to replace it."
        )
    return False


def _open_partial(partial: pathlib.Path, request: dict[str, Any], overwrite: bool) -> bool:
    """Creates the partial folder, or checks that the one there is of the same request. True where it was there."""
    names = {file.name for file in partial.iterdir()} if partial.exists() else set()
    if names and _REQUEST not in names:
        # Never replaced, whatever the flags: it may be anything.
        raise UserError(f"{str(partial)!r} holds files that are not unfinished work of a stage. Move them away.")
    if names:
        try:
            found = json.loads((partial / _REQUEST).read_text("utf-8"))
        except ValueError:
            found = {}
        if all(found.get(key) == request[key] for key in request):
            for file in partial.rglob(".*"):
                file.unlink()  # What a kill left of an unfinished write.
            return True
        # A request alone, without work, is no loss.
        if not overwrite and names != {_REQUEST}:
            raise UserError(
                f"{str(partial)!r} holds unfinished work made with {_difference(found, request)}. "
                "Pass --overwrite to drop it."
            )
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    write_json(partial / _REQUEST, request)
    return False


def _finish(
    work: Work,
    path: pathlib.Path,
    request: dict[str, Any],
    inputs: Mapping[str, Artifact],
    seed: int | None,
    device: str,
    seconds: float,
) -> None:
    """Writes the manifest, renames the folder, and only then deletes what could continue the work."""
    scratch = [_REQUEST, *work.scratch]
    outputs = {f.relative_to(work.path).as_posix(): f for f in sorted(work.path.rglob("*")) if f.is_file()}
    kept = {
        name: file
        for name, file in outputs.items()
        if name != MANIFEST and name.split("/")[0] not in scratch and not file.name.startswith(".")
    }
    manifest = {
        "schema_version": SCHEMA_VERSION,
        **request,
        "lineage": {role: {"path": str(a.path), "stage": a.stage} for role, a in inputs.items()},
        "outputs": {name: digest_file(file) for name, file in kept.items()},
        "notes": work.notes,
        "packages": package_versions(),
        "onednn": onednn(),
        "python": platform.python_version(),
        "device": device,
        "seed": seed,
        "seconds": round(seconds, 3),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    write_json(work.path / MANIFEST, manifest)
    if path.exists():
        aside = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.old-", dir=path.parent))
        path.rename(aside / path.name)
        work.path.rename(path)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        work.path.rename(path)
    for name in scratch:
        if (path / name).is_dir():
            shutil.rmtree(path / name, ignore_errors=True)
        else:
            (path / name).unlink(missing_ok=True)


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide results."""
    versions = {}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    old, new = found.get("options", {}), wanted["options"]
    # The resolved options of a thing stand beside its spec, which says the same in short.
    keys = [k for k in {**old, **new} if old.get(k) != new.get(k) and not k.endswith("_options")]
    if keys:
        shown = [f"{key}={old.get(key)!r} (now {new.get(key)!r})" for key in keys[:4]]
        return "other options: " + ", ".join(shown) + (" and more" if len(keys) > 4 else "")
    roles = [r for r in wanted["inputs"] if found.get("inputs", {}).get(r) != wanted["inputs"][r]]
    return f"other inputs: {', '.join(roles)}" if roles else f"another stage: {found.get('stage')!r}"


def _digest_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
