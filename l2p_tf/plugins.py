"""Plugins: the user's own attacks, defenses, networks, data sets and certificates from files, modules and packages.

Loading a plugin runs its code, which registers its contents as the modules of this package do.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import pathlib
import sys
from collections.abc import Iterator, Sequence

from l2p_tf.environment import user_path
from l2p_tf.types import UserError

GROUP = "l2p_tf.plugins"
"""Entry point group of installed packages; each entry point names a module."""
_current: contextvars.ContextVar[str] = contextvars.ContextVar("plugin", default="")


def current() -> str:
    """Returns name and code digest of the plugin being loaded; empty outside of loading."""
    return _current.get()


def load(names: Sequence[str]) -> None:
    """Loads plugins, unless they are already loaded.

    Args:
      names: paths of Python files, or names of importable modules.

    Raises:
      UserError: there is no such plugin, or its code raises an error.
    """
    for name in names:
        if name.endswith(".py"):
            _load_file(user_path(name).resolve())
        else:
            _load_module(name)


@functools.cache
def load_installed() -> None:
    """Loads the plugins of installed packages.

    Raises:
      UserError: the code of one raises an error.
    """
    for entry in importlib.metadata.entry_points(group=GROUP):
        _load_module(entry.module)


@functools.cache
def _load_file(path: pathlib.Path) -> None:
    name = f"l2p_tf_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise UserError(f"`plugins` should be Python files or modules. Received: {str(path)!r}, no such file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Dataclasses look up their module there.
    loader = spec.loader
    with _loading(path.name, path):
        loader.exec_module(module)


@functools.cache
def _load_module(name: str) -> None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        raise UserError(f"`plugins` should be Python files or modules. Received: {name!r}, which cannot be imported")
    with _loading(name, pathlib.Path(spec.origin)):
        importlib.import_module(name)


@contextlib.contextmanager
def _loading(name: str, file: pathlib.Path) -> Iterator[None]:
    """Attributes registrations to a plugin, and turns any exception of its code into a UserError."""
    # For a package, all of its files.
    files = sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
    token = _current.set(f"{name} {digest}")
    try:
        yield
    except (Exception, SystemExit) as error:
        raise UserError(
            f"The plugin {name!r} cannot be loaded: {type(error).__name__}: {' '.join(str(error).split())}"
        ) from error
    finally:
        _current.reset(token)
