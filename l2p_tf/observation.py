"""What a model does when it is asked about images: what it answers, and whether the answers are random."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from l2p_tf.layers.noise import is_seed_state, noise_layers, without_noise
from l2p_tf.types import UserError

PROBED_IMAGES = 8
"""How many images a model is asked about."""

_ALONE = 1e-2
"""How far, as a share of the largest answer, an answer may depend on the size of the batch, by rounding alone."""
_ALONE_HALF = 1e-1
"""The same in half precision."""


@dataclasses.dataclass(frozen=True)
class Observation:
    """The answers of a model to some images, while the noise of this package's layers was off.

    Attributes:
      answers: float32 (count, classes).
      dtype: in which the model gives them.
      is_tensor: the model gives them as a tensor, neither in a list nor in a dictionary.
      randomized: it draws random numbers, so that it may answer the same images differently.
      noise_overruled: it is not, but layers of it were called with training=True, which training=False overrules.
    """

    answers: np.ndarray
    dtype: tf.DType
    is_tensor: bool
    randomized: bool
    noise_overruled: bool = False


def observe(model: keras.Model, images: np.ndarray) -> Observation:
    """Asks a model, compiled, about the first images; no state of the model changes.

    Args:
      model: a Keras model that has its weights.
      images: float32 in [0, 1], (count, height, width, channels).

    Raises:
      UserError: it cannot answer them, does not answer logits of several classes, or answers by batches, not by images.
    """
    images = images[:PROBED_IMAGES]
    scope = _Updates()

    def ask(x: tf.Tensor) -> Any:
        with scope:
            return model(x, training=False)

    # A partial, because TensorFlow counts the traces of one piece of code together, whatever model they are for.
    spec = tf.TensorSpec((None, *images.shape[1:]))
    run = tf.function(functools.partial(ask), input_signature=[spec], autograph=False)
    try:
        with without_noise(model):
            raw, again = run(images), run(images)
            part = run(images[: len(images) // 2]) if len(images) > 1 else None
    except Exception as error:
        # Whatever a model of somebody else's raises; without the color codes of a terminal.
        reason = " ".join(re.sub(r"\x1b\[\d*m", "", str(error)).split())[:300]
        raise UserError(
            f"The model {model.name!r} cannot answer images of shape {images.shape}, compiled for any number of them: "
            f"{type(error).__name__}: {reason}"
        ) from error
    first = only_output(raw)
    answers = first.numpy().astype(np.float32)
    if answers.ndim != 2 or len(answers) != len(images) or answers.shape[1] < 2:
        raise UserError(
            f"The model {model.name!r} should answer (batch, classes) logits of at least 2 classes. "
            f"For {len(images)} images it answers: {answers.shape}"
        )
    scale = float(np.abs(answers[np.isfinite(answers)]).max(initial=0.0))
    randomized = _draws(run.get_concrete_function().graph) or scope.draws(model)
    # Noise of any other source. Threads sum in another order: the last bits may differ without any.
    randomized = randomized or not _alike(answers, only_output(again), 1e-5 * scale)
    slack = (_ALONE_HALF if first.dtype.size == 2 else _ALONE) * scale
    if part is not None and not randomized and not _alike(answers[: len(images) // 2], only_output(part), slack):
        raise UserError(
            f"The model {model.name!r} should answer each image by itself. Its answer to an image depends on what else "
            "is in the batch, as that of batch norm with training=True does: attacks would have no meaning."
        )
    overruled = not randomized and bool(getattr(model, "inputs", None)) and _is_noisy_as_it_is(model, images)
    return Observation(answers, first.dtype, tf.is_tensor(raw), randomized, overruled)


def only_output(answer: Any) -> tf.Tensor:
    """The tensor, also from a list or dictionary of one; UserError where there are several."""
    if isinstance(answer, dict) and len(answer) > 1:
        raise UserError(
            f"The model should have one output, its logits; make one by keras.Model(model.inputs, "
            f"model.output[{next(iter(answer))!r}]). It has: {', '.join(map(str, answer))}"
        )
    parts = list(answer.values()) if isinstance(answer, dict) else answer
    if not isinstance(parts, list | tuple):
        return parts
    if len(parts) != 1:
        raise UserError(
            "The model should have one output, its logits; make one by keras.Model(model.inputs, model.outputs[0]). "
            f"It has: {len(parts)} outputs"
        )
    return parts[0]


def gradient_fault(model: keras.Model, images: np.ndarray) -> str:
    """What is wrong with the gradient of a model's answers to the first images, as the rest of a sentence.

    Args:
      model: from images to logits; its noise is off meanwhile, and no state of it changes.
      images: float32 in [0, 1], (count, height, width, channels).

    Returns:
      Empty where nothing is wrong: the gradient is there, finite, and not zero on half of the images or more, or the
      answers are the same whatever the images are. Images with answers that are not finite tell nothing.
    """
    x = tf.constant(images[:PROBED_IMAGES])
    try:
        with without_noise(model), _Updates(), tf.GradientTape() as tape:
            tape.watch(x)
            logits = tf.cast(only_output(model(x, training=False)), tf.float32)
            # Of all logits at once, no direction of which is a symmetry of the network.
            weights = tf.random.stateless_normal(logits.shape[1:], [0, 1])
            scores = tf.reduce_sum(logits * weights, -1)
        gradient = tape.gradient(scores, x)
    except LookupError as error:  # An operation that has none.
        return f"is missing: {' '.join(str(error).split())[:200]}"
    if gradient is None:
        return "is missing: what the model computes from the pixels has none, as after a cast to whole numbers"
    told = np.isfinite(logits).all(-1)
    rows = gradient.numpy().reshape(len(x), -1)[told]
    count = f"of {len(rows)} images"
    if not np.isfinite(rows).all():
        return f"is not finite on {int((~np.isfinite(rows).all(-1)).sum())} {count}"
    zero = int((rows == 0).all(-1).sum())
    if zero and 2 * zero >= len(rows) and np.ptp(logits.numpy()[told], 0).any():
        return f"is zero on {zero} {count}, as after rounding or where a function saturates"
    return ""


def _is_noisy_as_it_is(model: keras.Model, images: np.ndarray) -> bool:
    """Whether a functional model has layers that were called with training=True, so that it draws if called."""
    with _Updates() as scope:
        model(tf.constant(images[:1]))
    return scope.draws(model)


class _Updates(keras.StatelessScope):
    """Within it a model's variables are not written; it takes note of those that would have been."""

    def __init__(self) -> None:
        super().__init__(initialize_variables=False)
        self.updated: list[keras.Variable] = []

    def add_update(self, update: tuple[keras.Variable, tf.Tensor]) -> None:
        """Takes note of the variable, and lets what follows see the new value."""
        self.updated.append(update[0])
        super().add_update(update)

    def draws(self, model: keras.Model) -> bool:
        """Whether a seed generator moved on that is not of a `NoiseLayer`."""
        own = [layer.seed_generator.state for layer in noise_layers(model)]
        return any(is_seed_state(v) and not any(v is state for state in own) for v in self.updated)


def _draws(graph: tf.Graph) -> bool:
    """Whether a graph holds random operations of TensorFlow that keep their own state."""
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    # Those of global seeds have an attribute `seed2`; the other is how a `tf.random.Generator` moves on.
    return any("seed2" in node.attr or node.op == "RngReadAndSkip" for node in nodes)


def _alike(answers: np.ndarray, others: tf.Tensor, slack: float) -> bool:
    return np.allclose(answers, others.numpy().astype(np.float32), rtol=1e-4, atol=slack, equal_nan=True)
