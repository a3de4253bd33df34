"""Running a classifier over many images: compiled programs kept with the model, full batches, seeded noise."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from l2p_tf.layers.noise import draws_per_example, is_randomized, reseed, restore_seeds
from l2p_tf.loops import repeat
from l2p_tf.types import UserError


def program(
    model: keras.Model, key: Hashable, body: Callable[[Any, Any], Any], jit_compile: bool | None = None
) -> Callable[[Any, Any], Any]:
    """The compiled `body`, made once per model and key and kept with the model.

    It is traced once for all batch sizes, or under XLA once for each. On a model made under a distribution strategy every replica runs `body` on its share of the batch.

    Args:
      model: the classifier that `body` runs.
      key: tells apart the programs of one model; what `body` does must follow from it.
      body: from tensors, nested in dictionaries, that have a batch axis, and tensors that have none, to tensors that
        have one.
      jit_compile: compile with XLA; None does so where there is a GPU.
    """
    jit_compile = resolve_jit(jit_compile)
    # Straight into the instance's dictionary: Keras would track what is set as an attribute.
    programs: dict[Hashable, Callable[..., Any]] = vars(model).setdefault("_l2p_programs", {})
    if (key, jit_compile) not in programs:
        strategy = model.distribute_strategy
        if strategy.num_replicas_in_sync == 1:
            programs[key, jit_compile] = Program(body, jit_compile)
        else:
            programs[key, jit_compile] = _distributed(strategy, body, jit_compile)
    return programs[key, jit_compile]


class Program:
    """A compiled function of tensors with a batch axis and tensors without one; `program` tells more."""

    def __init__(self, body: Callable[[Any, Any], Any], jit_compile: bool) -> None:
        self.body, self.jit_compile = body, jit_compile
        self.compiled: dict[Any, Any] = {}

    def __call__(self, sharded: Any, shared: Any) -> Any:
        """Runs it; traces it the first time, and under XLA, which knows fixed shapes only, once for each batch size."""
        size = tf.nest.flatten(sharded)[0].shape[0] if self.jit_compile else None
        if size not in self.compiled:
            batched = tf.nest.map_structure(lambda t: tf.TensorSpec([size, *t.shape[1:]], t.dtype), sharded)
            as_is = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), shared)
            # A partial, because TensorFlow counts the traces of one piece of code together, whatever model they are
            # for, and would warn of retracing that there is not.
            self.compiled[size] = tf.function(
                functools.partial(self.body),
                input_signature=[batched, as_is],
                jit_compile=self.jit_compile,
                autograph=False,
            )
        return self.compiled[size](sharded, shared)

    @property
    def traces(self) -> int:
        """How often it was traced, at most, for one batch size."""
        return max((run.experimental_get_tracing_count() for run in self.compiled.values()), default=0)


def _distributed(strategy: tf.distribute.Strategy, body: Callable[[Any, Any], Any], jit_compile: bool) -> Any:
    """Splits what has a batch axis over the replicas, and joins their answers."""
    count = strategy.num_replicas_in_sync
    on_replica = tf.function(body, jit_compile=True, autograph=False) if jit_compile else body
    run = tf.function(lambda *values: strategy.run(on_replica, args=values), autograph=False, reduce_retracing=True)

    def share(value: tf.Tensor) -> Any:
        parts = tf.split(value, count)
        return strategy.experimental_distribute_values_from_function(
            lambda context: parts[context.replica_id_in_sync_group]
        )

    def call(sharded: Any, shared: Any) -> Any:
        found = run(tf.nest.map_structure(share, sharded), shared)
        return tf.nest.map_structure(lambda value: tf.concat(strategy.experimental_local_results(value), 0), found)

    return call


def replicas(model: keras.Model) -> int:
    """On how many devices the model's programs run at once."""
    return int(model.distribute_strategy.num_replicas_in_sync)


