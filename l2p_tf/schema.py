"""Reads untrusted files: typed JSON, and arrays checked for dtype, shape and range. Nothing in a file is executed."""

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
"""Limit per array: enough for more than a hundred million examples."""


@contextlib.contextmanager
def reading(file: pathlib.Path, expected: str) -> Iterator[None]:
    """Turns any exception on a damaged file into a one-line UserError: `file` should `expected`."""
    try:
        yield
    # On damage, readers of other formats raise anything: zlib.error, struct.error, RecursionError, MemoryError ...
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise UserError(f"{str(file)!r} should {expected}: {reason}") from error


def read_json(file: pathlib.Path, kind: type[T], expected: str) -> T:
    """Reads a JSON file as `kind`: a dataclass, or any other type that msgspec supports.

    Args:
      file: the file.
      kind: its type; values of another type or out of bounds are rejected.
      expected: what the file should do, for the message, such as `hold the results of an attack stage`.

    Raises:
      UserError: the file is missing, or holds something else; the message names the file and the field.
    """
    with reading(file, expected):
        return as_type(json.loads(file.read_bytes()), kind)


def as_type(value: Any, kind: type[T]) -> T:
    """Converts a JSON value to `kind`; ValueError names what does not fit. Invalid UTF-8 becomes a question mark."""
    return msgspec.json.decode(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"), type=kind)


def check_inside(name: str) -> None:
    """Raises ValueError if a file name relative to a folder leads out of it."""
    path = pathlib.PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError(f"it should name files in its folder. Received: {name!r}")


@dataclasses.dataclass(frozen=True)
class Column:
    """Constraints of an array.

    Attributes:
      kinds: allowed dtype kinds of numpy: `b` bool, `i` and `u` integers, `f` floats, `U` text.
      low: minimum.
      high: maximum; infinities are always rejected.
      unknown: whether NaN may stand for a missing number.
      rank: number of axes.
    """

    kinds: str
    low: float = -np.inf
    high: float = np.inf
    unknown: bool = False
    rank: int = 1

    def check(self, name: str, array: np.ndarray) -> None:
        """Raises ValueError if a number is out of range; `name` is the array's."""
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
      columns: the arrays to read, by name.
      expected: what the file should do, for the message.
      count: length of each array; None for any.
      optional: skip missing arrays.

    Raises:
      UserError: the file is missing or damaged, or an array has another dtype or shape, or values out of range.
    """
    arrays = {}
    with reading(file, expected), zipfile.ZipFile(file) as archive:
        names = set(archive.namelist())
        for name, column in columns.items():
            if not optional or f"{name}.npy" in names:
                if f"{name}.npy" not in names:
                    raise ValueError(f"`{name}` is not there")
                arrays[name] = _read(archive, name, column, count)
    return arrays


def read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Returns shape, Fortran order and dtype of an array in NumPy's format; `stream` is left at its data."""
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, fortran, dtype = read[np.lib.format.read_magic(stream)](stream)
    return shape, fortran, dtype


def _read(archive: zipfile.ZipFile, name: str, column: Column, count: int | None) -> np.ndarray:
    with archive.open(f"{name}.npy") as stream:
        # The header first, because numpy would allocate the size it declares.
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
