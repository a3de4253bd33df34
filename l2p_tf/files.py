"""Files and folders: written to the disk whole or not at all, locked, listed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator

import filelock

from l2p_tf.types import UserError

TEMPORARY = ".tmp-"
"""How the name of a file that is being written begins."""

RESERVED = (
    "all", "data", "transfer", "report", "reports", "train", "attack", "checks", "certify", "export",
)  # fmt: skip
"""Names that no run may have: those of the folders beside and in the runs, and the word for every run."""

_OWN_SUFFIXES = (".partial", ".old", ".lock")
_LONGEST = 200
_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary file beside `path` to write to; on leaving it is flushed to disk and takes the place of `path`.

    An exception deletes it and leaves `path` as it was. What a kill leaves is cleared by the next call of `produce`.
    """
    handle, name = tempfile.mkstemp(prefix=TEMPORARY, suffix=path.name, dir=path.parent)
    os.close(handle)
    try:
        yield pathlib.Path(name)
        os.chmod(name, 0o644)
        flush(pathlib.Path(name))
        os.replace(name, path)
        flush(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(name)
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, name):
            error.filename = str(path)  # So that the message says which file does not fit on the disk.
        raise


def check_name(name: str, argument: str = "name") -> None:
    """UserError where a run cannot have a name, which becomes its folder."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name) or len(name) > _LONGEST:
        raise UserError(
            f"`{argument}` should be letters, digits, `-`, `_` and `.`, at most {_LONGEST}, no `.` or `-` at the "
            f"beginning. Received: {name[:_LONGEST]!r}"
        )
    # Some file systems do not tell capitals apart.
    if name.lower() in RESERVED or name.lower().endswith(_OWN_SUFFIXES):
        raise UserError(
            f"`{argument}` should not be {', '.join(RESERVED)}, or end in {', '.join(_OWN_SUFFIXES)}: these are "
            f"folders of the stages. Received: {name!r}"
        )


def check_folder(path: pathlib.Path) -> None:
    """UserError where there cannot be a folder at `path`: a link that leads nowhere, or a file, is there or above."""
    for place in (path, *path.parents):
        if place.is_symlink() and not place.exists():
            raise UserError(f"{str(place)!r} is a link to {str(place.readlink())!r}, which is not there. Remove it.")
        if place.exists() and not place.is_dir():
            raise UserError(f"{str(place)!r} should be a folder; it is a file.")


@contextlib.contextmanager
def naming(folder: pathlib.Path) -> Iterator[None]:
    """Adds this folder to system errors that name no file, such as that of a full disk.

    TensorFlow reports disk errors as errors of other types, with the system's message; they are converted to OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(folder)
        raise
    except Exception as error:
        if type(error).__module__.startswith("tensorflow."):
            for number in _OF_DISKS:
                if os.strerror(number) in str(error):
                    raise OSError(number, os.strerror(number), str(folder)) from error
        raise


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[bool]:
    """Whether this process holds the lock file of `path` meanwhile; False where others do, alone or together.

    The system releases the locks of a process that ends, however it ends.
    """
    place = lock_path(path)
    lock = filelock.FileLock(place)
    with contextlib.suppress(filelock.Timeout):
        lock.acquire(timeout=0)
    try:
        yield lock.is_locked
    finally:
        if lock.is_locked:
            # While it is held: whoever waits for this file sees that it is gone and takes a new one. This needs a
            # filelock that looks, and that does not delete the file itself when it is released, which may be another's
            # by then.
            with contextlib.suppress(OSError):
                place.unlink()
            lock.release()


@contextlib.contextmanager
def locked_together(path: pathlib.Path) -> Iterator[bool]:
    """The same of a lock that any number of processes hold together; False where one holds it alone."""
    place = lock_path(path)
    handle = _open_together(place)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            with contextlib.suppress(OSError):
                if _flock(handle, fcntl.LOCK_EX) and os.fstat(handle).st_nlink:
                    place.unlink()  # Nobody else holds it.
            os.close(handle)


def _open_together(place: pathlib.Path) -> int | None:
    """A lock file, open and held together with others; None where one holds it alone."""
    while True:
        handle = os.open(place, os.O_RDWR | os.O_CREAT, 0o644)
        if not _flock(handle, fcntl.LOCK_SH):
            os.close(handle)
            return None
        if os.fstat(handle).st_nlink:
            return handle
        os.close(handle)  # Who held it alone has deleted it meanwhile.


def _flock(handle: int, kind: int) -> bool:
    """Locks an open file, if that can be done at once."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    return True


def clear_lock(path: pathlib.Path) -> None:
    """Deletes a lock file of `path` that a killed process left behind, unless another process holds it."""
    if lock_path(path).exists():
        with contextlib.suppress(OSError), locked(path):
            pass


def lock_path(path: pathlib.Path) -> pathlib.Path:
    """The lock file of `path`."""
    return path.with_name(path.name + ".lock")


def contents(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Every file below a folder by its name there, sorted; without hidden ones and those in hidden folders."""
    found = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if not file.is_dir()}
    return {name: file for name, file in found.items() if not any(map(is_hidden, name.split("/")))}


def visible(folder: pathlib.Path) -> set[str]:
    """The names in a folder, without hidden ones: those are nobody's work."""
    return {file.name for file in folder.iterdir() if not is_hidden(file.name)}


def is_hidden(name: str) -> bool:
    """Whether a file of that name is the system's or a tool's own, such as `.ipynb_checkpoints`."""
    return name.startswith(".")


def delete(path: pathlib.Path) -> None:
    """Deletes a file or a folder with all that is in it; nothing where it is not there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def flush(path: pathlib.Path) -> None:
    """Makes the system write a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        # Some network file systems have nothing to flush of a folder, and say so by an error.
        with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
            os.fsync(handle)
    finally:
        os.close(handle)
