"""Processes that make the same artifact at the same time, on one machine or on several that share its folder.

Each holds the artifact's lock together with the others while there is work for all; what is left for one of them, such
as the manifest, is done by whoever then gets the lock alone. The system releases the locks of a process that ends,
however it ends, so that the others go on without it.
"""

from __future__ import annotations

import contextlib
import itertools
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from l2p_tf import files
from l2p_tf.manifest import is_underway
from l2p_tf.types import UserError

POLL_SECONDS = 0.5
"""How often a process looks whether others are done."""
_PATIENCE = 4
"""After so many looks it says that it waits."""


@contextlib.contextmanager
def alone(path: pathlib.Path, wait: bool) -> Iterator[None]:
    """Within it no other process makes `path`; where one does, waits for it or raises a UserError."""
    for _ in _tries(path):
        with files.locked(path) as held:
            if held:
                yield
                return
        if not wait:
            raise UserError(f"{str(path)!r} is being made by another process.")


@contextlib.contextmanager
def settled(path: pathlib.Path) -> Iterator[None]:
    """Within it no process puts what is finished in the place of `path`."""
    path = path.resolve() if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    for _ in _tries(path):
        with files.locked_together(path) as held:
            if held:
                yield
                return


def take_part(
    path: pathlib.Path, file: pathlib.Path, request: Mapping[str, Any], prepare: Callable[[], bool],
    work: Callable[[], Any],
) -> None:  # fmt: skip
    """Does what processes do together for `path`; returns when that is done.

    Args:
      path: what they make.
      file: where unfinished work keeps its request.
      request: stage, options and inputs.
      prepare: called while no other process is at it: opens the work, or says by False that none is left to share.
      work: does it, together with the others.

    Raises:
      UserError: others are at work with another request.
    """
    for number in _tries(path):
        with files.locked(path) as held:
            if held and not prepare():
                return
        with files.locked_together(path) as held:
            # Who holds it alone may just be opening the work.
            if (held or number > _PATIENCE) and is_underway(file, request) and held:
                work()
                return


def _tries(path: pathlib.Path) -> Iterator[int]:
    """Numbers endless tries, a while apart, at what other processes that make `path` hold; says once that it waits."""
    for number in itertools.count(1):
        yield number
        time.sleep(POLL_SECONDS)
        if number == _PATIENCE:
            print(f"waiting for another process that makes {str(path)!r}", file=sys.stderr, flush=True)
