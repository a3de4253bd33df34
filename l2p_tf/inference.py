"""Inference on many images: compiled functions cached with the model, full batches, seeded noise."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy import stats

from l2p_tf.classifier import as_classifier, is_answer
from l2p_tf.layers.folding import predict_folded
from l2p_tf.layers.noise import draws_per_example, is_randomized, noise_known, noise_state, reseed, restore_seeds
from l2p_tf.layers.ranges import candidates, in_range
from l2p_tf.loops import repeat
from l2p_tf.types import UserError

_TELLING, _LEVEL, _TRIED = 50, 0.01, 128
"""Minimum number of images, significance level, and number of images tried, for the comparison with chance."""

AT_CHANCE = "clean accuracy is no better than chance"

ROUNDING = 1e-6
"""Tolerance for pixels outside [0, 1], due to float32 rounding."""


def compiled(
    model: keras.Model, key: Hashable, body: Callable[[Any, Any], Any], jit_compile: bool | None = None
) -> Callable[[Any, Any], Any]:
    """Returns the compiled `body`, cached with the model for each key and state of its noise.

    It is traced once for all batch sizes of one image shape, or with XLA once for each. On a model created under a
    distribution strategy, every replica runs `body` on its share of the batch.

    Args:
      model: the classifier that `body` runs.
      key: identifies the compiled function for this model, and must determine what `body` does.
      body: maps nested tensors with a batch axis, and tensors without one, to tensors with a batch axis.
      jit_compile: compile with XLA; None does so if there is a GPU.
    """
    jit_compile = resolve_jit(jit_compile)
    # Set in the instance's dictionary, because Keras would track attributes.
    functions: dict[Hashable, Callable[..., Any]] = vars(model).setdefault("_l2p_compiled", {})
    noisy = noise_state(model)
    key = (key, jit_compile, noisy)
    if key not in functions:

        def known(sharded: Any, shared: Any) -> Any:
            with noise_known(noisy):
                return body(sharded, shared)

        strategy = model.distribute_strategy
        if strategy.num_replicas_in_sync == 1:
            functions[key] = CompiledFunction(known, jit_compile)
        else:
            functions[key] = _distributed(strategy, known, jit_compile)
    return functions[key]


class CompiledFunction:
    """A compiled function of tensors with a batch axis and tensors without one; see `compiled`."""

    def __init__(self, body: Callable[[Any, Any], Any], jit_compile: bool) -> None:
        self.body, self.jit_compile = body, jit_compile
        self.compiled: dict[Any, Any] = {}

    def __call__(self, sharded: Any, shared: Any) -> Any:
        """Runs the function; traces it for every new shape except for the batch axis, which only XLA needs."""
        size = tf.nest.flatten(sharded)[0].shape[0] if self.jit_compile else None
        key = (size, *(tuple(tensor.shape[1:]) for tensor in tf.nest.flatten(sharded)))
        if key not in self.compiled:
            batched = tf.nest.map_structure(lambda t: tf.TensorSpec([size, *t.shape[1:]], t.dtype), sharded)
            as_is = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), shared)
            # A partial, because TensorFlow counts the traces of one function together for all models, and would warn of
            # retracing.
            self.compiled[key] = tf.function(
                functools.partial(self.body),
                input_signature=[batched, as_is],
                jit_compile=self.jit_compile,
                autograph=False,
            )
        return self.compiled[key](sharded, shared)

    @property
    def traces(self) -> int:
        """Maximum number of traces for one shape."""
        return max((run.experimental_get_tracing_count() for run in self.compiled.values()), default=0)


def _distributed(strategy: tf.distribute.Strategy, body: Callable[[Any, Any], Any], jit_compile: bool) -> Any:
    """Splits tensors with a batch axis over the replicas, and concatenates their outputs."""
    count = strategy.num_replicas_in_sync
    on_replica = tf.function(body, jit_compile=True, autograph=False) if jit_compile else body
    run = tf.function(lambda *values: strategy.run(on_replica, args=values), autograph=False, reduce_retracing=True)

    def share(value: tf.Tensor) -> Any:
        parts = tf.split(value, count)
        return strategy.experimental_distribute_values_from_function(
            lambda context: parts[context.replica_id_in_sync_group]
        )

    def call(sharded: Any, shared: Any) -> Any:
        outputs = run(tf.nest.map_structure(share, sharded), shared)
        return tf.nest.map_structure(lambda value: tf.concat(strategy.experimental_local_results(value), 0), outputs)

    return call


def replicas(model: keras.Model) -> int:
    """Number of devices on which the model's compiled functions run."""
    return int(model.distribute_strategy.num_replicas_in_sync)


