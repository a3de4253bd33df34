"""Reads examples of a prepared TFDS data set as stored bytes, by their place in the files.

ArrayRecord files are read through TFDS's own `data_source`. TFRecord files have no index, so one is built: a place is
(file, offset, length) there, and (position,) in an ArrayRecord set.
"""

from __future__ import annotations

import functools
import os
import pathlib
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from l2p_tf.data.base import Array
from l2p_tf.data.tfds_folder import damaged, import_tfds, quiet_log
from l2p_tf.types import UserError

ARRAY_RECORD, TFRECORD = "array_record", "tfrecord"
_LENGTH = struct.Struct("<Q")
_HEAD, _FOOT = 12, 4
"""Bytes around an example in a TFRecord file: length and checksum before it, and a checksum after it."""


def open_builder(folder: pathlib.Path) -> Any:
    """Returns TFDS's builder of a prepared data set; raises UserError if its metadata are damaged."""
    tfds = import_tfds()
    try:
        with quiet_log():
            return tfds.builder_from_directory(folder)
    except Exception as error:  # TFDS's parsers may raise anything
        raise UserError(damaged(folder, error)) from error


def file_format(builder: Any) -> str:
    """Format of a set: ArrayRecord if available, otherwise TFDS's own choice."""
    formats = {one.value for one in builder.info.available_file_formats()}
    return ARRAY_RECORD if ARRAY_RECORD in formats else str(builder.info.file_format.value)


class Records:
    """The examples of a split.

    Attributes:
      builder: TFDS's builder.
      files: the split's files, in order; a split made of parts may repeat a file.
    """

    def __init__(self, builder: Any, split: str) -> None:
        """Initializes without reading examples.

        Raises:
          UserError: the files are neither ArrayRecord nor TFRecord.
        """
        self.builder = builder
        self._split = split
        self._format = file_format(builder)
        if self._format not in (ARRAY_RECORD, TFRECORD):
            raise UserError(
                f"`stream` should be off for {builder.name}, which is prepared as {self._format}: only ArrayRecord and "
                "TFRecord can be streamed. `builder.download_and_prepare(file_format='array_record')` of TFDS prepares "
                "it so."
            )
        if self._format == ARRAY_RECORD:
            self._source  # noqa: B018 - so that splits name their files of this format
        self._instructions = builder.info.splits[split].file_instructions
        self.files = [pathlib.Path(instruction.filename) for instruction in self._instructions]

    def places(self) -> npt.NDArray[np.int64]:
        """Returns the place of every example, in split order: int64 (N, 3) for TFRecord, (N, 1) for ArrayRecord."""
        if self._format == ARRAY_RECORD:
            return np.arange(len(self._source), dtype=np.int64)[:, np.newaxis]
        places = [np.empty((0, 3), np.int64)]
        for number, instruction in enumerate(self._instructions):
            inside = _tfrecord_places(self.files[number])[instruction.skip : instruction.skip + instruction.take]
            places.append(np.column_stack([np.full(len(inside), number, np.int64), inside]))
        return np.concatenate(places)

    def read(self, place: Array) -> bytes:
        """Reads the example at a place; raises UserError if there is none."""
        if self._format == ARRAY_RECORD:
            try:
                return bytes(self._source[int(place[0])])
            except Exception as error:  # its readers may raise anything
                raise UserError(damaged(self.files[0].parent, error)) from error
        number, offset, length = map(int, place)
        file = self.files[number]
        with file.open("rb", buffering=0) as opened:
            content = os.pread(opened.fileno(), _HEAD + length + _FOOT, offset - _HEAD)
        if len(content) != _HEAD + length + _FOOT or _LENGTH.unpack_from(content)[0] != length:
            raise UserError(damaged(file.parent, f"{file.name} has no example of {length} bytes at {offset}"))
        return content[_HEAD:-_FOOT]

    def __iter__(self) -> Iterator[bytes]:
        return map(self.read, self.places())

    @functools.cached_property
    def _source(self) -> Any:
        tfds = import_tfds()
        try:
            return self.builder.as_data_source(self._split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
        except ImportError as error:
            raise UserError(
                f"{self.builder.name} is prepared as ArrayRecord, which needs a package: pip install 'l2p_tf[stream]'"
            ) from error


def decoder(builder: Any, feature: str) -> Callable[[Any], Any]:
    """Returns a function that decodes one feature from an example's bytes, a string tensor, as TFDS does."""
    tfds = import_tfds()
    with quiet_log():
        wanted = tfds.decode.PartialDecoding({feature: True}).extract_features(builder.info.features)
    return lambda example: wanted.deserialize_example(example)[feature]


def _tfrecord_places(file: pathlib.Path) -> npt.NDArray[np.int64]:
    """Returns offset and length of every example of a TFRecord file, int64 (n, 2); raises UserError if truncated."""
    places, offset, size = [], 0, file.stat().st_size
    with file.open("rb", buffering=0) as opened:
        while offset < size:
            head = os.pread(opened.fileno(), _LENGTH.size, offset)
            length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else size
            if offset + _HEAD + length + _FOOT > size:
                raise UserError(damaged(file.parent, f"{file.name} ends within an example"))
            places.append((offset + _HEAD, length))
            offset += _HEAD + length + _FOOT
    return np.array(places, np.int64).reshape(-1, 2)
