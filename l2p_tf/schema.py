"""Reads what others may have written: JSON as a type, arrays by type, shape and range. Nothing in a file is run."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import zipfile
from collections.abc import Iterator, Mapping
from typing import Annotated, TypeVar

import msgspec
import numpy as np
from msgspec import Meta

from l2p_tf.types import UserError

Count = Annotated[int, Meta(ge=0, le=2**53)]
Positive = Annotated[int, Meta(ge=1, le=2**53)]
Size = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Inside = Annotated[str, Meta(pattern=r"^(?!/)(?!(.*/)?\.\.(/|\Z))[^\0]+\Z")]
"""A file within the folder at hand, relative to it, with `/` between its parts."""

T = TypeVar("T")


@contextlib.contextmanager
def reading(file: pathlib.Path, expected: str) -> Iterator[None]:
    """Within it whatever a reader raises on a damaged file becomes one line: that `file` should `expected`."""
    try:
        yield
    # Readers of foreign formats raise anything on damage: zlib.error, struct.error, RecursionError, MemoryError ...
    except Exception as error:
        said = str(error) or type(error).__name__
        raise UserError(f"{str(file)!r} should {expected}: {said}") from error


def read_json(file: pathlib.Path, kind: type[T], expected: str) -> T:
    """Reads a JSON file as `kind`: a dataclass, or any other type that msgspec knows.

    Args:
      file: the file.
      kind: what it holds; a value of another type, or outside its bounds, is refused.
      expected: what the file should do, for the message, such as `hold the results of an attack stage`.

    Raises:
      UserError: the file is not there, or holds something else; the message names the file and the field.
    """
    with reading(file, expected):
        return msgspec.json.decode(file.read_bytes(), type=kind)


@dataclasses.dataclass(frozen=True)
class Column:
    """What an array of numbers may hold.

    Attributes:
      kinds: its dtype's kinds, as numpy writes them: `b` bool, `i` and `u` integers, `f` floats.
      low: least value.
      high: largest value.
      finite: whether NaN and infinities are refused.
    """

    kinds: str
    low: float = -np.inf
    high: float = np.inf
    finite: bool = True

    def check(self, name: str, array: np.ndarray) -> None:
        """ValueError where a value is outside; `name` is the array's."""
        if self.finite and not np.isfinite(array).all():
            raise ValueError(f"`{name}` should be finite")
        if array.size and not (np.nanmin(array) >= self.low and np.nanmax(array) <= self.high):
            raise ValueError(
                f"`{name}` should be from {self.low:g} to {self.high:g}. "
                f"Received: {np.nanmin(array):g} to {np.nanmax(array):g}"
            )


def read_columns(
    file: pathlib.Path, columns: Mapping[str, Column], count: int, expected: str, optional: bool = False
) -> dict[str, np.ndarray]:
    """Reads arrays of one number for each of `count` examples from an `.npz`.

    Args:
      file: the file.
      columns: what to read, by name.
      count: length of each array.
      expected: what the file should do, for the message.
      optional: leave out what is not there instead of refusing.

    Raises:
      UserError: the file is not there, damaged, or an array is of another type or length, or has values outside.
    """
    with reading(file, expected), zipfile.ZipFile(file) as archive:
        there = set(archive.namelist())
        wanted = {name: column for name, column in columns.items() if not optional or f"{name}.npy" in there}
        return {name: _read(archive, name, column, count) for name, column in wanted.items()}


def _read(archive: zipfile.ZipFile, name: str, column: Column, count: int) -> np.ndarray:
    if f"{name}.npy" not in archive.namelist():
        raise ValueError(f"`{name}` is not there")
    with archive.open(f"{name}.npy") as stream:
        # The header first: what it promises would be allocated.
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = read_header[np.lib.format.read_magic(stream)](stream)
    if shape != (count,) or dtype.kind not in column.kinds:
        raise ValueError(f"`{name}` should be ({count},) of kind {column.kinds!r}. Received: {shape} of {dtype}")
    with archive.open(f"{name}.npy") as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
    column.check(name, array)
    return array
