"""What stages read and write: a folder with outputs and a manifest, made whole or not at all.

Work in progress lives in `NAME.partial`. The manifest is written last and the folder renamed when everything is in
place, so a folder called `NAME` is always finished. Doing the same work again (same stage, options and inputs) finds
the finished folder and does nothing; unfinished work of the same kind is continued.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import glob
import hashlib
import json
import os
import pathlib
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

from l2p_tf import files, sharing
from l2p_tf.environment import onednn, package_versions, user_path
from l2p_tf.manifest import SCHEMA_VERSION, difference, digest_json, next_order, read_manifest, read_request, sealed
from l2p_tf.types import UserError

MANIFEST = "manifest.json"
_REQUEST = "request.json"


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
        return digest_json({key: self.manifest[key] for key in keys})


class Work:
    """Unfinished work: write the outputs under `path`; `produce` finishes it."""

    def __init__(self, path: pathlib.Path, resumed: bool) -> None:
        self.path = path
        self.resumed = resumed
        self.notes: dict[str, Any] = {}
        """Further facts for the manifest: anything JSON can hold."""
        self.scratch: list[str] = []
        """Files and folders that serve to continue the work: no outputs, and deleted once it is finished."""

    def clear(self) -> None:
        """Deletes what an earlier call left: for work that starts over where it cannot be continued."""
        for file in self.path.iterdir():
            if file.name != _REQUEST and not files.is_hidden(file.name):
                files.delete(file)


def read(path: str | os.PathLike[str], stage: str | None = None, verify: bool = True) -> Artifact:
    """Opens a finished artifact and checks that it is whole.

    Args:
      path: the folder.
      stage: the stage that should have made it, or None for any.
      verify: compare every output with its digest.

    Raises:
      UserError: there is none, it is unfinished, of another stage or schema, or a file is missing or damaged.
    """
    path = user_path(path)
    if not (path / MANIFEST).is_file():
        if not path.exists() and partial_path(path).exists():
            raise UserError(f"{str(path)!r} is not finished: run the command that makes it again to continue it.")
        raise UserError(
            f"{str(path)!r} should be the folder of a finished {stage or ''} stage; no {MANIFEST} is there."
        )
    manifest = read_manifest(path / MANIFEST)
    if stage is not None and manifest["stage"] != stage:
        raise UserError(f"{str(path)!r} should be made by the {stage} stage. It is made by: {manifest['stage']!r}")
    for name, digest in manifest["outputs"].items() if verify else ():
        file = path / name
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
    extends: Artifact | None = None,
    share: Callable[[pathlib.Path], Any] | None = None,
) -> Iterator[Work | None]:
    """Makes the artifact `path`, or yields None where it is already there and up to date.

    The body writes under `work.path`. Leaving it normally finishes the artifact; an exception leaves the partial folder
    to be continued by the same call.

    With `share`, processes that make the same artifact at the same time, here or on machines that share the folder,
    work together: each calls it, and when it has returned in all of them, one runs the body while the others wait, for
    whom the artifact is then already there. Where that one ends before it is finished, another takes its place.

    Args:
      path: the folder to make.
      stage: the name of the stage.
      options: the resolved options, as JSON can hold them: what decides the outputs.
      inputs: the artifacts it is made from, by role.
      seed: the seed, for the manifest (also put it into `options` where it decides the outputs).
      device: a word on the device, for the manifest.
      overwrite: replace finished or unfinished work of other options instead of refusing.
      extends: what is finished at `path` and will be part of the new artifact, which therefore takes its place.
      share: does the part of the work that several processes can do together, given the partial folder, and returns
        when all of that part is done; None refuses other processes.

    Raises:
      UserError: the folder, or unfinished work for it, was made with other options and `overwrite` is False; it cannot
        be made, or replaced without deleting what is not its own; or another process is making it, and does not share
        it or has other options.
    """
    path, inputs = user_path(path), inputs or {}
    request = json.loads(json.dumps({
        "stage": stage,
        "options": dict(options),
        "inputs": {role: artifact.fingerprint for role, artifact in inputs.items()},
    }))  # fmt: skip
    for place in (path, partial_path(path)):
        files.check_folder(place)  # Before the work, not after it.
    path = path.resolve() if path.is_symlink() else path
    # Before anything is written: a finished folder may be on a disk that only reads.
    current = False
    # With others at it, it may just be replaced.
    with contextlib.suppress(UserError, OSError) if share else contextlib.nullcontext():
        current = _is_current(path, request, overwrite, extends)
    if current:
        _clear_replaced(path)
        files.clear_lock(path)
        yield None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, start = partial_path(path), time.monotonic()
    if share:
        _take_part(path, request, overwrite, extends, share)
    with sharing.alone(path, wait=share is not None):
        if _is_current(path, request, overwrite, extends):
            yield None  # Another process has made it meanwhile.
            return
        _check_replaceable(path)
        if _is_complete(partial, request):
            _settle(partial, path)  # A call was stopped when all was done but this.
            yield None
            return
        earlier = _open_partial(partial, request, overwrite, extends)
        work = Work(partial, resumed=earlier is not None)
        try:
            with files.naming(partial):
                yield work
        except BaseException:
            if not _drop_empty(partial):
                with contextlib.suppress(OSError):
                    _write_request(partial, request, (earlier or 0.0) + time.monotonic() - start)
            raise
        earlier = (earlier or 0.0) + (extends.manifest["seconds"] if extends else 0.0)
        _finish(work, path, request, inputs, seed, device, earlier + time.monotonic() - start)


def _take_part(
    path: pathlib.Path, request: dict[str, Any], overwrite: bool, extends: Artifact | None,
    share: Callable[[pathlib.Path], Any],
) -> None:  # fmt: skip
    """The part of the work that processes do together."""
    partial = partial_path(path)

    def prepare() -> bool:
        if _is_current(path, request, overwrite, extends) or _is_complete(partial, request):
            return False
        _check_replaceable(path)
        _open_partial(partial, request, overwrite, extends)
        return True

    try:
        with files.naming(partial):
            sharing.take_part(path, partial / _REQUEST, request, prepare, lambda: share(partial))
    except BaseException:
        with files.locked(path) as alone:
            if alone:
                _drop_empty(partial)
        raise


def partial_path(path: pathlib.Path) -> pathlib.Path:
    """Where work on the artifact `path` lives until it is finished."""
    return path.with_name(path.name + ".partial")


def digest_file(path: pathlib.Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def atomic_write(path: pathlib.Path, write: bytes | str | Callable[[BinaryIO], Any]) -> None:
    """Writes a file whole or not at all, and to the disk before it is there.

    Args:
      path: the file.
      write: its bytes or text, or a function that writes to an open binary file.
    """
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        if callable(write):
            write(file)
        else:
            file.write(write.encode("utf-8") if isinstance(write, str) else write)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON (indented, keys in the given order) whole or not at all."""
    atomic_write(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def _is_current(path: pathlib.Path, request: dict[str, Any], overwrite: bool, extends: Artifact | None) -> bool:
    """Whether the finished folder is what is asked for. False where there is none, or where it is to be replaced."""
    if not (path / MANIFEST).is_file():
        if path.exists() and any(path.iterdir()):
            # Never replaced, whatever the flags: it may be anything.
            raise UserError(f"{str(path)!r} holds files but no {MANIFEST}: name a folder that is new or empty.")
        return False
    try:
        manifest = read(path, request["stage"]).manifest
    except UserError:
        if not overwrite:
            raise
        return False
    if all(manifest[key] == request[key] for key in request):
        return True
    if not overwrite and (extends is None or Artifact(path, manifest).fingerprint != extends.fingerprint):
        raise UserError(f"{str(path)!r} was made with {difference(manifest, request)}. Pass --overwrite to replace it.")
    return False


def _check_replaceable(path: pathlib.Path) -> None:
    """UserError where a finished folder that is to be replaced holds what is not its own, such as another artifact."""
    if not (path / MANIFEST).is_file():
        return
    try:
        own = {MANIFEST, *read(path, verify=False).manifest["outputs"]}
    except UserError:
        own = None  # Damaged: only what is certainly another's can be told.
    for name, file in files.contents(path).items():
        if name not in own if own is not None else file.name == MANIFEST and name != MANIFEST:
            raise UserError(
                f"{str(path)!r} would be replaced, but holds {name!r}, which is not of the stage that made it. "
                "Move that away."
            )


def _open_partial(
    partial: pathlib.Path, request: dict[str, Any], overwrite: bool, extends: Artifact | None
) -> float | None:
    """Creates the partial folder, or checks that the one there is of the same request.

    Returns:
      The seconds already spent on the work that was there; None where there was none.
    """
    names = files.visible(partial) if partial.exists() else set()
    if names and _REQUEST not in names:
        # Never replaced, whatever the flags: it may be anything.
        raise UserError(f"{str(partial)!r} holds files that are not unfinished work of a stage. Move them away.")
    if names:
        found = read_request(partial / _REQUEST, request)
        if found and found.digest == digest_json(request):
            for file in partial.rglob(f"{files.TEMPORARY}*"):
                files.delete(file)  # What a kill left of an unfinished write.
            _write_request(partial, request, found.seconds)
            return found.seconds
        # A request alone, without work, is no loss.
        if names != {_REQUEST}:
            if found is None:
                # Never replaced, whatever the flags: it may be this very work.
                raise UserError(
                    f"{str(partial / _REQUEST)!r} is damaged, so what the unfinished work beside it was made with is "
                    f"not known. Restore that file to continue the work, or move {str(partial)!r} away to begin anew."
                )
            if not overwrite:
                # With --overwrite what is finished beside it would be lost too.
                drop = "Pass --overwrite" if extends is None else "Finish it by its own command, or delete that folder,"
                raise UserError(
                    f"{str(partial)!r} holds unfinished work made with "
                    f"{difference(dataclasses.asdict(found), request)}. {drop} to drop it."
                )
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    for file in partial.glob(f"{files.TEMPORARY}*"):
        files.delete(file)
    _write_request(partial, request, 0.0)
    return None


def _drop_empty(partial: pathlib.Path) -> bool:
    """Deletes unfinished work in which nothing was done that could be continued; whether that was so."""
    with contextlib.suppress(OSError):
        if files.visible(partial) <= {_REQUEST}:
            (partial / _REQUEST).unlink(missing_ok=True)
            partial.rmdir()
            return True
    return False


def _write_request(partial: pathlib.Path, request: dict[str, Any], seconds: float) -> None:
    write_json(partial / _REQUEST, {**request, "digest": digest_json(request), "seconds": seconds})


def _is_complete(partial: pathlib.Path, request: dict[str, Any]) -> bool:
    """Whether unfinished work of the same request lacks nothing but to be cleaned up and renamed."""
    if not (partial / MANIFEST).is_file():
        return False
    try:
        manifest = read(partial, request["stage"]).manifest
    except UserError:
        return False  # It is continued, and the manifest written anew.
    return all(manifest[key] == request[key] for key in request)


def _finish(
    work: Work,
    path: pathlib.Path,
    request: dict[str, Any],
    inputs: Mapping[str, Artifact],
    seed: int | None,
    device: str,
    seconds: float,
) -> None:
    """Writes the manifest, and then puts the folder in its place."""
    scratch = {MANIFEST, _REQUEST, *work.scratch}
    outputs = {name: file for name, file in files.contents(work.path).items() if name.split("/")[0] not in scratch}
    for folder in {file.parent for file in outputs.values()} | set(outputs.values()):
        files.flush(folder)  # A manifest on the disk promises that what it names is there too.
    manifest = {
        "schema_version": SCHEMA_VERSION,
        **request,
        # The same from wherever it is read.
        "lineage": {role: {"path": str(a.path.absolute()), "stage": a.stage} for role, a in inputs.items()},
        "outputs": {name: digest_file(file) for name, file in outputs.items()},
        "notes": work.notes,
        "packages": package_versions(),
        "onednn": onednn(),
        "python": platform.python_version(),
        "device": device,
        "seed": seed,
        "order": next_order(path, MANIFEST, [artifact.manifest for artifact in inputs.values()]),
        "seconds": round(seconds, 3),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    write_json(work.path / MANIFEST, sealed(manifest))
    _settle(work.path, path)


def _settle(partial: pathlib.Path, path: pathlib.Path) -> None:
    """Deletes what served to continue the work, and gives the whole folder its name; may be stopped and repeated."""
    kept = {MANIFEST, *read(partial, verify=False).manifest["outputs"]}
    for name, file in files.contents(partial).items():
        if name not in kept:
            file.unlink(missing_ok=True)
    for folder in sorted((f for f in partial.rglob("*") if f.is_dir()), reverse=True):
        with contextlib.suppress(OSError):
            folder.rmdir()  # Where it is empty.
    if path.exists():
        aside = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.old-", dir=path.parent))
        path.rename(aside / path.name)
    partial.rename(path)
    files.flush(path.parent)
    _clear_replaced(path)


def _clear_replaced(path: pathlib.Path) -> None:
    """Deletes what `path` has replaced, perhaps in a call that was killed at it."""
    for folder in path.parent.glob(f".{glob.escape(path.name)}.old-*"):
        shutil.rmtree(folder, ignore_errors=True)
