"""Running a classifier over many images: compiled programs kept with the model, full batches, seeded noise."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from l2p_tf.layers.noise import reseed, restore_seeds
from l2p_tf.loops import repeat
from l2p_tf.types import UserError


def program(
    model: keras.Model, key: Hashable, body: Callable[..., Any], jit_compile: bool | None = None
) -> Callable[..., Any]:
    """The compiled `body`, made once per model and key and kept with the model.

    Args:
      model: the classifier that `body` runs.
      key: tells apart the programs of one model; what `body` does must follow from it.
      body: function of tensors.
      jit_compile: compile with XLA; None does so where there is a GPU.
    """
    jit_compile = resolve_jit(jit_compile)
    # Straight into the instance's dictionary: Keras would track what is set as an attribute.
    programs: dict[Hashable, Callable[..., Any]] = vars(model).setdefault("_l2p_programs", {})
    if (key, jit_compile) not in programs:
        # A partial, because TensorFlow counts the traces of one piece of code together, whatever model they are for, and
        # would warn of retracing that there is not.
        own = functools.partial(body)
        programs[key, jit_compile] = tf.function(own, jit_compile=jit_compile, autograph=False)
    return programs[key, jit_compile]


def resolve_jit(jit_compile: bool | None) -> bool:
    """True, False, or for None whether there is a GPU: on a CPU oneDNN's graph kernels beat XLA."""
    return device() == "gpu" if jit_compile is None else jit_compile


def device() -> str:
    """`gpu` where there is one, else `cpu`."""
    return "gpu" if tf.config.list_physical_devices("GPU") else "cpu"


def seed_pair(*parts: int) -> np.ndarray:
    """Two int32 numbers derived from any number of integers, well mixed; for stateless random operations."""
    entropy = [part % 2**63 for part in parts]
    return np.random.SeedSequence(entropy).generate_state(2, np.uint32).view(np.int32)


def batches(count: int, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Indices of full batches over `range(count)`, and how many of each are real: the last repeats its end.

    Sizes are powers of two below `batch_size`, so that few shapes are ever traced.
    """
    size = batch_size
    if count < batch_size:
        size = min(batch_size, 1 << max(0, count - 1).bit_length())
    for start in range(0, count, size):
        index = np.arange(start, start + size)
        yield np.minimum(index, count - 1), min(size, count - start)


def to_unit(images: tf.Tensor) -> tf.Tensor:
    """uint8 images as float32 in [0, 1]; float images as they are."""
    return tf.cast(images, tf.float32) / 255.0 if images.dtype == tf.uint8 else images


def checked_images(model: keras.Model, images: Any) -> np.ndarray:
    """`images` as float32 (count, height, width, channels) in [0, 1], checked against the model.

    Raises:
      UserError: wrong shape, dtype, no images, or values outside [0, 1].
    """
    array = np.asarray(images)
    wanted = tuple(model.input_shape[1:])
    if (
        array.ndim != 4
        or len(array) == 0
        or any(w not in (None, n) for w, n in zip(wanted, array.shape[1:], strict=True))
    ):
        raise UserError(f"`images` should be of shape (count, {', '.join(map(str, wanted))}). Received: {array.shape}")
    if array.dtype == np.uint8:
        return array.astype(np.float32) / np.float32(255)
    if array.dtype.kind != "f":
        raise UserError(f"`images` should be uint8, or floats in [0, 1]. Received: {array.dtype}")
    low, high = float(np.min(array)), float(np.max(array))
    if not (low >= 0.0 and high <= 1.0):
        raise UserError(f"`images` should lie in [0, 1]. Received: values from {low:.4g} to {high:.4g}")
    return array.astype(np.float32, copy=False)


def checked_labels(model: keras.Model, labels: Any, count: int) -> np.ndarray:
    """`labels` as int32 (count,), checked against the model's classes; UserError otherwise."""
    array = np.asarray(labels)
    classes = int(model.output_shape[-1])
    if array.shape != (count,) or array.dtype.kind not in "iu":
        raise UserError(f"`labels` should be integers of shape ({count},). Received: {array.dtype} {array.shape}")
    if count and not (array.min() >= 0 and array.max() < classes):
        raise UserError(
            f"`labels` should be from 0 to {classes - 1}. Received: labels from {array.min()} to {array.max()}"
        )
    return array.astype(np.int32)


def predict(
    model: keras.Model,
    images: np.ndarray,
    seed: int = 0,
    *,
    draws: int = 1,
    batch_size: int = 128,
    jit_compile: bool | None = None,
) -> np.ndarray:
    """Softmax probabilities, averaged over draws of the noise.

    Args:
      model: the classifier.
      images: as `checked_images` takes them.
      seed: of the noise; the generators' states are as before afterwards.
      draws: forward passes to average over, each with fresh noise.
      batch_size: images a pass.
      jit_compile: as in `program`.

    Returns:
      float32 (count, classes).
    """
    images = checked_images(model, images)

    def body(x: tf.Tensor, pair: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        former = reseed(model, pair)

        def draw(total: tf.Tensor) -> tuple[tf.Tensor]:
            return (total + tf.nn.softmax(model(x, training=False)),)

        (total,) = repeat(draw, (tf.zeros([x.shape[0], model.output_shape[-1]]),), count)
        restore_seeds(model, former)
        return total / tf.cast(count, tf.float32)

    run = program(model, "predict", body, jit_compile)
    parts = []
    for number, (index, real) in enumerate(batches(len(images), batch_size)):
        pair = tf.constant(seed_pair(seed, number))
        parts.append(run(tf.constant(images[index]), pair, tf.constant(draws))[:real].numpy())
    return np.concatenate(parts)
