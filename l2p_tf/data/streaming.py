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
        self, folder: pathlib.Path, split: str, places: npt.NDArray[np.int64], image_shape: tuple[int, int, int],
        image_size: int, center_crop: float, image: str = "image",
    ) -> None:  # fmt: skip
        """Initializes without reading images.

        Args:
          folder: folder of the prepared data set.
          split: its TFDS split.
          places: places of the images, as returned by `Records.places`.
          image_shape: shape of each image.
          image_size: as in `StreamInfo`.
          center_crop: as in `StreamInfo`.
          image: as in `StreamInfo`.
        """
        self.shape = (len(places), *image_shape)
        self._folder, self._split, self._places = folder, split, places
        self._image_size, self._center_crop, self._image = image_size, center_crop, image
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
        return records.Records(records.open_builder(self._folder), self._split)

    @functools.cached_property
    def _decoders(self) -> dict[bool, Any]:
        """Functions of an example's bytes: False maps to the processed image, True to the image as stored."""
        import tensorflow as tf

        decode = records.decoder(self._records.builder, self._image)

        def sized(example: Any) -> Any:
            image = decode(example)
            return crops.square(image, self._image_size, self._center_crop) if self._image_size else image

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
            raise UserError(damaged(self._folder, f"{self._split} image {position}: {reason}")) from error
        if not whole and image.shape != self.shape[1:]:
            raise UserError(
                f"`image_size` should be given: the {self._split} images of {str(self._folder)!r} differ in size. "
                "Received: 0"
            )
        return image
