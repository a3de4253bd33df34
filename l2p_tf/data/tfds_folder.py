"""The folder of TensorFlow Datasets (TFDS): finds and downloads prepared data sets, and imports TFDS.

TensorFlow and TFDS take seconds to import; this module imports them only when data are opened, so that `--help` and the
check whether an artifact is up to date stay fast.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Iterator
from typing import Any

from absl import logging

from l2p_tf.environment import user_path
from l2p_tf.types import UserError

_NAME = re.compile(r"\w+(/[\w.+-]+)?(:[\d*]+(\.[\d*]+){2})?")
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def locate(name: str, data_dir: str) -> pathlib.Path | None:
    """Returns the folder of the newest prepared version of `name`, or None."""
    if not _NAME.fullmatch(name):
        raise UserError(f"`dataset` should be NAME, NAME/CONFIG or NAME:VERSION as in TFDS. Received: {name!r}")
    base, _, version = name.partition(":")
    # Data sets with configurations have an additional level of folders.
    for level in ("", "*/"):
        files = (_data_root(data_dir) / base).glob(f"{level}{version or '*'}/dataset_info.json")
        folders = [file.parent for file in files if _VERSION.fullmatch(file.parent.name)]
        configs = sorted({folder.parent.name for folder in folders})
        if len(configs) > 1:
            raise UserError(f"`dataset` should name one of the configurations {', '.join(configs)}. Received: {name!r}")
        if folders:
            return max(folders, key=lambda folder: [int(part) for part in folder.name.split(".")])
    return None


def downloaded(name: str, data_dir: str, allowed: bool) -> pathlib.Path:
    """Downloads and prepares `name`, if allowed, and returns its folder."""
    root = _data_root(data_dir)
    wanted = (
        f"`data_dir` should hold the prepared data set in {name.partition(':')[0]}/VERSION. Received: {str(root)!r}"
    )
    if not allowed:
        raise UserError(f"{wanted}, where there is none, and downloads are off.")
    if data_dir and not root.is_dir():
        # More likely misspelled than new.
        raise UserError(
            f"`data_dir` should be a folder that exists; make it first to download there. Received: {str(root)!r}"
        )
    tfds = import_tfds()
    try:
        builder = tfds.builder(name, data_dir=str(root))
    except tfds.core.DatasetNotFoundError as error:
        near = difflib.get_close_matches(base_name(name), tfds.list_builders(), n=3)
        hint = f"Near: {', '.join(near)}" if near else "See tensorflow.org/datasets for the names"
        raise UserError(f"`dataset` should be a data set of TFDS. Received: {name!r}. {hint}.") from error
    except Exception as error:  # a wrong version or configuration, for which TFDS raises many types
        raise UserError(f"`dataset` should be a data set of TFDS. Received: {name!r} ({_line(error)})") from error
    try:
        with quiet_log(), _few_retries(), _nothing_left(root, base_name(name)):
            builder.download_and_prepare()
    except ImportError as error:
        raise UserError(f"Preparing {name!r} needs a Python package that is not installed. ({_line(error)})") from error
    except Exception as error:  # sockets, HTTP, archives, checksums: all the same to the user
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS):
            raise
        raise UserError(
            f"{wanted}, where there is none, and the download failed: run once with a network. ({_line(error)})"
        ) from error
    folder = locate(name, data_dir)
    if folder is None:
        raise UserError(f"{wanted}, where there is none after the download.")
    return folder


@contextlib.contextmanager
def _nothing_left(root: pathlib.Path, base: str) -> Iterator[None]:
    """Removes the files of a failed download from TFDS's folder, and the folder itself if it is new."""
    places = (root / base, root / "downloads", root)

    def entries() -> set[pathlib.Path]:
        return {path for place in places if place.is_dir() for path in place.iterdir()}

    before, existed = entries(), root.exists()
    try:
        yield
    except BaseException:
        for path in entries() - before:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        if not existed:
            with contextlib.suppress(OSError):
                root.rmdir()
        raise


@contextlib.contextmanager
def _few_retries() -> Iterator[None]:
    """Limits TFDS to three download attempts; its ten take over three minutes without a network."""
    from tensorflow_datasets.core.download import downloader

    retries = downloader.MAX_RETRIES
    downloader.MAX_RETRIES = 3
    try:
        yield
    finally:
        downloader.MAX_RETRIES = retries


@contextlib.contextmanager
def quiet_log() -> Iterator[None]:
    """Suppresses TFDS's log messages, and its warnings about its own deprecated calls."""
    level = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _data_root(data_dir: str) -> pathlib.Path:
    """Returns the folder of TFDS; by default the one TFDS itself would use."""
    return user_path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def base_name(name: str) -> str:
    """Returns the name of the data set without configuration and version."""
    return re.split("[/:]", name)[0]


def damaged(folder: pathlib.Path, error: object) -> str:
    """One-line message about a prepared data set that cannot be read, with advice."""
    return f"{str(folder)!r} is damaged: delete it and prepare it again. ({_line(error)})"


def _line(error: object) -> str:
    """Formats an error as one line of limited length, without TensorFlow's node names."""
    text = re.sub(r"\{\{.*?\}\}|\[Op:.*", "", str(error))
    kind = "" if isinstance(error, str) else f"{type(error).__name__}: "
    return (kind + " ".join(text.split()))[:300]


def import_tfds() -> Any:
    """Imports TFDS with TensorFlow, discarding output printed while loading, which no setting silences."""
    if "tensorflow" not in sys.modules:
        sys.stderr.flush()
        saved = os.dup(2)
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, saved)
            null = os.open(os.devnull, os.O_WRONLY)
            stack.callback(os.close, null)
            os.dup2(null, 2)
            stack.callback(os.dup2, saved, 2)
            import tensorflow as tf  # noqa: F401
    import tensorflow_datasets as tfds

    return tfds
