"""Reads what others may have written: JSON as a type, arrays by type, shape and range. Nothing in a file is run."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import pathlib
import zipfile
from collections.abc import Iterator, Mapping
from typing import IO, Annotated, Any, TypeVar

import msgspec
import numpy as np
from msgspec import Meta

from l2p_tf.types import UserError

Count = Annotated[int, Meta(ge=0, le=2**53)]
Positive = Annotated[int, Meta(ge=1, le=2**53)]
Size = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]

T = TypeVar("T")
_MOST_BYTES = 2**30
"""Of one array: more than a hundred million examples."""


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
        return as_type(json.loads(file.read_bytes()), kind)


def as_type(value: Any, kind: type[T]) -> T:
    """A value of JSON as `kind`; ValueError names what does not fit. What no UTF-8 can hold becomes a question mark."""
    return msgspec.json.decode(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"), type=kind)


def check_inside(name: str) -> None:
    """ValueError where the name of a file, relative to a folder, leads out of it."""
    path = pathlib.PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError(f"it should name files in its folder. Received: {name!r}")


@dataclasses.dataclass(frozen=True)
class Column:
    """What an array may hold.

    Attributes:
      kinds: its dtype's kinds, as numpy writes them: `b` bool, `i` and `u` integers, `f` floats, `U` text.
      low: least of its numbers.
      high: largest of its numbers; infinities are refused wherever they stand.
      unknown: whether NaN may stand for a number that there was none of.
      rank: its number of axes.
    """

    kinds: str
    low: float = -np.inf
    high: float = np.inf
    unknown: bool = False
    rank: int = 1

    def check(self, name: str, array: np.ndarray) -> None:
        """ValueError where a number is outside; `name` is the array's."""
        if array.dtype.kind in "bU":
            return
        numbers = array[~np.isnan(array)] if self.unknown else array
        if not (np.isfinite(numbers).all() and (numbers >= self.low).all() and (numbers <= self.high).all()):
            raise ValueError(f"`{name}` should be of finite numbers from {self.low:g} to {self.high:g}")


def read_arrays(
    file: pathlib.Path, columns: Mapping[str, Column], expected: str, count: int | None = None, optional: bool = False
) -> dict[str, np.ndarray]:
    """Reads arrays from an `.npz`.

    Args:
      file: the file.
      columns: what to read, by name.
      expected: what the file should do, for the message.
      count: length of each array; None for any.
      optional: leave out what is not there instead of refusing.

    Raises:
      UserError: the file is not there, damaged, or an array is of another type or shape, or holds other numbers.
    """
    arrays = {}
    with reading(file, expected), zipfile.ZipFile(file) as archive:
        there = set(archive.namelist())
        for name, column in columns.items():
            if not optional or f"{name}.npy" in there:
                if f"{name}.npy" not in there:
                    raise ValueError(f"`{name}` is not there")
                arrays[name] = _read(archive, name, column, count)
    return arrays


def read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether it is in Fortran order, and type of an array in NumPy's format; `stream` is then at its data."""
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, fortran, dtype = read[np.lib.format.read_magic(stream)](stream)
    return shape, fortran, dtype


def _read(archive: zipfile.ZipFile, name: str, column: Column, count: int | None) -> np.ndarray:
    with archive.open(f"{name}.npy") as stream:
        # The header first: what it promises would be allocated.
        shape, _, dtype = read_header(stream)
    if dtype.kind not in column.kinds or len(shape) != column.rank or (count is not None and shape[0] != count):
        wanted = f"({count},)" if count is not None else f"rank {column.rank}"
        raise ValueError(f"`{name}` has shape {shape} and type {dtype}, not {wanted} and kind {column.kinds!r}")
    if math.prod(shape) * dtype.itemsize > _MOST_BYTES:
        raise ValueError(f"`{name}` has shape {shape} and type {dtype}, more than {_MOST_BYTES:,} bytes")
    with archive.open(f"{name}.npy") as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
    column.check(name, array)
    return array