def seed_noise(model: keras.Model, seed: tf.Tensor) -> list[tf.Tensor]:
    """`reseed` within a compiled function, with separate noise on every replica."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync > 1:
        seed = tf.random.fold_in(seed, context.replica_id_in_sync_group, alg=tf.random.Algorithm.PHILOX)
    return reseed(model, seed)


def resolve_jit(jit_compile: bool | None) -> bool:
    """Resolves None to whether there is a GPU: on a CPU, oneDNN's graph kernels beat XLA."""
    return device() == "gpu" if jit_compile is None else jit_compile


def device() -> str:
    """Returns `gpu` if there is one, otherwise `cpu`."""
    return "gpu" if tf.config.list_physical_devices("GPU") else "cpu"


def seed_pair(*parts: int) -> np.ndarray:
    """Derives two well-mixed int32 numbers from any integers, as seeds of stateless random operations."""
    entropy = [part % 2**63 for part in parts]
    return np.random.SeedSequence(entropy).generate_state(2, np.uint32).view(np.int32)


def batches(count: int, batch_size: int, replicas: int = 1) -> Iterator[tuple[np.ndarray, int]]:
    """Yields indices of batches over `range(count)`, and the number of real ones: padding repeats the last index.

    Sizes below `batch_size`, a multiple of the replicas, are powers of two (times the replicas), so that XLA compiles
    few of them; a remainder that fills less than three quarters of the next power is split.
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
    """Converts uint8 images to float32 in [0, 1]; float images are unchanged."""
    return tf.cast(images, tf.float32) / 255.0 if images.dtype == tf.uint8 else images


def prepared(model: Any, images: Any) -> tuple[keras.Model, np.ndarray]:
    """Returns the model as a classifier (`as_classifier`), and its `checked_images`.

    Raises:
      UserError: the model cannot be used, or does not take the images.
    """
    images = checked_images(images)
    return as_classifier(model, images), images


def checked_images(images: Any) -> np.ndarray:
    """Converts images to float32 (count, height, width, channels) in [0, 1]; raises UserError like `check_images`."""
    array = check_images(images)
    if array.dtype == np.uint8:
        return array.astype(np.float32) / np.float32(255)
    array = array.astype(np.float32, copy=False)
    return np.clip(array, 0.0, 1.0) if array.min() < 0.0 or array.max() > 1.0 else array


def check_images(images: Any, shape: tuple[int | None, ...] = (None, None, None)) -> np.ndarray:
    """Validates images and returns them as an array, without converting the dtype.

    Args:
      images: uint8, or floats in [0, 1], (count, height, width, channels).
      shape: height, width and channels; None for any.

    Raises:
      UserError: wrong shape or dtype, no images, or values that are not finite or outside [0, 1].
    """
    array = as_array("images", images)
    if (
        array.ndim != 4
        or array.size == 0
        or any(n not in (None, m) for n, m in zip(shape, array.shape[1:], strict=True))
    ):
        names = ("height", "width", "channels")
        sides = ", ".join(name if n is None else str(n) for name, n in zip(names, shape, strict=True))
        raise UserError(f"`images` should be of shape (count, {sides}), at least one. Received: {array.shape}")
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise UserError(f"`images` should be uint8, or floats in [0, 1]. Received: {array.dtype}")
    low, high = float(np.min(array)), float(np.max(array))
    if not (low >= -ROUNDING and high <= 1.0 + ROUNDING):
        hint = "; divide them by 255, or pass them as uint8" if 2 < high <= 255 and low >= 0 else ""
        raise UserError(
            f"`images` should be finite and lie in [0, 1]{hint}. Received: values from {low:.4g} to {high:.4g}"
        )
    return array


def as_array(name: str, values: Any) -> np.ndarray:
    """Converts values to an array; raises UserError for ragged rows."""
    try:
        return np.asarray(values)
    except ValueError as error:
        raise UserError(f"`{name}` should be an array. Received: a {type(values).__name__}; {error}") from error


def checked_labels(labels: Any, count: int, classes: int) -> np.ndarray:
    """Converts labels to int32 (count,), from 0 to below `classes`; raises UserError if invalid."""
    array = as_array("labels", labels)
    if array.shape != (count,) or array.dtype.kind not in "iu":
        parts = array[array % 1 != 0] if array.dtype.kind == "f" else ()
        some = f", such as {parts[0]:.4g}" if len(parts) else ""
        raise UserError(
            f"`labels` should be integers of shape ({count},), one for each image. "
            f"Received: {array.dtype} {array.shape}{some}"
        )
    if count and not (array.min() >= 0 and array.max() < classes):
        raise UserError(
            f"`labels` should be from 0 to {classes - 1}. Received: labels from {array.min()} to {array.max()}"
        )
    return array.astype(np.int32)


def predict_with_votes(
    model: keras.Model,
    images: np.ndarray,
    seed: int = 0,
    *,
    draws: int = 1,
    samples_per_prediction: int = 1,
    batch_size: int = 128,
    jit_compile: bool | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Predicts over several draws of the noise. Without noise, a single prediction is made.

    Args:
      model: the classifier.
      images: as in `checked_images`.
      seed: seed of the noise; the generators' states are restored afterward.
      draws: number of predictions, each with fresh noise.
      samples_per_prediction: forward passes, each with fresh noise, whose softmax each prediction averages.
      batch_size: images per pass.
      jit_compile: as in `compiled`.

    Returns:
      Softmax probabilities averaged over all passes, and the share of predictions for each class; both float32 (count,
      classes). A non-finite output is no class, and its probabilities are 0.
    """
    model, images = prepared(model, images)
    if not is_randomized(model):
        draws = samples_per_prediction = 1
    # A single prediction is split over copies of the image; several are distributed over them.
    alone, count = draws == 1, len(images)
    copies = _copies(model, count, samples_per_prediction if alone else draws, batch_size)
    images = np.repeat(images, copies, 0) if copies > 1 else images
    draws, samples_per_prediction = (
        (1, samples_per_prediction // copies) if alone else (draws // copies, samples_per_prediction)
    )
    run = compiled(model, "votes", functools.partial(_votes, model), jit_compile)
    parts = []
    for number, (index, real) in enumerate(batches(len(images), batch_size, replicas(model))):
        numbers = (seed_pair(seed, number), draws, samples_per_prediction)
        outputs = run(tf.constant(images[index]), tuple(map(tf.constant, numbers)))
        parts.append([part[:real].numpy() for part in outputs])
    probabilities, votes = (np.concatenate(part) for part in zip(*parts, strict=True))
    probabilities, votes = (part.reshape(count, copies, -1).mean(1) for part in (probabilities, votes))
    if alone and copies > 1:
        finite = probabilities.sum(-1, keepdims=True) > 0
        votes = np.eye(votes.shape[-1], dtype=np.float32)[probabilities.argmax(-1)] * finite
    return probabilities, votes


def decided(votes: np.ndarray) -> np.ndarray:
    """Returns the most frequent class: int32 (count,), from votes (count, classes); -1 if no output was finite."""
    return np.where(votes.sum(-1) > 0, votes.argmax(-1), -1).astype(np.int32)


def _copies(model: keras.Model, count: int, passes: int, batch_size: int) -> int:
    """Returns the number of copies of each image that fill a batch of few images: a divisor of the passes."""
    if not draws_per_example(model):
        return 1
    return max(n for n in range(1, max(1, min(passes, batch_size // count)) + 1) if passes % n == 0)


def _votes(model: keras.Model, x: tf.Tensor, numbers: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, tf.Tensor]:
    seed, draws, samples_per_prediction = numbers
    classes = int(model.output_shape[-1])
    former = seed_noise(model, seed)
    none = tf.zeros([tf.shape(x)[0], classes])

    def draw(so_far: tf.Tensor, last: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        del last
        logits = predict_folded(model, x)
        return so_far + finite_softmax(logits), logits

    def answer(total: tf.Tensor, votes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        mean, logits = repeat(draw, (none, none), samples_per_prediction)
        mean /= tf.cast(samples_per_prediction, tf.float32)
        # For a single pass, use the logits: softmax may round two of them to the same number.
        chosen = tf.argmax(tf.where(samples_per_prediction == 1, logits, mean), -1)
        vote = tf.one_hot(chosen, classes) * tf.sign(tf.reduce_sum(mean, -1, keepdims=True))
        return total + mean, votes + vote

    total, votes = repeat(answer, (none, none), draws)
    restore_seeds(model, former)
    count = tf.cast(draws, tf.float32)
    return total / count, votes / count


def finite_softmax(logits: tf.Tensor) -> tf.Tensor:
    """Softmax (..., classes) of logits; 0 for non-finite outputs."""
    return tf.where(is_answer(logits)[..., None], tf.nn.softmax(logits), tf.zeros_like(logits))


def warn_at_chance(
    right: int, model: keras.Model, images: Any, labels: np.ndarray, name: str = "The classifier"
) -> None:
    """Warns if a classifier's accuracy is not better than chance (1% level).

    Args:
      right: number of images it classifies correctly.
      model: the classifier.
      images: the images, uint8 or floats in [0, 1]; other pixel ranges are tried on some of them.
      labels: their classes.
      name: name of the classifier.
    """
    if not _is_at_chance(right, len(labels), int(model.output_shape[-1])):
        return
    warnings.warn(
        f"{name}'s {AT_CHANCE}. Usual reasons: it was trained on another range of pixels than [0, 1] or with another "
        "normalization, or its classes are in another order than the labels."
        + _in_other_ranges(model, checked_images(images[:_TRIED]), labels[:_TRIED]),
        UserWarning,
        stacklevel=2,
    )


def _is_at_chance(right: int, count: int, classes: int) -> bool:
    return bool(count >= _TELLING and stats.binom.sf(right - 1, count, 1.0 / classes) > _LEVEL)


def _in_other_ranges(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> str:
    """Returns a sentence on the other pixel range with the highest accuracy above chance; empty if there is none."""
    run = compiled(model, "votes", functools.partial(_votes, model))
    index, real = next(batches(len(images), _TRIED, replicas(model)))
    numbers = tuple(map(tf.constant, (seed_pair(0), 1, 1)))
    shares = {}
    for name in candidates(images.shape[-1])[1:]:
        votes = run(in_range(tf.constant(images[index]), name), numbers)[1][:real].numpy()
        right = int((decided(votes) == labels[:real]).sum())
        if not _is_at_chance(right, real, votes.shape[-1]):
            shares[name] = right / real
    if not shares:
        return ""
    best = max(shares, key=lambda name: shares[name])
    return f" With pixels in {best} it is right on {100 * shares[best]:.0f}%: put a layer before it that rescales them."


def predict(model: keras.Model, images: np.ndarray, seed: int = 0, **how: Any) -> np.ndarray:
    """Softmax probabilities, averaged over draws of the noise; arguments as in `predict_with_votes`."""
    return predict_with_votes(model, images, seed, **how)[0]
