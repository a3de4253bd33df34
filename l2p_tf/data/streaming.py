"""Images streamed from TFDS: read by index, decoded in parallel, with the most recent ones cached in memory."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from l2p_tf.artifacts import digest_file
from l2p_tf.data import crops, records
from l2p_tf.data.base import Array, Stored
from l2p_tf.data.tfds_folder import damaged
from l2p_tf.progress import bar
from l2p_tf.schema import Count, Digest, Share, check_inside
from l2p_tf.types import UserError

_KEPT_BYTES = 128 << 20


@dataclasses.dataclass(frozen=True)
class File:
    """A file that images are read from."""

    bytes: Count
    sha256: Digest


@dataclasses.dataclass(frozen=True)
class StreamInfo:
    """Where images are read from, and how.

    Attributes:
      splits: TFDS splits for `train`, if there is one, and `test`.
      image_size: side of the square they are resized to; 0 keeps their size.
      center_crop: share of the shorter side that the central square spans; 0 takes whole images.
      files: by name, relative to the folder of the data set.
      image: TFDS's feature with the image.
    """

    splits: dict[str, str]
    image_size: Count
    center_crop: Share
    files: dict[str, File]
    image: str = "image"

    def __post_init__(self) -> None:
        if set(self.splits) not in ({"train", "test"}, {"test"}):
            raise ValueError("`splits` should name those of train and test, or of test")
        for name in self.files:
            check_inside(name)

    def stored(self, folder: pathlib.Path) -> Stored:
        """Returns the same for the files in a folder, which are not checked."""
        return Stored(folder, self.splits, self.image_size, self.center_crop, self.image)

    @classmethod
    def of(cls, stored: Stored, title: str) -> StreamInfo:
        """Reads every file once for its checksum, showing progress under `title`."""
        builder = records.open_builder(stored.folder)
        paths = {file for split in stored.splits.values() for file in records.Records(builder, split).files}
        files = {}
        with bar(f"Checksums of {title}", len(paths), "files") as advance:
            ordered = sorted(paths)
            for path, digest in zip(ordered, crops.workers().map(digest_file, ordered), strict=True):
                files[str(path.relative_to(stored.folder))] = File(path.stat().st_size, digest)
                advance()
        return cls(stored.splits, stored.image_size, stored.center_crop, files, stored.image)

    def check(self, folder: pathlib.Path) -> None:
        """Raises UserError if a file is missing or its size differs."""
        for name, file in self.files.items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != file.bytes:
                raise UserError(
                    f"{str(path)!r}, from which images are streamed, should be there with {file.bytes:,} bytes. "
                    "Restore it, or make the data artifact again with --overwrite."
                )


class StreamedImages:
    """Images of one split: `images[i]` is one (H, W, C), `images[positions]` are several (n, H, W, C), uint8."""

    dtype = np.dtype(np.uint8)

    def __init__(
        self, stored: Stored, name: str, places: npt.NDArray[np.int64], image_shape: tuple[int, int, int]
    ) -> None:
        """Initializes without reading images.

        Args:
          stored: where they are, and how they are processed.
          name: `train` or `test`.
          places: places of the images, as returned by `Records.places`.
          image_shape: shape of each image.
        """
        self.shape = (len(places), *image_shape)
        self._stored, self._split, self._places = stored, stored.splits.get(name, ""), places
        self._opening = threading.Lock()
        most = max(1, _KEPT_BYTES // int(np.prod(image_shape)))
        self._kept = functools.lru_cache(most)(functools.partial(self._read, whole=False))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, key: int | np.integer[Any] | Array) -> Array:
        if np.ndim(key) == 0:
            return self._kept(int(key))
        images = list(crops.workers().map(self._kept, np.asarray(key).tolist()))
        return np.stack(images) if images else np.empty((0, *self.shape[1:]), np.uint8)

    def original(self, position: int) -> Array:
        """Returns an image at its stored size, uint8."""
        return self._read(position, whole=True)

    @functools.cached_property
    def _records(self) -> records.Records:
        return records.Records(records.open_builder(self._stored.folder), self._split)

    @functools.cached_property
    def _decoders(self) -> dict[bool, Any]:
        """Functions of an example's bytes: False maps to the processed image, True to the image as stored."""
        import tensorflow as tf

        decode = records.decoder(self._records.builder, self._stored.image)
        size, share = self._stored.image_size, self._stored.center_crop

        def sized(example: Any) -> Any:
            return crops.square(decode(example), size, share) if size else decode(example)

        def on_cpu(function: Any) -> Any:
            @tf.function(input_signature=(tf.TensorSpec((), tf.string),))
            def run(example: Any) -> Any:
                with tf.device("/CPU:0"):
                    return function(example)

            return run.get_concrete_function()

        return {False: on_cpu(sized), True: on_cpu(decode)}

    def _read(self, position: int, whole: bool) -> Array:
        import tensorflow as tf

        with self._opening:
            examples, decode = self._records, self._decoders[whole]
        example = examples.read(self._places[position])
        try:
            with tf.device("/CPU:0"):
                image = decode(tf.constant(example)).numpy()
        except (tf.errors.OpError, UnicodeDecodeError) as error:  # the latter for messages that quote the data
            reason = getattr(error, "message", "no example of TFDS")
            raise UserError(damaged(self._stored.folder, f"{self._split} image {position}: {reason}")) from error
        if not whole and image.shape != self.shape[1:]:
            raise UserError(
                f"`image_size` should be given: the {self._split} images of {str(self._stored.folder)!r} differ in "
                "size. Received: 0"
            )
        return image
