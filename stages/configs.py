"""The flag files shipped with the package, and `--config`, which selects one of them."""

from __future__ import annotations

import difflib
import pathlib
import re
from collections.abc import Sequence

from absl import flags

import l2p_tf
from l2p_tf.types import UserError

FOLDER = pathlib.Path(l2p_tf.__file__).parent / "configs"
"""Flag files, and in `experiments` the definitions of the papers' tables and figures."""
_FLAG = re.compile(r"--?config(?:=(.*))?", re.DOTALL)


def names() -> list[str]:
    """Returns the shipped flag files that describe runs; those in `base` are included by others."""
    return [_name(path) for folder in (".", "digits") for path in sorted((FOLDER / folder).glob("*.flags"))]


def listed() -> str:
    """Lists the shipped flag files with the first sentence of each, for `--config=help`."""
    width = max(map(len, names()))
    return "\n".join(f"{name:{width}}  {_about(name)}" for name in names())


def expanded(arguments: Sequence[str]) -> list[str]:
    """Expands every `--config` and `--flagfile` among the arguments to its flags.

    The flags of `--config` come first, so that flags next to it, before or after, override them. Flag files may have a
    `--config` themselves.

    Args:
      arguments: command line without the program.

    Raises:
      UserError: a flag file is missing.
    """
    shipped: list[str] = []
    own: list[str] = []
    rest = iter(flags.FLAGS.read_flags_from_files(list(arguments)))
    for argument in rest:
        match = _FLAG.fullmatch(argument)
        if argument == "--":
            own += [argument, *rest]
        elif not match:
            own.append(argument)
        else:
            name = match[1] if match[1] is not None else next(rest, "")
            shipped += ["--config=help"] if name == "help" else expanded([f"--flagfile={path(name)}"])
    return shipped + own


def path(name: str) -> pathlib.Path:
    """Returns the shipped flag file of a name such as `quickstart` or `digits/defenses`.

    Raises:
      UserError: there is none.
    """
    file = FOLDER / f"{name}.flags"
    if not re.fullmatch(r"[\w./]+", name) or ".." in name or not file.is_file():
        close = difflib.get_close_matches(name, names(), 1)
        hint = f"Did you mean {close[0]}?" if close else "`--config=help` lists them; --flagfile reads one of yours."
        raise UserError(f"`--config` should name a flag file of the package. Received: {name!r}. {hint}")
    return file


def _name(file: pathlib.Path) -> str:
    return file.relative_to(FOLDER).with_suffix("").as_posix()


def _about(name: str) -> str:
    lines = path(name).read_text("utf-8").splitlines()
    header = [line.removeprefix("#").strip() for line in lines if line.startswith("#") and "python -m" not in line]
    return re.split(r"(?<=\.)\s", " ".join(header).strip(), maxsplit=1)[0]
