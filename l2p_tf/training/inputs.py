"""Validation of a trainer's inputs: images in [0, 1] or bytes, labels of known classes, finite weights."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from l2p_tf.inference import check_images, checked_labels
from l2p_tf.types import UserError


@dataclasses.dataclass(frozen=True)
class Accepted:
    """Specification of the batches that a classifier can be trained on.

    Attributes:
      image_shape: height, width and channels; None for any size.
      classes: labels are in [0, classes).
    """

    image_shape: tuple[int | None, ...]
    classes: int

    def check(self, images: Any, labels: Any = None, sample_weight: Any = None, *, labeled: bool = True) -> None:
        """Raises UserError unless these arrays are valid; without `labeled`, only images are needed."""
        images = check_images(images, self.image_shape)
        if not labeled:
            return
        if labels is None:
            raise UserError("Labels should be given beside the images. Received: images alone")
        checked_labels(labels, len(images), self.classes)
        if sample_weight is not None:
            weights = np.asarray(sample_weight)
            if weights.shape != (len(images),) or weights.dtype.kind not in "iuf":
                raise UserError(
                    f"`sample_weight` should be numbers of shape ({len(images)},). "
                    f"Received: {weights.dtype} {weights.shape}"
                )
            if not np.all((weights >= 0) & (weights < np.inf)):
                bad = weights[~((weights >= 0) & (weights < np.inf))][0]
                raise UserError(f"`sample_weight` should be finite and at least 0. Received: {bad:.4g}")

    def checked(self, x: Any, y: Any = None, sample_weight: Any = None, *, labeled: bool = True) -> Any:
        """Returns `x` for Keras: arrays are validated here, batches when they arrive.

        Raises:
          UserError: arrays are invalid.
        """
        if isinstance(x, tf.data.Dataset):
            parts = keras.utils.unpack_x_y_sample_weight(x.element_spec)
            if all(part is None or part.shape.rank is not None for part in parts):
                # Checks shapes and dtypes early, before a step is traced with them.
                empty = (p and np.zeros([n or 1 for n in p.shape], p.dtype.as_numpy_dtype) for p in parts)
                self.check(*empty, labeled=labeled)
            return x.map(lambda *batch: self._asserted(batch, labeled))
        if isinstance(x, keras.utils.PyDataset):
            return _CheckedDataset(x, self, labeled)
        if inspect.isgenerator(x):
            return (self._passed(batch, labeled) for batch in x)
        self.check(x, y, sample_weight, labeled=labeled)
        return x

    def _passed(self, batch: Any, labeled: bool) -> Any:
        self.check(*keras.utils.unpack_x_y_sample_weight(batch), labeled=labeled)
        return batch

    def _asserted(self, batch: tuple[tf.Tensor, ...], labeled: bool) -> Any:
        """Returns a batch of a data set with its validation as a control dependency."""

        def check(*arrays: np.ndarray) -> np.bool_:
            self.check(*arrays, labeled=labeled)
            return np.bool_(True)

        with tf.control_dependencies([tf.numpy_function(check, batch, tf.bool)]):
            # Also sets the shapes that the data set leaves unknown.
            shapes = ((None, *self.image_shape), (None,), (None,))
            passed = tuple(tf.ensure_shape(part, shape) for part, shape in zip(batch, shapes, strict=False))
        return passed if len(passed) > 1 else passed[0]


class _CheckedDataset(keras.utils.PyDataset):
    def __init__(self, batches: keras.utils.PyDataset, accepted: Accepted, labeled: bool) -> None:
        super().__init__(batches.workers, batches.use_multiprocessing, batches.max_queue_size)
        self.batches, self.accepted, self.labeled = batches, accepted, labeled

    @property
    def num_batches(self) -> Any:
        return self.batches.num_batches

    def __getitem__(self, index: int) -> Any:
        return self.accepted._passed(self.batches[index], self.labeled)

    def on_epoch_begin(self) -> None:
        self.batches.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self.batches.on_epoch_end()


class _BeginEpoch(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.model.begin_epoch(epoch)


class CheckedModel(keras.Model):
    """A Keras model whose `fit`, `evaluate` and so on reject invalid data, and whose `fit` calls `begin_epoch`."""

    @property
    def accepted(self) -> Accepted:
        """Accepted images and labels."""
        raise NotImplementedError

    def begin_epoch(self, epoch: int) -> Any:
        """Sets whatever depends on the epoch; called by `fit`."""
        raise NotImplementedError

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Any = None,
        sample_weight: Any = None,
        **more: Any,
    ) -> Any:
        """As in Keras; raises UserError if images, labels or weights are invalid."""
        if isinstance(validation_data, tuple | list):
            self.accepted.check(*validation_data)
        elif validation_data is not None:
            validation_data = self.accepted.checked(validation_data)
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks.append(_BeginEpoch())
        else:
            given = callbacks if isinstance(callbacks, tuple | list) else [callbacks] if callbacks else []
            callbacks = [_BeginEpoch(), *given]
        with _in_one_line():
            return super().fit(
                self.accepted.checked(x, y, sample_weight),
                y,
                batch_size,
                epochs,
                verbose,
                callbacks,
                validation_split,
                validation_data,
                shuffle,
                class_weight,
                sample_weight,
                **more,
            )

    def save(self, *where: Any, **how: Any) -> None:
        """Raises UserError: a trainer's options cannot be saved in a file."""
        raise UserError(
            "A trainer is not saved whole. Save its classifier, trainer.classifier.save(path), or its weights, "
            "trainer.save_weights(path); in a ModelCheckpoint, give save_weights_only=True."
        )

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        **more: Any,
    ) -> Any:
        """As in Keras; raises UserError like `fit`."""
        # Within `fit`, the data are already validated.
        within_fit = more.get("_use_cached_eval_dataset")
        with _in_one_line():
            x = x if within_fit else self.accepted.checked(x, y, sample_weight)
            return super().evaluate(x, y, batch_size, verbose, sample_weight, **more)

    def predict(self, x: Any, *how: Any, **more: Any) -> Any:
        """Returns logits as in Keras; raises UserError like `fit`."""
        with _in_one_line():
            return super().predict(self.accepted.checked(x, labeled=False), *how, **more)

    def train_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, *how: Any, **more: Any) -> Any:
        """As in Keras; raises UserError like `fit`."""
        self.accepted.check(x, y, sample_weight)
        return super().train_on_batch(x, y, sample_weight, *how, **more)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, *how: Any, **more: Any) -> Any:
        """As in Keras; raises UserError like `fit`."""
        self.accepted.check(x, y, sample_weight)
        return super().test_on_batch(x, y, sample_weight, *how, **more)

    def predict_on_batch(self, x: Any) -> Any:
        """Returns logits as in Keras; raises UserError like `fit`."""
        self.accepted.check(x, labeled=False)
        return super().predict_on_batch(x)


@contextlib.contextmanager
def _in_one_line() -> Iterator[None]:
    """Re-raises a UserError that TensorFlow wrapped while reading a data set."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        match = re.search(r"UserError: (.+)", error.message)
        if match is None:
            raise
        raise UserError(match[1]) from error
