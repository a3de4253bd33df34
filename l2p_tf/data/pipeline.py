"""Resumable training batches: batch k of epoch e is bitwise reproducible, whatever ran before."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from l2p_tf.data.base import Array
from l2p_tf.data.crops import Box, random_box
from l2p_tf.data.store import ImageData
from l2p_tf.types import UserError

_ORDER = 0
_PREFETCH = 4


class TrainBatches:
    """The training split in batches, shuffled in every epoch and augmented.

    The order of an epoch depends only on the seed and the epoch, the augmentation of a batch on seed, epoch and step,
    and the random resized crop of an image on seed, epoch and its position. Images left over after the last full batch
    of an epoch are dropped; they differ between epochs because of the shuffling.

    Attributes:
      batch_size: images per batch.
      steps_per_epoch: full batches in an epoch.
    """

    def __init__(
        self, data: ImageData, batch_size: int, seed: int, augment: bool = True, rows: slice = slice(None)
    ) -> None:
        """Initializes without reading images.

        Args:
          data: the data artifact.
          batch_size: images per batch, at most the number of training images.
          seed: seed of order and augmentation, from 0 to 2**63 - 1.
          augment: whether images are cropped and mirrored as specified by `data.info`.
          rows: the images of a batch that are read and decoded; the rest, left to other workers, is black.

        Raises:
          UserError: `batch_size` or `seed` is out of range.
        """
        self._images, self._labels = data.split("train")
        if not len(self._images):
            raise UserError(
                f"`data` should have training images; models are only judged on {data.info.title}. "
                f"Received: {str(data.artifact.path)!r}"
            )
        if not 1 <= batch_size <= len(self._images):
            raise UserError(
                f"`batch_size` should be from 1 to {len(self._images)} training images. Received: {batch_size}"
            )
        if not 0 <= seed < 2**63:
            raise UserError(f"`seed` should be from 0 to 2**63 - 1. Received: {seed}")
        self.batch_size = batch_size
        self.steps_per_epoch = len(self._images) // batch_size
        self._seed, self._rows = seed, rows
        self._padding = data.info.crop_padding if augment else 0
        self._flip = data.info.flip and augment
        self._random_crop = data.info.random_crop if augment else 0.0

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Returns the positions of all training images in the order of an epoch, int64 (N,)."""
        return _random(self._seed, epoch, _ORDER).permutation(len(self._images))

    def batch(self, epoch: int, step: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
        """Returns one batch: images uint8 (B, H, W, C) and labels int32 (B,)."""
        return self._batch(self.order(epoch), epoch, step)

    def dataset(self, epoch: int = 0, step: int = 0) -> Any:
        """Returns an endless `tf.data.Dataset` of batches, starting at a step of an epoch, with static shapes."""
        import tensorflow as tf  # imported here, so that scanning this package for data sets stays fast

        def batches() -> Iterator[tuple[Array, Array]]:
            for number in itertools.count(epoch):
                order = self.order(number)
                for position in range(step if number == epoch else 0, self.steps_per_epoch):
                    yield self._batch(order, number, position)

        signature = (
            tf.TensorSpec((self.batch_size, *self._images.shape[1:]), tf.uint8),
            tf.TensorSpec((self.batch_size,), tf.int32),
        )
        options = tf.data.Options()
        # There is nothing to tune, and the thread that would do it may never end once the clock is set back.
        options.autotune.enabled = False
        dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
        return dataset.prefetch(_PREFETCH).with_options(options)

    def _batch(self, order: Array, epoch: int, step: int) -> tuple[Array, Array]:
        positions, rows = order[step * self.batch_size : (step + 1) * self.batch_size], self._rows
        images = np.zeros((len(positions), *self._images.shape[1:]), np.uint8)
        if self._random_crop:
            images[rows] = self._images.cropped(positions[rows], functools.partial(self._box, epoch))
        else:
            images[rows] = self._images[positions[rows]]
        random = _random(self._seed, epoch, 1 + step)
        return augment(images, self._padding, self._flip, random), self._labels[positions]

    def _box(self, epoch: int, position: int, height: int, width: int) -> Box:
        random = _random(self._seed, epoch, _ORDER, 1 + position)
        return random_box(random, height, width, self._random_crop, self._images.shape[2] / self._images.shape[1])


def augment(images: Array, padding: int, flip: bool, random: np.random.Generator) -> Array:
    """Randomly crops zero-padded images and mirrors them, as in the ResNet papers.

    Args:
      images: uint8 (B, H, W, C).
      padding: zeros on each side before the crop; 0 for no crop.
      flip: mirror each image left to right with probability one half.
      random: random generator of crops and flips.

    Returns:
      uint8 (B, H, W, C).
    """
    if not padding and not flip:
        return images
    count, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    tops, lefts = random.integers(0, 2 * padding + 1, size=(2, count, 1))
    columns = np.broadcast_to(np.arange(width), (count, width))
    if flip:
        columns = np.where(random.random((count, 1)) < 0.5, columns[:, ::-1], columns)
    rows = tops + np.arange(height)
    example = np.arange(count)[:, np.newaxis, np.newaxis]
    return padded[example, rows[:, :, np.newaxis], (lefts + columns)[:, np.newaxis, :]]


def _random(seed: int, epoch: int, stream: int, part: int = 0) -> np.random.Generator:
    """Returns an independent random generator for every (seed, epoch, stream, part).

    Philox is a function of key and counter; stream and part are the counter's highest words, which drawing never
    reaches.
    """
    return np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, part, stream]))