def seed_noise(model: keras.Model, seed: tf.Tensor) -> list[tf.Tensor]:
    """`reseed`, within a program: every replica gets noise of its own."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync > 1:
        seed = tf.random.fold_in(seed, context.replica_id_in_sync_group, alg=tf.random.Algorithm.PHILOX)
    return reseed(model, seed)


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


def batches(count: int, batch_size: int, replicas: int = 1) -> Iterator[tuple[np.ndarray, int]]:
    """Indices of batches over `range(count)`, and how many of each are real: padded ones repeat the last index.

    Below `batch_size`, which is a multiple of the replicas, sizes are powers of two (times the replicas), so that XLA
    compiles few; a remainder that would fill less than three quarters of the next one is split.
    """
    start = 0
    while start < count:
        left = count - start
        size = max(replicas, batch_size // replicas * replicas)
        if left < size:
            padded = replicas << max(0, -(-left // replicas) - 1).bit_length()
            split = padded >= 16 * replicas and left < 0.75 * padded
            size = min(size, padded // 2 if split else padded)
        yield np.minimum(np.arange(start, start + size), count - 1), min(size, left)
        start += size


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


def poll(
    model: keras.Model,
    images: np.ndarray,
    seed: int = 0,
    *,
    draws: int = 1,
    averaged: int = 1,
    batch_size: int = 128,
    jit_compile: bool | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """What the classifier answers over several draws of its noise. Without noise it is asked once.

    Args:
      model: the classifier.
      images: as `checked_images` takes them.
      seed: of the noise; the generators' states are as before afterwards.
      draws: answers, each with fresh noise.
      averaged: forward passes, each with fresh noise, whose softmax one answer averages.
      batch_size: images a pass.
      jit_compile: as in `program`.

    Returns:
      Softmax probabilities averaged over all passes, and the share of answers that were each class; both float32
      (count, classes).
    """
    images = checked_images(model, images)
    if not is_randomized(model):
        draws = averaged = 1
    # One answer is split over copies of the image, several are dealt out to them.
    alone, count = draws == 1, len(images)
    copies = _copies(model, count, averaged if alone else draws, batch_size)
    images = np.repeat(images, copies, 0) if copies > 1 else images
    draws, averaged = (1, averaged // copies) if alone else (draws // copies, averaged)
    run = program(model, "poll", functools.partial(_poll, model), jit_compile)
    parts = []
    for number, (index, real) in enumerate(batches(len(images), batch_size, replicas(model))):
        numbers = (seed_pair(seed, number), draws, averaged)
        found = run(tf.constant(images[index]), tuple(map(tf.constant, numbers)))
        parts.append([part[:real].numpy() for part in found])
    probabilities, votes = (np.concatenate(part) for part in zip(*parts, strict=True))
    probabilities, votes = (part.reshape(count, copies, -1).mean(1) for part in (probabilities, votes))
    if alone and copies > 1:
        votes = np.eye(votes.shape[-1], dtype=np.float32)[probabilities.argmax(-1)]
    return probabilities, votes


def _copies(model: keras.Model, count: int, passes: int, batch_size: int) -> int:
    """How many copies of each image share a batch that few images leave empty: a divisor of the passes."""
    if not draws_per_example(model):
        return 1
    return max(n for n in range(1, max(1, min(passes, batch_size // count)) + 1) if passes % n == 0)


def _poll(model: keras.Model, x: tf.Tensor, numbers: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, tf.Tensor]:
    seed, draws, averaged = numbers
    classes = int(model.output_shape[-1])
    former = seed_noise(model, seed)
    none = tf.zeros([tf.shape(x)[0], classes])

    def draw(so_far: tf.Tensor) -> tf.Tensor:
        return so_far + tf.nn.softmax(model(x, training=False))

    def answer(total: tf.Tensor, votes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        mean = repeat(lambda so_far: (draw(so_far),), (none,), averaged)[0] / tf.cast(averaged, tf.float32)
        return total + mean, votes + tf.one_hot(tf.argmax(mean, -1), classes)

    total, votes = repeat(answer, (none, none), draws)
    restore_seeds(model, former)
    count = tf.cast(draws, tf.float32)
    return total / count, votes / count


def predict(model: keras.Model, images: np.ndarray, seed: int = 0, **how: Any) -> np.ndarray:
    """Softmax probabilities, averaged over draws of the noise; arguments as of `poll`."""
    return poll(model, images, seed, **how)[0]
