"""The gate: what a model must be so that it can be attacked, asked, served or trained, and what can be mended.

A classifier takes float32 images in [0, 1], (batch, height, width, channels), and gives float32 logits
(batch, classes). `as_classifier` finds out what a Keras model does, mends what can be mended and refuses the rest.
"""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from l2p_tf.layers.noise import mark_randomized, restore_seeds, seed_states, without_noise
from l2p_tf.types import UserError

PROBED_IMAGES = 8
"""How many images a model is asked about."""
_KEPT = "_l2p_classifier"
_PROBED = "_l2p_probed_shapes"
_TINY = float(np.finfo(np.float32).tiny)


class WithoutActivation(keras.layers.Layer):
    """Another layer, whose weights it shares, as if it had no activation."""

    def __init__(self, layer: keras.layers.Layer) -> None:
        super().__init__(name=f"{layer.name}_logits", dtype=layer.dtype_policy)
        self.layer = layer
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """What the other layer gives before its activation."""
        activation, self.layer.activation = self.layer.activation, keras.activations.linear
        try:
            return self.layer(inputs)
        finally:
            self.layer.activation = activation


class AdaptedClassifier(keras.Model):
    """A model of another kind as a classifier; it shares the model's weights.

    Args:
      model: what is asked.
      image_shape: (height, width, channels), None where the model takes any.
      classes: how many it tells apart.
      probabilities: it answers probabilities, whose logarithm are logits.
    """

    def __init__(
        self, model: keras.Model, image_shape: tuple[int | None, ...], classes: int, probabilities: bool
    ) -> None:
        super().__init__(name=f"{model.name}_classifier", dtype="float32")
        self.model, self.image_shape, self.classes, self.probabilities = model, image_shape, classes, probabilities
        self.built = True

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Logits (batch, classes), float32."""
        answer = tf.cast(_only(self.model(images, training=training)), tf.float32)
        answer = tf.ensure_shape(answer, (None, self.classes))
        return tf.math.log(tf.maximum(answer, _TINY)) if self.probabilities else answer

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """(None, height, width, channels)."""
        return (None, *self.image_shape)

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """(None, classes)."""
        return (None, self.classes)


def as_classifier(model: Any, images: np.ndarray | None = None) -> keras.Model:
    """The model as a classifier: itself where it is one, otherwise one that shares its weights.

    What it finds is kept with the model, so asking again costs nothing. What was mended is told in a warning: a softmax
    at the end is taken off, or, where it cannot be, the logarithm of the probabilities serves as logits. A model that
    answers the same images differently is randomised, with one draw a pass.

    Args:
      model: a Keras model: functional, sequential, or subclassed and built.
      images: float32 in [0, 1], (count, height, width, channels), some of which it is asked about; None looks at what
        can be seen from its layers alone.

    Raises:
      UserError: it cannot be used; the message says why.
    """
    if not isinstance(model, keras.Model):
        raise UserError(f"`model` should be a keras.Model. Received: {type(model).__name__}")
    _check_inputs(model, images)
    classifier = vars(model).get(_KEPT)
    if classifier is None:
        classifier, note = _without_softmax(model)
        if note:
            warnings.warn(note, UserWarning, stacklevel=3)
    if images is not None:
        # Straight into the instance's dictionary: Keras would track what is set as an attribute.
        probed: set[tuple[int, ...]] = vars(classifier).setdefault(_PROBED, set())
        if images.shape[1:] not in probed:
            probed.add(images.shape[1:])
            try:
                classifier = _probed(classifier, images[:PROBED_IMAGES])
            except BaseException:
                probed.discard(images.shape[1:])
                raise
            vars(classifier).setdefault(_PROBED, set()).add(images.shape[1:])
    vars(model)[_KEPT] = vars(classifier)[_KEPT] = classifier
    return classifier


def is_answer(logits: tf.Tensor) -> tf.Tensor:
    """Whether an answer tells a class: bool (batch,), from logits (batch, classes). Minus infinity rules a class out."""
    return tf.math.is_finite(tf.reduce_max(logits, -1)) & ~tf.reduce_any(tf.math.is_nan(logits), -1)


def _check_inputs(model: keras.Model, images: np.ndarray | None) -> None:
    """UserError where it can be told from the model's inputs that these images are none for it."""
    if isinstance(model, AdaptedClassifier):
        return
    if not model.built:
        raise UserError(
            f"The model {model.name!r} has no weights yet: call it on a batch of images, or load its weights, first."
        )
    inputs = getattr(model, "inputs", None)
    if inputs is None:
        return  # A subclassed model tells nothing.
    if len(inputs) != 1:
        names = ", ".join(tensor.name for tensor in inputs)
        raise UserError(
            f"The model {model.name!r} should take images alone; bind its other inputs in a model of one input. "
            f"Received: {len(inputs)} inputs ({names})"
        )
    shape, dtype = tuple(inputs[0].shape), keras.backend.standardize_dtype(inputs[0].dtype)
    if len(shape) != 4:
        raise UserError(
            f"The model {model.name!r} should take images (height, width, channels); put a Reshape or Flatten layer "
            f"before it. It takes: {shape[1:]}"
        )
    if "float" not in dtype:
        raise UserError(
            f"The model {model.name!r} should take float images in [0, 1]: whole numbers have no gradient. Build it on "
            f"keras.Input(..., dtype='float32'). It takes: {dtype}"
        )
    if images is not None and any(w not in (None, n) for w, n in zip(shape[1:], images.shape[1:], strict=True)):
        wanted = ", ".join(map(str, shape[1:]))
        raise UserError(f"`images` should be of shape (count, {wanted}). Received: {images.shape}")


