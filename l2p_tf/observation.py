"""Observes a model's outputs on images, and whether they are random."""

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
"""Number of images passed to a model."""

_ALONE = 1e-2
"""Tolerance for dependence on the batch size by rounding, relative to the largest output."""
_ALONE_HALF = 1e-1
"""The same in half precision."""


@dataclasses.dataclass(frozen=True)
class Observation:
    """A model's outputs on some images, with the noise of this package's layers off.

    Attributes:
      answers: float32 (count, classes).
      dtype: dtype of the model's output.
      is_tensor: whether the output is a tensor, not in a list or dictionary.
      randomized: whether it draws random numbers, so that predictions may vary.
      noise_overruled: it does not, but some of its layers were called with training=True, which training=False
      overrules.
    """

    answers: np.ndarray
    dtype: tf.DType
    is_tensor: bool
    randomized: bool
    noise_overruled: bool = False


def observe(model: keras.Model, images: np.ndarray) -> Observation:
    """Runs a model, compiled, on the first images without changing its state.

    Args:
      model: a Keras model with weights.
      images: float32 in [0, 1], (count, height, width, channels).

    Raises:
      UserError: it fails on them, does not output logits of several classes, or its outputs depend on the batch.
    """
    images = images[:PROBED_IMAGES]
    scope = _Updates()

    def ask(x: tf.Tensor) -> Any:
        with scope:
            return model(x, training=False)

    # A partial, because TensorFlow counts the traces of one function together for all models.
    spec = tf.TensorSpec((None, *images.shape[1:]))
    run = tf.function(functools.partial(ask), input_signature=[spec], autograph=False)
    try:
        with without_noise(model):
            raw, again = run(images), run(images)
            part = run(images[: len(images) // 2]) if len(images) > 1 else None
    except Exception as error:
        # Third-party models may raise anything; remove the color codes of a terminal.
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
    # Also detects noise from other sources. The last bits may differ anyway, because threads sum in varying order.
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
    """Returns the only output, also from a list or dictionary; raises UserError if there are several."""
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
    """Describes a fault of the logits' gradient at the first images, as the end of a sentence.

    Args:
      model: maps images to logits; its noise is turned off meanwhile, and its state is not changed.
      images: float32 in [0, 1], (count, height, width, channels).

    Returns:
      Empty without a fault: the gradient exists, is finite, and is not zero on half of the images or more, unless the
      outputs are the same for all images. Images with non-finite outputs are ignored.
    """
    x = tf.constant(images[:PROBED_IMAGES])
    try:
        with without_noise(model), _Updates(), tf.GradientTape() as tape:
            tape.watch(x)
            logits = tf.cast(only_output(model(x, training=False)), tf.float32)
            # A random combination of all logits, because it is no symmetry of the network.
            weights = tf.random.stateless_normal(logits.shape[1:], [0, 1])
            scores = tf.reduce_sum(logits * weights, -1)
        gradient = tape.gradient(scores, x)
    except LookupError as error:  # An operation without a gradient.
        return f"is missing: {' '.join(str(error).split())[:200]}"
    if gradient is None:
        return "is missing: what the model computes from the pixels has none, as after a cast to whole numbers"
    finite = np.isfinite(logits).all(-1)
    rows = gradient.numpy().reshape(len(x), -1)[finite]
    count = f"of {len(rows)} images"
    if not np.isfinite(rows).all():
        return f"is not finite on {int((~np.isfinite(rows).all(-1)).sum())} {count}"
    zero = int((rows == 0).all(-1).sum())
    if zero and 2 * zero >= len(rows) and np.ptp(logits.numpy()[finite], 0).any():
        return f"is zero on {zero} {count}, as after rounding or where a function saturates"
    return ""


def _is_noisy_as_it_is(model: keras.Model, images: np.ndarray) -> bool:
    """Whether a functional model has layers called with training=True that draw random numbers."""
    with _Updates() as scope:
        model(tf.constant(images[:1]))
    return scope.draws(model)


class _Updates(keras.StatelessScope):
    """Prevents writes to a model's variables, and records which ones would have been written."""

    def __init__(self) -> None:
        super().__init__(initialize_variables=False)
        self.updated: list[keras.Variable] = []

    def add_update(self, update: tuple[keras.Variable, tf.Tensor]) -> None:
        """Records the variable, and lets subsequent reads see the new value."""
        self.updated.append(update[0])
        super().add_update(update)

    def draws(self, model: keras.Model) -> bool:
        """Whether a seed generator that does not belong to a `NoiseLayer` advanced."""
        own = [layer.seed_generator.state for layer in noise_layers(model)]
        return any(is_seed_state(v) and not any(v is state for state in own) for v in self.updated)


def _draws(graph: tf.Graph) -> bool:
    """Whether a graph contains stateful random operations of TensorFlow."""
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    # Operations with global seeds have an attribute `seed2`; the other one advances a `tf.random.Generator`.
    return any("seed2" in node.attr or node.op == "RngReadAndSkip" for node in nodes)


def _alike(answers: np.ndarray, others: tf.Tensor, slack: float) -> bool:
    return np.allclose(answers, others.numpy().astype(np.float32), rtol=1e-4, atol=slack, equal_nan=True)