def _without_softmax(model: keras.Model) -> tuple[keras.Model, str]:
    """The model without the softmax at its end, where its layers tell of one, and a note that says so."""
    outputs = getattr(model, "outputs", None)
    if not outputs or len(outputs) != 1:
        return model, ""
    logits = _before_softmax(model, outputs[0])
    if logits is None:
        return model, ""
    with model.distribute_strategy.scope():
        found = keras.Model(model.inputs[0], logits, name=f"{model.name}_logits")
    return found, f"The model {model.name!r} ends in a softmax, which was taken off: attacks need its logits."


def _before_softmax(model: keras.Model, output: Any) -> Any:
    """The logits that become this output by a softmax, as a symbolic tensor of the model; None where none do."""
    operation, number, _ = output._keras_history
    node = operation._inbound_nodes[number]
    if len(node.input_tensors) != 1 or isinstance(operation, keras.layers.InputLayer):
        return None
    before = node.input_tensors[0]
    activation = getattr(operation, "activation", None)
    if activation is keras.activations.sigmoid:
        raise UserError(
            f"The model {model.name!r} should end in logits of one class among several. It ends in a sigmoid, whose "
            "outputs are probabilities of their own each: build it without."
        )
    if type(operation).__name__ == "Softmax" and operation.axis in (-1, 1):
        return before
    if isinstance(operation, keras.layers.Activation):
        if activation is keras.activations.softmax:
            return before
        # A cast of the probabilities, as networks of mixed precision end.
        return _before_softmax(model, before) if activation is keras.activations.linear else None
    if activation is keras.activations.softmax:
        return WithoutActivation(operation)(before)
    if isinstance(operation, keras.Model) and len(getattr(operation, "outputs", None) or ()) == 1 == len(
        operation.inputs
    ):
        inner = _before_softmax(operation, operation.outputs[0])
        return None if inner is None else keras.Model(operation.inputs[0], inner)(before)
    return None


def _probed(model: keras.Model, images: np.ndarray) -> keras.Model:
    """What the model is seen to be when it is asked about images."""
    former = [tf.identity(state.value) for state in seed_states(model)]
    raw, again = _ask(model, images), _ask(model, images)
    restore_seeds(model, former)
    first, second = _only(raw), _only(again)
    answers = first.numpy().astype(np.float32)
    if answers.ndim != 2 or len(answers) != len(images) or answers.shape[1] < 2:
        raise UserError(
            f"The model {model.name!r} should answer (batch, classes) logits of at least 2 classes. "
            f"For {len(images)} images it answers: {answers.shape}"
        )
    whole = answers[np.isfinite(answers).all(-1)]
    # Threads sum in another order: the last bits may differ without any noise.
    scale = float(np.abs(whole).max(initial=0.0))
    same = np.allclose(answers, second.numpy().astype(np.float32), rtol=1e-4, atol=1e-5 * scale, equal_nan=True)
    classifier = model
    if not isinstance(model, AdaptedClassifier):
        probabilities = not _ends_in_linear_layer(model) and _are_probabilities(whole, first.dtype)
        conforms = tf.is_tensor(raw) and raw.dtype == tf.float32 and getattr(model, "inputs", None)
        if probabilities or not conforms:
            classifier = _adapted(model, images.shape[1:], answers.shape[1], probabilities)
    if not same:
        mark_randomized(classifier)
    return classifier


def _adapted(model: keras.Model, image_shape: tuple[int, ...], classes: int, probabilities: bool) -> AdaptedClassifier:
    if probabilities:
        warnings.warn(
            f"The model {model.name!r} answers probabilities; their logarithm serves as logits. Where they are rounded "
            "to 0 or 1 gradients vanish: build it without a softmax.",
            UserWarning,
            stacklevel=5,
        )
    inputs = getattr(model, "inputs", None)
    with model.distribute_strategy.scope():
        shape = tuple(inputs[0].shape[1:]) if inputs else image_shape
        return AdaptedClassifier(model, shape, classes, probabilities)


def _are_probabilities(answers: np.ndarray, dtype: tf.DType) -> bool:
    """Whether rows (batch, classes) lie in [0, 1] and sum to 1, as far as their precision tells."""
    slack = 1e-2 if dtype in (tf.float16, tf.bfloat16) else 1e-3
    inside = len(answers) > 0 and answers.min() >= 0 and answers.max() <= 1 + slack
    return bool(inside and np.all(np.abs(answers.sum(-1) - 1) <= slack))


def _ends_in_linear_layer(model: keras.Model) -> bool:
    """Whether its last layer has weights and no activation, so that its outputs are logits whatever they sum to."""
    outputs = getattr(model, "outputs", None)
    if not outputs or len(outputs) != 1:
        return False
    layer = outputs[0]._keras_history.operation
    return not isinstance(layer, keras.layers.Activation) and (
        getattr(layer, "activation", None) is keras.activations.linear or isinstance(layer, WithoutActivation)
    )


def _ask(model: keras.Model, images: np.ndarray) -> Any:
    """Its answer while the noise of layers of ours is off: what then differs from ask to ask is other noise."""
    try:
        with without_noise(model):
            answer = model(tf.constant(images), training=False)
    except Exception as error:
        # Whatever a model of somebody else's raises.
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"The model {model.name!r} cannot answer images of shape {images.shape}: {type(error).__name__}: {reason}"
        ) from error
    return answer


def _only(answer: Any) -> tf.Tensor:
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
